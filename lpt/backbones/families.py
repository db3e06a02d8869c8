"""Where transformers keeps things, family by family: anatomy as data, and what differs as small functions.

docs/backbones.md has the table, and how to add a family.

Shapes: B batch, T tokens, P prompt length, S = P + T, H hidden size, V vocabulary, g key-value heads, d head size.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers.models.deberta_v2.modeling_deberta_v2 import make_log_bucket_position
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb
from transformers.pytorch_utils import Conv1D

from lpt.backbones.attention import LEAN
from lpt.errors import LptError

ATTENTION_IMPLEMENTATIONS = ("eager", "sdpa", LEAN)


def _projection(model: Any) -> tuple[Tensor, Tensor | None]:
    output = model.get_output_embeddings()
    return output.weight, output.bias


def _call_layer(layer: nn.Module, h_BSH: Tensor, attention_mask: Tensor | None, **extra: Any) -> Tensor:
    return layer(h_BSH, attention_mask=attention_mask, **extra)


def sliding_window(config: Any, index: int) -> int | None:
    """Attention window of the layer with this 0-based index: how far away is just out of sight; None: nothing is."""
    layer_types = getattr(config, "layer_types", None)
    if layer_types and layer_types[index] != "sliding_attention":
        return None
    return getattr(config, "sliding_window", None)


@dataclass(frozen=True)
class Family:
    """Anatomy of a model family. Paths are attribute paths from the base model (the one without LM head)."""

    causal: bool
    # Whether a token sees only what stands before it.
    layers: str
    # Where the list of layers lives.
    embed: Callable[[nn.Module, Tensor, Tensor], Tensor]
    # (base model, input_ids, position_ids from 0) -> [B, T, H] entering layer 1.
    shared: bool = False
    # Whether the list holds fewer modules than there are layers, each in use for several of them.
    final_norm: str | None = None
    # The norm after layer L, if the family has one outside its layers.
    lm_transform: Callable[[nn.Module, Tensor], Tensor] | None = None
    # (model with LM head, states) -> states that the vocabulary projection reads; None: nothing in between.
    projection: Callable[[nn.Module], tuple[Tensor, Tensor | None]] = _projection
    # Model with LM head -> weight and bias of the vocabulary projection.
    other_head: tuple[tuple[str, Any], ...] = ()
    # Fields of the config that ask for another kind of LM head, tried where the weights lack the first.
    rotary: str | None = None
    # The rotary embedding, if positions enter in attention by one.
    relative: Callable[[nn.Module, Tensor, Tensor | None], dict[str, Any]] | None = None
    # (base model, positions [B, S], attended [B, S] or None) -> what layers want to know of relative positions.
    dropout: str | None = None
    # Config field of the hidden dropout rate; None: the family has no dropout.
    first_position: Callable[[Any], int] = lambda config: 0
    # Rows of the position table, as the config counts them, that are reserved in front of the first token's.
    window: Callable[[Any, int], int | None] = sliding_window
    # (config, layer's index from 0) -> how far away a token is just out of sight; None: none is.
    attentions: tuple[str, ...] = ATTENTION_IMPLEMENTATIONS
    # Those that its layers can compute attention by; `eager` is always one.
    call: Callable[..., Tensor] = _call_layer
    # (layer, states [B, S, H], mask, **what it wants to know) -> states leaving it.
    cache: str = "past_key_values"
    # What layers call the argument through which keys and values can be given.
    keys_values: Callable[[nn.Module, Tensor, dict[str, Any]], tuple[Tensor, Tensor]] | None = None
    # (layer, states [B, S, H] entering it, its keyword arguments) -> keys, values [B, g, S, d]. With it, layer L is
    # computed for the read-out position alone, and layers can have prefixes; None: neither.
    sublayers: tuple[str, str] | None = None
    # Within a layer, the last linear maps of attention and of the feed-forward network: adapters go behind them.
    refuses: Callable[[Any], str | None] = lambda config: None
    # What in a config is not supported, in words; None: all is.


# Token ids -> states entering layer 1


def _embed_bert(base: Any, input_ids: Tensor, position_ids: Tensor) -> Tensor:
    return base.embeddings(input_ids=input_ids, position_ids=position_ids)


def _embed_roberta(base: Any, input_ids: Tensor, position_ids: Tensor) -> Tensor:
    return base.embeddings(input_ids=input_ids, position_ids=position_ids + base.embeddings.padding_idx + 1)


def _embed_electra(base: Any, input_ids: Tensor, position_ids: Tensor) -> Tensor:
    h = _embed_bert(base, input_ids, position_ids)
    return base.embeddings_project(h) if hasattr(base, "embeddings_project") else h


def _embed_albert(base: Any, input_ids: Tensor, position_ids: Tensor) -> Tensor:
    return base.encoder.embedding_hidden_mapping_in(_embed_bert(base, input_ids, position_ids))


def _embed_modernbert(base: Any, input_ids: Tensor, position_ids: Tensor) -> Tensor:
    return base.embeddings(input_ids)


def _embed_gpt2(base: Any, input_ids: Tensor, position_ids: Tensor) -> Tensor:
    return base.drop(base.wte(input_ids) + base.wpe(position_ids))


def _embed_gpt_neox(base: Any, input_ids: Tensor, position_ids: Tensor) -> Tensor:
    return base.emb_dropout(base.embed_in(input_ids))


def _embed_opt(base: Any, input_ids: Tensor, position_ids: Tensor) -> Tensor:
    decoder = base.decoder
    h = decoder.embed_tokens(input_ids)
    if decoder.project_in is not None:
        h = decoder.project_in(h)
    return h + decoder.embed_positions(None, position_ids=position_ids)


def _embed_llama(base: Any, input_ids: Tensor, position_ids: Tensor) -> Tensor:
    return base.embed_tokens(input_ids)


def _embed_phi(base: Any, input_ids: Tensor, position_ids: Tensor) -> Tensor:
    return base.embed_dropout(base.embed_tokens(input_ids))


# States -> what the vocabulary projection reads


def _transform_bert(model: Any, h: Tensor) -> Tensor:
    return model.cls.predictions.transform(h)


def _transform_roberta(model: Any, h: Tensor) -> Tensor:
    return model.lm_head.layer_norm(F.gelu(model.lm_head.dense(h)))


def _transform_deberta(model: Any, h: Tensor) -> Tensor:
    if model.legacy:
        return _transform_bert(model, h)
    head = model.lm_predictions.lm_head
    return head.LayerNorm(head.transform_act_fn(head.dense(h)))


def _projection_deberta(model: Any) -> tuple[Tensor, Tensor | None]:
    if model.legacy:
        return _projection(model)
    return model.get_input_embeddings().weight, model.lm_predictions.lm_head.bias


def _transform_electra(model: Any, h: Tensor) -> Tensor:
    return model.generator_predictions(h)


def _transform_distilbert(model: Any, h: Tensor) -> Tensor:
    return model.vocab_layer_norm(model.activation(model.vocab_transform(h)))


def _transform_albert(model: Any, h: Tensor) -> Tensor:
    head = model.predictions
    return head.LayerNorm(head.activation(head.dense(h)))


def _transform_modernbert(model: Any, h: Tensor) -> Tensor:
    return model.head(h)


def _transform_opt(model: Any, h: Tensor) -> Tensor:
    project_out = model.base_model.decoder.project_out
    return h if project_out is None else project_out(h)


# Relative positions


def _relative_deberta(base: Any, positions_BS: Tensor, attended_BS: Tensor | None) -> dict[str, Any]:
    encoder = base.encoder
    if not encoder.relative_attention:
        return {}
    index_S = torch.arange(positions_BS.shape[1], device=positions_BS.device)
    shift_BS = positions_BS - index_S
    if attended_BS is not None:
        first_B1 = attended_BS.int().argmax(1, keepdim=True)
        shift_BS = (shift_BS - shift_BS.gather(1, first_B1)).masked_fill(~attended_BS, 0)
    if not shift_BS.any():  # from token to token, positions step as indices do: one square serves all rows
        positions_BS = index_S[None]
    relative_BSS = positions_BS[:, :, None] - positions_BS[:, None, :]
    return {"relative_pos": relative_BSS, "rel_embeddings": encoder.get_rel_embedding()}


def _relative_deberta_v2(base: Any, positions_BS: Tensor, attended_BS: Tensor | None) -> dict[str, Any]:
    extra = _relative_deberta(base, positions_BS, attended_BS)
    if extra:
        encoder, relative_BSS = base.encoder, extra["relative_pos"]
        if encoder.position_buckets > 0:
            buckets, furthest = encoder.position_buckets, encoder.max_relative_positions
            relative_BSS = make_log_bucket_position(relative_BSS, buckets, furthest).long()
        if len(relative_BSS) > 1:  # its layers have rows and heads in one dimension
            relative_BSS = relative_BSS.repeat_interleave(base.config.num_attention_heads, 0)[None]
        extra["relative_pos"] = relative_BSS
    return extra


# Layers that are called otherwise


def _call_deberta(layer: Any, h_BSH: Tensor, attention_mask: Tensor | None, **extra: Any) -> Tensor:
    """Wants a mask always, true where something is seen."""
    seen = h_BSH.new_ones(1, 1, 1, 1) if attention_mask is None else attention_mask == 0
    return layer(h_BSH, seen, **extra)[0]


def _call_gpt_neo(
    layer: Any, h_BSH: Tensor, attention_mask: Tensor | None, layer_past: Any = None, **extra: Any
) -> Tensor:
    """Its own attention hides, by index, what a local layer does not see, and so the prompt: here the mask says all."""
    attention = layer.attn.attention
    x_BSH = layer.ln_1(h_BSH)
    q, k, v = (
        _split_heads(project(x_BSH), attention.head_dim)
        for project in (attention.q_proj, attention.k_proj, attention.v_proj)
    )
    if layer_past is not None:
        k, v = layer_past.update(k, v, attention.layer_id)
    scores = q.float() @ k.float().transpose(2, 3)  # not scaled, and in float32 as in transformers: they are large
    if attention_mask is not None:
        scores = scores + attention_mask
    p = attention.attn_dropout(scores.softmax(-1).to(v.dtype))
    o_BSH = attention.out_proj((p @ v).transpose(1, 2).flatten(2))
    h_BSH = h_BSH + attention.resid_dropout(o_BSH)
    return h_BSH + layer.mlp(layer.ln_2(h_BSH))


# Keys and values


def _split_heads(x: Tensor, head_size: int) -> Tensor:
    return x.unflatten(-1, (-1, head_size)).transpose(1, 2)


def _rotated(keys_BgSd: Tensor, extra: dict[str, Any]) -> Tensor:
    """Keys turned by their positions; of some families, only the first part of each."""
    cos, sin = extra["position_embeddings"]
    turned, rest = keys_BgSd.tensor_split([cos.shape[-1]], dim=-1)
    _, turned = apply_rotary_pos_emb(turned, turned, cos, sin)
    return torch.cat([turned, rest], dim=-1)


def _keys_values_bert(layer: Any, h: Tensor, extra: dict[str, Any]) -> tuple[Tensor, Tensor]:
    attention = layer.attention.self
    size = attention.attention_head_size
    return _split_heads(attention.key(h), size), _split_heads(attention.value(h), size)


def _keys_values_gpt2(layer: Any, h: Tensor, extra: dict[str, Any]) -> tuple[Tensor, Tensor]:
    attention, hidden, x = layer.attn, h.shape[-1], layer.ln_1(h)
    if type(attention.c_attn) is Conv1D:
        weight, bias = attention.c_attn.weight[:, hidden:], attention.c_attn.bias[hidden:]  # without the queries
        keys, values = (x @ weight + bias).chunk(2, dim=-1)
    else:  # wrapped, by LoRA for one
        _, keys, values = attention.c_attn(x).chunk(3, dim=-1)
    return _split_heads(keys, attention.head_dim), _split_heads(values, attention.head_dim)


def _keys_values_gpt_neo(layer: Any, h: Tensor, extra: dict[str, Any]) -> tuple[Tensor, Tensor]:
    attention, x = layer.attn.attention, layer.ln_1(h)
    return _split_heads(attention.k_proj(x), attention.head_dim), _split_heads(attention.v_proj(x), attention.head_dim)


def _keys_values_gpt_neox(layer: Any, h: Tensor, extra: dict[str, Any]) -> tuple[Tensor, Tensor]:
    attention = layer.attention
    queries_keys_values = attention.query_key_value(layer.input_layernorm(h))
    _, keys, values = _split_heads(queries_keys_values, 3 * attention.head_size).chunk(3, dim=-1)
    return _rotated(keys, extra), values


def _keys_values_opt(layer: Any, h: Tensor, extra: dict[str, Any]) -> tuple[Tensor, Tensor]:
    attention, x = layer.self_attn, layer.self_attn_layer_norm(h) if layer.do_layer_norm_before else h
    return _split_heads(attention.k_proj(x), attention.head_dim), _split_heads(attention.v_proj(x), attention.head_dim)


def _keys_values_llama(layer: Any, h: Tensor, extra: dict[str, Any]) -> tuple[Tensor, Tensor]:
    attention, x = layer.self_attn, layer.input_layernorm(h)
    keys = _split_heads(attention.k_proj(x), attention.head_dim)
    for norm in ("k_norm", "k_layernorm"):  # Qwen3 and Gemma 3; Phi with `qk_layernorm`
        if hasattr(attention, norm):
            keys = getattr(attention, norm)(keys)
    return _rotated(keys, extra), _split_heads(attention.v_proj(x), attention.head_dim)


def _keys_values_phi3(layer: Any, h: Tensor, extra: dict[str, Any]) -> tuple[Tensor, Tensor]:
    attention = layer.self_attn
    heads = _split_heads(attention.qkv_proj(layer.input_layernorm(h)), attention.head_dim)
    keys, values = heads[:, -2 * attention.num_key_value_heads :].chunk(2, dim=1)
    return _rotated(keys, extra), values


# What differs by config


def _window_gpt_neo(config: Any, index: int) -> int | None:
    return config.window_size if config.attention_layers[index] == "local" else None


def _window_modernbert(config: Any, index: int) -> int | None:
    window = sliding_window(config, index)
    return None if window is None else window + 1  # the config names the furthest token that is seen


def _refuses_gemma(config: Any) -> str | None:
    both_ways = getattr(config, "use_bidirectional_attention", None)
    return "its tokens see what stands behind them (use_bidirectional_attention)" if both_ways else None


def _refuses_deberta_v2(config: Any) -> str | None:
    convolves = getattr(config, "conv_kernel_size", 0) > 0
    return "its layer 1 is followed by a convolution (conv_kernel_size)" if convolves else None


BERT = Family(
    causal=False,
    layers="encoder.layer",
    embed=_embed_bert,
    lm_transform=_transform_bert,
    dropout="hidden_dropout_prob",
    keys_values=_keys_values_bert,
    sublayers=("attention.output.dense", "output.dense"),
)
ROBERTA = replace(
    BERT,
    embed=_embed_roberta,
    lm_transform=_transform_roberta,
    first_position=lambda config: config.pad_token_id + 1,
)
ELECTRA = replace(BERT, embed=_embed_electra, lm_transform=_transform_electra)
DEBERTA = replace(
    BERT,
    lm_transform=_transform_deberta,
    projection=_projection_deberta,
    other_head=(("legacy", False),),
    relative=_relative_deberta,
    attentions=("eager",),
    call=_call_deberta,
    keys_values=None,
)
DEBERTA_V2 = replace(DEBERTA, relative=_relative_deberta_v2, refuses=_refuses_deberta_v2)
DISTILBERT = Family(
    causal=False,
    layers="transformer.layer",
    embed=_embed_bert,
    lm_transform=_transform_distilbert,
    dropout="dropout",
    sublayers=("attention.out_lin", "ffn.lin2"),
)
ALBERT = Family(
    causal=False,
    layers="encoder.albert_layer_groups",
    embed=_embed_albert,
    shared=True,
    lm_transform=_transform_albert,
    dropout="hidden_dropout_prob",
    sublayers=("albert_layers.0.attention.dense", "albert_layers.0.ffn_output"),
)
MODERNBERT = Family(
    causal=False,
    layers="layers",
    embed=_embed_modernbert,
    final_norm="final_norm",
    lm_transform=_transform_modernbert,
    rotary="rotary_emb",
    dropout="mlp_dropout",
    window=_window_modernbert,
    sublayers=("attn.Wo", "mlp.Wo"),
)
GPT2 = Family(
    causal=True,
    layers="h",
    embed=_embed_gpt2,
    final_norm="ln_f",
    dropout="resid_pdrop",
    keys_values=_keys_values_gpt2,
    sublayers=("attn.c_proj", "mlp.c_proj"),
)
GPT_NEO = replace(
    GPT2,
    dropout="resid_dropout",
    window=_window_gpt_neo,
    attentions=("eager",),
    call=_call_gpt_neo,
    cache="layer_past",
    keys_values=_keys_values_gpt_neo,
    sublayers=("attn.attention.out_proj", "mlp.c_proj"),
)
GPT_NEOX = Family(
    causal=True,
    layers="layers",
    embed=_embed_gpt_neox,
    final_norm="final_layer_norm",
    rotary="rotary_emb",
    dropout="hidden_dropout",
    cache="layer_past",
    keys_values=_keys_values_gpt_neox,
    sublayers=("attention.dense", "mlp.dense_4h_to_h"),
)
OPT = Family(
    causal=True,
    layers="decoder.layers",
    embed=_embed_opt,
    final_norm="decoder.final_layer_norm",
    lm_transform=_transform_opt,
    dropout="dropout",
    keys_values=_keys_values_opt,
    sublayers=("self_attn.out_proj", "fc2"),
)
LLAMA = Family(
    causal=True,
    layers="layers",
    embed=_embed_llama,
    final_norm="norm",
    rotary="rotary_emb",
    keys_values=_keys_values_llama,
    sublayers=("self_attn.o_proj", "mlp.down_proj"),
)
GEMMA = replace(LLAMA, refuses=_refuses_gemma)
GEMMA2 = replace(GEMMA, attentions=("eager",))  # the others do not cap the logits of attention
PHI = replace(
    LLAMA,
    embed=_embed_phi,
    final_norm="final_layernorm",
    dropout="resid_pdrop",
    sublayers=("self_attn.dense", "mlp.fc2"),
)
PHI3 = replace(LLAMA, dropout="resid_pdrop", keys_values=_keys_values_phi3)

FAMILIES = {  # by `config.model_type`
    "albert": ALBERT,
    "bert": BERT,
    "deberta": DEBERTA,
    "deberta-v2": DEBERTA_V2,
    "distilbert": DISTILBERT,
    "electra": ELECTRA,
    "gemma": GEMMA,
    "gemma2": GEMMA2,
    "gemma3_text": GEMMA,
    "gpt2": GPT2,
    "gpt_neo": GPT_NEO,
    "gpt_neox": GPT_NEOX,
    "llama": LLAMA,
    "mistral": LLAMA,
    "modernbert": MODERNBERT,
    "opt": OPT,
    "phi": PHI,
    "phi3": PHI3,
    "qwen2": LLAMA,
    "qwen3": LLAMA,
    "roberta": ROBERTA,
    "xlm-roberta": ROBERTA,
}


def family_of(config: Any) -> Family:
    """The family of a Hugging Face config.

    Raises:
        LptError: no family fits, with those there are and how to add one; or the config asks for what is not
            supported.
    """
    if config.model_type not in FAMILIES:
        raise LptError(
            f"backbone of type {config.model_type!r} fits no known family; known: {', '.join(sorted(FAMILIES))}. "
            "To add one, describe where its layers live in a Family of lpt/backbones/families.py and enter it in "
            "FAMILIES (docs/backbones.md)"
        )
    family = FAMILIES[config.model_type]
    if problem := family.refuses(config):
        raise LptError(f"backbone of type {config.model_type!r} is not supported as it is configured: {problem}")
    return family
