"""What is kept of rows of different lengths: one row after the other, without padding.

Shapes: N tokens of all rows, B rows of a batch, T tokens of a row or of the longest, H hidden size, g key-value heads,
d head size.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate

import numpy as np
import torch
from torch import Tensor

_INTEGERS = {2: torch.int16, 4: torch.int32, 8: torch.int64}  # by bytes, for formats that NumPy does not know


@dataclass(frozen=True)
class RaggedStates:
    """States of rows of different lengths, concatenated.

    Attributes:
        states: `[N, H]`.
        lengths: tokens of each row.
    """

    states: Tensor
    lengths: Sequence[int]

    @cached_property
    def starts(self) -> list[int]:
        """Where each row begins in `states`, and where the last one ends."""
        return _starts(self.lengths)

    def row(self, i: int) -> Tensor:
        """Return the states of one row, `[T, H]`, a view."""
        return self.states[self.starts[i] : self.starts[i + 1]]

    def pad(self, rows: Sequence[int]) -> Tensor:
        """Return the states of some rows, `[B, T, H]`, padded on the right with zeros."""
        longest = max(self.lengths[i] for i in rows)
        padded = self.states.new_empty(len(rows), longest, self.states.shape[1])
        for place, i in enumerate(rows):
            copy(padded[place, : self.lengths[i]], self.row(i))
            padded[place, self.lengths[i] :] = 0
        return padded


@dataclass(frozen=True)
class RaggedKeysValues:
    """Keys and values of rows of different lengths, concatenated: `[layers, 2, g, T, d]` of each row.

    Attributes:
        numbers: `[N * layers * 2 * g * d]`.
        lengths: tokens of each row.
        layers: whose keys and values are there, up to the last layer.
        heads: g.
        head_size: d.
        skip: so many of the lowest layers are left out of what is given.
    """

    numbers: Tensor
    lengths: Sequence[int]
    layers: int
    heads: int
    head_size: int
    skip: int = 0

    @cached_property
    def starts(self) -> list[int]:
        """Where each row begins, in tokens, and where the last one ends."""
        return _starts(self.lengths)

    def row(self, i: int) -> Tensor:
        """Return keys and values of one row, `[layers - skip, 2, g, T, d]`, a view."""
        width = self.layers * 2 * self.heads * self.head_size
        row = self.numbers[self.starts[i] * width : self.starts[i + 1] * width]
        return row.view(self.layers, 2, self.heads, self.lengths[i], self.head_size)[self.skip :]

    def pad(self, rows: Sequence[int]) -> list[tuple[Tensor, Tensor]]:
        """Return keys and values, `[B, g, T, d]`, of some rows for each layer, padded on the right with zeros."""
        longest = max(self.lengths[i] for i in rows)
        shape = (len(rows), self.heads, longest, self.head_size)
        padded = [tuple(self.numbers.new_empty(shape) for _ in range(2)) for _ in range(self.layers - self.skip)]
        for place, i in enumerate(rows):
            length, row = self.lengths[i], self.row(i)
            for into, layer in zip(padded, row, strict=True):
                for batch, one in zip(into, layer, strict=True):
                    copy(batch[place, :, :length], one)
                    if length < longest:
                        batch[place, :, length:] = 0
        return [(keys, values) for keys, values in padded]


@dataclass(frozen=True)
class Kept:
    """What is kept of a split.

    Attributes:
        states: those entering layer k.
        keys_values: of layers k..L; None where the method does not need them, or reads them at every step.
        places: a row's place among the rows that are kept; None: all are.
    """

    states: RaggedStates
    keys_values: RaggedKeysValues | None = None
    places: dict[int, int] | None = None

    def batch(self, rows: Sequence[int]) -> tuple[Tensor, list[tuple[Tensor, Tensor]] | None]:
        """States of some rows of the split, `[B, T, H]`, and the keys and values of each layer, `[B, g, T, d]`."""
        places = rows if self.places is None else [self.places[row] for row in rows]
        return self.states.pad(places), None if self.keys_values is None else self.keys_values.pad(places)


def copy(into: Tensor, numbers: Tensor) -> None:
    """Copy numbers of a CPU tensor into another of the same shape and format, by one thread.

    PyTorch would start threads of its own wherever this runs beside a training step, and both would wait.
    """
    np.copyto(_plain(into), _plain(numbers))


def _plain(x: Tensor) -> np.ndarray:
    return x.detach().view(_INTEGERS[x.dtype.itemsize]).numpy()


def _starts(lengths: Sequence[int]) -> list[int]:
    return [0, *accumulate(lengths)]
