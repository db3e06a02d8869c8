"""LoRA, by `peft`, in the layers from k on; alone, and together with a late prompt."""

import warnings
from typing import Annotated, Any, Literal

import torch

from lpt.backbones.split import SplitBackbone
from lpt.errors import LptError
from lpt.late_prompt import LateMethod, LatePromptModel
from lpt.ranges import at_least, check_word, fraction
from lpt.registry import register_method

Targets = Literal["attention", "all"]
Positive = Annotated[int, at_least(1)]


# As are rank and alpha, for GLUE on RoBERTa (the paper's table 9).
@register_method("lora", settings={"optim.lr": 4e-4})
class Lora(LateMethod):
    """Low-rank updates of linear maps in layers k..L (Hu et al. 2021, https://arxiv.org/abs/2106.09685).

    Trains r * (in + out) for each map of in x out.

    Args:
        model: a Hugging Face model.
        layer: k; None is 1, as the paper has it.
        rank: r, the rank of the updates.
        alpha: updates are scaled by alpha / r.
        targets: `attention`, the maps that `peft` chooses for the family (query and value, where they are separate), or
            `all` linear maps of the layers.
        dropout: rate on the input of the updates.
        late: as of `LatePromptModel`.

    Raises:
        LptError: `peft` is not installed, an unknown `targets`, a family for which `peft` chooses nothing.
    """

    only_in_training = ("dropout",)

    def __init__(
        self,
        model: Any,
        layer: int | None = None,
        rank: Positive = 8,
        alpha: Positive = 16,
        targets: Targets = "attention",
        dropout: Annotated[float, fraction()] = 0.0,
        **late: Any,
    ):
        super().__init__(model, layer, **late)
        add_lora(self.backbone, rank, alpha, targets, dropout)


@register_method("lpt_lora")
class LatePromptLora(LatePromptModel):
    """A late prompt, and LoRA in the layers that see it.

    Args:
        model: a Hugging Face model.
        layer: k; None is L // 2 + 1.
        rank: r, the rank of the updates.
        alpha: updates are scaled by alpha / r.
        targets: `attention`, the maps that `peft` chooses for the family, or `all` linear maps of the layers.
        prompt: the other arguments of `LatePromptModel`.
    """

    reads_once = False  # with few rows and steps, LoRA loses by it (experiments/read_only.md)

    def __init__(
        self,
        model: Any,
        layer: int | None = None,
        rank: Positive = 8,
        alpha: Positive = 16,
        targets: Targets = "all",
        **prompt: Any,
    ):
        super().__init__(model, layer, **prompt)
        add_lora(self.backbone, rank, alpha, targets)


def add_lora(backbone: SplitBackbone, rank: int, alpha: int, targets: str, dropout: float = 0.0) -> None:
    """Have `peft` wrap linear maps of layers k..L; what it trains is float32, whatever the backbone's format."""
    try:
        import peft
        from peft.utils.constants import TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING as CHOSEN_BY_PEFT
    except ImportError:
        raise LptError("LoRA is done by peft, which is not installed: pip install 'lpt[peft]'") from None
    check_word("method.targets", targets, Targets)
    kind = backbone.config.model_type
    if targets == "attention" and kind not in CHOSEN_BY_PEFT:
        raise LptError(f"method.targets=attention: peft chooses no maps for {kind} models; use method.targets=all")
    names = [
        name
        for name, module in backbone.linear_maps()
        if targets == "all" or name.endswith(tuple(f".{chosen}" for chosen in CHOSEN_BY_PEFT[kind]))
    ]
    if not names:
        raise LptError(f"method.targets={targets}: {backbone.name} has no such maps from layer {backbone.layer} on")
    training = backbone.training
    config = peft.LoraConfig(r=rank, lora_alpha=alpha, lora_dropout=dropout, target_modules=names)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="fan_in_fan_out is set")  # peft finds out by itself for Conv1D
        peft.inject_adapter_in_model(config, backbone.model)
    for parameter in backbone.model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.to(torch.float32)
    backbone.train(training)
