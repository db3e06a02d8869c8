"""Bottleneck adapters inside the layers from k on.

Shapes: H hidden size, m bottleneck.
"""

from typing import Annotated, Any, Literal

import torch
from torch import Tensor, nn

from lpt.backbones.split import SplitBackbone
from lpt.errors import LptError
from lpt.late_prompt import LateMethod
from lpt.ranges import at_least, check_word
from lpt.registry import register_method

Placement = Literal["houlsby", "pfeiffer"]


class Bottleneck(nn.Module):
    """`x + W_up gelu(W_down x + b_down) + b_up`, behind a linear map whose output it refines; float32 inside.

    Trains H*m + m + m*H + H.
    """

    def __init__(self, inner: nn.Module, hidden_size: int, bottleneck: int):
        super().__init__()
        self.inner = inner
        self.down, self.up = nn.Linear(hidden_size, bottleneck), nn.Linear(bottleneck, hidden_size)
        for linear in (self.down, self.up):  # near the identity at first (Houlsby et al., section 3.6)
            nn.init.normal_(linear.weight, std=1e-2)
            nn.init.zeros_(linear.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Apply the inner map and refine its output, `[..., H]`, in the output's dtype."""
        y: Tensor = self.inner(x)
        with torch.autocast(y.device.type, enabled=False):
            refined: Tensor = self.up(nn.functional.gelu(self.down(y.to(self.down.weight.dtype))))
        return y + refined.to(y.dtype)


# Of those that the paper tries on GLUE (section 3.2), as is the size of 64.
@register_method("adapter", settings={"optim.lr": 3e-4})
class Adapter(LateMethod):
    """Adapters in layers k..L.

    Houlsby et al. 2019 (https://arxiv.org/abs/1902.00751): behind attention and behind the feed-forward network, two a
    layer. Pfeiffer et al. 2021 (https://arxiv.org/abs/2005.00247): behind the feed-forward network alone.

    Args:
        model: a Hugging Face model.
        layer: k; None is 1, as the papers have it.
        bottleneck: m, the adapters' inner size.
        placement: `houlsby`, behind attention and feed-forward network, or `pfeiffer`, behind the latter alone.
        late: as of `LatePromptModel`.

    Raises:
        LptError: unknown placement, or a family that does not say where adapters go.
    """

    def __init__(
        self,
        model: Any,
        layer: int | None = None,
        bottleneck: Annotated[int, at_least(1)] = 64,
        placement: Placement = "houlsby",
        **late: Any,
    ):
        super().__init__(model, layer, **late)
        check_word("method.placement", placement, Placement)
        add_adapters(self.backbone, bottleneck, behind_attention=placement == "houlsby")
        self.train(self.backbone.training)


@register_method("adapterdrop", settings={"optim.lr": 3e-4})
class AdapterDrop(Adapter):
    """AdapterDrop (Rücklé et al. 2021, https://arxiv.org/abs/2010.11918), its specialized form: none in lower layers.

    Args: as for `Adapter`; a `layer` of None is L // 2 + 1.
    """

    late = True


def add_adapters(backbone: SplitBackbone, bottleneck: int, behind_attention: bool) -> None:
    """Put a `Bottleneck` behind the chosen linear maps of layers k..L."""
    if backbone.family.sublayers is None:
        raise LptError(
            f"{backbone.name} ({backbone.config.model_type}) cannot have adapters: its family in "
            "lpt/backbones/families.py does not tell where they go"
        )
    attention, feed_forward = backbone.family.sublayers
    for layer in backbone.own_layers():
        for path in (attention, feed_forward) if behind_attention else (feed_forward,):
            parent, _, name = path.rpartition(".")
            owner = layer.get_submodule(parent)
            wrapped = Bottleneck(getattr(owner, name), backbone.hidden_size, bottleneck)
            setattr(owner, name, wrapped.to(backbone.model.device))
