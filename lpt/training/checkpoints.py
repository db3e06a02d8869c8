"""Checkpoints of a run: the best step on the validation rows, and the last one, from which a run is resumed."""

from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import ModelCheckpoint

from lpt.errors import LptError
from lpt.training.datamodule import PromptData
from lpt.training.module import PromptModule


def checkpoint_folder(run_dir: Path) -> Path:
    """Where a run keeps its checkpoints."""
    return run_dir / "checkpoints"


def last_checkpoint(run_dir: Path) -> Path:
    """What a run is resumed from."""
    return checkpoint_folder(run_dir) / "last.ckpt"


def step_to_resume(run_dir: Path) -> int:
    """Optimizer steps that the run in this folder has taken.

    Raises:
        LptError: it has no checkpoint.
    """
    path = last_checkpoint(run_dir)
    if not path.is_file():
        raise LptError(
            f"resume={run_dir}: this run was interrupted before its first checkpoint (there is no {path}); start it "
            "again in another folder, without resume"
        )
    return int(torch.load(path, map_location="cpu", weights_only=True)["global_step"])


class BestOnValidation(ModelCheckpoint):
    """Keeps the best step and the last one. Ties go to the earlier step: a later one must be strictly better.

    Args:
        run_dir: the run folder; checkpoints go into its `checkpoints/`.
        metric: of the validation rows; larger is better.

    Attributes:
        best_step: optimizer steps before the best one; 0 until `restore_best`.
    """

    def __init__(self, run_dir: Path, metric: str):
        super().__init__(
            dirpath=checkpoint_folder(run_dir),
            filename="best",
            monitor=f"validation/{metric}",
            mode="max",
            save_top_k=1,
            save_last=True,
            enable_version_counter=False,
        )
        self.best_step = 0

    @property
    def folder(self) -> Path:
        """Where checkpoints are."""
        return Path(str(self.dirpath))

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Have every process see the folder: each reads its best step in the end, and resumes from it.

        Raises:
            LptError: the folder is on a disk of one node alone.
        """
        super().setup(trainer, pl_module, stage)
        if trainer.is_global_zero:
            self.folder.mkdir(parents=True, exist_ok=True)
        trainer.strategy.barrier("checkpoint folder made")
        if not trainer.strategy.reduce_boolean_decision(self.folder.is_dir()):
            raise LptError(
                f"hydra.run.dir={self.folder.parent} is not on a disk that all nodes share; choose one that is"
            )

    def _save_checkpoint(self, trainer: pl.Trainer, filepath: str) -> None:
        path = Path(filepath)
        before = path.stat().st_mtime_ns if path.is_file() else None
        super()._save_checkpoint(trainer, filepath)
        # Lightning swallows some errors of writing.
        if trainer.is_global_zero and (not path.is_file() or path.stat().st_mtime_ns == before):
            raise LptError(f"the checkpoint {filepath} could not be written; is the disk full or the folder read-only?")

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """As saved, with paths in today's folder: where a run was moved, Lightning would forget its best step."""

        def moved(path: str) -> str:
            return str(self.folder / Path(path).name) if path else path

        paths = {
            name: moved(state_dict[name]) for name in ("best_model_path", "kth_best_model_path", "last_model_path")
        }
        best = {moved(path): score for path, score in state_dict["best_k_models"].items()}
        super().load_state_dict(state_dict | paths | {"dirpath": self.dirpath, "best_k_models": best})

    def restore_best(self, trainer: pl.Trainer, module: PromptModule, data: PromptData) -> None:
        """Put the best step's values into the module.

        Where training ended between two evaluations, its end is evaluated too and kept if it is better.
        """
        assert self.monitor is not None
        if self._last_global_step_saved != trainer.global_step:
            end = trainer.validate(module, datamodule=data, verbose=False)[0][self.monitor]
            if self.best_model_score is None or end > self.best_model_score:
                self.best_model_path = str(self.folder / "best.ckpt")
                self._save_checkpoint(trainer, self.best_model_path)
        best = torch.load(self.best_model_path, map_location="cpu", weights_only=True)
        module.load_state_dict(best["state_dict"], strict=False)
        self.best_step = best["global_step"]
