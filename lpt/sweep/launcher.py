"""Hydra's way in: what `python train.py -m` does with the points that a sweeper makes."""

import math
import shlex
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from hydra.core.config_loader import ConfigLoader
from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import JobReturn, JobStatus, setup_globals
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf

from lpt.config.command_line import report
from lpt.config.compose import compose_points, plain_config
from lpt.config.flags import read_arguments
from lpt.config.resolve import resolve
from lpt.config.resume import swept_options
from lpt.config.schema import CONF_DIR
from lpt.errors import LptError
from lpt.sweep.ledger import FAILED, PENDING, RUNNING, Ledger, Row, enter
from lpt.sweep.local import LocalMachine
from lpt.sweep.points import Point, make_point
from lpt.sweep.queue import Place, Queue, sole_launcher
from lpt.sweep.view import SweepView, counts

failures: list[str] = []  # points of this process's sweeps that have failed


class QueueLauncher(Launcher):
    """Gives points to the queue. Those in `hydra_plugins` differ in their options, which say where to work.

    Args:
        accept_drift: as `lpt.sweep.ledger.enter`.
        options: of `work_on`; kept in the ledger, for `lpt sweep resume`.
    """

    def __init__(self, accept_drift: bool, **options: Any):
        self._accept_drift = accept_drift
        self._options = {
            name: OmegaConf.to_container(value) if OmegaConf.is_config(value) else value
            for name, value in options.items()
        }

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self._config = config
        self._loader: ConfigLoader = hydra_context.config_loader

    def launch(
        self,
        job_overrides: Sequence[Sequence[str]],
        initial_job_idx: int,
        watch: Callable[[int, Path], bool] | None = None,
        search: str | None = None,
    ) -> Sequence[JobReturn]:
        """Work on these points; what an earlier launch has completed is taken from its folder.

        Args:
            watch: given a point's place in `job_overrides` and its folder, whether to end it as it runs.
            search: the command that goes on with the search that proposes the points.
        """
        setup_globals()
        HydraConfig.instance().set_config(self._config)
        folder = Path(self._config.hydra.sweep.dir)
        try:
            with sole_launcher(folder, create=True) as ledger:
                points = [self._point(overrides) for overrides in job_overrides]
                start = {
                    "flags": read_arguments(sys.argv[1:]).location_flags,
                    "cwd": str(Path.cwd()),
                    "options": self._options,
                    "search": search,
                }
                names = enter(ledger, points, self._accept_drift, start, partial(one_of_each_kind, ledger))
                work_on(ledger, names, self._options, watch)
                rows = [ledger.row(name) for name in names]
        except LptError as error:
            raise SystemExit(report(error)) from None
        return [_job_return(row.objective, overrides) for row, overrides in zip(rows, job_overrides, strict=True)]

    def _point(self, overrides: Sequence[str]) -> Point:
        cfg = self._loader.load_sweep_config(self._config, list(overrides))
        swept = swept_options(sys.argv[1:], self._config.hydra.sweeper.get("params"))
        return make_point(overrides, resolve(plain_config(cfg)), swept)


def as_of_today(ledger: Ledger, rows: Sequence[Row]) -> list[Point]:
    """What these points of a ledger compose to now.

    Raises:
        ConfigError: nothing, as an option is gone.
    """
    if not rows:
        return []
    composed = compose_points([row.point.overrides for row in rows], ledger["start"]["flags"])
    return [row.point.now(resolve(cfg)) for row, cfg in zip(rows, composed, strict=True)]


def one_of_each_kind(ledger: Ledger) -> list[Point]:
    """The same of points enough to see every default that has changed since; composing takes a tenth of a second."""
    return as_of_today(ledger, list({row.point.kind: row for row in ledger.rows()}.values()))


def work_on(
    ledger: Ledger,
    names: Sequence[str],
    options: dict[str, Any],
    watch: Callable[[int, Path], bool] | None = None,
) -> None:
    """Work on these points of a ledger, and tell of it; those that have failed are left as they are.

    Args:
        options: hydra.launcher.*
        watch: as `QueueLauncher.launch`, of the places in `names`.

    Raises:
        SystemExit: interrupted.
    """
    folder = ledger.folder
    flags, cwd = ledger["start"]["flags"], Path(ledger["start"]["cwd"])
    if not cwd.is_dir():
        raise LptError(f"{folder} was started in {cwd}, which is gone; relative paths in its options start there")

    command = partial(train_command, flags)

    def not_worth_it(row: Row) -> bool:
        return watch is not None and row.name in names and watch(names.index(row.name), folder / row.name)

    open_points = [name for name in names if ledger.row(name).status in (PENDING, RUNNING)]
    with SweepView(folder, len(open_points)) as view:
        retries, patience = options["retries"], options["patience"]
        place = place_for(options, [ledger.row(name).point for name in names])
        queue = Queue(ledger, command, place, view, cwd=cwd, retries=retries, patience=patience, watch=not_worth_it)
        try:
            queue.run(names)
        except KeyboardInterrupt:
            view.say(f"{counts(ledger.rows())}\ninterrupted; go on with: {ledger.go_on}")
            raise SystemExit(130) from None
        rows = [row for row in ledger.rows() if row.name in names]
        failed = [row.name for row in rows if row.status == FAILED]
        view.say(f"{counts(rows)}\nresults: lpt sweep results {shlex.quote(str(folder))}")
        offline = "*/wandb/offline-run-*"
        if any(folder.glob(offline)):
            view.say(f"W&B runs kept offline; to send them: wandb sync {shlex.quote(str(folder))}/{offline}")
        if failed:
            failures.extend(failed)
            view.say(f"failed: {', '.join(failed)}\nto try again: lpt sweep retry-failed {shlex.quote(str(folder))}")


def place_for(options: dict[str, Any], points: Sequence[Point]) -> Place:
    """Where these points are worked on: what `hydra.launcher.*` says."""
    if "cluster" in options:
        from lpt.sweep.cluster import Cluster  # here, as submitit is an extra

        return Cluster(options["cluster"], options["workers"], options["parameters"] or {})
    return LocalMachine(options["workers"], max((point.devices for point in points), default=1))


def train_command(flags: Sequence[str], point: Point, folder: Path, goes_on: bool) -> list[str]:
    """What to start for a point, from its beginning or from its last checkpoint."""
    train = [sys.executable, str(CONF_DIR.parent / "train.py")]
    if goes_on:
        return [*train, f"resume={_quoted(folder)}"]
    return [*train, *flags, *point.overrides, "hydra.mode=RUN", f"hydra.run.dir={_quoted(folder)}"]


def _quoted(folder: Path) -> str:
    """As Hydra's overrides take any path."""
    return "'" + str(folder).replace("'", "\\'") + "'"


def _job_return(objective: float | None, overrides: Sequence[str]) -> JobReturn:
    """What a sweeper learns of a point. A failed one has no number; raising would end the whole sweep."""
    result: Any = JobReturn(overrides=list(overrides), status=JobStatus.COMPLETED)
    result.return_value = math.nan if objective is None else objective
    return result
