"""Late Prompt Tuning on one page.

Liu, Sun, Huang and Qiu: Late Prompt Tuning: A Late Prompt Could Be Better Than Many Prompts. Findings of
EMNLP 2022, https://arxiv.org/abs/2210.11292.

A prompt is written for each input by a small trained network G that reads the states entering layer k:

    h   = layers 1..k-1 (embed(x))           the trunk: tokens only, no gradient, a constant per example
    p   = G(h)                               the prompt generator: all that is trained
    o   = layers k..L ([p ; h])              the prompt stands before all tokens and is always attended
    z   = finish(o at the read-out position) final norm or LM-head transform; the mask or the last context token

Shapes: B batch, T tokens, P prompt length, H hidden size.
"""

from collections.abc import Callable
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from lpt.backbones.split import SplitBackbone
from lpt.errors import LptError
from lpt.generators import build_generator
from lpt.registry import register_method


class LateMethod(nn.Module):
    """A frozen backbone split before layer k, in the mode (train or eval) that the model was given in.

    By itself it trains nothing. A method overrides `prompt`, or makes parameters of layers k..L require a gradient;
    what requires one is exactly what is trained, saved and loaded.

    Args:
        model: a Hugging Face model (`AutoModelForMaskedLM` or `AutoModelForCausalLM`); it is frozen.
        layer: k in 1..L, where the method begins; None is L // 2 + 1.
        trunk_dropout: dropout also below layer k while training (the paper's code has it).

    Raises:
        LptError: unknown family, or layer outside 1..L.
    """

    late: ClassVar[bool] = False
    # Whether it begins above layer 1 by default, so that there is a trunk to cache.
    trains_backbone: ClassVar[bool] = False
    # Whether the backbone's own weights are trained, which takes float32.
    only_in_training: ClassVar[tuple[str, ...]] = ()
    # Settings without which a trained method is the same.
    starts_from: ClassVar[tuple[str, ...]] = ()
    # Values of `generator.init` that it takes itself; otherwise its generator says.

    backbone: SplitBackbone
    watch: Callable[[Tensor, Tensor, Tensor | None], None] | None = None
    # Shown prompt, states entering layer k and attention mask whenever a state is read out.

    def __init__(self, model: Any, layer: int | None = None, trunk_dropout: bool = False):
        super().__init__()
        self.backbone = SplitBackbone(model, layer, trunk_dropout)
        self.train(self.backbone.training)

    def trunk(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """States entering layer k, `[B, T, H]`, without gradient. No `attention_mask`: nothing is padded."""
        return self.backbone.trunk(input_ids, attention_mask)

    def prompt(self, h: Tensor, attention_mask: Tensor | None, readout_position: Tensor) -> Tensor:
        """The soft prompt for each row, `[B, P, H]`, from the states entering layer k, `[B, T, H]`; here P = 0."""
        return h.new_empty(len(h), 0, h.shape[2])

    def token_states(self, h: Tensor, attention_mask: Tensor | None, readout_position: Tensor) -> Tensor:
        """States leaving layer L at the tokens, `[B, T, H]`, from the states entering layer k."""
        return self.backbone.upper(self.prompt(h, attention_mask, readout_position), h, attention_mask)

    def read_out(
        self, h: Tensor, attention_mask: Tensor | None, readout_position: Tensor, num_extra_positions: int = 0
    ) -> Tensor:
        """Finished state at the read-out position, `[B, H]`, from the states entering layer k; heads score it.

        With `num_extra_positions`, at so many positions behind it too: `[B, 1 + num_extra_positions, H]`.
        """
        prompt = self.prompt(h, attention_mask, readout_position)
        if self.watch is not None:
            self.watch(prompt, h, attention_mask)
        positions = readout_position
        if num_extra_positions:
            positions = readout_position[:, None] + torch.arange(1 + num_extra_positions, device=h.device)
        return self.backbone.finish(self.backbone.upper_at(prompt, h, attention_mask, positions))

    def from_trunk(self, h: Tensor, attention_mask: Tensor | None, readout_position: Tensor) -> Tensor:
        """Vocabulary logits at the read-out position, `[B, V]`, from the states entering layer k.

        Raises:
            LptError: the backbone has no LM head.
        """
        self._needs_lm_head()
        return self.backbone.vocabulary_logits(self.read_out(h, attention_mask, readout_position))

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None, readout_position: Tensor) -> Tensor:
        """Vocabulary logits at the read-out position, `[B, V]`.

        Args:
            input_ids: `[B, T]`.
            attention_mask: `[B, T]`, 1 at tokens, 0 at padding (left or right); None: nothing is padded.
            readout_position: `[B]`, index of the mask token (encoders) or of the last context token (decoders).

        Raises:
            LptError: the text is longer than the backbone allows, or the backbone has no LM head.
        """
        return self.from_trunk(self.trunk(input_ids, attention_mask), attention_mask, readout_position)

    def token_logits(self, input_ids: Tensor, attention_mask: Tensor | None, readout_position: Tensor) -> Tensor:
        """Vocabulary logits at every token, `[B, T, V]`, the prompt's rows removed.

        Raises:
            LptError: as `forward`.
        """
        self._needs_lm_head()
        h = self.trunk(input_ids, attention_mask)
        o = self.token_states(h, attention_mask, readout_position)
        return self.backbone.vocabulary_logits(self.backbone.finish(o))

    def _needs_lm_head(self) -> None:
        if not self.backbone.has_lm_head:
            raise LptError(f"{self.backbone.name} has no language-model head: read states with read_out instead")


