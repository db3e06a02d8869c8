"""What is kept of rows of different lengths: one row after the other, without padding.

Shapes: N tokens of all rows, B rows of a batch, T tokens of a row or of the longest, H hidden size, g key-value heads,
d head size.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import accumulate

import numpy as np
import torch
from torch import Tensor

PAGE = 4096  # bytes
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
    scratch: list[Tensor] = field(default_factory=list)
    # Where pairs are put together.

    @cached_property
    def starts(self) -> list[int]:
        """Where each row begins, in tokens, and where the last one ends."""
        return _starts(self.lengths)

    def row(self, i: int) -> Tensor:
        """Return keys and values of one row, `[layers - skip, 2, g, T, d]`, a view."""
        width = self.layers * 2 * self.heads * self.head_size
        row = self.numbers[self.starts[i] * width : self.starts[i + 1] * width]
        return row.view(self.layers, 2, self.heads, self.lengths[i], self.head_size)[self.skip :]

    def pad(self, rows: Sequence[int]) -> "PaddedKeysValues":
        """Return the keys and values of some rows, a pair for each layer."""
        return PaddedKeysValues([self.row(i) for i in rows], self.scratch)


class PaddedKeysValues:
    """Keys and values of some rows, `[B, g, T, d]`, padded on the right with zeros: a pair for each layer.

    A pair is put together whenever it is asked for, and holds until the next one is: copying it takes less time than
    one matrix product of a step, and so a step needs memory for those of one layer alone.

    Args:
        rows: `[layers, 2, g, T, d]` of each.
        scratch: a list for one tensor, in which pairs are put together; batches that share it are used by one thread.
    """

    def __init__(self, rows: Sequence[Tensor], scratch: list[Tensor]):
        self.rows, self.scratch = rows, scratch

    def __len__(self) -> int:
        return len(self.rows[0])

    def __getitem__(self, layer: int) -> tuple[Tensor, Tensor]:
        if not 0 <= layer < len(self):
            raise IndexError(layer)
        pair = self._room()
        for place, row in enumerate(self.rows):
            length = row.shape[3]
            pair[:, place, :, :length] = row[layer]
            if length < pair.shape[3]:
                pair[:, place, :, length:] = 0
        keys, values = pair
        return keys, values

    def _room(self) -> Tensor:
        """Room for a pair, `[2, B, g, T, d]`."""
        _, two, heads, _, head_size = self.rows[0].shape
        shape = (two, len(self.rows), heads, max(row.shape[3] for row in self.rows), head_size)
        if not self.scratch or self.scratch[0].numel() < math.prod(shape):
            self.scratch[:] = [self.rows[0].new_empty(math.prod(shape))]
        return self.scratch[0][: math.prod(shape)].view(shape)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        return (self[layer] for layer in range(len(self)))

    def pin_memory(self) -> list[tuple[Tensor, Tensor]]:
        """Return the pairs of all layers in memory that a GPU copies from without being waited for."""
        return [(keys.clone().pin_memory(), values.clone().pin_memory()) for keys, values in self]

    def touch(self) -> None:
        """Read a number of every page, so that a step does not wait for the disk."""
        for row in self.rows:
            _plain(row).reshape(-1)[:: PAGE // row.itemsize].max()


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

    @property
    def bytes(self) -> int:
        """What it takes."""
        return self.states.states.nbytes + (0 if self.keys_values is None else self.keys_values.numbers.nbytes)

    def batch(self, rows: Sequence[int]) -> tuple[Tensor, PaddedKeysValues | None]:
        """States of some rows of the split, `[B, T, H]`, and the keys and values of each layer, `[B, g, T, d]`."""
        places = rows if self.places is None else [self.places[row] for row in rows]
        if self.keys_values is None:
            return self.states.pad(places), None
        keys_values = self.keys_values.pad(places)
        keys_values.touch()
        return self.states.pad(places), keys_values


def copy(into: Tensor, numbers: Tensor) -> None:
    """Copy numbers of a CPU tensor into another of the same shape and format, by one thread.

    PyTorch would start threads of its own wherever this runs beside a training step, and both would wait.
    """
    np.copyto(_plain(into), _plain(numbers))


def _plain(x: Tensor) -> np.ndarray:
    return x.detach().view(_INTEGERS[x.dtype.itemsize]).numpy()


def _starts(lengths: Sequence[int]) -> list[int]:
    return [0, *accumulate(lengths)]
