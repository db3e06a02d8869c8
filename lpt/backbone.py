"""A frozen Hugging Face model, split at layer k. Where transformers keeps things, `lpt.families` knows.

    input_ids -> embed -> layers 1..k-1 (the trunk) -> [prompt ; tokens] -> layers k..L -> finish -> vocabulary

Shapes: B batch, T tokens, P prompt length, S = P + T, H hidden size, V vocabulary.
"""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from operator import attrgetter
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lpt.dropout import CheapDropout
from lpt.errors import LptError
from lpt.families import family_of

ATTENTION_DROPOUT = ("attention_probs_dropout_prob", "attn_pdrop", "attention_dropout")  # as configs call it


class SplitBackbone(nn.Module):
    """A frozen model split before layer k: `trunk` below, `upper` from k on, `finish` and the vocabulary.

    Frozen means frozen: no parameter requires a gradient, and `train()` leaves the trunk in eval mode
    unless `trunk_dropout`.

    Args:
        model: `AutoModelForMaskedLM`, `AutoModelForCausalLM`, or the same without an LM head.
        layer: k, 1..L; None is L // 2 + 1, the paper's choice.
        trunk_dropout: dropout also below layer k, as the paper's code has it.

    Raises:
        LptError: unknown family, layer outside 1..L, or an attention implementation that is not among the family's.
    """

    def __init__(self, model: Any, layer: int | None = None, trunk_dropout: bool = False):
        super().__init__()
        self.family = family_of(model.config)
        self.model = model.requires_grad_(False)
        self.trunk_dropout, self.compiled = trunk_dropout, False
        self.layer = default_layer(self.num_layers) if layer is None else layer
        check_layer(self.layer, self.num_layers, self.name)
        if self.attention not in self.family.attentions:
            raise LptError(
                f"the backbone {self.name} was loaded with attn_implementation={self.attention!r}; "
                f"load it with {_one_of(self.family.attentions)}"
            )
        self.train(model.training)  # `from_pretrained` gives models in eval mode

    # What the backbone is

    @property
    def config(self) -> Any:
        return self.model.config

    @property
    def base(self) -> Any:
        return self.model.base_model

    @property
    def layers(self) -> nn.ModuleList:
        layers = attrgetter(self.family.layers)(self.base)
        if not self.family.shared:
            return layers
        count = self.config.num_hidden_layers
        return nn.ModuleList(layers[i * len(layers) // count] for i in range(count))

    @property
    def num_layers(self) -> int:
        return len(self.layers)

    @property
    def name(self) -> str:
        return self.config.name_or_path or self.config.model_type

    @property
    def attention(self) -> str:
        return self.config._attn_implementation

    @property
    def causal(self) -> bool:
        return self.family.causal

    @property
    def hidden_size(self) -> int:
        return self.config.hidden_size

    @property
    def finished_size(self) -> int:
        """Size of finished states: H, but for families whose LM head reads less."""
        return self.family.projection(self.model)[0].shape[1] if self.has_lm_head else self.hidden_size

    @property
    def hidden_dropout(self) -> float:
        return getattr(self.config, self.family.dropout) if self.family.dropout else 0.0

    @property
    def attention_dropout(self) -> float:
        return next((rate for name in ATTENTION_DROPOUT if (rate := getattr(self.config, name, None)) is not None), 0.0)

    @property
    def max_length(self) -> int:
        """Most tokens that the backbone's positions allow."""
        return max_length(self.config)

    @property
    def has_lm_head(self) -> bool:
        return self.model.get_output_embeddings() is not None

    def train(self, mode: bool = True) -> "SplitBackbone":
        super().train(mode)
        self.model.train(mode and self.trunk_dropout)
        for layer in self.layers[self.layer - 1 :]:
            layer.train(mode)
        return self

    def use_attention(self, attention: str) -> None:
        """Compute attention this way from now on: one of the family's `attentions`.

        Raises:
            LptError: it is none of them.
        """
        if attention not in self.family.attentions:
            raise LptError(f"{self.name} computes attention by {_one_of(self.family.attentions)}, not {attention}")
        self.model.set_attn_implementation(attention)

    def compile(self, *args: Any, **kwargs: Any) -> None:
        """Have `torch.compile` fuse what is elementwise in layers k..L; arguments as for `torch.compile`."""
        for layer in self.layers[self.layer - 1 :]:
            layer.compile(*args, **kwargs)
        self.compiled = True

    # The forward pass, in order

    def embed(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """States entering layer 1, `[B, T, H]`. Positions count attended tokens, so padding moves nothing.

        Raises:
            LptError: more tokens than the backbone's positions allow.
        """
        if input_ids.shape[1] > self.max_length:  # padding may be wider, text may not
            longest = input_ids.shape[1] if attention_mask is None else int(attention_mask.sum(1).max())
            if longest > self.max_length:
                raise LptError(
                    f"a text of {longest} tokens is longer than {self.name} allows ({self.max_length}); "
                    "truncate it first"
                )
        return self.family.embed(self.base, input_ids, token_positions(input_ids, attention_mask))

    def run(
        self,
        h_BSH: Tensor,
        attention_mask: Tensor | None,
        first: int,
        last: int,
        prompt_length: int = 0,
    ) -> Tensor:
        """Layers `first`..`last` (1-based, both included) over `[prompt ; tokens]`.

        Args:
            h_BSH: `[B, P + T, H]`.
            attention_mask: `[B, T]`, tokens only: the prompt is always attended. None: nothing is padded.
            prompt_length: P; 0 where no prompt has entered yet.

        Returns:
            `[B, P + T, H]`.
        """
        positions_BS, extra = self._positions(h_BSH, attention_mask, prompt_length)
        masks: dict[int | None, Tensor | None] = {}  # by sliding window: most models need just one
        layers = self.layers
        if self.family.shared:  # what is trunk and what is not may be the same modules
            layers.train(self.training and (first >= self.layer or self.trunk_dropout))
        with self._dropout():
            for index in range(first - 1, last):
                window = self.family.window(self.config, index)
                if window not in masks:
                    masks[window] = self._mask(h_BSH, attention_mask, positions_BS, prompt_length, window)
                h_BSH = self.family.call(layers[index], h_BSH, masks[window], **self._of_layer(index, extra))
        return h_BSH

    @torch.no_grad()
    def trunk(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """States entering layer k, `[B, T, H]`: tokens only, no gradient, nothing kept for one."""
        return self.run(self.embed(input_ids, attention_mask), attention_mask, 1, self.layer - 1)

    def upper(self, prompt_BPH: Tensor, h_BTH: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """Layers k..L over `[prompt ; tokens]`; returns the tokens' states, `[B, T, H]`."""
        prompt_length = prompt_BPH.shape[1]
        h_BSH = torch.cat([prompt_BPH.to(h_BTH.dtype), h_BTH], dim=1)
        return self.run(h_BSH, attention_mask, self.layer, self.num_layers, prompt_length)[:, prompt_length:]

    def upper_at(self, prompt_BPH: Tensor, h_BTH: Tensor, attention_mask: Tensor | None, position_B: Tensor) -> Tensor:
        """`upper` at one token of each row, `[B, H]`.

        The loss reads nothing else, so of layer L only that token's query, output projection and feed-forward are
        computed; the other tokens give keys and values alone.
        """
        prompt_length = prompt_BPH.shape[1]
        h_BSH = torch.cat([prompt_BPH.to(h_BTH.dtype), h_BTH], dim=1)
        h_BSH = self.run(h_BSH, attention_mask, self.layer, self.num_layers - 1, prompt_length)
        positions_BS, extra = self._positions(h_BSH, attention_mask, prompt_length)
        layer, window = self.layers[-1], self.family.window(self.config, self.num_layers - 1)
        extra = self._of_layer(self.num_layers - 1, extra)
        rows_B, at_B = torch.arange(len(h_BSH), device=h_BSH.device), position_B + prompt_length
        if self.family.keys_values is None or self.family.cache is None:
            mask = self._mask(h_BSH, attention_mask, positions_BS, prompt_length, window)
            with self._dropout():
                return self.family.call(layer, h_BSH, mask, **extra)[rows_B, at_B]
        given = {self.family.cache: _Given(*self.family.keys_values(layer, h_BSH, extra))}
        mask = self._mask(h_BSH, attention_mask, positions_BS, prompt_length, window, at_B)
        if "position_embeddings" in extra:
            extra = {"position_embeddings": tuple(x[rows_B, at_B][:, None] for x in extra["position_embeddings"])}
        with self._dropout():
            return self.family.call(layer, h_BSH[rows_B, at_B][:, None], mask, **given, **extra)[:, 0]

    def finish(self, h: Tensor) -> Tensor:
        """Final norm and LM-head transform of any states `[..., H]`: what the vocabulary projection reads."""
        norm = attrgetter(self.family.final_norm)(self.base) if self.family.final_norm else None
        if norm is not None:
            h = norm(h)
        if self.family.lm_transform and self.has_lm_head:
            h = self.family.lm_transform(self.model, h)
        return h

    def vocabulary_logits(self, z: Tensor, token_ids: Tensor | None = None) -> Tensor:
        """Logits `[..., V]` of finished states `[..., H]`; with `token_ids [C]` of these tokens only, `[..., C]`."""
        weight, bias = self.family.projection(self.model)
        if token_ids is not None:
            weight, bias = weight[token_ids], None if bias is None else bias[token_ids]
        logits = F.linear(z, weight, bias)
        cap = getattr(self.config, "final_logit_softcapping", None)
        return logits if cap is None else cap * torch.tanh(logits / cap)

    def _dropout(self) -> AbstractContextManager[Any]:
        """Cheap masks where a layer is going to draw some; compiled layers draw their own."""
        drops = self.training and not self.compiled and max(self.hidden_dropout, self.attention_dropout) > 0
        return CheapDropout() if drops else nullcontext()

    # Positions and masks

    def _positions(
        self, h_BSH: Tensor, attention_mask: Tensor | None, prompt_length: int
    ) -> tuple[Tensor, dict[str, Any]]:
        """Prompt rows take 0..P-1, attended tokens follow from P, `[B, S]`; and what layers want to know of that."""
        prompt_BP = torch.arange(prompt_length, device=h_BSH.device).expand(len(h_BSH), -1)
        tokens_BT = token_positions(h_BSH[:, prompt_length:, 0], attention_mask)
        positions_BS = torch.cat([prompt_BP, tokens_BT + prompt_length], dim=1)
        if self.family.relative is not None:
            attended_BS = None if attention_mask is None else F.pad(attention_mask, (prompt_length, 0), value=1).bool()
            return positions_BS, self.family.relative(self.base, positions_BS, attended_BS)
        if self.family.rotary is None:
            return positions_BS, {}
        rotary = attrgetter(self.family.rotary)(self.base)
        kinds = getattr(rotary, "layer_types", None)  # some families turn faster in layers with a window
        if kinds is None:
            return positions_BS, {"position_embeddings": rotary(h_BSH, position_ids=positions_BS)}
        by_kind = {kind: rotary(h_BSH, position_ids=positions_BS, layer_type=kind) for kind in kinds}
        return positions_BS, {"position_embeddings": by_kind}

    def _of_layer(self, index: int, extra: dict[str, Any]) -> dict[str, Any]:
        """What the layer with this 0-based index wants to know of `extra`, where that differs by kind of layer."""
        return {
            name: value[self.config.layer_types[index]] if isinstance(value, dict) else value
            for name, value in extra.items()
        }

    def _mask(
        self,
        h_BSH: Tensor,
        attention_mask: Tensor | None,
        positions_BS: Tensor,
        prompt_length: int,
        window: int | None,
        query_B: Tensor | None = None,
    ) -> Tensor | None:
        """What a layer's attention expects, for every query or for one of each row (`query_B`).

        Boolean for sdpa, additive for eager; None where it can do without.
        """
        batch, total, _ = h_BSH.shape
        own_causal_mask = self.attention == "sdpa" and query_B is None
        if attention_mask is None and window is None and (not self.causal or own_causal_mask):
            return None
        device = h_BSH.device
        allowed_BQS = torch.ones(batch, 1, total, dtype=torch.bool, device=device)
        if attention_mask is not None:
            allowed_BQS[:, 0, prompt_length:] = attention_mask.bool()
        if self.causal or window is not None:
            key_S = torch.arange(total, device=device)
            query_BQ1 = key_S[None, :, None] if query_B is None else query_B[:, None, None]
            if self.causal:
                allowed_BQS = allowed_BQS & (query_BQ1 >= key_S)
            if window is not None:
                position_BQ1 = positions_BS[:, :, None]
                if query_B is not None:
                    position_BQ1 = position_BQ1.gather(1, query_BQ1)
                near_BQS = (position_BQ1 - positions_BS[:, None, :]).abs() < window
                allowed_BQS = allowed_BQS & (near_BQS | (key_S < prompt_length))  # the prompt is always attended
            # A padding row that sees nothing would be all minus infinity, and NaN: let it see itself.
            allowed_BQS = allowed_BQS | (query_BQ1 == key_S)
        mask_B1QS = allowed_BQS[:, None]
        if self.attention == "sdpa":
            return mask_B1QS
        lowest = torch.finfo(h_BSH.dtype).min
        return torch.zeros(mask_B1QS.shape, dtype=h_BSH.dtype, device=device).masked_fill_(~mask_B1QS, lowest)


class _Given:
    """Stands where transformers expects a key / value cache: all keys and values are known already."""

    def __init__(self, keys: Tensor, values: Tensor):
        self.keys, self.values = keys, values

    def update(self, keys: Tensor, values: Tensor, layer_idx: int, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        return self.keys, self.values


def token_positions(tokens_BT: Tensor, attention_mask: Tensor | None) -> Tensor:
    """Position of each token among its row's attended ones, from 0, `[B, T]`; padding gets a harmless one."""
    if attention_mask is None:
        return torch.arange(tokens_BT.shape[1], device=tokens_BT.device).expand(len(tokens_BT), -1)
    return (attention_mask.long().cumsum(1) - 1).clamp(min=0)


def default_layer(num_layers: int) -> int:
    """The paper's prompt layer: 13 of 24, 19 of 36, 16 of 30."""
    return num_layers // 2 + 1


def check_layer(layer: int, num_layers: int, name: str) -> None:
    """Raises LptError, naming backbone and L, unless `layer` is one of 1..L."""
    if not 1 <= layer <= num_layers:
        raise LptError(
            f"lpt.layer={layer} does not exist: {name} has L={num_layers} layers; choose 1..{num_layers} "
            f"(1 is an input prompt, the default is {default_layer(num_layers)})"
        )


def max_length(config: Any) -> int:
    """Most tokens that the positions of a Hugging Face config allow."""
    return config.max_position_embeddings - family_of(config).first_position(config)


def _one_of(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"one of {', '.join(names)}"
