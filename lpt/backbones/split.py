"""A frozen Hugging Face model whose layers are called one by one, divided before layer k.

    embed -> layers 1..k-1 | layers k..L over [prompt ; tokens]                 -> finish -> vocabulary logits
                           | layers k..L over [prompt ; read-out token] alone, which see the text's keys and values

What of it is computed when is the method's affair (`lpt.late_prompt`); where transformers keeps things,
`lpt.backbones.families` knows; who sees whom, `lpt.backbones.masks`.

Shapes: B batch, T tokens, P prompt length, S = P + T, H hidden size, V vocabulary, C classes, Q queries.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from functools import partial
from itertools import pairwise
from operator import attrgetter
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

import lpt.backbones.attention  # noqa: F401  (transformers learns of `lean`)
from lpt.backbones.context import Context, frozen_twins
from lpt.backbones.dropout import CheapDropout
from lpt.backbones.families import families_with_keys_values, family_of, max_length, name_of, num_layers
from lpt.backbones.masks import ActiveVisibility, Visibility, positions_with_prompt, token_positions
from lpt.backbones.names import LEAN
from lpt.backbones.passes import Entering, Passes
from lpt.backbones.prefix import Known, Prefix, Recorder, Text
from lpt.errors import LptError

ATTENTION_DROPOUT = ("attention_probs_dropout_prob", "attn_pdrop", "attention_dropout")  # as configs call it


class SplitBackbone(nn.Module):
    """A frozen model, divided before layer k.

    Frozen means frozen: no parameter requires a gradient until a method says so of layers k..L, and `train()` leaves
    the model's own modules in eval mode unless `dropout` or `trunk_dropout`; what a method adds follows the mode.

    Args:
        model: `AutoModelForMaskedLM`, `AutoModelForCausalLM`, or the same without an LM head.
        layer: k, 1..L (`lpt.backbones.layers.resolve_layer`); 1 leaves no trunk.
        trunk_dropout: dropout below layer k while training, as the paper's code has it.
        dropout: dropout inside layers k..L while training, at the backbone's own rates.

    Attributes:
        twins: layers k..L as they were before a method changed them, to read texts with; None unless `keep_twins`.
        train_embeddings: what embeds is trained too, so that even the states entering layer 1 have a gradient.
        prefix: keys and values that every layer from k on finds in front of its own; None, or a `Prefix`.
        compiled: layers k..L are compiled by `torch.compile`.

    Raises:
        LptError: unknown family, or an attention implementation that is not among the family's.
    """

    def __init__(self, model: Any, layer: int = 1, trunk_dropout: bool = False, dropout: bool = False):
        super().__init__()
        self.family = family_of(model.config)
        self.model = model.requires_grad_(False)
        self.layer, self.trunk_dropout, self.dropout = layer, trunk_dropout, dropout
        self.twins: list[nn.Module] | None = None
        self._passes = Passes(self.family, self.model)
        upper = {id(module): module for layer in self.upper_layers for module in layer.modules()}
        self._upper_modules = list(upper.values())
        self._other_modules = [module for module in model.modules() if id(module) not in upper]
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
        nothing_below = self.layer == 1 and self.twins is None
        return "nothing but the embedding stands below layer 1" if nothing_below else None

    def train(self, mode: bool = True) -> "SplitBackbone":
        """Set the mode of what a method has added; the model's own modules drop nothing unless they are asked to."""
        super().train(mode)
        for modules, drops in self._own_modules():
            for module in modules:
                module.training = mode and drops
        return self

    def wrongly_in_train_mode(self) -> list[str]:
        """Names of the model's own modules that are in train mode, though they are to drop nothing."""
        quiet = {id(module) for modules, drops in self._own_modules() if not drops for module in modules}
        return [name or "the model" for name, m in self.model.named_modules() if m.training and id(m) in quiet]

    def _own_modules(self) -> list[tuple[list[nn.Module], bool]]:
        """The model's own modules below and above layer k, each with whether they drop anything while training."""
        below = self.trunk_dropout or (self.train_embeddings and self.dropout)
        return [(self._other_modules, below), (self._upper_modules, self.dropout)]

    def keep_twins(self, copy_weights: bool) -> None:
        """Keep layers k..L as they are now, to `read` texts with: called before a method changes them.

        Args:
            copy_weights: for methods that train the weights themselves.

        Raises:
            LptError: the family's layers cannot be given keys and values.
        """
        if self.family.keys_values is None:
            raise LptError(
                f"lpt.read_only=true: {self.name} ({self.config.model_type}) cannot be read once, since its layers "
                f"take no keys and values from outside; these can: {', '.join(families_with_keys_values())}. Remove "
                "it, or choose another backbone"
            )
        self.twins = frozen_twins(self.upper_layers, self.config, copy_weights)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "SplitBackbone":
        for twin in self.twins or ():  # not registered, or their weights would be listed twice
            twin._apply(fn, recurse)
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
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
        self,
        h_BSH: Tensor,
        attention_mask: Tensor | None,
        first: int,
        last: int,
        prompt_length: int = 0,
        entering: Entering | None = None,
    ) -> Tensor:
        """States leaving layer `last`, `[B, P + T, H]`, of `[prompt ; tokens]` entering layer `first`.

        Args:
            h_BSH: `[B, P + T, H]`.
            attention_mask: `[B, T]`, tokens only (`lpt.backbones.masks`). None: nothing is padded.
            first: from 1, included.
            last: up to L, included; the states come back as they are if it is `first - 1`.
            prompt_length: P; 0 where no prompt has entered yet.
            entering: what enters each of these layers (`lpt.backbones.passes`).
        """
        prefix = self.prefix if first >= self.layer else None
        seen = self._visibility(h_BSH, attention_mask, prompt_length, prefix)
        layers = self.layers
        if self.family.shared:  # what is trunk and what is not may be the same modules
            drops = self.dropout if first >= self.layer else self.trunk_dropout
            for module in self._upper_modules:
                module.training = self.training and drops
        given = None if prefix is None else lambda index: prefix.before(index, h_BSH)
        with self._dropout():
            return self._passes.through(list(layers)[first - 1 : last], first, h_BSH, seen, given, entering)

    def run_at(
        self,
        h_BSH: Tensor,
        attention_mask: Tensor | None,
        position: Tensor,
        prompt_length: int = 0,
        entering: Entering | None = None,
    ) -> Tensor:
        """States leaving layer L at one token of each row, `[B, H]`, or at several, `[B, Q, H]`.

        Queries, output projections and the feed-forward network are computed for these tokens alone; the others give
        keys and values. Where the family does not tell them (`Family.keys_values`), everything is computed.

        Args:
            h_BSH: `[B, P + T, H]`, entering layer L.
            attention_mask: as for `run`.
            position: `[B]` or `[B, Q]`, indices of tokens, the prompt not counted.
            prompt_length: P.
            entering: what enters layer L.
        """
        seen = self._visibility(h_BSH, attention_mask, prompt_length, self.prefix)
        query_BQ = (position[:, None] if position.ndim == 1 else position) + prompt_length
        if self.family.keys_values is None:
            row_B1 = torch.arange(h_BSH.shape[0], device=h_BSH.device)[:, None]
            last = self.num_layers
            out_BQH = self.run(h_BSH, attention_mask, last, last, prompt_length, entering)[row_B1, query_BQ]
        else:
            queries, index = replace(seen, queries=query_BQ), self.num_layers - 1
            with self._dropout():
                out_BQH = self._passes.last(
                    self.layers[-1], h_BSH, query_BQ, seen, queries,
                    lambda own: self._behind_prefix(index, h_BSH, own), entering,
                )  # fmt: skip
        return out_BQH[:, 0] if position.ndim == 1 else out_BQH

    # Reading a text once, and running what is active over what was read

    @torch.no_grad()
    def read(self, h_BTH: Tensor, attention_mask: Tensor | None) -> list[tuple[Tensor, Tensor]]:
        """Keys and values of layers k..L, `[B, g, T, d]` each, of a text alone, by the frozen weights.

        Args:
            h_BTH: `[B, T, H]`, entering layer k.
            attention_mask: as for `run`.
        """
        assert self.twins is not None, "keep_twins first"
        seen = self._visibility(h_BTH, attention_mask, 0, None)
        *below, last = self.twins
        recorders = [Recorder() for _ in below]
        # As the cache computes them: also where what is trained runs under autocast.
        with torch.autocast(h_BTH.device.type, enabled=False):
            h_BTH = self._passes.through(
                below, self.layer, h_BTH, seen, lambda index: recorders[index - self.layer + 1]
            )
            keys_values = self._passes.keys_values(last, h_BTH, seen)
        return [*((recorder.keys, recorder.values) for recorder in recorders), keys_values]

    @torch.no_grad()
    def read_through(
        self, input_ids: Tensor, attention_mask: Tensor | None, layers: set[int], keys_values_from: int | None
    ) -> tuple[dict[int, Tensor], list[tuple[Tensor, Tensor]]]:
        """One pass over a text for several methods: the states entering each of these layers, and keys and values.

        Args:
            input_ids: `[B, T]`.
            attention_mask: as for `run`.
            layers: each from 1 to L.
            keys_values_from: the first layer whose keys and values are wanted, up to layer L; None: of no layer.

        Returns:
            Layer -> states entering it, `[B, T, H]`; and the keys and values of each layer, `[B, g, T, d]`.
        """
        every, last = list(self.layers), max(layers) if keys_values_from is None else self.num_layers
        h_BTH = self.embed(input_ids, attention_mask)
        seen = self._visibility(h_BTH, attention_mask, 0, None)
        states, keys_values = {1: h_BTH}, []
        for first, end in pairwise(sorted({1, *layers, keys_values_from or 1, last})):
            wanted = keys_values_from is not None and first >= keys_values_from
            recorders = [Recorder() for _ in range(first, end)] if wanted else []
            given = partial(_of_layer, recorders, first) if wanted else None
            h_BTH = states[end] = self._passes.through(every[first - 1 : end - 1], first, h_BTH, seen, given)
            keys_values += [(recorder.keys, recorder.values) for recorder in recorders]
        if keys_values_from is not None:
            keys_values.append(self._passes.keys_values(every[-1], h_BTH, seen))
        return {layer: states[layer] for layer in layers}, keys_values

    def run_over(
        self, p_BPH: Tensor, context: Context, position_BQ: Tensor, entering: Entering | None = None
    ) -> Tensor:
        """States leaving layer L at some tokens of a text that is read only, `[B, Q, H]`.

        The prompt and these tokens alone pass through layers k..L. They see the text by its frozen keys and values, and
        one another (`ActiveVisibility`).

        Args:
            p_BPH: the prompt, entering layer k; P may be 0.
            context: what `read` gives, with the states entering layer k.
            position_BQ: the read-out token, and answers behind it.
            entering: what enters each layer, `[B, P + Q, H]` (`lpt.backbones.passes`).
        """
        h_BTH, mask, keys_values = context
        assert keys_values is not None, "read first"
        row_B1 = torch.arange(h_BTH.shape[0], device=h_BTH.device)[:, None]
        h_BAH = torch.cat([p_BPH.to(h_BTH.dtype), h_BTH[row_B1, position_BQ]], 1)
        prompt_length, active = p_BPH.shape[1], h_BAH.shape[1]
        seen = ActiveVisibility(
            mask, token_positions(h_BTH[..., 0], mask), position_BQ, prompt_length, self.causal,
            prefix_length=0 if self.prefix is None else self.prefix.length,
        )  # fmt: skip
        # Compiled layers know nothing of keys that carry a text.
        apart = self.attention == LEAN and not self.compiled

        def behind(index: int, own: Known | None = None) -> Known:
            own = self._behind_prefix(index, h_BAH, own)
            return Text(partial(keys_values.__getitem__, index - self.layer + 1), own, apart)

        *below, last = self.upper_layers
        queries = replace(seen, queries=position_BQ.shape[1])
        with self._dropout():
            h_BAH = self._passes.through(below, self.layer, h_BAH, seen, behind, entering)
            query_BQ = torch.arange(prompt_length, active, device=h_BAH.device).expand(h_BAH.shape[0], -1)
            at_last = partial(behind, self.num_layers - 1)
            return self._passes.last(last, h_BAH, query_BQ, seen, queries, at_last, entering)

    def _behind_prefix(self, index: int, h_BSH: Tensor, own: Known | None) -> Any:
        """Keys and values of the layer with this 0-based index, behind the prefix if there is one."""
        return own if self.prefix is None else self.prefix.before(index, h_BSH, own)

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
        drops = self.training and not self.compiled and (self.dropout or self.trunk_dropout)
        return CheapDropout() if drops and max(self.hidden_dropout, self.attention_dropout) > 0 else nullcontext()

    def add_prefix(self, length: int) -> None:
        """Have layers k..L find `length` trained keys and values in front of their own (`Prefix`).

        Raises:
            LptError: the family's layers cannot be given keys and values.
        """
        heads, head_size = self.key_value_shape()
        prefix = Prefix(self.layer, len(self.upper_layers), heads, length, head_size)
        self.prefix = prefix.to(self.model.device)

    def key_value_shape(self) -> tuple[int, int]:
        """Key-value heads g and head size d of a layer."""
        if self.family.keys_values is None:
            raise LptError(
                f"{self.name} ({self.config.model_type}) cannot have prefixes: its family in "
                "lpt/backbones/families.py does not tell keys and values; use another method, such as method=lpt"
            )
        h_11H = torch.zeros(1, 1, self.hidden_size, dtype=self.model.dtype, device=self.model.device)
        with torch.no_grad():
            keys, _ = self._passes.keys_values(self.layers[-1], h_11H, self._visibility(h_11H, None, 0, None))
        return keys.shape[1], keys.shape[3]

    def _visibility(
        self, h_BSH: Tensor, attention_mask: Tensor | None, prompt_length: int, prefix: Prefix | None
    ) -> Visibility:
        prefix_length = 0 if prefix is None else prefix.length
        positions_BS = positions_with_prompt(h_BSH[:, prompt_length:, 0], attention_mask, prompt_length, prefix_length)
        return Visibility(attention_mask, positions_BS, prompt_length, self.causal, prefix_length=prefix_length)


def _of_layer(recorders: Sequence[Known], first: int, index: int) -> Known:
    return recorders[index - first + 1]


def _one_of(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"one of {', '.join(names)}"
