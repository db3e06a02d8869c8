"""Passes through layers of a model: what each is given besides the states, and the last one for some tokens alone.

Shapes: B batch, S tokens, Q queries, N prefix length, H hidden size.
"""

from collections.abc import Callable, Iterable
from dataclasses import replace
from operator import attrgetter
from typing import Any

import torch
from torch import Tensor, nn

from lpt.backbones.families import Family
from lpt.backbones.masks import ActiveVisibility, Visibility, additive, with_prompt
from lpt.backbones.names import SDPA
from lpt.backbones.prefix import Known

Seen = Visibility | ActiveVisibility
# Layer, from 1, and the states `[B, S, H]` that would enter it -> those that do.
Entering = Callable[[int, Tensor], Tensor]


class Passes:
    """Calls layers of one model.

    Args:
        family: how it is built.
        model: a Hugging Face model.
    """

    def __init__(self, family: Family, model: Any):
        self.family, self.model, self.config = family, model, model.config

    def through(
        self,
        layers: Iterable[nn.Module],
        first: int,
        h_BSH: Tensor,
        seen: Seen,
        given_keys: Callable[[int], Known] | None = None,
        entering: Entering | None = None,
    ) -> Tensor:
        """States leaving the last of these layers, `[B, S, H]`.

        Args:
            layers: layers first, first + 1, ..., or others like them.
            first: from 1.
            h_BSH: entering the first of them.
            seen: who sees whom.
            given_keys: index of a layer, from 0 -> the keys and values that it is given besides its own.
            entering: what enters each layer instead of the states leaving the one below.
        """
        positions = self.positions(h_BSH, seen)
        masks: dict[int | None, Tensor | None] = {}  # by sliding window: most models need just one
        for index, layer in enumerate(layers, first - 1):
            if entering is not None:
                h_BSH = entering(index + 1, h_BSH)
            window = self.family.window(self.config, index)
            if window not in masks:
                masks[window] = self._mask(replace(seen, window=window), h_BSH.dtype)
            given = self.of_layer(index, positions)
            if given_keys is not None:
                given[self.family.cache] = given_keys(index)
            h_BSH = self.family.call(layer, h_BSH, masks[window], **given)
        return h_BSH

    def last(
        self,
        layer: nn.Module,
        h_BSH: Tensor,
        query_BQ: Tensor,
        seen: Seen,
        queries: Seen,
        behind: Callable[[Known], Known],
        entering: Entering | None = None,
    ) -> Tensor:
        """States leaving layer L at some tokens, `[B, Q, H]`.

        Args:
            layer: layer L.
            h_BSH: entering it; all of them give keys and values.
            query_BQ: indices of the tokens.
            seen: who sees whom.
            queries: what the queries see.
            behind: puts what else the layer is given in front of the keys and values of `h_BSH`.
            entering: what enters it instead of `h_BSH`.
        """
        assert self.family.keys_values is not None
        index = self.config.num_hidden_layers - 1
        if entering is not None:
            h_BSH = entering(index + 1, h_BSH)
        given = self.of_layer(index, self.positions(h_BSH, seen))
        own = Known(*self.family.keys_values(layer, h_BSH, given))
        row_B1 = torch.arange(h_BSH.shape[0], device=h_BSH.device)[:, None]
        if "position_embeddings" in given:
            given["position_embeddings"] = tuple(x[row_B1, query_BQ] for x in given["position_embeddings"])
        given[self.family.cache] = behind(own)
        mask = self._mask(replace(queries, window=self.family.window(self.config, index)), h_BSH.dtype)
        return self.family.call(layer, h_BSH[row_B1, query_BQ], mask, **given)

    def keys_values(self, layer: nn.Module, h_BSH: Tensor, seen: Seen) -> tuple[Tensor, Tensor]:
        """Keys and values of layer L, `[B, g, S, d]`, without anything else of it."""
        assert self.family.keys_values is not None
        given = self.of_layer(self.config.num_hidden_layers - 1, self.positions(h_BSH, seen))
        return self.family.keys_values(layer, h_BSH, given)

    def positions(self, h_BSH: Tensor, seen: Seen) -> dict[str, Any]:
        """Rotary or relative positions as layers take them; a dict by kind of layer where kinds differ."""
        if self.family.relative is not None:
            assert isinstance(seen, Visibility)
            mask = seen.attention_mask
            attended_BS = None if mask is None else with_prompt(mask, seen.prompt_length).bool()
            return self.family.relative(self.model.base_model, seen.positions, attended_BS)
        if self.family.rotary is None:
            return {}
        rotary = attrgetter(self.family.rotary)(self.model.base_model)
        kinds = getattr(rotary, "layer_types", None)  # some families turn faster in layers with a window
        if kinds is None:
            return {"position_embeddings": rotary(h_BSH, position_ids=seen.positions)}
        by_kind = {kind: rotary(h_BSH, position_ids=seen.positions, layer_type=kind) for kind in kinds}
        return {"position_embeddings": by_kind}

    def of_layer(self, index: int, positions: dict[str, Any]) -> dict[str, Any]:
        """What `positions` gives, for the layer with this 0-based index."""
        return {
            name: value[self.config.layer_types[index]] if isinstance(value, dict) else value
            for name, value in positions.items()
        }

    def _mask(self, seen: Seen, dtype: torch.dtype) -> Tensor | None:
        """The mask that a layer's attention expects, `[B, 1, Q, N + S]`; None where it needs none.

        Boolean for sdpa, which also masks plain causal attention itself; additive for the others.
        """
        by_sdpa = self.config._attn_implementation == SDPA
        if seen.everything or (by_sdpa and seen.plain_causal):
            return None
        allowed_B1QS = seen.allowed()[:, None]
        return allowed_B1QS if by_sdpa else additive(allowed_B1QS, dtype)
