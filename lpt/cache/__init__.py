"""What the frozen model says of a text, computed once and kept."""
