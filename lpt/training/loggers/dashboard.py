"""What every dashboard does besides logging metrics."""

from pytorch_lightning.loggers import Logger

from lpt.training.loggers.finished_run import FinishedRun


class Dashboard(Logger):
    """A logger that also learns how a run ended."""

    def show(self, run: FinishedRun) -> None:
        """Show a finished run as a whole."""

    def end(self, failed: bool) -> None:
        """Close what was opened: nothing more comes."""
