"""Where Hydra looks for launchers: in modules of this package alone, which has no __init__.py as others add to it."""

from collections.abc import Sequence

from lpt.sweep.launcher import QueueLauncher
from lpt.sweep.local import LocalMachine
from lpt.sweep.points import Point


class LocalQueue(QueueLauncher):
    """`hydra/launcher=local_queue`: each point a `train.py` of its own on this machine, a few at a time."""

    def place(self, points: Sequence[Point]) -> LocalMachine:
        return LocalMachine(self.workers, max(point.devices for point in points))
