"""Files from elsewhere: out of published wheels, and whether the hub can be reached."""
