"""Who is measured: our methods as `train.py` trains them, and rivals as their users run them.

A contestant is an `nn.Module` with
    losses(batch) -> [B]      of a training step
    scores(batch) -> [B, C]   of the classes
Rivals run Hugging Face's own forward pass: every layer, and logits at every position.

Shapes: B batch, T tokens, C classes, V vocabulary.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lpt.batches import Batch
from lpt.config import Config
from lpt.errors import LptError
from lpt.families import family_of
from lpt.heads import build_head
from lpt.methods import build_method
from lpt.scorer import Scorer

LORA_RANK = 8
INPUT_PROMPT_LENGTH = 20  # rows, a usual choice for prompts that enter at the input


class Late(Scorer):
    """A late prompt, with the trunk computed at every step or, where the batch has them, on cached states."""

    def __init__(self, model: Any, config: Config, label_ids: list[int]):
        lpt = config.lpt
        settings = {"layer": lpt.layer, "prompt_length": lpt.prompt_length, "bottleneck": lpt.bottleneck}
        method = build_method(
            "lpt", model, generator=config.generator.name, dropout=config.generator.dropout, **settings
        )
        super().__init__(method, build_head(config.head.name, method.backbone, len(label_ids), label_ids))
        if config.trainer.compile:
            method.backbone.compile(dynamic=True)


class Stock(nn.Module):
    """A Hugging Face model, whole, as `peft` or nobody has wrapped it."""

    label_ids: Tensor

    def __init__(self, model: Any, config: Config, label_ids: list[int]):
        super().__init__()
        self.backbone_model = model
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


CONTESTANTS: dict[str, Any] = {
    "full": Full,
    "lora": Lora,
    "prompt_tuning": PromptTuning,
    "per_label": PerLabel,
    "lpt": Late,
    "lpt_cached": Late,
}


def _peft() -> Any:
    try:
        import peft
    except ImportError:
        raise LptError(
            "lpt bench measures this rival by peft, which is not installed: pip install 'lpt[bench]'"
        ) from None
    return peft