@register_method("lpt")
class LatePromptModel(LateMethod):
    """A frozen backbone with a late prompt, in the mode (train or eval) that the model was given in.

    Args:
        model: a Hugging Face model (`AutoModelForMaskedLM` or `AutoModelForCausalLM`); it is frozen.
        layer: k in 1..L, the first layer that sees the prompt; None is L // 2 + 1. 1 is an input prompt.
        prompt_length: P.
        generator: a name of `lpt.generators.GENERATORS`: `npg`, `appg`, `mppg`, `phm` or `none`.
        bottleneck: m, the generator's inner size.
        normalize: have the generator read and write in units of the states' size.
        dropout: on the generator's output; None is the backbone's hidden-dropout rate.
        trunk_dropout: dropout also below layer k while training (the paper's code has it).
        generator_options: parameters that this generator has of its own.

    Raises:
        LptError: unknown family or generator, layer outside 1..L, a size below 1.
    """

    late = True
    only_in_training = ("dropout", "trunk_dropout")

    def __init__(
        self,
        model: Any,
        layer: int | None = None,
        prompt_length: int = 5,
        generator: str = "npg",
        bottleneck: int = 128,
        normalize: bool = False,
        dropout: float | None = None,
        trunk_dropout: bool = False,
        generator_options: dict[str, Any] | None = None,
    ):
        super().__init__(model, layer, trunk_dropout)
        rate = self.backbone.hidden_dropout if dropout is None else dropout
        hidden_size = self.backbone.hidden_size
        self.generator = build_generator(
            generator, hidden_size, prompt_length, bottleneck, rate, normalize, **(generator_options or {})
        )
        self.generator.to(model.device)
        self.train(self.backbone.training)

    def prompt(self, h: Tensor, attention_mask: Tensor | None, readout_position: Tensor) -> Tensor:
        """What the generator writes for each row, `[B, P, H]`, from the states entering layer k, `[B, T, H]`."""
        summary, pooling = self.context(h, attention_mask, readout_position)
        return self.generator(h, summary, pooling)

    def context(self, h: Tensor, attention_mask: Tensor | None, readout_position: Tensor) -> tuple[Tensor, Tensor]:
        """What the generator may read: the summary token's index `[B]` and the tokens to pool `[B, T]`.

        Encoders: the first token, and all attended ones. Decoders: the last context token, and the tokens before
        it (the paper's code); a context of a single token pools that one.
        """
        index_T = torch.arange(h.shape[1], device=h.device)
        attended_BT = (
            torch.ones(h.shape[:2], dtype=torch.bool, device=h.device)
            if attention_mask is None
            else attention_mask.bool()
        )
        if not self.backbone.causal:
            return attended_BT.int().argmax(1), attended_BT
        before_BT = attended_BT & (index_T < readout_position[:, None])
        alone_B1 = ~before_BT.any(1, keepdim=True)
        return readout_position, before_BT | (alone_B1 & (index_T == readout_position[:, None]))
