"""Late Prompt Tuning on one page.

Liu, Sun, Huang and Qiu: Late Prompt Tuning: A Late Prompt Could Be Better Than Many Prompts. Findings of
EMNLP 2022, https://arxiv.org/abs/2210.11292.

A small trained network G reads the states entering layer k of a frozen model and writes a prompt for this very input:

    h = layers 1..k-1 (embed(x))    trunk       tokens only, no gradient: a constant of the example
    p = G(h)                        generate    all that is trained
    o = layers k..L ([p ; h])       upper       the prompt stands before all tokens and is always attended
    z = finish(o at one token)      read_out    final norm or LM-head transform; the mask or the last context token

A method that is read-only (`lpt.read_only=true`) reads a text once: its tokens do not see the prompt, so that their
keys and values in layers k..L are constants of the example too, and only the prompt and the read-out token pass there:

    c = h, and the frozen keys and values of layers k..L over h    read
    o = layers k..L ([p ; h at one token]) over c                  over

A head turns z into class scores (`lpt.heads`). Shapes: B batch, T tokens, P prompt length, S = P + T, H hidden size,
V vocabulary, Q tokens that are read out.
"""

from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from lpt.backbones.context import Context
from lpt.backbones.families import name_of, num_layers
from lpt.backbones.layers import middle_layer, resolve_layer
from lpt.backbones.passes import Entering
from lpt.backbones.split import SplitBackbone
from lpt.errors import LptError
from lpt.generators import build_generator
from lpt.registry import register_method


