"""A frozen Hugging Face model, split at layer k. Where transformers keeps things, `lpt.backbones.families` knows.

    input_ids -> embed -> layers 1..k-1 (the trunk) -> [prompt ; tokens] -> layers k..L -> finish -> vocabulary

An attention mask says what each token is: 0 padding, 1 text, and from 2 on a branch: one of several continuations that
stand behind the text, each of which sees the text and itself. So several answers are scored in one pass over the text.

Shapes: B batch, T tokens, P prompt length, S = P + T, H hidden size, V vocabulary, Q queries, N rows of a prefix.
"""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from operator import attrgetter
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from lpt.backbones.dropout import CheapDropout
from lpt.backbones.families import family_of
from lpt.errors import LptError

ATTENTION_DROPOUT = ("attention_probs_dropout_prob", "attn_pdrop", "attention_dropout")  # as configs call it


class SplitBackbone(nn.Module):
    """A frozen model split before layer k: `trunk` below, `upper` from k on, `finish` and the vocabulary.

    Frozen means frozen: no parameter requires a gradient until a method says so of layers k..L, and `train()` leaves
    the trunk in eval mode unless `trunk_dropout`.

    Args:
        model: `AutoModelForMaskedLM`, `AutoModelForCausalLM`, or the same without an LM head.
        layer: k, 1..L; None is L // 2 + 1, the paper's choice.
        trunk_dropout: dropout also below layer k, as the paper's code has it.

    Attributes:
        train_embeddings: what embeds is trained too, so that even the states entering layer 1 have a gradient.
        prefix: keys and values that every layer from k on finds in front of its own; None, or a `Prefix`.

    Raises:
        LptError: unknown family, layer outside 1..L, or an attention implementation that is not among the family's.
    """

    def __init__(self, model: Any, layer: int | None = None, trunk_dropout: bool = False):
        super().__init__()
        self.family = family_of(model.config)
        self.model = model.requires_grad_(False)
        self.trunk_dropout, self.compiled, self.train_embeddings = trunk_dropout, False, False
        self.prefix: Prefix | None = None
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
        prefix = self.prefix if first >= self.layer else None
        positions_BS, extra = self._positions(h_BSH, attention_mask, prompt_length, prefix)
        masks: dict[int | None, Tensor | None] = {}  # by sliding window: most models need just one
        layers = self.layers
        if self.family.shared:  # what is trunk and what is not may be the same modules
            layers.train(self.training and (first >= self.layer or self.trunk_dropout))
        with self._dropout():
            for index in range(first - 1, last):
                window = self.family.window(self.config, index)
                if window not in masks:
                    masks[window] = self._mask(h_BSH, attention_mask, positions_BS, prompt_length, window, prefix)
                given = self._of_layer(index, extra)
                if prefix is not None:
                    given[self.family.cache] = prefix.before(index, h_BSH)
                h_BSH = self.family.call(layers[index], h_BSH, masks[window], **given)
        return h_BSH

    def trunk(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """States entering layer k, `[B, T, H]`: tokens only; no gradient, unless `train_embeddings`."""
        if self.train_embeddings:
            return self.embed(input_ids, attention_mask)
        # As the trunk cache computes them: also where what stands above runs under autocast.
        with torch.no_grad(), torch.autocast(input_ids.device.type, enabled=False):
            return self.run(self.embed(input_ids, attention_mask), attention_mask, 1, self.layer - 1)

    def upper(self, prompt_BPH: Tensor, h_BTH: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """Layers k..L over `[prompt ; tokens]`; returns the tokens' states, `[B, T, H]`."""
        prompt_length = prompt_BPH.shape[1]
        h_BSH = torch.cat([prompt_BPH.to(h_BTH.dtype), h_BTH], dim=1)
        return self.run(h_BSH, attention_mask, self.layer, self.num_layers, prompt_length)[:, prompt_length:]

    def upper_at(self, prompt_BPH: Tensor, h_BTH: Tensor, attention_mask: Tensor | None, position: Tensor) -> Tensor:
        """`upper` at one token of each row (`position [B]`), `[B, H]`, or at several (`[B, Q]`), `[B, Q, H]`.

        The loss reads nothing else, so of layer L only those tokens' queries, output projections and feed-forward are
        computed; the other tokens give keys and values alone.
        """
        prompt_length = prompt_BPH.shape[1]
        h_BSH = torch.cat([prompt_BPH.to(h_BTH.dtype), h_BTH], dim=1)
        h_BSH = self.run(h_BSH, attention_mask, self.layer, self.num_layers - 1, prompt_length)
        positions_BS, extra = self._positions(h_BSH, attention_mask, prompt_length, self.prefix)
        layer, index = self.layers[-1], self.num_layers - 1
        extra, window = self._of_layer(index, extra), self.family.window(self.config, index)
        rows_B1 = torch.arange(len(h_BSH), device=h_BSH.device)[:, None]
        at_BQ = position.view(len(h_BSH), -1) + prompt_length
        if self.family.keys_values is None:
            mask = self._mask(h_BSH, attention_mask, positions_BS, prompt_length, window, self.prefix)
            with self._dropout():
                out_BQH = self.family.call(layer, h_BSH, mask, **extra)[rows_B1, at_BQ]
        else:
            known = Known(*self.family.keys_values(layer, h_BSH, extra))
            if self.prefix is not None:
                known = self.prefix.before(index, h_BSH).and_then(known)
            mask = self._mask(h_BSH, attention_mask, positions_BS, prompt_length, window, self.prefix, at_BQ)
            if "position_embeddings" in extra:
                extra["position_embeddings"] = tuple(x[rows_B1, at_BQ] for x in extra["position_embeddings"])
            extra[self.family.cache] = known
            with self._dropout():
                out_BQH = self.family.call(layer, h_BSH[rows_B1, at_BQ], mask, **extra)
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

    # Positions and masks

    def _positions(
        self, h_BSH: Tensor, attention_mask: Tensor | None, prompt_length: int, prefix: "Prefix | None"
    ) -> tuple[Tensor, dict[str, Any]]:
        """Prompt rows take 0..P-1, attended tokens follow from P, `[B, S]`; and what layers want to know of that.

        A prefix stands before them all.
        """
        prompt_BP = torch.arange(prompt_length, device=h_BSH.device).expand(len(h_BSH), -1)
        tokens_BT = token_positions(h_BSH[:, prompt_length:, 0], attention_mask)
        positions_BS = torch.cat([prompt_BP, tokens_BT + prompt_length], dim=1)
        if prefix is not None:
            positions_BS = positions_BS + prefix.length
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
        prefix: "Prefix | None",
        query_BQ: Tensor | None = None,
    ) -> Tensor | None:
        """What a layer's attention expects, for every query or for some of each row (`query_BQ`).

        Boolean for sdpa, additive for eager; None where it can do without.
        """
        batch, total, _ = h_BSH.shape
        own_causal_mask = self.attention == "sdpa" and query_BQ is None and prefix is None
        if attention_mask is None and window is None and (not self.causal or own_causal_mask):
            return None
        device = h_BSH.device
        allowed_BQS = torch.ones(batch, 1, total, dtype=torch.bool, device=device)
        if attention_mask is not None:
            allowed_BQS[:, 0, prompt_length:] = attention_mask.bool()
        if self.causal or window is not None:
            key_S = torch.arange(total, device=device)
            query_BQ1 = key_S[None, :, None] if query_BQ is None else query_BQ[:, :, None]
            if self.causal:
                allowed_BQS = allowed_BQS & (query_BQ1 >= key_S)
            if window is not None:
                position_BQ1 = positions_BS[:, :, None]
                if query_BQ is not None:
                    position_BQ1 = position_BQ1.gather(1, query_BQ1)
                near_BQS = (position_BQ1 - positions_BS[:, None, :]).abs() < window
                allowed_BQS = allowed_BQS & (near_BQS | (key_S < prompt_length))  # the prompt is always attended
            if attention_mask is not None and attention_mask.dtype != torch.bool:
                kind_BS = F.pad(attention_mask, (prompt_length, 0), value=1)
                query_kind_BQ = kind_BS if query_BQ is None else kind_BS.gather(1, query_BQ)
                own_BQS = query_kind_BQ[:, :, None] == kind_BS[:, None, :]
                allowed_BQS = allowed_BQS & (own_BQS | (kind_BS[:, None, :] == 1))
            # A padding row that sees nothing would be all minus infinity, and NaN: let it see itself.
            allowed_BQS = allowed_BQS | (query_BQ1 == key_S)
        if prefix is not None:
            allowed_BQS = F.pad(allowed_BQS, (prefix.length, 0), value=True)
        mask_B1QS = allowed_BQS[:, None]
        if self.attention == "sdpa":
            return mask_B1QS
        lowest = torch.finfo(h_BSH.dtype).min
        return torch.zeros(mask_B1QS.shape, dtype=h_BSH.dtype, device=device).masked_fill_(~mask_B1QS, lowest)


class Known:
    """Stands where transformers expects a key / value cache: all keys and values are known already.

    Args:
        keys: `[B, heads, S, head size]`, as values.
    """

    def __init__(self, keys: Tensor, values: Tensor):
        self.keys, self.values = keys, values

    def update(self, keys: Tensor, values: Tensor, layer_idx: int, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        return self.keys, self.values


class Before(Known):
    """The same: these keys and values stand before the layer's own."""

    def update(self, keys: Tensor, values: Tensor, layer_idx: int, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        return torch.cat([self.keys, keys], dim=2), torch.cat([self.values, values], dim=2)

    def and_then(self, known: Known) -> Known:
        return Known(*self.update(known.keys, known.values, 0))


class Prefix(nn.Module):
    """Keys and values in front of those of every layer from k on, always attended: `[layers, heads, N, head size]`.

    Args:
        backbone: the split model; its families with `keys_values` can have a prefix.
        length: N.

    Raises:
        LptError: a family that does not say where its keys and values are.
    """

    def __init__(self, backbone: SplitBackbone, length: int):
        super().__init__()
        if backbone.family.keys_values is None:
            raise LptError(
                f"{backbone.name} ({backbone.config.model_type}) cannot have prefixes: its family in "
                "lpt/backbones/families.py does not tell keys and values"
            )
        self.length, self.first = length, backbone.layer
        model = backbone.model
        h_11H = torch.zeros(1, 1, backbone.hidden_size, dtype=model.dtype, device=model.device)
        extra = backbone._of_layer(backbone.num_layers - 1, backbone._positions(h_11H, None, 0, None)[1])
        with torch.no_grad():
            keys, _ = backbone.family.keys_values(backbone.layers[-1], h_11H, extra)
        shape = (len(backbone.upper_layers), keys.shape[1], length, keys.shape[3])
        self.keys = nn.Parameter(0.02 * torch.randn(shape))
        self.values = nn.Parameter(0.02 * torch.randn(shape))

    def before(self, index: int, h_BSH: Tensor) -> Before:
        """For the layer with this 0-based index."""
        place = index - self.first + 1
        keys, values = (x[place].to(h_BSH.dtype).expand(len(h_BSH), -1, -1, -1) for x in (self.keys, self.values))
        return Before(keys, values)


def token_positions(tokens_BT: Tensor, attention_mask: Tensor | None) -> Tensor:
    """Position of each token among those that it sees, from 0, `[B, T]`; padding gets a harmless one.

    Every branch goes on where the text ends.
    """
    if attention_mask is None:
        return torch.arange(tokens_BT.shape[1], device=tokens_BT.device).expand(len(tokens_BT), -1)
    if attention_mask.dtype == torch.bool:
        return (attention_mask.long().cumsum(1) - 1).clamp(min=0)
    text_BT = attention_mask == 1
    place_T = torch.arange(tokens_BT.shape[1], device=tokens_BT.device)
    starts_BT = F.pad(attention_mask[:, 1:] != attention_mask[:, :-1], (1, 0), value=True)
    within_branch_BT = place_T - torch.where(starts_BT, place_T, 0).cummax(1).values
    in_text_BT = (text_BT.long().cumsum(1) - 1).clamp(min=0)
    return torch.where(attention_mask > 1, text_BT.sum(1, keepdim=True) + within_branch_BT, in_text_BT)


def default_layer(num_layers: int) -> int:
    """The paper's prompt layer: 13 of 24, 19 of 36, 16 of 30."""
    return num_layers // 2 + 1


def check_layer(layer: int, num_layers: int, name: str, option: str = "lpt.layer") -> None:
    """Raises LptError, naming backbone and L, unless `layer` is one of 1..L."""
    if not 1 <= layer <= num_layers:
        raise LptError(
            f"{option}={layer} does not exist: {name} has L={num_layers} layers; choose 1..{num_layers} "
            f"(1 is the input, the paper's choice is {default_layer(num_layers)})"
        )


def max_length(config: Any) -> int:
    """Most tokens that the positions of a Hugging Face config allow."""
    return config.max_position_embeddings - family_of(config).first_position(config)


def _one_of(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"one of {', '.join(names)}"
