"""Hydra's way in: what `python train.py -m` does with the points that a sweeper makes."""

import math
import sys
from abc import abstractmethod
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from hydra.core.config_loader import ConfigLoader
from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import JobReturn, JobStatus, setup_globals
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

from lpt.command_line import plain_config, point_flags, report, swept_options
from lpt.config import CONF_DIR, resolve
from lpt.errors import LptError
from lpt.sweep.ledger import FAILED, Ledger, enter
from lpt.sweep.points import Point, make_point
from lpt.sweep.queue import Interrupted, Place, Queue, sole_launcher
from lpt.sweep.view import SweepView, counts

failures: list[str] = []  # points of this process's sweeps that have failed


class QueueLauncher(Launcher):
    """Gives points to the queue. Where they are worked on is for a launcher in `hydra_plugins` to say."""

    def __init__(self, workers: int | None, retries: int, patience: float, accept_drift: bool):
        self.workers = workers
        self._options = {"retries": retries, "patience": patience}
        self._accept_drift = accept_drift

    @abstractmethod
    def place(self, points: Sequence[Point]) -> Place:
        """Where these points are worked on."""

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self._config = config
        self._loader: ConfigLoader = hydra_context.config_loader

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Work on these points; what an earlier launch has completed is taken from its folder."""
        setup_globals()
        HydraConfig.instance().set_config(self._config)
        folder = Path(self._config.hydra.sweep.dir)
        try:
            with sole_launcher(folder, create=True) as ledger:
                points = [self._point(overrides) for overrides in job_overrides]
                names = enter(ledger, points, self._accept_drift)
                ledger["flags"] = point_flags(sys.argv[1:])
                ledger["cwd"] = str(Path.cwd())
                ledger["launcher options"] = {"workers": self.workers, **self._options}
                work_on(ledger, names, self.place(points), **self._options)
                rows = [ledger.row(name) for name in names]
        except LptError as error:
            raise SystemExit(report(error)) from None
        return [_job_return(row.objective, overrides) for row, overrides in zip(rows, job_overrides, strict=True)]

    def _point(self, overrides: Sequence[str]) -> Point:
        cfg = self._loader.load_sweep_config(self._config, list(overrides))
        swept = swept_options(sys.argv[1:], self._config.hydra.sweeper.get("params"))
        return make_point(overrides, resolve(plain_config(cfg)), swept)


def work_on(ledger: Ledger, names: Collection[str], place: Place, *, retries: int, patience: float) -> None:
    """Work on these points of a ledger, and tell of it; those that have failed are left as they are.

    Raises:
        SystemExit: interrupted.
    """
    folder = ledger.folder
    flags, cwd = ledger["flags"], Path(ledger["cwd"])
    if not cwd.is_dir():
        raise LptError(f"{folder} was started in {cwd}, which is gone; relative paths in its options start there")

    def command(point: Point, folder: Path, goes_on: bool) -> list[str]:
        train = [sys.executable, str(CONF_DIR.parent / "train.py")]
        if goes_on:
            return [*train, f"resume={_quoted(folder)}"]
        return [*train, *flags, *point.overrides, "hydra.mode=RUN", f"hydra.run.dir={_quoted(folder)}"]

    with SweepView(folder, len(names)) as view:
        queue = Queue(ledger, command, place, view, cwd=cwd, retries=retries, patience=patience)
        try:
            queue.run(names)
        except Interrupted:
            view.say(f"{counts(ledger.rows())}\ninterrupted; go on with: lpt sweep resume '{folder}'")
            raise SystemExit(130) from None
        rows = [row for row in ledger.rows() if row.name in names]
        failed = [row.name for row in rows if row.status == FAILED]
        view.say(f"{counts(rows)}\nresults: lpt sweep results '{folder}'")
        if failed:
            failures.extend(failed)
            view.say(f"failed: {', '.join(failed)}\nto try again: lpt sweep retry-failed '{folder}'")


def _quoted(folder: Path) -> str:
    """As Hydra's overrides take any path."""
    return "'" + str(folder).replace("'", "\\'") + "'"


def _job_return(objective: float | None, overrides: Sequence[str]) -> JobReturn:
    """What a sweeper learns of a point. A failed one has no number; raising would end the whole sweep."""
    result: Any = JobReturn(overrides=list(overrides), status=JobStatus.COMPLETED)
    result.return_value = math.nan if objective is None else objective
    return result
