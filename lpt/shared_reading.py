"""One reading of a text for several tasks.

What tasks write around a text differs at its end alone, as a rule: of a decoder, the tokens that all of them begin
with are read once, and each task's own tail stands behind them as a branch (`lpt.backbones.masks`), which sees the text
and itself. An encoder's tokens see one another, so tasks share their reading where their whole input is the same.

Shapes: B rows, S tokens of the text and all tails, T tokens of a task's input, H hidden size, g key-value heads, d head
size.
"""

from collections import OrderedDict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from lpt.backbones.context import KeysValues
from lpt.backbones.masks import BRANCH
from lpt.backbones.split import SplitBackbone
from lpt.data.ragged import PaddedKeysValues
from lpt.data.templates import Encoded


@dataclass(frozen=True)
class Merged:
    """The inputs of several tasks for one text, as one.

    Attributes:
        input_ids: what all begin with, then each tail.
        kinds: what each token is, as an attention mask has it: 1 text, from 2 on a tail, or an answer to be scored.
        common: how many tokens all begin with.
        tails: task -> where its tail begins and ends.
    """

    input_ids: tuple[int, ...]
    kinds: tuple[int, ...]
    common: int
    tails: dict[str, tuple[int, int]]

    @property
    def branched(self) -> bool:
        """Whether there are tails."""
        return self.common < len(self.input_ids)

    def places(self, task: str) -> list[int]:
        """The indices of a task's tokens, in order; the last one is read out."""
        first, end = self.tails[task]
        return [*range(self.common), *range(first, end)]


def merge(inputs: dict[str, Encoded]) -> Merged:
    """Put the inputs of several tasks for one text together.

    Args:
        inputs: by task; those with answers behind them must be the same.
    """
    every = [row.input_ids for row in inputs.values()]
    shortest = min(map(len, every))
    common = next((i for i in range(shortest) if any(ids[i] != every[0][i] for ids in every)), shortest)
    branches = next(iter(inputs.values())).branches
    ids, kinds, tails = every[0][:common], [*[1] * (common - len(branches)), *branches], {}
    written: dict[tuple[int, ...], tuple[int, int]] = {}
    for task, row in inputs.items():
        tail = tuple(row.input_ids[common:])
        if tail not in written:  # tasks that end alike share their tail too
            kinds += [BRANCH + len(written)] * len(tail)
            written[tail] = (len(ids), len(ids) + len(tail))
            ids = [*ids, *tail]
        tails[task] = written[tail] if tail else (common, common)
    return Merged(tuple(ids), tuple(kinds), common, tails)


class Read(NamedTuple):
    """What was read of a batch of rows."""

    states: dict[int, Tensor]
    # Layer -> states entering it, [B, S, H].
    keys_values: KeysValues | None
    # Of the layers from the reader's `keys_values_from` on, [B, g, S, d].


class Memory:
    """What was read of some rows; what was asked for longest ago is forgotten first.

    Args:
        limit: bytes that it may take; 0: nothing is kept.
    """

    def __init__(self, limit: int):
        self.limit, self.bytes = limit, 0
        self.rows: OrderedDict[Hashable, _Row] = OrderedDict()

    def recall(self, key: Hashable) -> "_Row | None":
        """What is kept under a key, which is asked for now."""
        if key in self.rows:
            self.rows.move_to_end(key)
        return self.rows.get(key)

    def keep(self, key: Hashable, row: "_Row") -> None:
        """Keep a row that is not kept yet, if there is room for it at all."""
        if row.bytes > self.limit:
            return
        self.rows[key] = row
        self.bytes += row.bytes
        while self.bytes > self.limit:
            self.bytes -= self.rows.popitem(last=False)[1].bytes


class Reader:
    """Reads texts by the frozen model, and remembers what it read.

    Args:
        backbone: the model that no method changes.
        layers: states entering these are wanted.
        keys_values_from: the first layer whose keys and values are wanted; None: of none.
        memory: where it remembers; readers of other layers may share it.
    """

    def __init__(self, backbone: SplitBackbone, layers: set[int], keys_values_from: int | None, memory: Memory):
        self.backbone, self.layers, self.keys_values_from = backbone, layers, keys_values_from
        self.memory = memory

    def read(self, rows: Sequence[Merged], pad_id: int) -> Read:
        """Read rows, or recall them.

        Args:
            rows: B of them.
            pad_id: token id to pad with.
        """
        if not self.memory.limit:
            return self._read(rows, pad_id)
        asked = {self._key(row): row for row in rows}
        recalled = {key: self.memory.recall(key) for key in asked}
        found = {key: row for key, row in recalled.items() if row is not None}
        missing = [row for key, row in asked.items() if key not in found]
        if missing:
            read = self._read(missing, pad_id)
            found |= {self._key(row): self._keep(row, read, i) for i, row in enumerate(missing)}
        kept = [found[self._key(row)] for row in rows]
        longest = max(len(row.input_ids) for row in rows)
        states = {layer: _padded([one.states[layer] for one in kept], longest) for layer in self.layers}
        keys_values = [one.keys_values for one in kept if one.keys_values is not None]
        return Read(states, PaddedKeysValues(keys_values, []) if keys_values else None)

    def _read(self, rows: Sequence[Merged], pad_id: int) -> Read:
        device = self.backbone.model.device
        ids_BS, kinds_BS = padded([row.input_ids for row in rows], pad_id), padded([row.kinds for row in rows], 0)
        mask = None if bool((kinds_BS == 1).all()) else kinds_BS.bool() if bool((kinds_BS < BRANCH).all()) else kinds_BS
        states, keys_values = self.backbone.read_through(
            ids_BS.to(device), None if mask is None else mask.to(device), self.layers, self.keys_values_from
        )
        return Read(states, keys_values or None)

    def _keep(self, merged: Merged, read: Read, i: int) -> "_Row":
        length = len(merged.input_ids)
        states = {layer: h_BSH[i, :length].clone() for layer, h_BSH in read.states.items()}
        keys_values = None
        if read.keys_values is not None:
            pairs = [read.keys_values[layer] for layer in range(self.backbone.num_layers + 1 - self._first)]
            keys_values = torch.stack([torch.stack([k[i, :, :length], v[i, :, :length]]) for k, v in pairs])
        row = _Row(states, keys_values)
        self.memory.keep(self._key(merged), row)
        return row

    def _key(self, row: Merged) -> Hashable:
        return id(self), row.input_ids, row.kinds

    @property
    def _first(self) -> int:
        assert self.keys_values_from is not None
        return self.keys_values_from


class _Row(NamedTuple):
    states: dict[int, Tensor]
    keys_values: Tensor | None
    # [layers, 2, g, S, d]

    @property
    def bytes(self) -> int:
        kept = [*self.states.values(), *([] if self.keys_values is None else [self.keys_values])]
        return sum(x.nbytes for x in kept)


def padded(rows: Sequence[Sequence[int]], fill: int, width: int | None = None) -> Tensor:
    """Rows of integers as one tensor, `[B, S]`, padded on the right to the longest, or to `width`."""
    out_BS = torch.full((len(rows), width or max(map(len, rows))), fill)
    for i, row in enumerate(rows):
        out_BS[i, : len(row)] = torch.tensor(row)
    return out_BS


def _padded(rows: Sequence[Tensor], longest: int) -> Tensor:
    out_BSH = rows[0].new_zeros(len(rows), longest, rows[0].shape[1])
    for i, row in enumerate(rows):
        out_BSH[i, : len(row)] = row
    return out_BSH
