"""What a person sees while a run trains: one bar for the whole run on a terminal, and a line per evaluation."""

import time
from typing import Any, cast

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback

from lpt.bars import MOMENT, Bar
from lpt.training.checkpoints import Checkpoints
from lpt.training.first_process import is_first_process, say
from lpt.training.module import PromptModule

READ_EVERY = 10  # steps between looks at the loss: each waits for the GPU


class Progress(Callback):
    """Prints step, loss and metrics after each evaluation, and on a terminal keeps a bar beneath these lines.

    The best evaluation so far is marked.

    Args:
        checkpoints: which know the best step so far; None where no step is kept.
        bar: whether a bar is wanted.
        compiles: whether the first step compiles layers.
    """

    def __init__(self, checkpoints: Checkpoints | None, bar: bool, compiles: bool = False):
        super().__init__()
        self._checkpoints, self._compiles = checkpoints, compiles
        self._wanted = bar and is_first_process()
        self._training: Bar | None = None
        self._evaluation: Bar | None = None
        self._started = 0.0
        self._loss: float | None = None

    # Training

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Show the bar, at the step where training begins."""
        done, total = trainer.global_step, trainer.max_steps
        if done:
            say(f"resuming after step {done} of {total}")
        doing = "compiling" if self._compiles else "training"
        self._training = Bar(doing, total, done, delay=0, visible=self._wanted)
        self._started = time.monotonic()

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        """Move the bar."""
        if self._compiles:
            self._compiles = False
            say(f"compiled: the first batch took {time.monotonic() - self._started:.0f} s")
        assert self._training is not None
        if not self._training.visible:
            return
        latest = trainer.callback_metrics.get("train/loss")
        if latest is not None and (self._loss is None or trainer.global_step % READ_EVERY == 0):
            self._loss = float(latest)
        self._move(trainer)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Remove the bar."""
        self._close()

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Remove the bar."""
        self._close()

    # Evaluation

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Prepare to show an evaluation that takes long."""
        self._begin_evaluation("validation", trainer.num_val_batches)

    def on_test_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Prepare to show a test that takes long."""
        assert isinstance(pl_module, PromptModule)
        self._begin_evaluation(pl_module.test_split, trainer.num_test_batches)

    def on_validation_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int, *_: Any
    ) -> None:
        """Move the bar of an evaluation."""
        if self._evaluation is not None:
            self._evaluation.update(batch_idx + 1)
        elif time.monotonic() - self._started > MOMENT:
            self._move(trainer, f"evaluating {batch_idx + 1}/{_total(trainer.num_val_batches)}")

    def on_test_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int, *_: Any
    ) -> None:
        """Move the bar of a test."""
        assert self._evaluation is not None
        self._evaluation.update(batch_idx + 1)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Print a line, unless nothing is trained or this step has been evaluated before."""
        assert isinstance(pl_module, PromptModule)
        self._close_evaluation()
        kept = self._checkpoints
        if trainer.state.fn == "fit" or (kept is not None and kept.evaluated_step != trainer.global_step):
            loss = trainer.callback_metrics.get("train/loss")
            shown = {} if loss is None else {"train/loss": float(loss)}
            shown |= {f"validation/{name}": value for name, value in pl_module.scores.items()}
            mark = "  best" if kept is not None and kept.is_better(trainer) else ""
            say("  ".join([_step(trainer), *(f"{name} {value:.3f}" for name, value in shown.items())]) + mark)

    def on_test_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Remove the bar of a test."""
        self._close_evaluation()

    # The bars

    def _begin_evaluation(self, split: str, batches: Any) -> None:
        self._started = time.monotonic()
        if self._training is None:
            self._evaluation = Bar(f"evaluating {split}", _total(batches), visible=self._wanted)

    def _move(self, trainer: pl.Trainer, doing: str = "") -> None:
        assert self._training is not None
        details = [doing] if doing else [] if self._loss is None else [f"loss {self._loss:.3f}"]
        kept = self._checkpoints
        if kept is not None and kept.best_step:
            details.append(f"best {kept.monitor.partition('/')[2]} {kept.best_score:.3f}")
        self._training.update(trainer.global_step, "  ".join(details), "training")

    def _close_evaluation(self) -> None:
        if self._evaluation is not None:
            self._evaluation.close()
            self._evaluation = None

    def _close(self) -> None:
        self._close_evaluation()
        if self._training is not None:
            self._training.close()
            self._training = None


def _step(trainer: pl.Trainer) -> str:
    """Such as `step  75/150`."""
    return f"step {trainer.global_step:>{len(str(trainer.max_steps))}}/{trainer.max_steps}"


def _total(batches: Any) -> int:
    """Batches of an evaluation, which has one loader; Lightning has a list of numbers for it."""
    return int(sum(cast(list[int], batches)))
