"""What makes two computations of the trunk the same, and so names an entry of its cache."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
import transformers
from torch import Tensor

from lpt.backbones.split import SplitBackbone
from lpt.data.batches import EncodedSplit

FORMAT = 2  # raised when the way states are computed or written changes: older entries are then never found
# Fields of a model's configuration that its states do not depend on.
WITHOUT_EFFECT = ("_name_or_path", "transformers_version", "architectures", "dtype")


class TrunkHash:
    """Hashes of everything that the states entering a layer, or keys and values, depend on, but the rows.

    A chain: the hash for layer k is made of the one for layer k - 1 and the weights of layer k - 1, so that layers
    from k on, which the states do not depend on, do not change it.
    """

    def __init__(self, backbone: SplitBackbone):
        every = backbone.config.to_diff_dict()
        config = {name: value for name, value in every.items() if name not in WITHOUT_EFFECT}
        # What embeds: layers are added one by one, and the final norm, which may be trained, stands above them all.
        above = tuple(f"{path}." for path in (backbone.family.layers, backbone.family.final_norm) if path)
        outside = {name: x for name, x in backbone.base.state_dict().items() if not name.startswith(above)}
        device = backbone.model.device.type
        facts = [FORMAT, config, backbone.attention, device, torch.__version__, transformers.__version__]
        self._hashes = [_hash(json.dumps(facts, sort_keys=True, default=str), outside)]
        self._layers = [*backbone.layers]
        if backbone.twins is not None:  # what a method has changed above is not what reads
            self._layers[backbone.layer - 1 :] = backbone.twins

    def entering(self, layer: int) -> str:
        """The hash for the states entering layer `layer`, from 1."""
        while len(self._hashes) < layer:
            below = self._layers[len(self._hashes) - 1]
            self._hashes.append(_hash(self._hashes[-1], below.state_dict()))
        return self._hashes[layer - 1]

    def keys_values(self, layer: int) -> str:
        """The hash for the keys and values of layers `layer`..L."""
        return f"{self.entering(len(self._layers) + 1)}, keys and values from layer {layer}"


@dataclass(frozen=True)
class TrunkKey:
    """What makes two computations of the trunk the same."""

    trunk: str
    # `TrunkHash.entering(layer)`: weights below the layer, their number format, attention implementation, versions; or
    # `TrunkHash.keys_values(layer)`.
    rows: str
    # `rows_fingerprint`.

    @property
    def name(self) -> str:
        """24 hexadecimal digits, the name of the entry's folder."""
        return hashlib.blake2b(f"{self.trunk} {self.rows}".encode(), digest_size=12).hexdigest()


def rows_fingerprint(split: EncodedSplit) -> str:
    """A hash of the token ids of every row, in order, and of the branches of answers behind the text."""
    digest = hashlib.blake2b(digest_size=16)
    for row in split.rows:
        digest.update(torch.tensor([len(row.input_ids), *row.input_ids, *row.branches]).numpy().data)
    return digest.hexdigest()


def _hash(start: str, state: dict[str, Tensor]) -> str:
    digest = hashlib.blake2b(start.encode(), digest_size=16)
    add_tensors(digest, state)
    return digest.hexdigest()


def add_tensors(digest: Any, tensors: Mapping[str, Tensor]) -> None:
    """Update a hash with tensors, bit for bit, their names, shapes and types included."""
    for name, tensor in tensors.items():
        for part, plain in _plain(name, tensor.detach()):
            digest.update(f"{part} {tuple(plain.shape)} {plain.dtype}".encode())
            digest.update(plain.cpu().contiguous().view(-1).view(torch.uint8).numpy().data)


def _plain(name: str, tensor: Any) -> Iterator[tuple[str, Tensor]]:
    """The tensors that a quantized one is made of, by name; any other is its own."""
    if not hasattr(tensor, "__tensor_flatten__"):
        yield name, tensor
        return
    parts, _ = tensor.__tensor_flatten__()
    for part in parts:
        yield from _plain(f"{name}.{part}", getattr(tensor, part))
