"""The backbone as it is: no prompt, nothing trained. What every method must beat."""

from typing import Any

import torch
from torch import Tensor, nn

from lpt.backbone import SplitBackbone


class ZeroShot(nn.Module):
    """A frozen backbone asked with the task's template alone.

    Args:
        model: a Hugging Face model.
        layer: where the trunk ends, for its cache; the answer does not depend on it.
        prompt_settings: of the prompt that is not there.
    """

    def __init__(self, model: Any, layer: int | None = None, **prompt_settings: Any):
        super().__init__()
        self.backbone = SplitBackbone(model, layer)

    def trunk(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """States entering layer k, `[B, T, H]`."""
        return self.backbone.trunk(input_ids, attention_mask)

    @torch.no_grad()
    def read_out(self, h: Tensor, attention_mask: Tensor | None, readout_position: Tensor) -> Tensor:
        """Finished state at the read-out position, `[B, H]`."""
        no_prompt = h.new_empty(len(h), 0, h.shape[2])
        return self.backbone.finish(self.backbone.upper_at(no_prompt, h, attention_mask, readout_position))
