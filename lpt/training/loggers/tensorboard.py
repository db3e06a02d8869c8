"""TensorBoard (`logger=tensorboard`)."""

from dataclasses import asdict
from pathlib import Path

from pytorch_lightning.loggers import TensorBoardLogger

from lpt.config.schema import Config
from lpt.training.loggers.dashboard import Dashboard
from lpt.training.loggers.finished_run import FinishedRun


class TensorBoardDashboard(TensorBoardLogger, Dashboard):
    """Event files in the folder `tensorboard` of the run folder. A resumed run replaces what it repeats.

    Args:
        config: the run's.
        run_dir: the run folder.
        first_step: optimizer steps already taken.
    """

    def __init__(self, config: Config, run_dir: Path, first_step: int):
        purge_step = first_step or None
        super().__init__(run_dir, name="", version="tensorboard", default_hp_metric=False, purge_step=purge_step)

    def show(self, run: FinishedRun) -> None:
        """Configuration and scores as hyperparameters, tables as text."""
        step = run.result.train.steps
        self.log_hyperparams(asdict(run.config), run.scores, step)
        for name, table in run.tables().items():
            self.experiment.add_text(name, table.markdown(), step)

    def end(self, failed: bool) -> None:
        """Close the event file."""
        self.experiment.close()
