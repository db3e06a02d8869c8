"""`lpt bench`: what a training step costs, by late prompt tuning and by what it is compared with."""
