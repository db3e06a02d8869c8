"""Prompts at the input or in every layer: baselines of the paper.

Shapes: B batch, T tokens, P prompt length, H hidden size.
"""

from typing import Annotated, Any

import torch
from torch import Tensor

from lpt.late_prompt import LateMethod, LatePromptModel
from lpt.ranges import at_least
from lpt.registry import register_method

Positive = Annotated[int, at_least(1)]


# A prompt starts from embeddings of words in the paper, here of the training texts. The rate is measured
# (experiments/quality.md): at 3e-2, SmolLM2's prompts did not learn.
@register_method("prompt_tuning", settings={"generator.init": "states", "optim.lr": 3e-3})
class PromptTuning(LatePromptModel):
    """Prompt tuning (Lester et al. 2021, https://arxiv.org/abs/2104.08691): one learned prompt at the input.

    The same as a late prompt without generator at layer 1. Trains P*H.

    Args:
        model: a Hugging Face model.
        prompt_length: P, prompt tokens before the text.
        read_only: as of `LateMethod`, as is `backbone_dropout`.
    """

    late = False
    reads_once = False
    starts_from = ("states", "vocabulary")

    def __init__(
        self, model: Any, prompt_length: Positive = 20, read_only: bool = False, backbone_dropout: bool = False
    ):
        late: dict[str, Any] = {"read_only": read_only, "backbone_dropout": backbone_dropout}
        super().__init__(model, layer=1, prompt_length=prompt_length, generator="none", dropout=0.0, **late)


# Of those that the paper's scripts use.
@register_method("p_tuning_v2", settings={"optim.lr": 5e-3})
class PTuningV2(LateMethod):
    """P-tuning v2 (Liu et al. 2022, https://arxiv.org/abs/2110.07602): learned keys and values in layers k..L.

    Without reparametrization. Trains 2 * P * (key-value heads * head size) for each layer.

    Args:
        model: a Hugging Face model.
        layer: k; None is 1, as the paper has it.
        prompt_length: P, keys and values in front of those of each layer.
        late: as of `LatePromptModel`.

    Raises:
        LptError: a family that does not tell keys and values.
    """

    def __init__(self, model: Any, layer: int | None = None, prompt_length: Positive = 20, **late: Any):
        super().__init__(model, layer, **late)
        self.backbone.add_prefix(prompt_length)
        self.train(self.backbone.training)


# Prompt length and bottleneck are those of the paper's section 4.
@register_method("s_idpg", settings={"optim.lr": 5e-4})
class InstanceDependentPrompt(LatePromptModel):
    """S-IDPG-PHM (Wu et al. 2022, https://arxiv.org/abs/2204.04497): a generated prompt at the input.

    The generator reads what the frozen model makes of the whole text, so every step has a forward pass more than
    prompt tuning has; its two maps are parametrized hypercomplex multiplications (`lpt.generators.paper.PHMLinear`).

    Args:
        model: a Hugging Face model.
        prompt_length: P, prompt tokens before the text.
        bottleneck: m, the generator's inner size.
        read_only: as of `LateMethod`, as is `backbone_dropout`.
    """

    late = False
    reads_once = False

    def __init__(
        self,
        model: Any,
        prompt_length: Positive = 5,
        bottleneck: Positive = 256,
        read_only: bool = False,
        backbone_dropout: bool = False,
    ):
        late: dict[str, Any] = {"read_only": read_only, "backbone_dropout": backbone_dropout}
        super().__init__(model, layer=1, prompt_length=prompt_length, generator="phm", bottleneck=bottleneck, **late)

    def generate(self, h_BTH: Tensor, attention_mask: Tensor | None, readout_position: Tensor) -> Tensor:
        """From the states leaving layer L, `[B, T, H]`, of a pass without prompt or dropout."""
        training = self.backbone.training
        self.backbone.eval()
        with torch.no_grad():
            o_BTH = self.backbone.run(h_BTH, attention_mask, 1, self.backbone.num_layers)
        self.backbone.train(training)
        return super().generate(o_BTH, attention_mask, readout_position)
