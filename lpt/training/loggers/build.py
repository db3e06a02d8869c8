"""The loggers that `logger=` names, from their start to their end."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pytorch_lightning.loggers import Logger

from lpt.config.schema import Config
from lpt.training.first_process import is_first_process
from lpt.training.loggers.dashboard import Dashboard
from lpt.training.loggers.finished_run import FinishedRun
from lpt.training.loggers.guarded import Guarded
from lpt.training.loggers.metrics_file import MetricsFile
from lpt.training.loggers.mlflow import MlflowDashboard
from lpt.training.loggers.tensorboard import TensorBoardDashboard
from lpt.training.loggers.wandb import WandbDashboard


def build_loggers(config: Config, run_dir: Path, sweep: str | None, first_step: int = 0) -> list[Logger]:
    """The loggers that `logger=` names. A dashboard hears of a run from its first process alone.

    Args:
        config: the run's.
        run_dir: the run folder.
        sweep: name of the sweep that this run is part of.
        first_step: optimizer steps already taken, where a run is resumed.

    Raises:
        LptError: the dashboard cannot be used. One that fails later is left, with a warning.
    """
    name = config.logger.name
    if name == "none":
        return []
    loggers: list[Logger] = [MetricsFile(run_dir, first_step)]
    if is_first_process():
        match name:
            case "wandb":
                loggers.append(Guarded(WandbDashboard(config, run_dir, sweep), "logger=wandb"))
            case "tensorboard":
                loggers.append(Guarded(TensorBoardDashboard(config, run_dir, first_step), "logger=tensorboard"))
            case "mlflow":
                loggers.append(Guarded(MlflowDashboard(config, run_dir, sweep), "logger=mlflow"))
    return loggers


@contextmanager
def closing(loggers: list[Logger]) -> Iterator[None]:
    """Close dashboards whatever happens, marked as failed where it was a failure."""
    failed = True
    try:
        yield
        failed = False
    finally:
        for dashboard in _dashboards(loggers):
            dashboard.end(failed)


def show_on_dashboards(loggers: list[Logger], run: FinishedRun) -> None:
    """Have every dashboard among the loggers show a finished run."""
    for dashboard in _dashboards(loggers):
        dashboard.show(run)


def _dashboards(loggers: list[Logger]) -> list[Dashboard]:
    return [logger for logger in loggers if isinstance(logger, Dashboard)]
