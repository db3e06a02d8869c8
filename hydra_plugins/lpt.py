"""Where Hydra looks for launchers: in modules of this package alone, which has no __init__.py as others add to it."""

from lpt.sweep.launcher import QueueLauncher


class LocalQueue(QueueLauncher):
    """`hydra/launcher=local_queue`: each point a `train.py` of its own on this machine, a few at a time."""
