"""What a person sees while a run trains: a live bar on a terminal, a line per evaluation elsewhere."""

from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback, RichProgressBar
from pytorch_lightning.callbacks.progress.rich_progress import RichProgressBarTheme

from lpt.console import console
from lpt.training.first_process import say


def progress(wanted: bool) -> Callback:
    """A live bar if it is `wanted` and there is a terminal; otherwise, as in a log file, a line per evaluation."""
    if wanted and console.is_terminal:
        theme = RichProgressBarTheme(metrics_text_delimiter="  ", metrics_format=".3f")
        return Bar(leave=False, theme=theme)
    return EvaluationLines()


class Bar(RichProgressBar):
    """Shows the training loss too, as it was a few steps ago: reading it waits for the GPU."""

    READ_EVERY = 10  # steps
    loss: float | None = None

    def get_metrics(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> dict[str, Any]:
        """Name -> value beside the bar."""
        latest = trainer.callback_metrics.get("train/loss")
        if latest is not None and (self.loss is None or trainer.global_step % self.READ_EVERY == 0):
            self.loss = float(latest)
        shown = {} if self.loss is None else {"train/loss": self.loss}
        return shown | super().get_metrics(trainer, pl_module)


class EvaluationLines(Callback):
    """Prints step, loss and metrics after each evaluation."""

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Print a line, if training is what the evaluation belongs to."""
        if trainer.state.fn != "fit":
            return
        metrics, width = trainer.callback_metrics, len(str(trainer.max_steps))
        shown = [name for name in metrics if name == "train/loss" or name.startswith("validation/")]
        step = f"step {trainer.global_step:>{width}}/{trainer.max_steps}"
        say("  ".join([step, *(f"{name} {float(metrics[name]):.3f}" for name in shown)]))
