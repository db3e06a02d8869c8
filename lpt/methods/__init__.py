"""Ways to adapt a frozen backbone, behind one small interface.

A method is an `nn.Module` with
    backbone                                        the `SplitBackbone` it adapts
    trunk(input_ids, attention_mask) -> h           states entering layer k, without gradient
    read_out(h, attention_mask, position) -> z      finished state at the read-out position, for a head
and its trained tensors are exactly its parameters that require a gradient.
"""

from typing import Any, Protocol

from torch import Tensor

from lpt.backbone import SplitBackbone
from lpt.errors import LptError, did_you_mean
from lpt.late_prompt import LatePromptModel
from lpt.methods.zero_shot import ZeroShot


class Method(Protocol):
    backbone: SplitBackbone

    def trunk(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor: ...

    def read_out(self, h: Tensor, attention_mask: Tensor | None, readout_position: Tensor) -> Tensor: ...


METHODS: dict[str, Any] = {"lpt": LatePromptModel, "zero_shot": ZeroShot}


def build_method(name: str, model: Any, **settings: Any) -> Method:
    """The method of this name over a Hugging Face model; settings as for `LatePromptModel`.

    Raises:
        LptError: unknown name, or whatever does not fit the backbone.
    """
    if name not in METHODS:
        raise LptError(f"method={name!r} is not known; choose one of {', '.join(METHODS)}{did_you_mean(name, METHODS)}")
    return METHODS[name](model, **settings)
