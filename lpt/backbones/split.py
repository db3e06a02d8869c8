"""A frozen Hugging Face model whose layers are called one by one, divided before layer k.

    embed -> layers 1..k-1 | layers k..L over [prompt ; tokens] -> finish -> vocabulary logits

What of it is computed when is the method's affair (`lpt.late_prompt`); where transformers keeps things,
`lpt.backbones.families` knows; who sees whom, `lpt.backbones.masks`.

Shapes: B batch, T tokens, P prompt length, S = P + T, H hidden size, V vocabulary, C classes, Q queries.
"""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from operator import attrgetter
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

import lpt.backbones.attention  # noqa: F401  (transformers learns of `lean`)
from lpt.backbones.dropout import CheapDropout
from lpt.backbones.families import family_of, max_length, name_of, num_layers
from lpt.backbones.masks import Visibility, additive, positions_with_prompt, token_positions, with_prompt
from lpt.backbones.names import SDPA
from lpt.backbones.prefix import Known, Prefix
from lpt.errors import LptError

ATTENTION_DROPOUT = ("attention_probs_dropout_prob", "attn_pdrop", "attention_dropout")  # as configs call it


class SplitBackbone(nn.Module):
    """A frozen model, divided before layer k.

    Frozen means frozen: no parameter requires a gradient until a method says so of layers k..L, and `train()` leaves
    the trunk, layers 1..k-1, in eval mode unless `trunk_dropout`.

    Args:
        model: `AutoModelForMaskedLM`, `AutoModelForCausalLM`, or the same without an LM head.
        layer: k, 1..L (`lpt.backbones.layers.resolve_layer`); 1 leaves no trunk.
        trunk_dropout: dropout also below layer k, as the paper's code has it.

    Attributes:
        train_embeddings: what embeds is trained too, so that even the states entering layer 1 have a gradient.
        prefix: keys and values that every layer from k on finds in front of its own; None, or a `Prefix`.
        compiled: layers k..L are compiled by `torch.compile`.

    Raises:
        LptError: unknown family, or an attention implementation that is not among the family's.
    """

    def __init__(self, model: Any, layer: int = 1, trunk_dropout: bool = False):
        super().__init__()
        self.family = family_of(model.config)
        self.model = model.requires_grad_(False)
        self.layer, self.trunk_dropout = layer, trunk_dropout
        self.compiled = self.train_embeddings = False
        self.prefix: Prefix | None = None
        if self.attention not in self.family.attentions:
            raise LptError(
                f"the backbone {self.name} was loaded with attn_implementation={self.attention!r}; "
                f"load it with {_one_of(self.family.attentions)}"
            )
        self.train(model.training)  # `from_pretrained` gives models in eval mode

    # What the backbone is

    @property
    def config(self) -> Any:
        """Configuration of the Hugging Face model."""
        return self.model.config

    @property
    def base(self) -> Any:
        """Model without its LM head."""
        return self.model.base_model

    @property
    def layers(self) -> nn.ModuleList:
        """Layers 1..L, in order; a layer whose weights serve several depths appears once for each."""
        layers: nn.ModuleList = attrgetter(self.family.layers)(self.base)
        if not self.family.shared:
            return layers
        count = self.config.num_hidden_layers
        return nn.ModuleList(layers[i * len(layers) // count] for i in range(count))

    @property
    def num_layers(self) -> int:
        """L, the number of layers."""
        return num_layers(self.config)

    @property
    def name(self) -> str:
        """Name of the backbone, for messages."""
        return name_of(self.config)

    @property
    def attention(self) -> str:
        """Implementation of attention in use, by transformers' name, such as `eager` or `sdpa`."""
        attention: str = self.config._attn_implementation
        return attention

    @property
    def causal(self) -> bool:
        """Whether the backbone is a decoder, whose tokens see none that come later."""
        return self.family.causal

    @property
    def hidden_size(self) -> int:
        """H, the size of a hidden state."""
        size: int = self.config.hidden_size
        return size

    @property
    def finished_size(self) -> int:
        """Size of finished states: H, but for families whose LM head reads less."""
        return self.family.projection(self.model)[0].shape[1] if self.has_lm_head else self.hidden_size

    @property
    def hidden_dropout(self) -> float:
        """Dropout rate on hidden states; 0 for families without one."""
        return getattr(self.config, self.family.dropout) if self.family.dropout else 0.0

    @property
    def attention_dropout(self) -> float:
        """Dropout rate on attention weights; 0 for families without one."""
        return next((rate for name in ATTENTION_DROPOUT if (rate := getattr(self.config, name, None)) is not None), 0.0)

    @property
    def max_length(self) -> int:
        """Most tokens that the backbone's positions allow."""
        return max_length(self.config)

    @property
    def has_lm_head(self) -> bool:
        """Whether the model has a language-model head."""
        return self.model.get_output_embeddings() is not None

    @property
    def upper_layers(self) -> list[nn.Module]:
        """Layers k..L."""
        return list(self.layers)[self.layer - 1 :]

    @property
    def final_norm(self) -> nn.Module | None:
        """The norm after layer L, outside it; of some families not every model has one."""
        return attrgetter(self.family.final_norm)(self.base) if self.family.final_norm else None

    def own_layers(self) -> list[nn.Module]:
        """Layers k..L, each once, to be changed.

        Raises:
            LptError: layers from k on share their weights with those below.
        """
        upper = {id(layer): layer for layer in self.upper_layers}
        if any(id(layer) in upper for layer in self.layers[: self.layer - 1]):
            raise LptError(
                f"the layers of {self.name} share their weights, so layers {self.layer}..{self.num_layers} cannot "
                "differ from those below; begin at layer 1, or use a prompt (method=lpt)"
            )
        return list(upper.values())

    def linear_maps(self) -> list[tuple[str, nn.Module]]:
        """The linear maps inside layers k..L, each with its name in the model.

        Raises:
            LptError: as `own_layers`.
        """
        inside = {id(module) for layer in self.own_layers() for module in layer.modules()}
        named = self.model.named_modules()
        return [(n, m) for n, m in named if id(m) in inside and isinstance(m, nn.Linear | Conv1D)]

    def trainable_modules(self) -> list[nn.Module]:
        """What may be trained of the model itself: layers k..L, the final norm, the LM head below the projection.

        If `train_embeddings`, what embeds too. The vocabulary projection stays, unless it is the embedding.

        Raises:
            LptError: as `own_layers`.
        """
        if self.train_embeddings:
            modules = [module for name, module in self.base.named_children() if name != "pooler"]
        else:
            modules = self.own_layers()
            if self.final_norm is not None:
                modules.append(self.final_norm)
        base, projection = set(self.base.modules()), self.model.get_output_embeddings()
        head = (m for m in self.model.modules() if m not in base and m is not projection and not list(m.children()))
        return [*modules, *head]

    @property
    def varying_trunk(self) -> str | None:
        """Why the states entering layer k are not worth keeping; None: they are constants of the example."""
        if self.train_embeddings:
            return "the embeddings are trained too"
        if self.trunk_dropout:
            return "lpt.trunk_dropout=true makes the trunk's states differ at every step"
        return "nothing but the embedding stands below layer 1" if self.layer == 1 else None

    def train(self, mode: bool = True) -> "SplitBackbone":
        """Set the mode of layers k..L; the trunk follows with `trunk_dropout` or `train_embeddings`."""
        super().train(mode)
        self.model.train(mode and (self.trunk_dropout or self.train_embeddings))
        for layer in self.upper_layers:
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
        for layer in self.upper_layers:
            layer.compile(*args, **kwargs)
        self.compiled = True

    # The forward pass, in order

    def embed(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """States entering layer 1, `[B, T, H]`. Positions count attended tokens, so padding moves nothing.

        Raises:
            LptError: more tokens than the backbone's positions allow.
        """
        if input_ids.shape[1] > self.max_length:  # padding may be wider, text may not
            longest = int(token_positions(input_ids, attention_mask).max()) + 1
            if longest > self.max_length:
                raise LptError(
                    f"a text of {longest} tokens is longer than {self.name} allows ({self.max_length}); "
                    "truncate it first"
                )
        return self.family.embed(self.base, input_ids, token_positions(input_ids, attention_mask))

    def run(
        self, h_BSH: Tensor, attention_mask: Tensor | None, first: int, last: int, prompt_length: int = 0
    ) -> Tensor:
        """States leaving layer `last`, `[B, P + T, H]`, of `[prompt ; tokens]` entering layer `first`.

        Args:
            h_BSH: `[B, P + T, H]`.
            attention_mask: `[B, T]`, tokens only (`lpt.backbones.masks`). None: nothing is padded.
            first: from 1, included.
            last: up to L, included; the states come back as they are if it is `first - 1`.
            prompt_length: P; 0 where no prompt has entered yet.
        """
        prefix = self.prefix if first >= self.layer else None
        seen = self._visibility(h_BSH, attention_mask, prompt_length, prefix)
        arguments = self._position_arguments(h_BSH, seen)
        masks: dict[int | None, Tensor | None] = {}  # by sliding window: most models need just one
        layers = self.layers
        if self.family.shared:  # what is trunk and what is not may be the same modules
            layers.train(self.training and (first >= self.layer or self.trunk_dropout))
        with self._dropout():
            for index in range(first - 1, last):
                window = self.family.window(self.config, index)
                if window not in masks:
                    masks[window] = self._mask(replace(seen, window=window), h_BSH.dtype)
                given = self._of_layer(index, arguments)
                if prefix is not None:
                    given[self.family.cache] = prefix.before(index, h_BSH)
                h_BSH = self.family.call(layers[index], h_BSH, masks[window], **given)
        return h_BSH

    def run_at(self, h_BSH: Tensor, attention_mask: Tensor | None, position: Tensor, prompt_length: int = 0) -> Tensor:
        """States leaving layer L at one token of each row, `[B, H]`, or at several, `[B, Q, H]`.

        Queries, output projections and the feed-forward network are computed for these tokens alone; the others give
        keys and values. Where the family does not tell them (`Family.keys_values`), everything is computed.

        Args:
            h_BSH: `[B, P + T, H]`, entering layer L.
            attention_mask: as for `run`.
            position: `[B]` or `[B, Q]`, indices of tokens, the prompt not counted.
            prompt_length: P.
        """
        index, layer, prefix = self.num_layers - 1, self.layers[-1], self.prefix
        seen = self._visibility(h_BSH, attention_mask, prompt_length, prefix)
        given = self._of_layer(index, self._position_arguments(h_BSH, seen))
        seen = replace(seen, window=self.family.window(self.config, index))
        row_B1 = torch.arange(len(h_BSH), device=h_BSH.device)[:, None]
        query_BQ = position.view(len(h_BSH), -1) + prompt_length
        if self.family.keys_values is None:
            with self._dropout():
                out_BQH = self.family.call(layer, h_BSH, self._mask(seen, h_BSH.dtype), **given)[row_B1, query_BQ]
        else:
            known = Known(*self.family.keys_values(layer, h_BSH, given))
            if prefix is not None:
                known = prefix.before(index, h_BSH).and_then(known)
            if "position_embeddings" in given:
                given["position_embeddings"] = tuple(x[row_B1, query_BQ] for x in given["position_embeddings"])
            given[self.family.cache] = known
            mask = self._mask(replace(seen, queries=query_BQ), h_BSH.dtype)
            with self._dropout():
                out_BQH = self.family.call(layer, h_BSH[row_B1, query_BQ], mask, **given)
        return out_BQH[:, 0] if position.ndim == 1 else out_BQH

    def finish(self, h: Tensor) -> Tensor:
        """Final norm and LM-head transform of any states `[..., H]`: what the vocabulary projection reads."""
        if self.final_norm is not None:
            h = self.final_norm(h)
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

    def add_prefix(self, length: int) -> None:
        """Have layers k..L find `length` trained keys and values in front of their own (`Prefix`).

        Raises:
            LptError: the family's layers cannot be given keys and values.
        """
        heads, head_size = self._key_value_shape()
        prefix = Prefix(self.layer, len(self.upper_layers), heads, length, head_size)
        self.prefix = prefix.to(self.model.device)

    def _key_value_shape(self) -> tuple[int, int]:
        """Key-value heads g and head size d of a layer."""
        if self.family.keys_values is None:
            raise LptError(
                f"{self.name} ({self.config.model_type}) cannot have prefixes: its family in "
                "lpt/backbones/families.py does not tell keys and values; use another method, such as method=lpt"
            )
        h_11H = torch.zeros(1, 1, self.hidden_size, dtype=self.model.dtype, device=self.model.device)
        arguments = self._position_arguments(h_11H, self._visibility(h_11H, None, 0, None))
        with torch.no_grad():
            keys, _ = self.family.keys_values(self.layers[-1], h_11H, self._of_layer(self.num_layers - 1, arguments))
        return keys.shape[1], keys.shape[3]

    # What layers want to know besides the states

    def _visibility(
        self, h_BSH: Tensor, attention_mask: Tensor | None, prompt_length: int, prefix: Prefix | None
    ) -> Visibility:
        prefix_length = 0 if prefix is None else prefix.length
        positions_BS = positions_with_prompt(h_BSH[:, prompt_length:, 0], attention_mask, prompt_length, prefix_length)
        return Visibility(attention_mask, positions_BS, prompt_length, self.causal, prefix_length=prefix_length)

    def _position_arguments(self, h_BSH: Tensor, seen: Visibility) -> dict[str, Any]:
        """Rotary or relative positions as layers take them; a dict by kind of layer where kinds differ."""
        if self.family.relative is not None:
            mask = seen.attention_mask
            attended_BS = None if mask is None else with_prompt(mask, seen.prompt_length).bool()
            return self.family.relative(self.base, seen.positions, attended_BS)
        if self.family.rotary is None:
            return {}
        rotary = attrgetter(self.family.rotary)(self.base)
        kinds = getattr(rotary, "layer_types", None)  # some families turn faster in layers with a window
        if kinds is None:
            return {"position_embeddings": rotary(h_BSH, position_ids=seen.positions)}
        by_kind = {kind: rotary(h_BSH, position_ids=seen.positions, layer_type=kind) for kind in kinds}
        return {"position_embeddings": by_kind}

    def _of_layer(self, index: int, arguments: dict[str, Any]) -> dict[str, Any]:
        """The arguments of the layer with this 0-based index."""
        return {
            name: value[self.config.layer_types[index]] if isinstance(value, dict) else value
            for name, value in arguments.items()
        }

    def _mask(self, seen: Visibility, dtype: torch.dtype) -> Tensor | None:
        """The mask that a layer's attention expects, `[B, 1, Q, N + S]`; None where it needs none.

        Boolean for sdpa, which also masks plain causal attention itself; additive for the others.
        """
        if seen.everything or (self.attention == SDPA and seen.plain_causal):
            return None
        allowed_B1QS = seen.allowed()[:, None]
        return allowed_B1QS if self.attention == SDPA else additive(allowed_B1QS, dtype)


def _one_of(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"one of {', '.join(names)}"
