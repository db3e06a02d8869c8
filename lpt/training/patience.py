"""Early stopping: training ends when its evaluations no longer get better."""

from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import EarlyStopping


class Patience(EarlyStopping):
    """Lightning's early stopping, which also ends a run that is resumed where it would have ended.

    Args:
        metric: of the validation rows; larger is better.
        evaluations: in a row that may be no better than the best.
    """

    def __init__(self, metric: str, evaluations: int):
        super().__init__(f"validation/{metric}", patience=evaluations, mode="max", check_finite=False)

    def on_train_start(self, trainer: pl.Trainer, *_: Any) -> None:
        """End at once if the evaluation before the interruption was the last."""
        if self.wait_count >= self.patience:
            trainer.should_stop = True
