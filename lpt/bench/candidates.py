"""What is measured: methods as `train.py` trains them, and stock baselines as their users run them.

A candidate is an `nn.Module` with
    losses(batch) -> [B]      the losses of a training step
    scores(batch) -> [B, C]   the scores of the classes
Stock baselines (`STOCK`) run Hugging Face's own forward pass: every layer, and logits at every position. All others are
a `Scorer` of this project, named by their method; with `late_` in front the method begins at `lpt.layer`, with
`_read_only` behind it reads the text once, and with `_cached` behind that it takes from the cache what is kept of it.

Shapes: B batch, S prompt and text tokens, C classes, V vocabulary.
"""

import inspect
from typing import Any, ClassVar

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
from lpt.methods.lora import Lora as LateLora
from lpt.registry import METHODS

INVOCATION = 4  # a token that random rows do not have
INPUT_PROMPT_LENGTH = 20  # prompt tokens, a usual choice for prompts that enter at the input


def build_candidate(name: str, model: Any, config: Config, label_ids: list[int]) -> nn.Module:
    """The candidate of this name.

    Args:
        name: one of `lpt.config.candidates.candidates()`.
        model: a Hugging Face model, which is changed in place.
        config: `config.method` is the candidate's method, if it has one.
        label_ids: token id of each class.

    Raises:
        LptError: the backbone does not support it, or `peft` is not installed.
    """
    if name in STOCK:
        return STOCK[name](model, config, label_ids)
    settings = chosen_settings(config, family_of(model.config))
    if "read_only" in settings:
        settings["read_only"] = name.removesuffix("_cached").endswith("_read_only")
    if name.startswith("late_"):
        settings["layer"] = config.lpt.layer or middle_layer(model.config.num_hidden_layers)
    elif "layer" in settings and not METHODS[config.method.name].late:
        settings["layer"] = None  # where the method begins by itself
    method = build_method(config.method.name, model, **settings)
    answers = [[token] for token in label_ids]
    scorer = Scorer(method, build_head(config.head.name, method.backbone, len(label_ids), answers))
    if config.trainer.compile:
        method.backbone.compile(dynamic=True)
    return scorer


class Stock(nn.Module):
    """A Hugging Face model with its own forward pass, to be wrapped by subclasses.

    Args:
        model: a Hugging Face model, which is changed in place.
        config: of which `trainer.compile` and `lpt.dropout` are read.
        label_ids: token id of each class.
    """

    label_ids: Tensor

    def __init__(self, model: Any, config: Config, label_ids: list[int]):
        super().__init__()
        self.dropout = config.lpt.dropout
        self.model = self.wrap(model)
        self.register_buffer("label_ids", torch.tensor(label_ids), persistent=False)
        if config.trainer.compile:
            self.model.compile(dynamic=True)

    def wrap(self, model: Any) -> Any:
        """The model as it is trained."""
        return model

    def train(self, mode: bool = True) -> "Stock":
        """Set the mode; dropout is off unless it is asked for, as in the other candidates."""
        return super().train(mode and self.dropout)

    def scores(self, batch: Batch) -> Tensor:
        """Class scores `[B, C]`: the logits of the classes' tokens at the read-out position."""
        logits_BSV = self.model(input_ids=batch.input_ids, attention_mask=batch.attention_mask).logits
        rows_B = torch.arange(len(logits_BSV), device=logits_BSV.device)
        prompt_length = logits_BSV.shape[1] - batch.input_ids.shape[1]
        scores_BC: Tensor = logits_BSV[rows_B, batch.readout_position + prompt_length][:, self.label_ids].float()
        return scores_BC

    def losses(self, batch: Batch) -> Tensor:
        """The loss of each row, `[B]`."""
        return F.cross_entropy(self.scores(batch), batch.labels, reduction="none")


class Full(Stock):
    """Full fine-tuning."""

    def wrap(self, model: Any) -> Any:
        """Make every parameter trainable."""
        return model.requires_grad_(True)


class Lora(Stock):
    """LoRA (Hu et al. 2021) by `peft`, on the maps that it chooses for the family; rank and alpha of `method=lora`."""

    options: ClassVar[dict[str, Any]] = {}

    def wrap(self, model: Any) -> Any:
        """Add low-rank maps without dropout, and freeze everything else.

        Raises:
            LptError: `peft` is not installed.
        """
        ours = inspect.signature(LateLora).parameters
        rank, alpha = ours["rank"].default, ours["alpha"].default
        peft = _peft()
        return peft.get_peft_model(model, peft.LoraConfig(r=rank, lora_alpha=alpha, lora_dropout=0.0, **self.options))


class ActivatedLora(Lora):
    """Activated LoRA (Greenewald et al. 2025, https://arxiv.org/abs/2504.12397) by `peft`: from the last token on."""

    options: ClassVar[dict[str, Any]] = {"task_type": "CAUSAL_LM", "alora_invocation_tokens": [INVOCATION]}

    def wrap(self, model: Any) -> Any:
        """Add low-rank maps that act on the last token alone.

        Raises:
            LptError: the backbone is no decoder, or `peft` is not installed.
        """
        if not family_of(model.config).causal:
            raise LptError("alora needs a decoder, whose text does not see the tokens behind it")
        return super().wrap(model)

    def scores(self, batch: Batch) -> Tensor:
        """Class scores `[B, C]`, of rows that end in the token that `peft` looks for."""
        input_ids = batch.input_ids.clone()
        input_ids[:, -1] = INVOCATION
        return super().scores(batch._replace(input_ids=input_ids))


class PromptTuning(Stock):
    """Prompt tuning at the input (Lester et al. 2021) by `peft`."""

    def wrap(self, model: Any) -> Any:
        """Put trained prompt tokens in front of the input, and freeze everything else.

        Raises:
            LptError: `peft` is not installed.
        """
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
    """Evaluation alone: a complete forward pass for each label, as the paper's code scores decoders."""

    def scores(self, batch: Batch) -> Tensor:
        """Class scores `[B, C]`, from C forward passes."""
        return torch.stack([super(PerLabel, self).scores(batch)[:, i] for i in range(len(self.label_ids))], dim=1)


STOCK: dict[str, type[Stock]] = {
    "full": Full,
    "lora": Lora,
    "alora": ActivatedLora,
    "prompt_tuning": PromptTuning,
    "per_label": PerLabel,
}


def _peft() -> Any:
    try:
        import peft
    except ImportError:
        raise LptError(
            "lpt bench measures this baseline with peft, which is not installed: pip install 'lpt[bench]'"
        ) from None
    return peft
