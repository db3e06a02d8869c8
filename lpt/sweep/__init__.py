"""Sweeps that survive: every point a process of its own, and a ledger of what is done.

points      what a point is: its name by content, drift, the order to work in
ledger      who is done, who is not: SQLite, in the sweep folder
processes   the processes of a point, also those that another launcher has started
local       this machine as the place where points are worked on: its GPUs, its CPU cores
cluster     a cluster as that place
queue       works on points until all are completed or failed
view        what a person sees meanwhile
launcher    Hydra's way in: `python train.py -m`
search      points that Optuna proposes
commands    `lpt sweep status|resume|retry-failed|results`
"""
