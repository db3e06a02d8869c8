"""Encoded rows in batches: padding, the order of training rows, every evaluation row exactly once.

Shapes: B batch, T tokens of the longest row in the batch.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from lpt.data.regression import soft_targets
from lpt.data.rows import LabeledRows
from lpt.data.templates import Encoded, Template

BUCKET = 8  # batches of training rows that are sorted by length together

Weighted = tuple[int, float]  # a row's place in its split, and its weight in the loss


class Batch(NamedTuple):
    """Rows padded on the right to the longest of them."""

    input_ids: Tensor
    # [B, T] int64
    attention_mask: Tensor | None
    # [B, T] bool, None where no row is padded; with answers behind the text int64, as in `lpt.backbones.split`
    readout_position: Tensor
    # [B] int64
    labels: Tensor
    # [B] int64 classes; of a regression, [B, 2] float32 shares of its two labels
    rows: Tensor
    # [B] int64, each row's place in its split
    weights: Tensor
    # [B] float32, the row's share in the gradient; 0 for a row that only fills a batch
    num_tokens: int
    # attended tokens, prompt not counted
    states: Tensor | None = None
    # [B, T, H] states entering layer k, where a trunk cache has them

    def to(self, device: torch.device) -> "Batch":
        """On the device; from pinned memory without waiting for it."""
        parts: list[Any] = [p.to(device, non_blocking=True) if isinstance(p, Tensor) else p for p in self]
        return Batch(*parts)


@dataclass(frozen=True)
class RaggedStates:
    """States of many rows, one after the other.

    Attributes:
        states: `[sum of T, H]`.
        lengths: T of each row.
    """

    states: Tensor
    lengths: Sequence[int]

    @cached_property
    def starts(self) -> list[int]:
        """Where each row begins, and the end."""
        return [0, *accumulate(self.lengths)]

    def row(self, i: int) -> Tensor:
        """`[T, H]`, a view."""
        return self.states[self.starts[i] : self.starts[i + 1]]

    def pad(self, rows: Sequence[int]) -> Tensor:
        """The states of some rows, `[B, T of the longest, H]`, zeros behind."""
        longest = max(self.lengths[i] for i in rows)
        padded = self.states.new_zeros(len(rows), longest, self.states.shape[1])
        for place, i in enumerate(rows):
            padded[place, : self.lengths[i]] = self.row(i)
        return padded


@dataclass(frozen=True)
class EncodedSplit(Dataset[Weighted]):
    """One split, tokenized. Items are `(row, weight)` pairs, passed through to `collate`."""

    rows: list[Encoded]
    labeled: LabeledRows
    value_range: Sequence[float] | None = None
    # Of a regression's values.

    @classmethod
    def encode(
        cls, labeled: LabeledRows, template: Template, value_range: Sequence[float] | None = None
    ) -> "EncodedSplit":
        """Tokenize rows in a template.

        Raises:
            LptError: the template alone is too long, or takes another number of sentences (`Template.encode`).
        """
        return cls(template.encode(labeled.sentences), labeled, value_range)

    @property
    def labels(self) -> list[int] | list[float]:
        """Class index, or value of a regression, of each row."""
        return self.labeled.labels

    @property
    def lengths(self) -> list[int]:
        """Tokens of each row."""
        return [len(row.input_ids) for row in self.rows]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, item: Weighted) -> Weighted:
        return item

    @property
    def truncated_share(self) -> float:
        """Share of rows that were shortened to fit, from 0 to 1."""
        return sum(row.truncated for row in self.rows) / max(len(self), 1)

    def collate(self, items: Sequence[Weighted], pad_id: int, states: RaggedStates | None = None) -> Batch:
        """Pad the rows of one batch with `pad_id`, and take their states along where there are any."""
        rows = [self.rows[i] for i, _ in items]
        lengths = [len(row.input_ids) for row in rows]
        longest = max(lengths)
        input_ids = torch.full((len(rows), longest), pad_id)
        for i, row in enumerate(rows):
            input_ids[i, : lengths[i]] = torch.tensor(row.input_ids)
        mask: Tensor | None = torch.arange(longest) < torch.tensor(lengths)[:, None]
        if rows[0].branches:
            assert mask is not None
            mask = mask.long()
            for i, row in enumerate(rows):
                mask[i, row.readout_position + 1 : lengths[i]] = torch.tensor(row.branches)
        elif min(lengths) == longest:
            mask = None
        labels = [self.labels[i] for i, _ in items]
        return Batch(
            input_ids,
            mask,
            torch.tensor([row.readout_position for row in rows]),
            torch.tensor(labels) if self.value_range is None else soft_targets(labels, self.value_range),
            torch.tensor([i for i, _ in items]),
            torch.tensor([weight for _, weight in items]),
            sum(lengths),
            None if states is None else states.pad([i for i, _ in items]),
        )


class TrainBatches(Sampler[list[Weighted]]):
    """Shuffled batches that are the same whatever the number of devices, of rows of like length.

    An epoch is a permutation in buckets of `BUCKET` batches; rows are sorted by length within their bucket, so that
    little is padding, and cut into batches, whose order is shuffled again. Each batch is dealt to
    `world * gradient_accumulation` micro-batches; this rank gets `gradient_accumulation` of them. Weights make the
    optimizer see the mean over the whole batch:
    DDP averages over ranks and Lightning over accumulated micro-batches, so a row weighs
    world * gradient_accumulation / rows of its batch. A micro-batch left without a row gets one of weight 0.

    Args:
        lengths: tokens of each row.
        first_step: optimizer steps already taken; the first epoch served starts after them.
    """

    def __init__(
        self,
        lengths: Sequence[int],
        batch_size: int,
        seed: int,
        rank: int = 0,
        world: int = 1,
        gradient_accumulation: int = 1,
        first_step: int = 0,
    ):
        self.lengths, self.batch_size, self.seed = np.asarray(lengths), batch_size, seed
        self.rank, self.world, self.gradient_accumulation = rank, world, gradient_accumulation
        self.first_epoch, self.skip = divmod(first_step, self.steps_per_epoch)
        self.epoch = self.first_epoch

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps in an epoch; the last, short batch counts as one."""
        return -(-len(self.lengths) // self.batch_size)

    @property
    def sampler(self) -> "TrainBatches":
        """Lightning announces epochs to a batch sampler's inner sampler; here they are one."""
        return self

    def set_epoch(self, epoch: int) -> None:
        """Serve this epoch next, counted from 0."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.steps_per_epoch * self.gradient_accumulation

    def __iter__(self) -> Iterator[list[Weighted]]:
        shares = self.world * self.gradient_accumulation
        first = self.skip if self.epoch == self.first_epoch else 0
        for batch in self._batches()[first:]:
            weight = shares / len(batch)
            for part in range(self.gradient_accumulation):
                rows = batch[self.rank * self.gradient_accumulation + part :: shares]
                yield [(int(row), weight) for row in rows] or [(int(batch[0]), 0.0)]

    def _batches(self) -> list[np.ndarray]:
        """The epoch's batches of all ranks, in order."""
        random = np.random.default_rng([self.seed, self.epoch])
        order, size = random.permutation(len(self.lengths)), self.batch_size
        buckets = [order[i : i + BUCKET * size] for i in range(0, len(order), BUCKET * size)]
        by_length = np.concatenate([rows[np.argsort(self.lengths[rows], kind="stable")] for rows in buckets])
        batches = [by_length[i : i + size] for i in range(0, len(by_length), size)]
        whole = len(order) // size
        return [batches[i] for i in random.permutation(whole)] + batches[whole:]  # a short one stays last


class EvaluationBatches(Sampler[list[Weighted]]):
    """Every row once over all ranks, rows of like length together, so that little is padding.

    A rank for which there is no batch repeats the first one: Lightning wants at least one of every rank. Who gathers
    rows counts each once.
    """

    def __init__(self, lengths: Sequence[int], batch_size: int, rank: int = 0, world: int = 1):
        order = np.argsort(lengths, kind="stable")
        batches = [order[i : i + batch_size] for i in range(0, len(order), batch_size)]
        self.batches = [[(int(row), 1.0) for row in batch] for batch in batches[rank::world] or batches[:1]]

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[list[Weighted]]:
        return iter(self.batches)
