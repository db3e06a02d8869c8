"""Nothing of the backbone is trained: what every method must beat."""

from typing import Any

import torch
from torch import Tensor

from lpt.backbones.context import Context
from lpt.late_prompt import LateMethod
from lpt.registry import register_method


class Frozen(LateMethod):
    """The backbone as it is.

    Args:
        model: a Hugging Face model.
        layer: where the trunk ends, for its cache; None is L, so that nearly all is computed once. The answer does not
            depend on it, and not on whether the text is read only.
        late: as of `LatePromptModel`.
    """

    late = True

    def __init__(self, model: Any, layer: int | None = None, **late: Any):
        super().__init__(model, layer, **late)

    @classmethod
    def default_layer(cls, num_layers: int) -> int:
        """L, so that nearly all is computed once."""
        return num_layers

    @torch.no_grad()
    def read_out(self, context: Context, readout_position: Tensor, num_extra_positions: int = 0) -> Tensor:
        """Finished states, without gradient; shapes as in `LateMethod.read_out`."""
        return super().read_out(context, readout_position, num_extra_positions)


@register_method("zero_shot")
class ZeroShot(Frozen):
    """The backbone answers the task's template; nothing is trained."""


@register_method("linear_probe", settings={"head": "linear"})
class LinearProbe(Frozen):
    """The head alone is trained, on the frozen read-out state."""
