"""What tells a backbone's weights from all others, wherever they lie and in whatever number format they are loaded.

Read from the stored files, since a quantized model no longer has the weights that it was made of. Of every tensor of
floating-point numbers its shape and up to `CHUNKS * CHUNK` numbers count, rounded to bfloat16: a copy, a download of
the same checkpoint, and the same weights saved again in another order, as several files or as bfloat16, all have the
same fingerprint; weights that were trained further, pruned or merged with something else have another.
"""

import json
import zipfile
from collections.abc import Iterator
from pathlib import Path

import torch
import xxhash
from torch import Tensor

CHUNKS, CHUNK = 16, 64  # evenly spaced pieces of a tensor, and numbers in each: a few pages of a file, however large


def fingerprint(weights: Path) -> str:
    """The fingerprint of stored weights, 32 hexadecimal digits.

    Args:
        weights: `model.safetensors` or `pytorch_model.bin`; or the `.index.json` of several such files.
    """
    # A set: files differ in whether they hold a tied tensor once or twice.
    digests = {_digest(tensor) for file in _files(weights) for tensor in _tensors(file) if tensor.is_floating_point()}
    return xxhash.xxh3_128_hexdigest("".join(sorted(digests)).encode())


def _files(weights: Path) -> list[Path]:
    if weights.suffix != ".json":
        return [weights]
    index = json.loads(weights.read_text(encoding="utf-8"))
    return [weights.parent / name for name in sorted(set(index["weight_map"].values()))]


def _tensors(file: Path) -> Iterator[Tensor]:
    """The tensors of a file, mapped and not read."""
    if file.suffix == ".safetensors":
        from safetensors import safe_open

        with safe_open(file, framework="pt") as opened:
            yield from map(opened.get_tensor, opened.keys())
    else:
        yield from torch.load(file, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(file)).values()


def _digest(tensor: Tensor) -> str:
    flat = tensor.detach().reshape(-1)
    if len(flat) > CHUNKS * CHUNK:
        starts = torch.linspace(0, len(flat) - CHUNK, CHUNKS, dtype=torch.float64).long()
        flat = flat[(starts[:, None] + torch.arange(CHUNK)).reshape(-1)]
    digest = xxhash.xxh3_128(str(tuple(tensor.shape)).encode())
    digest.update(flat.to(torch.bfloat16).view(torch.uint8).numpy().data)
    return digest.hexdigest()
