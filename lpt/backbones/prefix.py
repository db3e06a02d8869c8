"""Keys and values that a layer is given besides those of its own tokens.

Shapes: B batch, S tokens, H hidden size, N prefix length, g key-value heads, d head size.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

Given = Callable[[], tuple[Tensor, Tensor]]


class Known:
    """All keys and values of a layer, known already; stands where transformers expects a key / value cache.

    Args:
        keys: `[B, g, S, d]`, as values.
    """

    def __init__(self, keys: Tensor, values: Tensor):
        self.keys, self.values = keys, values

    def update(self, keys: Tensor, values: Tensor, layer_idx: int, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """What the layer attends to, given its own keys and values: here, they are replaced."""
        return self.keys, self.values


class Before(Known):
    """Keys and values that stand before the layer's own.

    Args:
        keys: `[B, g, N, d]`, as values.
        own: what the layer's own are replaced by; None: they stay as they are.
    """

    def __init__(self, keys: Tensor, values: Tensor, own: Known | None = None):
        super().__init__(keys, values)
        self.own = own

    def update(self, keys: Tensor, values: Tensor, layer_idx: int, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """These keys and values, and the layer's own behind them."""
        if self.own is not None:
            keys, values = self.own.update(keys, values, layer_idx)
        return torch.cat([self.keys, keys], dim=2), torch.cat([self.values, values], dim=2)


class Text(Known):
    """Keys and values of a text that is read only: constants, which stand before the layer's own.

    Args:
        given: gives them, `[B, g, T, d]` each, as often as they are needed.
        own: what the layer's own are replaced by, or have in front of them; None: they stay as they are.
        apart: leave the layer's own alone, and have them carry these to `lpt.backbones.attention`, which needs neither
            a copy of both nor a gradient for these.
    """

    def __init__(self, given: Given, own: Known | None = None, apart: bool = False):
        self.given, self.own, self.apart = given, own, apart

    def update(self, keys: Tensor, values: Tensor, layer_idx: int, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """These keys and values, and the layer's own behind them."""
        if self.own is not None:
            keys, values = self.own.update(keys, values, layer_idx)
        if self.apart:
            keys = keys.view_as(keys)  # an object of its own
            keys.carried = self.given  # type: ignore[attr-defined]
            return keys, values
        text_keys, text_values = self.given()
        return torch.cat([text_keys, keys], dim=2), torch.cat([text_values, values], dim=2)


def carried(keys: Tensor) -> Given | None:
    """What gives a text's keys and values that these stand behind; None: they stand behind none."""
    return getattr(keys, "carried", None)


class Recorder(Known):
    """Keeps the keys and values that a layer computes."""

    def __init__(self) -> None:
        """Nothing is kept yet."""

    def update(self, keys: Tensor, values: Tensor, layer_idx: int, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """The layer's own, as they are."""
        self.keys, self.values = keys, values
        return keys, values


class Prefix(nn.Module):
    """Trained keys and values in front of those of every layer from k on, always attended: `[L - k + 1, g, N, d]`.

    Args:
        first: k.
        layers: L - k + 1.
        heads: g.
        length: N.
        head_size: d.
    """

    def __init__(self, first: int, layers: int, heads: int, length: int, head_size: int):
        super().__init__()
        self.first, self.length = first, length
        shape = (layers, heads, length, head_size)
        self.keys = nn.Parameter(0.02 * torch.randn(shape))
        self.values = nn.Parameter(0.02 * torch.randn(shape))

    def before(self, index: int, h_BSH: Tensor, own: Known | None = None) -> Before:
        """For the layer with this 0-based index, in the batch size and number format of the states entering it."""
        place = index - self.first + 1
        keys, values = (x[place].to(h_BSH.dtype).expand(h_BSH.shape[0], -1, -1, -1) for x in (self.keys, self.values))
        return Before(keys, values, own)
