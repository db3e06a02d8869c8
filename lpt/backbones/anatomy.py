"""Where transformers keeps things, as small functions that the rows of `lpt.backbones.families` choose from.

A function is named for what it gives and the family that it was written for first. `base` is the model without its LM
head, `model` the one with it.

Shapes: B batch, T tokens, P prompt length, S = P + T, H hidden size, V vocabulary, g key-value heads, d head size.
"""

# What transformers' modules return is not typed.
# mypy: disable-error-code="no-any-return"

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.models.deberta_v2.modeling_deberta_v2 import make_log_bucket_position
from transformers.models.distilbert import modeling_distilbert
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb
from transformers.models.modernbert import modeling_modernbert
from transformers.pytorch_utils import Conv1D


def projection(model: Any) -> tuple[Tensor, Tensor | None]:
    output = model.get_output_embeddings()
    return output.weight, output.bias


def call_layer(layer: nn.Module, h_BSH: Tensor, attention_mask: Tensor | None, **extra: Any) -> Tensor:
    return layer(h_BSH, attention_mask=attention_mask, **extra)


def sliding_window(config: Any, index: int) -> int | None:
    """Attention window of the layer with this 0-based index: how far away is just out of sight; None: nothing is."""
    layer_types = getattr(config, "layer_types", None)
    if layer_types and layer_types[index] != "sliding_attention":
        return None
    return getattr(config, "sliding_window", None)


# Token ids -> states entering layer 1


def embed_bert(base: Any, input_ids: Tensor, position_ids: Tensor) -> Tensor:
    return base.embeddings(input_ids=input_ids, position_ids=position_ids)


def embed_roberta(base: Any, input_ids: Tensor, position_ids: Tensor) -> Tensor:
    return base.embeddings(input_ids=input_ids, position_ids=position_ids + base.embeddings.padding_idx + 1)


def embed_electra(base: Any, input_ids: Tensor, position_ids: Tensor) -> Tensor:
    h = embed_bert(base, input_ids, position_ids)
    return base.embeddings_project(h) if hasattr(base, "embeddings_project") else h


def embed_albert(base: Any, input_ids: Tensor, position_ids: Tensor) -> Tensor:
    return base.encoder.embedding_hidden_mapping_in(embed_bert(base, input_ids, position_ids))


def embed_modernbert(base: Any, input_ids: Tensor, position_ids: Tensor) -> Tensor:
    return base.embeddings(input_ids)


def embed_gpt2(base: Any, input_ids: Tensor, position_ids: Tensor) -> Tensor:
    return base.drop(base.wte(input_ids) + base.wpe(position_ids))


def embed_gpt_neox(base: Any, input_ids: Tensor, position_ids: Tensor) -> Tensor:
    return base.emb_dropout(base.embed_in(input_ids))


def embed_opt(base: Any, input_ids: Tensor, position_ids: Tensor) -> Tensor:
    decoder = base.decoder
    h = decoder.embed_tokens(input_ids)
    if decoder.project_in is not None:
        h = decoder.project_in(h)
    return h + decoder.embed_positions(None, position_ids=position_ids)


def embed_llama(base: Any, input_ids: Tensor, position_ids: Tensor) -> Tensor:
    return base.embed_tokens(input_ids)


def embed_phi(base: Any, input_ids: Tensor, position_ids: Tensor) -> Tensor:
    return base.embed_dropout(base.embed_tokens(input_ids))


# States -> what the vocabulary projection reads


def transform_bert(model: Any, h: Tensor) -> Tensor:
    return model.cls.predictions.transform(h)


def transform_roberta(model: Any, h: Tensor) -> Tensor:
    return model.lm_head.layer_norm(F.gelu(model.lm_head.dense(h)))


def transform_deberta(model: Any, h: Tensor) -> Tensor:
    if model.legacy:
        return transform_bert(model, h)
    head = model.lm_predictions.lm_head
    return head.LayerNorm(head.transform_act_fn(head.dense(h)))


def projection_deberta(model: Any) -> tuple[Tensor, Tensor | None]:
    if model.legacy:
        return projection(model)
    return model.get_input_embeddings().weight, model.lm_predictions.lm_head.bias


def transform_electra(model: Any, h: Tensor) -> Tensor:
    return model.generator_predictions(h)


def transform_distilbert(model: Any, h: Tensor) -> Tensor:
    return model.vocab_layer_norm(model.activation(model.vocab_transform(h)))


def transform_albert(model: Any, h: Tensor) -> Tensor:
    head = model.predictions
    return head.LayerNorm(head.activation(head.dense(h)))


