"""What the frozen model says of a split, computed in one pass: in memory, or mapped from a file.

Shapes: N tokens of all rows, T tokens of a row, H hidden size, g key-value heads, d head size.
"""

import errno
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

import torch
from torch import Tensor

from lpt.backbones.split import SplitBackbone
from lpt.bars import Bar
from lpt.cache.key import TrunkHash
from lpt.cache.ranks import Ranks
from lpt.data.batches import Batch, EncodedSplit, EvaluationBatches, Weighted
from lpt.data.ragged import RaggedKeysValues, RaggedStates, copy

BATCH_SIZE = 32
R = TypeVar("R", RaggedStates, RaggedKeysValues)


@dataclass(frozen=True)
class Job(Generic[R]):
    """Something to be computed of one split by the processes of a run together.

    On disk it is found under the layer that it belongs to; `layers` are those whose entries hold it.
    """

    backbone: SplitBackbone
    split: EncodedSplit
    name: str
    # Of the split, for people.
    pad_id: int
    ranks: Ranks

    @property
    def what(self) -> str:
        """What is computed, in words."""
        raise NotImplementedError

    @property
    def layers(self) -> Sequence[int]:
        """The layers whose entries hold what is computed; the first is its own, which is built if there is none."""
        raise NotImplementedError

    def hash(self, hashes: TrunkHash, layer: int) -> str:
        """What the entry of a layer depends on, but the rows."""
        raise NotImplementedError

    def width(self, layer: int) -> int:
        """Numbers per token in the entry of a layer."""
        raise NotImplementedError

    def seen(self, numbers: Tensor, layer: int) -> R:
        """The numbers of a layer's entry as rows."""
        raise NotImplementedError

    def fill(self, batch: Batch, items: Sequence[Weighted], into: R) -> None:
        """Compute one batch."""
        raise NotImplementedError

    def bytes(self, layer: int | None = None) -> int:
        """What an entry takes; by default that of its own layer."""
        itemsize: int = self.backbone.model.dtype.itemsize
        return sum(self.split.lengths) * self.width(self.layers[0] if layer is None else layer) * itemsize

    def in_memory(self) -> R:
        """Room in memory."""
        layer = self.layers[0]
        count = sum(self.split.lengths) * self.width(layer)
        return self.seen(torch.empty(count, dtype=self.backbone.model.dtype), layer)

    def in_file(self, path: Path, layer: int, writable: bool = False) -> R:
        """The numbers in the file of a layer's entry; pages come in as they are read.

        Raises:
            OSError: the file cannot be mapped.
        """
        count = sum(self.split.lengths) * self.width(layer)
        try:
            flat = torch.from_file(str(path), shared=writable, size=count, dtype=self.backbone.model.dtype)
        except RuntimeError as error:
            raise OSError(errno.EIO, f"cannot map {path}: {error}") from error
        return self.seen(flat, layer)

    @torch.no_grad()
    def compute(self, into: R) -> None:
        """Fill in this process's share of the rows, in eval mode, in batches of like length."""
        backbone, ranks = self.backbone, self.ranks
        was_training = backbone.training
        backbone.eval()
        world = ranks.world_size // ranks.num_nodes
        batches = EvaluationBatches(self.split.lengths, BATCH_SIZE, ranks.local_rank, world)
        title, done = f"reading {len(self.split):,} {self.name} texts", 0
        with Bar(title, len(self.split), visible=ranks.global_rank == 0) as bar:
            for items in batches:
                batch = self.split.collate(items, self.pad_id).to(backbone.model.device)
                self.fill(batch, items, into)
                done = min(done + len(items) * world, len(self.split))
                bar.update(done)
        backbone.train(was_training)


@dataclass(frozen=True)
class StatesJob(Job[RaggedStates]):
    """The states entering layer k."""

    below: RaggedStates | None = None
    # The states entering a lower layer, to start from; None: start from the text.
    below_layer: int = 1

    @property
    def what(self) -> str:
        """The states, in words."""
        return f"states entering layer {self.backbone.layer}"

    @property
    def layers(self) -> Sequence[int]:
        """K alone."""
        return [self.backbone.layer]

    def hash(self, hashes: TrunkHash, layer: int) -> str:
        """Of the weights below the layer."""
        return hashes.entering(layer)

    def width(self, layer: int) -> int:
        """H."""
        return self.backbone.hidden_size

    def seen(self, numbers: Tensor, layer: int) -> RaggedStates:
        """`[N, H]`."""
        return RaggedStates(numbers.view(-1, self.backbone.hidden_size), self.split.lengths)

    def fill(self, batch: Batch, items: Sequence[Weighted], into: RaggedStates) -> None:
        """Run the trunk, or what is left of it."""
        backbone, mask = self.backbone, batch.attention_mask
        if self.below is None:
            h_BTH = backbone.embed(batch.input_ids, mask)
        else:
            h_BTH = self.below.pad([i for i, _ in items]).to(batch.input_ids.device)
        h_BTH = backbone.run(h_BTH, mask, self.below_layer, backbone.layer - 1).cpu()
        for place, (i, _) in enumerate(items):
            copy(into.row(i), h_BTH[place, : into.lengths[i]])


@dataclass(frozen=True)
class KeysValuesJob(Job[RaggedKeysValues]):
    """The keys and values of layers k..L, from the states entering layer k."""

    states: RaggedStates | None = None
    # None to ask for sizes alone.

    @property
    def what(self) -> str:
        """The keys and values, in words."""
        return f"keys and values of layers {self.backbone.layer}..{self.backbone.num_layers}"

    @property
    def layers(self) -> Sequence[int]:
        """Those of a lower layer on hold those of k on."""
        return range(self.backbone.layer, 0, -1)

    def hash(self, hashes: TrunkHash, layer: int) -> str:
        """Of all weights, and the layer."""
        return hashes.keys_values(layer)

    def width(self, layer: int) -> int:
        """`2 * g * d` for each layer."""
        heads, head_size = self.backbone.key_value_shape()
        return (self.backbone.num_layers - layer + 1) * 2 * heads * head_size

    def seen(self, numbers: Tensor, layer: int) -> RaggedKeysValues:
        """Without the layers below k."""
        heads, head_size = self.backbone.key_value_shape()
        layers, skip = self.backbone.num_layers - layer + 1, self.backbone.layer - layer
        return RaggedKeysValues(numbers, self.split.lengths, layers, heads, head_size, skip)

    def fill(self, batch: Batch, items: Sequence[Weighted], into: RaggedKeysValues) -> None:
        """Read the text by the frozen layers."""
        assert self.states is not None
        h_BTH = self.states.pad([i for i, _ in items]).to(batch.input_ids.device)
        keys_values = [(keys.cpu(), values.cpu()) for keys, values in self.backbone.read(h_BTH, batch.attention_mask)]
        for place, (i, _) in enumerate(items):
            for layer, pair in zip(into.row(i), keys_values, strict=True):
                for row, batched in zip(layer, pair, strict=True):
                    copy(row, batched[place, :, : into.lengths[i]])
