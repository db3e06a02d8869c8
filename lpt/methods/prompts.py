"""Prompts at the input or in every layer: the paper's rivals among prompts.

Shapes: B batch, T tokens, P prompt length, H hidden size.
"""

from typing import Any

import torch
from torch import Tensor

from lpt.backbones.split import Prefix
from lpt.late_prompt import LateMethod, LatePromptModel


class PromptTuning(LatePromptModel):
    """Prompt tuning (Lester et al. 2021, https://arxiv.org/abs/2104.08691): one learned prompt at the input.

    The same as a late prompt without generator at layer 1. Trains P*H.
    """

    def __init__(self, model: Any, prompt_length: int = 20):
        super().__init__(model, layer=1, prompt_length=prompt_length, generator="none", dropout=0.0)


class PTuningV2(LateMethod):
    """P-tuning v2 (Liu et al. 2022, https://arxiv.org/abs/2110.07602): learned keys and values in layers k..L.

    Without reparametrization. Trains 2 * P * (key-value heads * head size) for each layer.

    Args:
        model: a Hugging Face model.
        layer: k; None is 1, as the paper has it.
        prompt_length: P, rows in front of each layer's keys and values.

    Raises:
        LptError: a family that does not tell keys and values.
    """

    def __init__(self, model: Any, layer: int | None = None, prompt_length: int = 20):
        super().__init__(model, 1 if layer is None else layer)
        self.backbone.prefix = Prefix(self.backbone, prompt_length).to(model.device)
        self.train(self.backbone.training)


class InstanceDependentPrompt(LatePromptModel):
    """S-IDPG-PHM (Wu et al. 2022, https://arxiv.org/abs/2204.04497): a generated prompt at the input.

    The generator reads what the frozen model makes of the whole text, so every step has a forward pass more than
    prompt tuning has; its two maps are parametrized hypercomplex multiplications (`lpt.generators.PHMLinear`).
    """

    def __init__(self, model: Any, prompt_length: int = 5, bottleneck: int = 256):
        super().__init__(model, layer=1, prompt_length=prompt_length, generator="phm", bottleneck=bottleneck)

    def prompt(self, h: Tensor, attention_mask: Tensor | None, readout_position: Tensor) -> Tensor:
        """From the states leaving layer L, `[B, T, H]`, of a pass without prompt or dropout."""
        training = self.backbone.training
        self.backbone.eval()
        with torch.no_grad():
            o = self.backbone.run(h, attention_mask, 1, self.backbone.num_layers)
        self.backbone.train(training)
        return super().prompt(o, attention_mask, readout_position)
