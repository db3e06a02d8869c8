"""Tokenized rows in batches: padding, the order of training rows, every evaluation row exactly once.

Shapes: B rows of a batch, T tokens of its longest row, H hidden size.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from lpt.data.ragged import Kept, PaddedKeysValues
from lpt.data.regression import soft_targets
from lpt.data.rows import LabeledRows
from lpt.data.templates import Encoded, Template
from lpt.errors import LptError

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
    # [B, T, H] states entering layer k, where a cache has them
    keys_values: Sequence[tuple[Tensor, Tensor]] | PaddedKeysValues | None = None
    # [B, g, T, d] keys and values of each of the layers k..L, where a cache has them

    def to(self, device: torch.device) -> "Batch":
        """Copy the batch to a device; from pinned memory, without waiting for the copy."""
        parts: list[Any] = [p.to(device, non_blocking=True) if isinstance(p, Tensor) else p for p in self]
        if self.keys_values is not None and device.type != "cpu":
            moved = [(k.to(device, non_blocking=True), v.to(device, non_blocking=True)) for k, v in self.keys_values]
            return Batch(*parts)._replace(keys_values=moved)
        return Batch(*parts)


@dataclass(frozen=True)
class EncodedSplit(Dataset[Weighted]):
    """One split, tokenized. Items are `(row, weight)` pairs, passed through to `collate`.

    Attributes:
        rows: token ids of each row.
        labeled: the same rows as text, with their labels.
        value_range: lowest and highest value of a regression; None for classes.
    """

    rows: list[Encoded]
    labeled: LabeledRows
    value_range: Sequence[float] | None = None

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
        """Share of the rows whose text was truncated, 0 to 1."""
        return sum(row.truncated for row in self.rows) / max(len(self), 1)

    def take(self, rows: Sequence[int]) -> "EncodedSplit":
        """Return a split of these rows alone, in this order."""
        return EncodedSplit([self.rows[i] for i in rows], self.labeled.take(rows), self.value_range)

    def collate(self, items: Sequence[Weighted], pad_id: int, kept: Kept | None = None) -> Batch:
        """Make a batch of rows, padded on the right.

        Args:
            items: position in this split and weight in the loss of each row.
            pad_id: token id to pad with.
            kept: what a cache has of these rows.
        """
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
        states, keys_values = (None, None) if kept is None else kept.batch([i for i, _ in items])
        return Batch(
            input_ids,
            mask,
            torch.tensor([row.readout_position for row in rows]),
            torch.tensor(labels) if self.value_range is None else soft_targets(labels, self.value_range),
            torch.tensor([i for i, _ in items]),
            torch.tensor([weight for _, weight in items]),
            sum(lengths),
            states,
            keys_values,
        )


class TrainBatches(Sampler[list[Weighted]]):
    """Shuffled batches of rows of similar length, the same on any number of devices.

    An epoch is a permutation in buckets of `BUCKET` batches; rows are sorted by length within their bucket, to
    reduce padding, and cut into batches, whose order is shuffled again. Each batch is dealt to
    `world * gradient_accumulation` micro-batches; this rank gets `gradient_accumulation` of them. Weights make the
    optimizer see the mean over the whole batch:
    DDP averages over ranks and Lightning over accumulated micro-batches, so a row weighs
    world * gradient_accumulation / rows of its batch. A micro-batch left without a row gets one of weight 0.

    Args:
        lengths: tokens of each row.
        batch_size: rows per optimizer step, over all ranks.
        seed: seed of the order; each epoch has an order of its own.
        rank: this process, from 0.
        world: number of processes.
        gradient_accumulation: micro-batches per rank and step.
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
        """Optimizer steps in an epoch; the last one may have fewer rows."""
        return -(-len(self.lengths) // self.batch_size)

    @property
    def sampler(self) -> "TrainBatches":
        """The object itself: Lightning announces epochs to a batch sampler's inner sampler."""
        return self

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose order the next iteration has."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.steps_per_epoch * self.gradient_accumulation

    def __iter__(self) -> Iterator[list[Weighted]]:
        shares = self.world * self.gradient_accumulation
        first = self.skip if self.epoch == self.first_epoch else 0
        for batch in self._batches(self.epoch)[first:]:
            weight = shares / len(batch)
            for part in range(self.gradient_accumulation):
                rows = batch[self.rank * self.gradient_accumulation + part :: shares]
                yield [(int(row), weight) for row in rows] or [(int(batch[0]), 0.0)]

    def rows_until(self, step: int) -> list[int]:
        """The rows that training sees up to this step, over all ranks, in order of their place."""
        epochs, rest = divmod(step, self.steps_per_epoch)
        if epochs:
            return list(range(len(self.lengths)))
        return sorted(int(row) for batch in self._batches(0)[:rest] for row in batch)

    def rows_of(self, step: int) -> list[int]:
        """The rows of an optimizer step, from 1, over all ranks."""
        epoch, place = divmod(step - 1, self.steps_per_epoch)
        return [int(row) for row in self._batches(epoch)[place]]

    def _batches(self, epoch: int) -> list[np.ndarray]:
        """An epoch's batches of all ranks, in order."""
        random = np.random.default_rng([self.seed, epoch])
        order, size = random.permutation(len(self.lengths)), self.batch_size
        buckets = [order[i : i + BUCKET * size] for i in range(0, len(order), BUCKET * size)]
        by_length = np.concatenate([rows[np.argsort(self.lengths[rows], kind="stable")] for rows in buckets])
        batches = [by_length[i : i + size] for i in range(0, len(by_length), size)]
        whole = len(order) // size
        return [batches[i] for i in random.permutation(whole)] + batches[whole:]  # a short one stays last


class EvaluationBatches(Sampler[list[Weighted]]):
    """Every row once over all ranks, rows of similar length together to reduce padding.

    A rank for which there is no batch repeats the first one, because Lightning needs at least one on every rank;
    code that gathers rows must count each once.

    Args:
        lengths: tokens of each row.
        batch_size: rows per batch.
        rank: this process, from 0.
        world: number of processes.

    Raises:
        LptError: `batch_size` is no number from 1 on.
    """

    def __init__(self, lengths: Sequence[int], batch_size: int, rank: int = 0, world: int = 1):
        if isinstance(batch_size, bool) or not isinstance(batch_size, int) or batch_size < 1:
            raise LptError(f"batch_size is {batch_size!r}; give a number of rows from 1 on")
        order = np.argsort(lengths, kind="stable")
        batches = [order[i : i + batch_size] for i in range(0, len(order), batch_size)]
        self.batches = [[(int(row), 1.0) for row in batch] for batch in batches[rank::world] or batches[:1]]

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[list[Weighted]]:
        return iter(self.batches)
