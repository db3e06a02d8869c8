"""Sweeps that survive: every point runs in a process of its own, and a ledger records what is done.

points      a point: its name by content, what changed in it since, the order to work in
ledger      the status of every point: SQLite, in the sweep folder
processes   the processes of a point, also those that another launcher has started
local       this machine as the place where points run: its GPUs, its CPU cores
cluster     a cluster as that place
queue       works on points until all are completed or failed
view        what a person sees meanwhile
launcher    the entry from Hydra: `python train.py -m`
search      points that Optuna proposes
commands    `lpt sweep status|resume|retry-failed|results`
"""
