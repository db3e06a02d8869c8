"""Generated prompts in many layers: each has a generator that reads the states entering it.

    p_k = G_k(h_k)                                              as of a late prompt
    p_l = (1 - g_l) (what layer l-1 made of its prompt) + g_l G_l(h_l)      l = k+1..L

with g_l = 1 in `deep_lpt` and `iapt`, and a learned gate in `spt`. Where the text is read only, the states of its
tokens above layer k are not kept, and G_l reads the active tokens as they enter layer l: the prompt of the layer below
and the read-out token, both of which have seen the text.

Shapes: B batch, T tokens, P prompt length, S = P + T, H hidden size.
"""

from typing import Annotated, Any

import torch
from torch import Tensor, nn

from lpt.backbones.passes import Entering
from lpt.late_prompt import LatePromptModel
from lpt.ranges import at_least
from lpt.registry import register_method


@register_method("deep_lpt")
class DeepLatePrompt(LatePromptModel):
    """A late prompt that is generated anew in each layer, or in every few.

    Trains as many generators as there are layers k, k + every, k + 2 every, ... up to L.

    Args:
        model: a Hugging Face model.
        layer: k, the first layer with a prompt; None is L // 2 + 1.
        every: a new prompt in every so many layers.
        prompt: the other arguments of `LatePromptModel`.
    """

    def __init__(self, model: Any, layer: int | None = None, every: Annotated[int, at_least(1)] = 1, **prompt: Any):
        super().__init__(model, layer, **prompt)
        self.every = every
        above = range(self.backbone.layer + every, self.backbone.num_layers + 1, every)
        self.deeper = nn.ModuleDict({str(number): self._new_generator() for number in above})
        self.deeper.to(model.device)
        self.train(self.backbone.training)

    def entering(self, attention_mask: Tensor | None, readout_position: Tensor) -> Entering:
        """A new prompt in front of the tokens, in layers that have a generator."""
        length = self.prompt_length

        def with_new_prompt(layer: int, h_BSH: Tensor) -> Tensor:
            if str(layer) not in self.deeper:
                return h_BSH
            left_BPH, h_BTH = h_BSH[:, :length], h_BSH[:, length:]
            if self.read_only:  # the prompt and the read-out token; answers may stand behind it
                h_BTH = h_BSH[:, : length + 1]
                summary_B = torch.full_like(readout_position, length)
                pooled_BT = torch.ones_like(h_BTH[..., 0], dtype=torch.bool)
            else:
                summary_B, pooled_BT = self.context(h_BTH, attention_mask, readout_position)
            p_BPH = self.deeper[str(layer)](h_BTH, summary_B, pooled_BT)
            return torch.cat([self.put(layer, p_BPH, left_BPH), h_BSH[:, length:]], 1)

        return with_new_prompt

    def put(self, layer: int, p_BPH: Tensor, left_BPH: Tensor) -> Tensor:
        """The prompt that enters a layer, `[B, P, H]`: what was written for it, or what is left of the one below."""
        return p_BPH


@register_method("spt")
class SelectivePromptTuning(DeepLatePrompt):
    """Selective prompt tuning (Zhu and Tan 2023, https://arxiv.org/abs/2310.20127): gates choose where prompts enter.

    A gate is the sigmoid of one trained number, 0.5 at first. Gates and generators are trained together; the paper's
    search, in which gates learn from other rows and the layers of the largest gates are trained once more, is not here.

    Trains as `DeepLatePrompt`, and a number for each layer behind the first that has a generator.

    Args:
        model: a Hugging Face model.
        layer: k, the first layer with a prompt; None is L // 2 + 1.
        every: a gate and a generator in every so many layers.
        prompt: the other arguments of `LatePromptModel`.
    """

    def __init__(self, model: Any, layer: int | None = None, every: Annotated[int, at_least(1)] = 1, **prompt: Any):
        super().__init__(model, layer, every, **prompt)
        gates = torch.zeros(len(self.deeper), device=model.device)
        self.gates = nn.Parameter(gates) if len(gates) else None  # none where a single layer has a prompt

    def put(self, layer: int, p_BPH: Tensor, left_BPH: Tensor) -> Tensor:
        """As much of the new prompt as the gate says, and the rest of the one below, `[B, P, H]`."""
        assert self.gates is not None
        gate = self.gates[(layer - self.backbone.layer) // self.every - 1].sigmoid().to(left_BPH.dtype)
        return (1 - gate) * left_BPH + gate * p_BPH


# In units of the states' size, since the sizes of states in some models would be beyond any activation.
@register_method("iapt", settings={"generator": "attentive", "lpt.prompt_length": 4, "generator.normalize": True})
class InstanceAwarePromptTuning(DeepLatePrompt):
    """IAPT (Zhu et al. 2024, https://arxiv.org/abs/2405.18203): few prompt tokens, by `attentive`, in every layer.

    Every layer has a generator of its own; the paper has neighboring layers share some of it.

    Args: as for `DeepLatePrompt`.
    """
