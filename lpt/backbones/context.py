"""What the layers from k on need of a text, computed by the frozen model alone: a constant of the example.

Shapes: B batch, T tokens, H hidden size, g key-value heads, d head size.
"""

import copy
from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

from torch import Tensor, nn


class KeysValues(Protocol):
    """The keys and values of each of the layers k..L, `[B, g, T, d]`.

    From a cache they are put together as they are asked for, and hold until the next are.
    """

    def __getitem__(self, layer: int, /) -> tuple[Tensor, Tensor]: ...


class Context(NamedTuple):
    """A batch of texts, as far as it is read."""

    states: Tensor
    # [B, T, H], entering layer k
    attention_mask: Tensor | None
    # [B, T], 0 at padding; None: nothing is padded
    keys_values: KeysValues | None = None
    # of the frozen layers k..L; None where a method lets the text see its prompt, or where they are not read yet


def frozen_twins(layers: Sequence[nn.Module], config: Any, copy_weights: bool) -> list[nn.Module]:
    """Layers like these, in eval mode, that stay as they are whatever a method adds to them.

    Args:
        layers: before a method changes them.
        config: which the twins share, so that they compute attention in the same way.
        copy_weights: for methods that train the weights themselves; otherwise both have the same tensors.
    """
    shared: dict[int, Any] = {id(config): config}
    if not copy_weights:
        shared |= {id(p): p for layer in layers for p in layer.parameters()}
    return [twin.eval() for twin in copy.deepcopy(list(layers), shared)]
