"""Early stopping: training ends when its evaluations no longer get better."""

from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import EarlyStopping

from lpt.training.first_process import say


class Patience(EarlyStopping):
    """Lightning's early stopping, which also ends a run that is resumed where it would have ended.

    Args:
        metric: of the validation rows; larger is better.
        evaluations: in a row that may be no better than the best.
    """

    def __init__(self, metric: str, evaluations: int):
        super().__init__(f"validation/{metric}", patience=evaluations, mode="max", check_finite=False)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up the count, and keep this run's own patience."""
        super().load_state_dict(state_dict | {"patience": self.patience})

    def on_train_start(self, trainer: pl.Trainer, *_: Any) -> None:
        """End at once if the evaluation before the interruption was the last."""
        if self.wait_count >= self.patience:
            trainer.should_stop = True
            self._explain()

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Count, and say why if this evaluation is the last."""
        ended = trainer.should_stop
        super().on_validation_end(trainer, pl_module)
        if trainer.should_stop and not ended:
            self._explain()

    def _explain(self) -> None:
        say(f"training ends here: {self.patience} evaluations without a better score (trainer.patience)")
