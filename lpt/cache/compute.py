"""The trunk's states of a split, computed in one pass and kept as one tensor, in memory or mapped from a file.

Shapes: N tokens of all rows, T tokens of a row, H hidden size.
"""

import errno
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from rich.progress import Progress

from lpt.backbones.split import SplitBackbone
from lpt.cache.ranks import Ranks
from lpt.console import console
from lpt.data.batches import EncodedSplit, EvaluationBatches, RaggedStates

BATCH_SIZE = 32


@dataclass(frozen=True)
class Job:
    """The states of one split entering layer k, to be computed by the processes of a run together."""

    backbone: SplitBackbone
    split: EncodedSplit
    name: str
    # Of the split, for people.
    pad_id: int
    ranks: Ranks

    @property
    def bytes(self) -> int:
        """What the states take."""
        return state_bytes(self.backbone, self.split)

    def in_memory(self) -> RaggedStates:
        """Room for the states in memory."""
        shape = (sum(self.split.lengths), self.backbone.hidden_size)
        return RaggedStates(torch.empty(shape, dtype=self.backbone.model.dtype), self.split.lengths)

    def in_file(self, path: Path, writable: bool = False) -> RaggedStates:
        """The states in a file; pages come in as they are read.

        Raises:
            OSError: the file cannot be mapped.
        """
        hidden_size = self.backbone.hidden_size
        count = sum(self.split.lengths) * hidden_size
        try:
            flat = torch.from_file(str(path), shared=writable, size=count, dtype=self.backbone.model.dtype)
        except RuntimeError as error:
            raise OSError(errno.EIO, f"cannot map {path}: {error}") from error
        return RaggedStates(flat.view(-1, hidden_size), self.split.lengths)

    @torch.no_grad()
    def compute(self, into: RaggedStates, below: RaggedStates | None = None, layer: int = 1) -> None:
        """Fill in this process's share of the rows, in eval mode, in batches of like length.

        Args:
            below: the states entering layer `layer`, to start from; None: start from the text.
        """
        backbone, ranks = self.backbone, self.ranks
        device = backbone.model.device
        was_training = backbone.training
        backbone.eval()
        world = ranks.world_size // ranks.num_nodes
        batches = EvaluationBatches(self.split.lengths, BATCH_SIZE, ranks.local_rank, world)
        with _bar(f"trunk, {self.name}", len(self.split), ranks.global_rank == 0) as advance:
            for items in batches:
                batch = self.split.collate(items, self.pad_id).to(device)
                if below is None:
                    h_BTH = backbone.embed(batch.input_ids, batch.attention_mask)
                else:
                    h_BTH = below.pad([i for i, _ in items]).to(device)
                h_BTH = backbone.run(h_BTH, batch.attention_mask, layer, backbone.layer - 1).cpu()
                for place, (i, _) in enumerate(items):
                    into.row(i).copy_(h_BTH[place, : into.lengths[i]])
                advance(len(items) * world)
        backbone.train(was_training)


def state_bytes(backbone: SplitBackbone, split: EncodedSplit) -> int:
    """What the states of a split take."""
    itemsize: int = backbone.model.dtype.itemsize
    return sum(split.lengths) * backbone.hidden_size * itemsize


@contextmanager
def _bar(description: str, total: int, visible: bool) -> Iterator[Callable[[int], None]]:
    with Progress(console=console, transient=True, disable=not visible or not console.is_terminal) as progress:
        task = progress.add_task(description, total=total)
        yield lambda count: progress.advance(task, count)
