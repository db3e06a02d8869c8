"""The launchers and sweepers of this project, where Hydra looks for them: it searches modules of this package only.

The folder has no __init__.py, since other distributions add to the same package.
"""

from lpt.config.groups import offer_choices
from lpt.sweep.launcher import QueueLauncher
from lpt.sweep.search import Search

offer_choices()  # Hydra imports this wherever it starts, and so knows the schema and what is registered


class LocalQueue(QueueLauncher):
    """`hydra/launcher=local_queue`: each point is a training run of its own on this machine, a few at a time."""


class SubmititSlurm(QueueLauncher):
    """`hydra/launcher=submitit_slurm`: each point is a job of the cluster."""


class Optuna(Search):
    """`hydra/sweeper=optuna`: points that Optuna proposes."""
