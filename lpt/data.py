"""The LightningDataModule: the splits of one experiment, shared out to the devices."""

from functools import partial
from typing import Any

import pytorch_lightning as pl
from torch.utils.data import DataLoader, Sampler

from lpt.batches import EncodedSplit, EvaluationBatches, TrainBatches, Weighted


class PromptData(pl.LightningDataModule):
    """The splits of one experiment.

    Args:
        splits: `train`, `validation`, `test`, as far as they are needed.
        pad_id: token id that fills short rows.
        batch_size: rows per optimizer step, over all devices and accumulated micro-batches.
        accumulate: micro-batches per optimizer step.
        eval_batch_size: rows per device.
        seed: of the order of training rows.
    """

    def __init__(
        self,
        splits: dict[str, EncodedSplit],
        pad_id: int,
        batch_size: int,
        accumulate: int = 1,
        eval_batch_size: int = 32,
        seed: int = 0,
    ):
        super().__init__()
        self.splits, self.pad_id, self.seed = splits, pad_id, seed
        self.batch_size, self.accumulate, self.eval_batch_size = batch_size, accumulate, eval_batch_size

    def _ranks(self) -> dict[str, int]:
        if self.trainer is None:
            return {}
        return {"rank": self.trainer.global_rank, "world": self.trainer.world_size}

    def train_dataloader(self) -> DataLoader:
        batches = TrainBatches(
            len(self.splits["train"]),
            self.batch_size,
            self.seed,
            accumulate=self.accumulate,
            first_step=self.trainer.global_step if self.trainer else 0,
            **self._ranks(),
        )
        return self._loader("train", batches)

    def evaluation_loader(self, split: str) -> DataLoader:
        lengths = self.splits[split].lengths
        return self._loader(split, EvaluationBatches(lengths, self.eval_batch_size, **self._ranks()))

    def val_dataloader(self) -> DataLoader:
        return self.evaluation_loader("validation")

    def test_dataloader(self) -> DataLoader:
        return self.evaluation_loader("test")

    def _loader(self, split: str, batches: Sampler[list[Weighted]]) -> DataLoader:
        rows = self.splits[split]
        # Rows are in memory and padding them is cheap: worker processes would cost more than they bring.
        return ResumableLoader(rows, batch_sampler=batches, collate_fn=partial(rows.collate, pad_id=self.pad_id))


class ResumableLoader(DataLoader):
    """Tells Lightning that mid-epoch checkpoints are fine: `TrainBatches` starts where the step counter stands."""

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        pass