class LateMethod(nn.Module):
    """A frozen backbone with something trained from layer k on; the base of all methods. By itself, it trains nothing.

    A method overrides `generate`, or has parameters of layers k..L require a gradient. What requires one is exactly
    what is trained, saved and loaded. The method is in the mode (train or eval) that the model was given in.

    Args:
        model: a Hugging Face model (`AutoModelForMaskedLM` or `AutoModelForCausalLM`); it is frozen.
        layer: k, 1..L, where the method begins; None is `default_layer`.
        read_only: the text's tokens see nothing of what is trained (docs/methods.md#read-only).
        backbone_dropout: dropout inside the frozen layers k..L while training, at the backbone's own rates.
        trunk_dropout: dropout also below layer k while training (the paper's code has it).

    Raises:
        LptError: unknown family, layer outside 1..L, or a family that cannot be read only.
    """

    late: ClassVar[bool] = False
    # Whether it begins above layer 1 by default, so that there is a trunk to cache.
    reads_once: ClassVar[bool] = False
    # Whether runs have it read-only, on backbones that can, unless `lpt.read_only` says otherwise.
    trains_backbone: ClassVar[bool] = False
    # Whether the backbone's own weights are trained, which takes float32.
    only_in_training: ClassVar[tuple[str, ...]] = ()
    # Settings without which a trained method is the same.
    starts_from: ClassVar[tuple[str, ...]] = ()
    # Values of `generator.init` that it takes itself; otherwise its generator says.

    def __init__(
        self,
        model: Any,
        layer: int | None = None,
        read_only: bool = False,
        backbone_dropout: bool = False,
        trunk_dropout: bool = False,
    ):
        super().__init__()
        layers = num_layers(model.config)
        layer = resolve_layer(layer, self.default_layer(layers), layers, name_of(model.config))
        self.read_only = read_only
        self.backbone = SplitBackbone(model, layer, trunk_dropout, backbone_dropout)
        if read_only:
            self.backbone.keep_twins(copy_weights=self.trains_backbone)
        self.train(self.backbone.training)

    @classmethod
    def default_layer(cls, num_layers: int) -> int:
        """The method's own choice of k in a model of L layers: L // 2 + 1 if it is `late`, else 1."""
        return middle_layer(num_layers) if cls.late else 1

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None, readout_position: Tensor) -> Tensor:
        """Vocabulary logits at the read-out position, `[B, V]`.

        Args:
            input_ids: `[B, T]`.
            attention_mask: `[B, T]`, 1 at tokens, 0 at padding (left or right); None: nothing is padded.
            readout_position: `[B]`, index of the mask token (encoders) or of the last context token (decoders).

        Raises:
            LptError: the text is longer than the backbone allows, or the backbone has no LM head.
        """
        return self.from_context(self.read(input_ids, attention_mask), readout_position)

    def from_trunk(self, h_BTH: Tensor, attention_mask: Tensor | None, readout_position: Tensor) -> Tensor:
        """Vocabulary logits at the read-out position, `[B, V]`, from the states entering layer k. Errors as below."""
        return self.from_context(Context(h_BTH, attention_mask), readout_position)

    def from_context(self, context: Context, readout_position: Tensor) -> Tensor:
        """Vocabulary logits at the read-out position, `[B, V]`, from what `read` gives.

        Raises:
            LptError: the backbone has no LM head.
        """
        return self._logits(self.read_out(context, readout_position))

    def trunk(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """States entering layer k, `[B, T, H]`: tokens only, without gradient."""
        backbone = self.backbone
        if backbone.train_embeddings:  # nothing is frozen, then, and k = 1
            return backbone.embed(input_ids, attention_mask)
        # As the cache computes them: also where what stands above runs under autocast.
        with torch.no_grad(), torch.autocast(input_ids.device.type, enabled=False):
            h_BTH = backbone.embed(input_ids, attention_mask)
            return backbone.run(h_BTH, attention_mask, first=1, last=backbone.layer - 1)

    def read(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Context:
        """Everything that the layers above need of the text, without gradient."""
        return self.read_on(Context(self.trunk(input_ids, attention_mask), attention_mask))

    def read_on(self, context: Context) -> Context:
        """The same context; of a method that is read-only with the keys and values of layers k..L, if it has none."""
        if not self.read_only or context.keys_values is not None:
            return context
        return context._replace(keys_values=self.backbone.read(context.states, context.attention_mask))

    def generate(self, h_BTH: Tensor, attention_mask: Tensor | None, readout_position: Tensor) -> Tensor:
        """The prompt for each row, `[B, P, H]`, from the states entering layer k. Here it is empty: P = 0."""
        return h_BTH.new_empty(h_BTH.shape[0], 0, h_BTH.shape[2])

    def entering(self, attention_mask: Tensor | None, readout_position: Tensor) -> Entering | None:
        """What enters each of the layers k..L instead of what leaves the one below; None: nothing else."""
        return None

    def upper(
        self,
        p_BPH: Tensor,
        h_BTH: Tensor,
        attention_mask: Tensor | None,
        position: Tensor | None = None,
        entering: Entering | None = None,
    ) -> Tensor:
        """States leaving layer L at the tokens, `[B, T, H]`, or at some of them: layers k..L over `[prompt ; tokens]`.

        Args:
            position: the tokens to give, `[B]` or `[B, Q]`, and so the result's shape: `[B, H]` or `[B, Q, H]`. Layer
                L is computed for these alone: the loss reads no other.
            entering: what enters each layer.
        """
        backbone, prompt_length = self.backbone, p_BPH.shape[1]
        k, last = backbone.layer, backbone.num_layers
        h_BSH = torch.cat([p_BPH.to(h_BTH.dtype), h_BTH], dim=1)
        if position is None:
            return backbone.run(h_BSH, attention_mask, k, last, prompt_length, entering)[:, prompt_length:]
        h_BSH = backbone.run(h_BSH, attention_mask, k, last - 1, prompt_length, entering)
        return backbone.run_at(h_BSH, attention_mask, position, prompt_length, entering)

    def over(self, p_BPH: Tensor, context: Context, position: Tensor, entering: Entering | None = None) -> Tensor:
        """States leaving layer L at some tokens of a text that does not see the prompt; shapes as for `upper`."""
        position_BQ = position[:, None] if position.ndim == 1 else position
        o_BQH = self.backbone.run_over(p_BPH, self.read_on(context), position_BQ, entering)
        return o_BQH[:, 0] if position.ndim == 1 else o_BQH

    def read_out(self, context: Context, readout_position: Tensor, num_extra_positions: int = 0) -> Tensor:
        """Finished state at the read-out position, `[B, H]`, from what `read` gives; heads score it.

        With `num_extra_positions`, at so many positions behind it too: `[B, 1 + num_extra_positions, H]`.
        """
        h_BTH, attention_mask, _ = context
        p_BPH = self.generate(h_BTH, attention_mask, readout_position)
        position = readout_position
        if num_extra_positions:
            position = readout_position[:, None] + torch.arange(1 + num_extra_positions, device=h_BTH.device)
        entering = self.entering(attention_mask, readout_position)
        if self.read_only:
            return self.backbone.finish(self.over(p_BPH, context, position, entering))
        return self.backbone.finish(self.upper(p_BPH, h_BTH, attention_mask, position, entering))

    def active_tokens(self, length: float) -> float:
        """Tokens that pass through layers k..L in a training step, for a text of `length` tokens."""
        return self.prompt_length + (1 if self.read_only else length)

    @property
    def prompt_length(self) -> int:
        """P, prompt tokens that enter layer k."""
        generator = getattr(self, "generator", None)
        return 0 if generator is None else int(generator.prompt_length)

    def token_logits(self, input_ids: Tensor, attention_mask: Tensor | None, readout_position: Tensor) -> Tensor:
        """Vocabulary logits at every token, `[B, T, V]`; none at the prompt's. Arguments and errors as of `forward`.

        Raises:
            LptError: also of a method that is read-only, whose tokens do not see its prompt.
        """
        if self.read_only:
            raise LptError("token_logits: with read_only=True the read-out token alone sees the prompt; use forward")
        h_BTH = self.trunk(input_ids, attention_mask)
        p_BPH = self.generate(h_BTH, attention_mask, readout_position)
        entering = self.entering(attention_mask, readout_position)
        return self._logits(self.backbone.finish(self.upper(p_BPH, h_BTH, attention_mask, None, entering)))

    def _logits(self, z: Tensor) -> Tensor:
        if not self.backbone.has_lm_head:
            raise LptError(f"{self.backbone.name} has no language-model head: read states with read_out instead")
        return self.backbone.vocabulary_logits(z)


@register_method("lpt")
class LatePromptModel(LateMethod):
    """A frozen backbone with a late prompt.

    Args:
        model: a Hugging Face model (`AutoModelForMaskedLM` or `AutoModelForCausalLM`); it is frozen.
        layer: k, 1..L, the first layer that sees the prompt; None is L // 2 + 1. 1 is an input prompt.
        prompt_length: P.
        generator: a name of `lpt.generators.GENERATORS`: such as `npg`, `appg`, `mppg` or `none`.
        bottleneck: m, the generator's inner size.
        normalize: have the generator read and write in units of the states' size.
        dropout: on the generator's output; None is the backbone's hidden-dropout rate with `backbone_dropout`, else 0.
        generator_options: parameters that this generator has of its own.
        late: `read_only`, `backbone_dropout` and `trunk_dropout`, as of `LateMethod`.

    Raises:
        LptError: as `LateMethod`; unknown generator, or a size below 1.
    """

    late = True
    reads_once = True
    only_in_training = ("dropout",)

    def __init__(
        self,
        model: Any,
        layer: int | None = None,
        prompt_length: int = 5,
        generator: str = "npg",
        bottleneck: int = 128,
        normalize: bool = False,
        dropout: float | None = None,
        generator_options: dict[str, Any] | None = None,
        **late: Any,
    ):
        super().__init__(model, layer, **late)
        if dropout is None:
            dropout = self.backbone.hidden_dropout if self.backbone.dropout else 0.0
        sizes = (self.backbone.hidden_size, prompt_length, bottleneck)
        self._new_generator = partial(
            build_generator, generator, *sizes, dropout, normalize, **(generator_options or {})
        )
        self.generator = self._new_generator().to(model.device)
        self.train(self.backbone.training)

    def generate(self, h_BTH: Tensor, attention_mask: Tensor | None, readout_position: Tensor) -> Tensor:
        """The prompt that the generator writes for each row, `[B, P, H]`, from the states entering layer k."""
        summary_B, pooled_BT = self.context(h_BTH, attention_mask, readout_position)
        p_BPH: Tensor = self.generator(h_BTH, summary_B, pooled_BT)
        return p_BPH

    def context(self, h_BTH: Tensor, attention_mask: Tensor | None, readout_position: Tensor) -> tuple[Tensor, Tensor]:
        """What the generator may read: the summary token's index `[B]` and the tokens to pool, bool `[B, T]`.

        Encoders: the first token, and all attended ones. Decoders: the last context token, and the tokens before
        it (the paper's code); a context of a single token pools that one.
        """
        attended_BT = h_BTH.new_ones(h_BTH.shape[:2]).bool() if attention_mask is None else attention_mask.bool()
        if not self.backbone.causal:
            return attended_BT.int().argmax(1), attended_BT
        index_T, last_B1 = torch.arange(h_BTH.shape[1], device=h_BTH.device), readout_position[:, None]
        before_BT = attended_BT & (index_T < last_B1)
        alone_B1 = ~before_BT.any(1, keepdim=True)
        return readout_position, before_BT | (alone_B1 & (index_T == last_B1))
