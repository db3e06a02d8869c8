"""`lpt bench`: what a training step costs, with late prompt tuning and with the baselines it is compared with.

candidates  what is measured, by name
measure     one candidate, in a process of its own
run         a whole bench: one process after another, and the files it leaves
table       the results as a table
plot        the cost against a varied option
"""
