"""The entry from Hydra: what `python train.py -m` does with the points that a sweeper makes."""

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
from lpt.config.flags import assignment, read_arguments
from lpt.config.main import Training
from lpt.config.place import train_program
from lpt.config.resolve import resolve
from lpt.config.resume import swept_options
from lpt.errors import LptError
from lpt.latest import point_latest
from lpt.sweep.ledger import Ledger, Row, Status, enter
from lpt.sweep.local import LocalMachine
from lpt.sweep.points import Point, make_point
from lpt.sweep.queue import Place, Queue, sole_launcher
from lpt.sweep.view import SweepView, counts


class QueueLauncher(Launcher):
    """Gives points to the queue. Its subclasses in `hydra_plugins` differ in their options, which say where to work.

    Args:
        accept_drift: as for `lpt.sweep.ledger.enter`.
        options: the other options of `hydra.launcher`, as for `work_on`; kept in the ledger, for `lpt sweep resume`.
    """

    def __init__(self, accept_drift: bool, **options: Any):
        self._accept_drift = accept_drift
        self._options = {
            name: OmegaConf.to_container(value) if OmegaConf.is_config(value) else value
            for name, value in options.items()
        }

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Take what Hydra hands to every launcher; `task_function` is what `lpt.config.main` gave to Hydra."""
        self._config = config
        self._task = task_function
        self._loader: ConfigLoader = hydra_context.config_loader

    def launch(
        self,
        job_overrides: Sequence[Sequence[str]],
        initial_job_idx: int,
        watch: Callable[[int, Path], bool] | None = None,
        search: str | None = None,
        total: int | None = None,
    ) -> Sequence[JobReturn]:
        """Work on these points; what an earlier launch has completed is read from its folder.

        Args:
            job_overrides: the overrides of each point.
            initial_job_idx: how many points earlier launches of the same sweeper had.
            watch: given a point's index in `job_overrides` and its folder, whether to stop it while it runs.
            search: the command that resumes the search that proposes the points.
            total: points of the whole search.

        Returns:
            For each point, its primary metric on the validation rows; NaN for one that failed.

        Raises:
            SystemExit: the sweep cannot be worked on, or was interrupted.
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
                failed = work_on(ledger, names, self._options, watch, initial_job_idx, total)
                rows = [ledger.row(name) for name in names]
        except LptError as error:
            raise SystemExit(report(error)) from None
        if failed and isinstance(self._task, Training):
            self._task.note_failure(exit_status=1)
        return [_job_return(row.objective, overrides) for row, overrides in zip(rows, job_overrides, strict=True)]

    def _point(self, overrides: Sequence[str]) -> Point:
        cfg = self._loader.load_sweep_config(self._config, list(overrides))
        swept = swept_options(sys.argv[1:], self._config.hydra.sweeper.get("params"))
        cfg = plain_config(cfg)
        return make_point(overrides, resolve(cfg), swept, _plan(cfg))


def recomposed(ledger: Ledger, rows: Sequence[Row]) -> list[Point]:
    """These points of a ledger as their overrides compose today.

    Raises:
        ConfigError: a point cannot be composed, as when an option no longer exists.
    """
    if not rows:
        return []
    composed = compose_points([row.point.overrides for row in rows], ledger["start"]["flags"])
    return [row.point.recomposed(resolve(cfg), _plan(cfg)) for row, cfg in zip(rows, composed, strict=True)]


def _plan(cfg: DictConfig) -> str:
    """A composition as YAML, with the values of today for what it refers to, such as environment variables."""
    return OmegaConf.to_yaml(cfg, resolve=True)


def one_of_each_kind(ledger: Ledger) -> list[Point]:
    """As `recomposed`, of just enough points to see every changed default; composing one takes a tenth of a second."""
    return recomposed(ledger, list({row.point.kind: row for row in ledger.rows()}.values()))


def work_on(
    ledger: Ledger,
    names: Sequence[str],
    options: dict[str, Any],
    watch: Callable[[int, Path], bool] | None = None,
    done: int = 0,
    total: int | None = None,
) -> list[str]:
    """Work on the named points of a ledger, and report progress; points that have failed before are not touched.

    Args:
        ledger: the ledger, of which this process is the sole launcher.
        names: the points.
        options: the options of `hydra.launcher`.
        watch: as for `QueueLauncher.launch`, with indices into `names`.
        done: points of the same search that are done.
        total: points of the whole search; None: there are no others than these.

    Returns:
        The names of those that have failed, now or before.

    Raises:
        LptError: the folder in which the sweep was started no longer exists.
        SystemExit: interrupted.
    """
    folder, start = ledger.folder, ledger["start"]
    cwd = Path(start["cwd"])
    if not cwd.is_dir():
        raise LptError(
            f"{folder} was started in {cwd}, which no longer exists; make that folder again: relative paths among the "
            "options of the sweep begin there"
        )
    point_latest(folder)

    def should_stop(row: Row) -> bool:
        return watch is not None and row.name in names and watch(names.index(row.name), folder / row.name)

    unfinished = [name for name in names if ledger.row(name).status in (Status.PENDING, Status.RUNNING)]
    with SweepView(folder, done + len(unfinished) if total is None else total, done) as view:
        queue = Queue(
            ledger,
            train_command,
            place_for(options, [ledger.row(name).point for name in names]),
            view,
            cwd=cwd,
            retries=options["retries"],
            grace_period=options["grace_period"],
            watch=should_stop,
        )
        try:
            queue.run(names)
        except KeyboardInterrupt:
            view.say(f"{counts(ledger.rows())}\ninterrupted; resume with: {ledger.resume_command}")
            raise SystemExit(130) from None
        rows = [row for row in ledger.rows() if row.name in names]
        if total is None:
            _report_end(view, folder, rows)
        elif done + len(names) >= total:
            _report_end(view, folder, ledger.rows())
    return [row.name for row in rows if row.status == Status.FAILED]


def _report_end(view: SweepView, folder: Path, rows: Sequence[Row]) -> None:
    """Say what the points have come to, and which commands come next."""
    quoted = shlex.quote(str(folder))
    view.say(f"{counts(rows)}\nresults: lpt sweep results {quoted}")
    offline = "*/wandb/offline-run-*"
    if any(folder.glob(offline)):
        view.say(f"W&B runs kept offline; to send them: wandb sync {quoted}/{offline}")
    failed = [row.name for row in rows if row.status == Status.FAILED]
    if failed:
        view.say(f"failed: {', '.join(failed)}\nto try again: lpt sweep retry-failed {quoted}")


def place_for(options: dict[str, Any], points: Sequence[Point]) -> Place:
    """The place where these points run, as the options of `hydra.launcher` say."""
    if "cluster" in options:
        from lpt.sweep.cluster import Cluster  # here, as submitit is an extra

        return Cluster(options["cluster"], options["workers"], options["parameters"] or {})
    return LocalMachine(options["workers"], max((point.devices for point in points), default=1))


def train_command(point: Point, folder: Path, resuming: bool) -> list[str]:
    """The command to start for a point: its plan is in its folder, and begun or not, it is resumed there."""
    plugins = [text for text in point.overrides if text.startswith("plugins=")]
    return [*train_program(), assignment("resume", folder), *plugins]


def _job_return(objective: float | None, overrides: Sequence[str]) -> JobReturn:
    """What a sweeper learns of a point. A failed one has no number; raising would end the whole sweep."""
    result = JobReturn(overrides=list(overrides), status=JobStatus.COMPLETED)
    result.return_value = math.nan if objective is None else objective
    return result
