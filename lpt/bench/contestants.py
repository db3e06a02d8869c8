"""Who is measured: methods as `train.py` trains them, and rivals as their users run them.

A contestant is an `nn.Module` with
    losses(batch) -> [B]      of a training step
    scores(batch) -> [B, C]   of the classes
Stock rivals (`STOCK`) run Hugging Face's own forward pass: every layer, and logits at every position. All others are a
`Scorer` of this project, named by their method; `late_` in front has a method begin at `lpt.layer`, and `_cached`
behind has it read the states entering that layer from the trunk cache.

Shapes: B batch, T tokens, C classes, V vocabulary.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lpt.backbones.families import family_of
from lpt.backbones.layers import middle_layer
from lpt.classifier import Scorer
from lpt.config.schema import Config
from lpt.data.batches import Batch
from lpt.errors import LptError
from lpt.heads import build_head
from lpt.methods import build_method, chosen_settings
from lpt.registry import METHODS

LORA_RANK = 8
INPUT_PROMPT_LENGTH = 20  # rows, a usual choice for prompts that enter at the input


def build_contestant(name: str, model: Any, config: Config, label_ids: list[int]) -> nn.Module:
    """The contestant of this name.

    Args:
        model: a Hugging Face model, which it changes.
        config: `config.method` is the contestant's method, if it has one.
        label_ids: token id of each class.

    Raises:
        LptError: what this backbone cannot have.
    """
    if name in STOCK:
        return STOCK[name](model, config, label_ids)
    settings = chosen_settings(config)
    if "layer" in settings and not (name.startswith("late_") or METHODS[config.method.name].late):
        settings["layer"] = None
    if name.startswith("late_"):
        settings["layer"] = config.lpt.layer or middle_layer(model.config.num_hidden_layers)
    method = build_method(config.method.name, model, **settings)
    scorer = Scorer(
        method, build_head(config.head.name, method.backbone, len(label_ids), [[token] for token in label_ids])
    )
    if config.trainer.compile:
        method.backbone.compile(dynamic=True)
    return scorer


class Stock(nn.Module):
    """A Hugging Face model, whole, as `peft` or nobody has wrapped it."""

    label_ids: Tensor

    def __init__(self, model: Any, config: Config, label_ids: list[int]):
        super().__init__()
        self.model = self.wrap(model)
        self.register_buffer("label_ids", torch.tensor(label_ids), persistent=False)
        if config.trainer.compile:
            self.model.compile(dynamic=True)

    def wrap(self, model: Any) -> Any:
        return model

    def scores(self, batch: Batch) -> Tensor:
        logits_BSV = self.model(input_ids=batch.input_ids, attention_mask=batch.attention_mask).logits
        rows_B = torch.arange(len(logits_BSV), device=logits_BSV.device)
        prompt_length = logits_BSV.shape[1] - batch.input_ids.shape[1]
        return logits_BSV[rows_B, batch.readout_position + prompt_length][:, self.label_ids].float()

    def losses(self, batch: Batch) -> Tensor:
        return F.cross_entropy(self.scores(batch), batch.labels, reduction="none")


class Full(Stock):
    """Full fine-tuning."""

    def wrap(self, model: Any) -> Any:
        return model.requires_grad_(True)


class Lora(Stock):
    """LoRA (Hu et al. 2021) by `peft`, on the maps that it chooses for the family."""

    def wrap(self, model: Any) -> Any:
        peft = _peft()
        return peft.get_peft_model(model, peft.LoraConfig(r=LORA_RANK, lora_alpha=2 * LORA_RANK, lora_dropout=0.0))


class PromptTuning(Stock):
    """Prompt tuning at the input (Lester et al. 2021) by `peft`."""

    def wrap(self, model: Any) -> Any:
        peft = _peft()
        prompt = peft.PromptTuningConfig(
            task_type="CAUSAL_LM" if family_of(model.config).causal else "FEATURE_EXTRACTION",
            num_virtual_tokens=INPUT_PROMPT_LENGTH,
            token_dim=model.config.hidden_size,
            num_layers=model.config.num_hidden_layers,
            num_attention_heads=model.config.num_attention_heads,
            num_transformer_submodules=1,
        )
        return peft.get_peft_model(model, prompt)


class PerLabel(Stock):
    """Evaluation alone: one whole forward pass for each label, as the paper's code scores decoders."""

    def scores(self, batch: Batch) -> Tensor:
        return torch.stack([super(PerLabel, self).scores(batch)[:, i] for i in range(len(self.label_ids))], dim=1)


STOCK: dict[str, type[Stock]] = {
    "full": Full,
    "lora": Lora,
    "prompt_tuning": PromptTuning,
    "per_label": PerLabel,
}


def _peft() -> Any:
    try:
        import peft
    except ImportError:
        raise LptError(
            "lpt bench measures this rival by peft, which is not installed: pip install 'lpt[bench]'"
        ) from None
    return peft