def transform_modernbert(model: Any, h: Tensor) -> Tensor:
    return model.head(h)


def transform_opt(model: Any, h: Tensor) -> Tensor:
    project_out = model.base_model.decoder.project_out
    return h if project_out is None else project_out(h)


# Relative positions


def relative_deberta(base: Any, positions_BS: Tensor, attended_BS: Tensor | None) -> dict[str, Any]:
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


def relative_deberta_v2(base: Any, positions_BS: Tensor, attended_BS: Tensor | None) -> dict[str, Any]:
    extra = relative_deberta(base, positions_BS, attended_BS)
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


def call_deberta(layer: Any, h_BSH: Tensor, attention_mask: Tensor | None, **extra: Any) -> Tensor:
    """Wants a mask always, true where something is seen."""
    seen = h_BSH.new_ones(1, 1, 1, 1) if attention_mask is None else attention_mask == 0
    return layer(h_BSH, seen, **extra)[0]


def call_gpt_neo(
    layer: Any, h_BSH: Tensor, attention_mask: Tensor | None, layer_past: Any = None, **extra: Any
) -> Tensor:
    """Its own attention hides, by index, what a local layer does not see, and so the prompt: here the mask says all."""
    attention = layer.attn.attention
    x_BSH = layer.ln_1(h_BSH)
    q, k, v = (
        split_heads(project(x_BSH), attention.head_dim)
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


def call_distilbert(
    layer: Any, h_BSH: Tensor, attention_mask: Tensor | None, past_key_values: Any = None, **extra: Any
) -> Tensor:
    """Its own attention takes no keys and values from outside."""
    if past_key_values is None:
        return call_layer(layer, h_BSH, attention_mask, **extra)
    attention = layer.attention
    q, k, v = (
        split_heads(project(h_BSH), attention.attention_head_size)
        for project in (attention.q_lin, attention.k_lin, attention.v_lin)
    )
    rate = attention.dropout.p if attention.training else 0.0
    k, v = past_key_values.update(k, v, 0)
    o_BSH = attend(attention, q, k, v, attention_mask, rate, modeling_distilbert.eager_attention_forward)
    h_BSH = layer.sa_layer_norm(attention.out_lin(o_BSH) + h_BSH)
    return layer.output_layer_norm(layer.ffn(h_BSH) + h_BSH)


def call_modernbert(
    layer: Any, h_BSH: Tensor, attention_mask: Tensor | None, past_key_values: Any = None, **extra: Any
) -> Tensor:
    """Its own attention takes no keys and values from outside."""
    if past_key_values is None:
        return call_layer(layer, h_BSH, attention_mask, **extra)
    attention = layer.attn
    q, k, v = queries_keys_values_modernbert(layer, h_BSH, extra)
    rate = attention.attention_dropout if attention.training else 0.0
    k, v = past_key_values.update(k, v, attention.layer_idx)
    o_BSH = attend(attention, q, k, v, attention_mask, rate, modeling_modernbert.eager_attention_forward)
    h_BSH = h_BSH + attention.out_drop(attention.Wo(o_BSH))
    return h_BSH + layer.mlp(layer.mlp_norm(h_BSH))


def attend(
    attention: Any,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    attention_mask: Tensor | None,
    dropout: float,
    eager: Callable[..., Any],
) -> Tensor:
    """What a layer's queries `[B, h, Q, d]` find, `[B, Q, H]`, by the model's attention implementation."""
    interface = ALL_ATTENTION_FUNCTIONS.get_interface(attention.config._attn_implementation, eager)
    found, _ = interface(attention, q, k, v, attention_mask, dropout=dropout, scaling=q.shape[-1] ** -0.5)
    return found.flatten(2)


# Keys and values


def split_heads(x: Tensor, head_size: int) -> Tensor:
    return x.unflatten(-1, (-1, head_size)).transpose(1, 2)


def rotated(keys_BgSd: Tensor, extra: dict[str, Any]) -> Tensor:
    """Keys turned by their positions; of some families, only the first part of each."""
    cos, sin = extra["position_embeddings"]
    turned, rest = keys_BgSd.tensor_split([cos.shape[-1]], dim=-1)
    _, turned = apply_rotary_pos_emb(turned, turned, cos, sin)
    return torch.cat([turned, rest], dim=-1)


def keys_values_bert(layer: Any, h: Tensor, extra: dict[str, Any]) -> tuple[Tensor, Tensor]:
    attention = layer.attention.self
    size = attention.attention_head_size
    return split_heads(attention.key(h), size), split_heads(attention.value(h), size)


def keys_values_distilbert(layer: Any, h: Tensor, extra: dict[str, Any]) -> tuple[Tensor, Tensor]:
    attention = layer.attention
    size = attention.attention_head_size
    return split_heads(attention.k_lin(h), size), split_heads(attention.v_lin(h), size)


def queries_keys_values_modernbert(layer: Any, h: Tensor, extra: dict[str, Any]) -> tuple[Tensor, Tensor, Tensor]:
    attention = layer.attn
    heads = attention.Wqkv(layer.attn_norm(h)).unflatten(-1, (3, -1, attention.head_dim))
    q, k, v = (x.transpose(1, 2) for x in heads.unbind(-3))
    q, k = modeling_modernbert.apply_rotary_pos_emb(q, k, *extra["position_embeddings"], unsqueeze_dim=1)
    return q, k, v


def keys_values_modernbert(layer: Any, h: Tensor, extra: dict[str, Any]) -> tuple[Tensor, Tensor]:
    _, keys, values = queries_keys_values_modernbert(layer, h, extra)
    return keys, values


def keys_values_gpt2(layer: Any, h: Tensor, extra: dict[str, Any]) -> tuple[Tensor, Tensor]:
    attention, hidden, x = layer.attn, h.shape[-1], layer.ln_1(h)
    if type(attention.c_attn) is Conv1D:
        weight, bias = attention.c_attn.weight[:, hidden:], attention.c_attn.bias[hidden:]  # without the queries
        keys, values = (x @ weight + bias).chunk(2, dim=-1)
    else:  # wrapped, by LoRA for one
        _, keys, values = attention.c_attn(x).chunk(3, dim=-1)
    return split_heads(keys, attention.head_dim), split_heads(values, attention.head_dim)


def keys_values_gpt_neo(layer: Any, h: Tensor, extra: dict[str, Any]) -> tuple[Tensor, Tensor]:
    attention, x = layer.attn.attention, layer.ln_1(h)
    return split_heads(attention.k_proj(x), attention.head_dim), split_heads(attention.v_proj(x), attention.head_dim)


def keys_values_gpt_neox(layer: Any, h: Tensor, extra: dict[str, Any]) -> tuple[Tensor, Tensor]:
    attention = layer.attention
    queries_keys_values = attention.query_key_value(layer.input_layernorm(h))
    _, keys, values = split_heads(queries_keys_values, 3 * attention.head_size).chunk(3, dim=-1)
    return rotated(keys, extra), values


def keys_values_opt(layer: Any, h: Tensor, extra: dict[str, Any]) -> tuple[Tensor, Tensor]:
    attention, x = layer.self_attn, layer.self_attn_layer_norm(h) if layer.do_layer_norm_before else h
    return split_heads(attention.k_proj(x), attention.head_dim), split_heads(attention.v_proj(x), attention.head_dim)


def keys_values_llama(layer: Any, h: Tensor, extra: dict[str, Any]) -> tuple[Tensor, Tensor]:
    attention, x = layer.self_attn, layer.input_layernorm(h)
    keys = split_heads(attention.k_proj(x), attention.head_dim)
    for norm in ("k_norm", "k_layernorm"):  # Qwen3 and Gemma 3; Phi with `qk_layernorm`
        if hasattr(attention, norm):
            keys = getattr(attention, norm)(keys)
    return rotated(keys, extra), split_heads(attention.v_proj(x), attention.head_dim)


def keys_values_phi3(layer: Any, h: Tensor, extra: dict[str, Any]) -> tuple[Tensor, Tensor]:
    attention = layer.self_attn
    heads = split_heads(attention.qkv_proj(layer.input_layernorm(h)), attention.head_dim)
    keys, values = heads[:, -2 * attention.num_key_value_heads :].chunk(2, dim=1)
    return rotated(keys, extra), values


# What differs by config


def window_gpt_neo(config: Any, index: int) -> int | None:
    return config.window_size if config.attention_layers[index] == "local" else None


def window_modernbert(config: Any, index: int) -> int | None:
    window = sliding_window(config, index)
    return None if window is None else window + 1  # the config names the furthest token that is seen


def refuses_gemma(config: Any) -> str | None:
    both_ways = getattr(config, "use_bidirectional_attention", None)
    return "its tokens see what stands behind them (use_bidirectional_attention)" if both_ways else None


def refuses_deberta_v2(config: Any) -> str | None:
    convolves = getattr(config, "conv_kernel_size", 0) > 0
    return "its layer 1 is followed by a convolution (conv_kernel_size)" if convolves else None
