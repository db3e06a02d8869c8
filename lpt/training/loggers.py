"""Loggers: metrics.csv in the run folder, and a dashboard besides."""

import csv
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pytorch_lightning.loggers import CSVLogger, Logger
from pytorch_lightning.utilities.rank_zero import rank_zero_only

from lpt.config.schema import Config
from lpt.training.dashboards import Dashboard, FinishedRun, MlflowDashboard, TensorBoardDashboard, WandbDashboard


class MetricsFile(CSVLogger):
    """`metrics.csv` in the run folder itself. A resumed run keeps the rows up to the step it goes on from."""

    def __init__(self, run_dir: Path, first_step: int):
        path, earlier = run_dir / "metrics.csv", []
        if path.is_file():
            with path.open(newline="", encoding="utf-8") as file:
                earlier = [row for row in csv.DictReader(file) if int(row["step"]) < first_step]
        # Every line at once: a run that is killed leaves what it had.
        super().__init__(save_dir=run_dir, name="", version="", flush_logs_every_n_steps=1)
        if earlier:
            self.experiment.metrics = earlier
            self.experiment.save()

    @property
    def log_dir(self) -> str:
        return str(self.root_dir)

    def save(self) -> None:
        self.experiment.save()  # without hparams.yaml: .hydra/ has the configuration


def build_loggers(config: Config, run_dir: Path, sweep: str | None, first_step: int = 0) -> list[Logger]:
    """The loggers that `logger=` names. A dashboard hears of a run from its first process alone.

    Args:
        sweep: name of the sweep that this run is part of.
        first_step: optimizer steps already taken, where a run is resumed.

    Raises:
        LptError: W&B cannot be used.
    """
    name = config.logger.name
    if name == "none":
        return []
    loggers: list[Logger] = [MetricsFile(run_dir, first_step)]
    if getattr(rank_zero_only, "rank", 0) == 0:
        if name == "wandb":
            loggers.append(WandbDashboard(config, run_dir, sweep))
        elif name == "tensorboard":
            loggers.append(TensorBoardDashboard(config, run_dir, first_step))
        elif name == "mlflow":
            loggers.append(MlflowDashboard(config, run_dir, sweep))
    return loggers


@contextmanager
def finished(loggers: list[Logger]) -> Iterator[None]:
    """Close what dashboards show whatever happens, marked as failed where it was a failure."""
    failed = True
    try:
        yield
        failed = False
    finally:
        for dashboard in _dashboards(loggers):
            dashboard.end(failed)


def show_on_dashboards(loggers: list[Logger], run: FinishedRun) -> None:
    for dashboard in _dashboards(loggers):
        dashboard.show(run)


def _dashboards(loggers: list[Logger]) -> list[Dashboard]:
    return [logger for logger in loggers if isinstance(logger, Dashboard)]
