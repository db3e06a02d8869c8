"""The LightningDataModule: the splits of one experiment, dealt to the devices."""

from collections.abc import Iterator
from functools import partial
from typing import Any, cast

import pytorch_lightning as pl
from torch.utils.data import DataLoader, Sampler

from lpt.cache.trunk import TrunkCache
from lpt.classifier import LatePromptClassifier
from lpt.data.ahead import ahead
from lpt.data.batches import EncodedSplit, EvaluationBatches, TrainBatches, Weighted
from lpt.data.ragged import Kept
from lpt.training.together import check_agreement


class PromptData(pl.LightningDataModule):
    """The splits of one experiment.

    Args:
        splits: `train`, `validation`, `test`, and further test sets.
        classifier: what they are encoded for; its trunk's states are cached.
        cache: computes the trunk's states once, where it can.
        batch_size: rows per optimizer step, over all devices and accumulated micro-batches.
        gradient_accumulation: micro-batches per optimizer step.
        eval_batch_size: rows per device.
        seed: of the order of training rows.
        in_common: name -> value of what all processes of a run must have alike.

    Attributes:
        test_split: name of the test set that is tested next.
    """

    def __init__(
        self,
        splits: dict[str, EncodedSplit],
        classifier: LatePromptClassifier,
        cache: TrunkCache,
        batch_size: int,
        gradient_accumulation: int = 1,
        eval_batch_size: int = 32,
        seed: int = 0,
        in_common: dict[str, Any] | None = None,
    ):
        super().__init__()
        self.in_common = in_common or {}
        self.splits, self.classifier, self.cache, self.seed = splits, classifier, cache, seed
        self.batch_size, self.gradient_accumulation, self.eval_batch_size = (
            batch_size,
            gradient_accumulation,
            eval_batch_size,
        )
        self.kept: dict[str, Kept | None] = {}
        self.test_split = "test"

    def setup(self, stage: str) -> None:
        """Fetch or compute what the frozen model says of the splits of this stage; every process computes its share."""
        assert self.trainer is not None
        check_agreement(self.trainer, self.in_common)
        backbone, strategy = self.classifier.method.backbone, cast(Any, self.trainer.strategy)
        backbone.to(strategy.root_device)
        ranks = strategy if self.trainer.world_size > 1 else None
        # Of the training rows, those that the run is going to see.
        rows = self._train_batches().rows_until(self.trainer.max_steps)
        seen = self.splits | {"train": self.splits["train"].take(rows)}
        plan = self.cache.plan or self.cache.prepare(backbone, seen, ranks)
        for name in {"fit": ("train", "validation"), "validate": ("validation",), "test": (self.test_split,)}[stage]:
            # What is read once and forgotten with the process is not worth keeping.
            if name in seen and name not in self.kept and not (stage == "test" and plan.mode == "memory"):
                places = {row: place for place, row in enumerate(rows)} if name == "train" else None
                self.kept[name] = self._keep(seen[name], name, places, ranks)

    def _keep(self, split: EncodedSplit, name: str, places: dict[int, int] | None, ranks: Any) -> Kept | None:
        backbone, pad_id = self.classifier.method.backbone, self.classifier.pad_id
        states = self.cache.states(backbone, split, name, pad_id, ranks)
        if states is None:
            return None
        return Kept(states, self.cache.keys_values(backbone, split, name, pad_id, states, ranks), places)

    def _ranks(self) -> dict[str, int]:
        assert self.trainer is not None
        return {"rank": self.trainer.global_rank, "world": self.trainer.world_size}

    def train_dataloader(self) -> DataLoader[Weighted]:
        """Shuffled micro-batches, from the step on that training has reached."""
        return self._loader("train", self._train_batches())

    def _train_batches(self) -> TrainBatches:
        assert self.trainer is not None
        return TrainBatches(
            self.splits["train"].lengths,
            self.batch_size,
            self.seed,
            gradient_accumulation=self.gradient_accumulation,
            first_step=self.trainer.global_step,
            **self._ranks(),
        )

    def rows_of(self, step: int) -> list[int]:
        """The training rows of an optimizer step, from 1, over all processes, by their place in the split."""
        return self._train_batches().rows_of(step)

    def evaluation_loader(self, split: str) -> DataLoader[Weighted]:
        """Every row of a split once, over all processes."""
        lengths = self.splits[split].lengths
        return self._loader(split, EvaluationBatches(lengths, self.eval_batch_size, **self._ranks()))

    def val_dataloader(self) -> DataLoader[Weighted]:
        """Every validation row once."""
        return self.evaluation_loader("validation")

    def test_dataloader(self) -> DataLoader[Weighted]:
        """Every row of the test set `test_split` once."""
        return self.evaluation_loader(self.test_split)

    def _loader(self, split: str, batches: Sampler[list[Weighted]]) -> DataLoader[Weighted]:
        assert self.trainer is not None
        rows = self.splits[split]
        # Rows are in memory or mapped, and padding them is cheap: worker processes would cost more than they bring.
        return Loader(
            rows,
            batch_sampler=batches,
            collate_fn=partial(rows.collate, pad_id=self.classifier.pad_id, kept=self.kept.get(split)),
            # The next batch travels while the GPU computes.
            pin_memory=self.trainer.strategy.root_device.type == "cuda",
        )


class Loader(DataLoader[Weighted]):
    """Puts the next batch together while the step runs, in a thread.

    It tells Lightning that mid-epoch checkpoints are fine: `TrainBatches` starts where the step counter stands.
    """

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        """Every batch, in order."""
        yield from ahead(super().__iter__())

    def state_dict(self) -> dict[str, Any]:
        """Nothing: the step counter says it all."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Nothing to restore."""
