"""Checkpoints of a run: the best step on the validation rows, and the last two, from which a run is resumed.

checkpoints/best.ckpt       the step that is tested
checkpoints/last.ckpt       what a run is resumed from: after every evaluation, every `trainer.save_every` seconds, and
                            when a run is asked to end
checkpoints/previous.ckpt   the one before, should the last be damaged
"""

import os
import shutil
import signal
import time
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from lightning_fabric.plugins import TorchCheckpointIO
from pytorch_lightning.callbacks import Checkpoint

from lpt.errors import LptError
from lpt.files import PARTIAL, whole_file
from lpt.training.datamodule import PromptData
from lpt.training.first_process import say
from lpt.training.module import PromptModule
from lpt.training.stop import Interrupted, StopRequests

BEST, LAST, PREVIOUS, NEW = "best.ckpt", "last.ckpt", "previous.ckpt", "new.ckpt"
PATIENCE = 15.0  # seconds that an evaluation may take when a run is asked to end


def checkpoint_folder(run_dir: Path) -> Path:
    """Where a run keeps its checkpoints."""
    return run_dir / "checkpoints"


def read_checkpoint(path: Path) -> dict[str, Any]:
    """What a checkpoint holds; nothing in it is executed.

    Raises:
        LptError: it is damaged.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
        int(content["global_step"])
    except Exception as error:  # whatever its bytes make of zip, pickle and tensors
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise LptError(f"{path} is damaged ({reason[:100]})") from None
    return dict(content)


def checkpoint_to_resume(run_dir: Path) -> tuple[Path | None, int]:
    """The newest good checkpoint of a run and its step; None and 0 where it has none. A damaged one is named."""
    for name in (LAST, PREVIOUS):
        path = checkpoint_folder(run_dir) / name
        if path.is_file():
            try:
                return path, int(read_checkpoint(path)["global_step"])
            except LptError as error:
                say(f"warning: {error}; it is passed over")
    return None, 0


class WholeCheckpoints(TorchCheckpointIO):
    """Writes checkpoints whole, on disk and read back, or not at all. A plugin of Lightning.

    Attributes:
        holds: whether to hold the next one back until `write_held`. It is the state after a step whose line is not in
            `metrics.csv` yet, and a run that is killed in between would lack that line.
    """

    def __init__(self) -> None:
        self.holds = False
        self._held: tuple[dict[str, Any], Path] | None = None

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None) -> None:
        """Write a checkpoint, or hold it.

        Raises:
            LptError: it cannot be written or read back.
        """
        self._held = checkpoint, Path(path)
        if not self.holds:
            self.write_held()

    def write_held(self) -> None:
        """Write the checkpoint that was held back.

        Raises:
            LptError: as for `save_checkpoint`.
        """
        if self._held is not None:
            checkpoint, path = self._held
            self._held = None
            with whole_file(path, binary=True) as file:
                torch.save(checkpoint, file)
            read_checkpoint(path)


class Checkpoints(Checkpoint):
    """Keeps the best step and the last ones, and ends a run that is asked to end when its progress is saved.

    Ties go to the earlier step: a later one must be strictly better.

    Args:
        run_dir: the run folder; checkpoints go into its `checkpoints/`.
        metric: of the validation rows; larger is better.
        save_every: seconds between checkpoints, also where there is no evaluation.

    Attributes:
        best_step: optimizer steps before the best one; 0 before the first evaluation.
        best_score: the metric at the best step.
        evaluated_step: optimizer steps before the last evaluation; 0 before the first.
        files: how checkpoints are written; to be given to the trainer.
    """

    def __init__(self, run_dir: Path, metric: str, save_every: float):
        super().__init__()
        self.folder, self.monitor, self.save_every = checkpoint_folder(run_dir), f"validation/{metric}", save_every
        self.best_step, self.best_score = 0, float("-inf")
        self.files = WholeCheckpoints()
        self.evaluated_step = 0
        self._saved, self._saved_step, self._held = time.monotonic(), -1, False
        self._requests = StopRequests()

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run continues with."""
        return {name: getattr(self, name) for name in ("best_step", "best_score", "evaluated_step")}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take what the interrupted run had."""
        vars(self).update(state_dict)

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Have every process see the folder: each reads its best step in the end, and resumes from it.

        Raises:
            LptError: the folder is on a disk of one node alone, or cannot be made.
        """
        if trainer.is_global_zero:
            try:
                self.folder.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise LptError(
                    f"{self.folder} cannot be made ({error.strerror}); choose another hydra.run.dir"
                ) from None
        trainer.strategy.barrier("checkpoint folder made")
        if not trainer.strategy.reduce_boolean_decision(self.folder.is_dir()):
            raise LptError(
                f"hydra.run.dir={self.folder.parent} is not on a disk that all nodes share; choose one that is"
            )

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Listen for requests to end."""
        self._saved = time.monotonic()
        self._requests.listen()

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Keep the step that was evaluated."""
        if trainer.state.fn != "fit":
            return
        self._save(trainer, self._note_score(trainer))

    def on_validation_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        """End an evaluation that takes longer than a request to end can wait: it is done again."""
        if trainer.state.fn == "fit" and self._requests.number is not None and self._requests.waited() > PATIENCE:
            raise Interrupted(self._requests.number)

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        """Save if it is time to, the run is to end, or this was the last step. An evaluation saves by itself."""
        if not _can_be_resumed_here(trainer):
            return
        due = time.monotonic() - self._saved > self.save_every or self._requests.number is not None
        if trainer.world_size > 1:
            due = trainer.strategy.reduce_boolean_decision(due, all=False)
        if due or trainer.global_step == trainer.max_steps:
            self.files.holds = self._held = True
            trainer.save_checkpoint(self.folder / NEW)
            self.files.holds = False

    def on_train_batch_start(self, trainer: pl.Trainer, *_: Any) -> None:
        """Write what the step before has left, and end if asked to."""
        self._finish_step(trainer)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write what the last step has left, and end if asked to."""
        self._finish_step(trainer)

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Leave signals as they were."""
        self._requests.forget()

    def _finish_step(self, trainer: pl.Trainer) -> None:
        if self._held:
            self.files.write_held()
            self._rename(trainer, is_best=False)
            self._held = False
        if self._saved_step == trainer.global_step:
            asked = self._requests.number is not None
            if trainer.strategy.reduce_boolean_decision(asked, all=False):
                raise Interrupted(self._requests.number or signal.SIGTERM)

    def _save(self, trainer: pl.Trainer, is_best: bool) -> None:
        """Write `last.ckpt`, and keep the one that was there; every process must call this.

        Raises:
            LptError: it could not be written.
        """
        trainer.save_checkpoint(self.folder / NEW)
        self._rename(trainer, is_best)

    def _rename(self, trainer: pl.Trainer, is_best: bool) -> None:
        if trainer.is_global_zero:
            new, last = self.folder / NEW, self.folder / LAST
            if is_best:  # first: a run that ends here is resumed from an earlier step, and comes by again
                self._keep_as_best(new)
            if last.is_file():
                os.replace(last, self.folder / PREVIOUS)
            os.replace(new, last)
        self._saved, self._saved_step = time.monotonic(), trainer.global_step

    def restore_best(self, trainer: pl.Trainer, module: PromptModule, data: PromptData) -> None:
        """Put the best step's values into the module.

        Where training ended between two evaluations, its end is evaluated too and kept if it is better. Without
        validation rows its end is the best step.

        Raises:
            LptError: `best.ckpt` is damaged.
        """
        if "validation" not in data.splits:
            self.best_step = trainer.global_step
            self._save(trainer, is_best=True)
        elif self.evaluated_step != trainer.global_step:
            trainer.validate(module, datamodule=data, verbose=False)
            scores = trainer.callback_metrics.items()
            found = {name: float(score) for name, score in scores if name.startswith("validation/")}
            for logger in trainer.loggers:
                logger.log_metrics(found, trainer.global_step - 1)
            self._save(trainer, self._note_score(trainer))
        trainer.strategy.barrier("best step written")
        module.load_state_dict(read_checkpoint(self.folder / BEST)["state_dict"], strict=False)

    def is_better(self, trainer: pl.Trainer) -> bool:
        """Whether the evaluation just done is better than all before it."""
        return float(trainer.callback_metrics[self.monitor]) > self.best_score

    def _note_score(self, trainer: pl.Trainer) -> bool:
        self.evaluated_step, better = trainer.global_step, self.is_better(trainer)
        if better:
            self.best_score, self.best_step = float(trainer.callback_metrics[self.monitor]), trainer.global_step
        return better

    def _keep_as_best(self, path: Path) -> None:
        partial = self.folder / (BEST + PARTIAL)
        partial.unlink(missing_ok=True)
        try:
            os.link(path, partial)
        except OSError:  # some file systems have no links
            shutil.copyfile(path, partial)
        os.replace(partial, self.folder / BEST)


def _can_be_resumed_here(trainer: pl.Trainer) -> bool:
    """Whether a step has just ended that no evaluation follows."""
    batches = trainer.fit_loop.epoch_loop.total_batch_idx + 1
    if batches % trainer.accumulate_grad_batches:
        return False
    assert trainer.val_check_batch is not None
    return not trainer.enable_validation or batches % trainer.val_check_batch != 0
