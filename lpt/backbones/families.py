"""The families of models that can be split, a row each: adding a family is adding a row (docs/backbones.md).

Shapes: B batch, T tokens, P prompt length, S = P + T, H hidden size, V vocabulary, g key-value heads, d head size.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor, nn

from lpt.backbones import anatomy
from lpt.backbones.names import ATTENTIONS, EAGER
from lpt.errors import LptError


@dataclass(frozen=True)
class Family:
    """Anatomy of a model family: attribute paths from the base model (the one without LM head), and functions."""

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
    projection: Callable[[nn.Module], tuple[Tensor, Tensor | None]] = anatomy.projection
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
    window: Callable[[Any, int], int | None] = anatomy.sliding_window
    # (config, layer's index from 0) -> how far away a token is just out of sight; None: none is.
    attentions: tuple[str, ...] = ATTENTIONS
    # Those that its layers can compute attention by; `eager` is always one.
    call: Callable[..., Tensor] = anatomy.call_layer
    # (layer, states [B, S, H], mask, **what it wants to know) -> states leaving it.
    cache: str = "past_key_values"
    # What layers call the argument through which keys and values can be given.
    keys_values: Callable[[nn.Module, Tensor, dict[str, Any]], tuple[Tensor, Tensor]] | None = None
    # (layer, states [B, S, H] entering it, its keyword arguments) -> keys, values [B, g, S, d]. With it, layer L is
    # computed for the read-out position alone, layers can have prefixes, and texts can be read only; None: none of it.
    sublayers: tuple[str, str] | None = None
    # Within a layer, the last linear maps of attention and of the feed-forward network: adapters go behind them.
    refuses: Callable[[Any], str | None] = lambda config: None
    # What in a config is not supported, in words; None: all is.


BERT = Family(
    causal=False,
    layers="encoder.layer",
    embed=anatomy.embed_bert,
    lm_transform=anatomy.transform_bert,
    dropout="hidden_dropout_prob",
    keys_values=anatomy.keys_values_bert,
    sublayers=("attention.output.dense", "output.dense"),
)
ROBERTA = replace(
    BERT,
    embed=anatomy.embed_roberta,
    lm_transform=anatomy.transform_roberta,
    first_position=lambda config: config.pad_token_id + 1,
)
ELECTRA = replace(BERT, embed=anatomy.embed_electra, lm_transform=anatomy.transform_electra)
DEBERTA = replace(
    BERT,
    lm_transform=anatomy.transform_deberta,
    projection=anatomy.projection_deberta,
    other_head=(("legacy", False),),
    relative=anatomy.relative_deberta,
    attentions=(EAGER,),
    call=anatomy.call_deberta,
    keys_values=None,
)
DEBERTA_V2 = replace(DEBERTA, relative=anatomy.relative_deberta_v2, refuses=anatomy.refuses_deberta_v2)
DISTILBERT = Family(
    causal=False,
    layers="transformer.layer",
    embed=anatomy.embed_bert,
    lm_transform=anatomy.transform_distilbert,
    dropout="dropout",
    call=anatomy.call_distilbert,
    keys_values=anatomy.keys_values_distilbert,
    sublayers=("attention.out_lin", "ffn.lin2"),
)
ALBERT = Family(
    causal=False,
    layers="encoder.albert_layer_groups",
    embed=anatomy.embed_albert,
    shared=True,
    lm_transform=anatomy.transform_albert,
    dropout="hidden_dropout_prob",
    sublayers=("albert_layers.0.attention.dense", "albert_layers.0.ffn_output"),
)
MODERNBERT = Family(
    causal=False,
    layers="layers",
    embed=anatomy.embed_modernbert,
    final_norm="final_norm",
    lm_transform=anatomy.transform_modernbert,
    rotary="rotary_emb",
    dropout="mlp_dropout",
    window=anatomy.window_modernbert,
    call=anatomy.call_modernbert,
    keys_values=anatomy.keys_values_modernbert,
    sublayers=("attn.Wo", "mlp.Wo"),
)
GPT2 = Family(
    causal=True,
    layers="h",
    embed=anatomy.embed_gpt2,
    final_norm="ln_f",
    dropout="resid_pdrop",
    keys_values=anatomy.keys_values_gpt2,
    sublayers=("attn.c_proj", "mlp.c_proj"),
)
GPT_NEO = replace(
    GPT2,
    dropout="resid_dropout",
    window=anatomy.window_gpt_neo,
    attentions=(EAGER,),
    call=anatomy.call_gpt_neo,
    cache="layer_past",
    keys_values=anatomy.keys_values_gpt_neo,
    sublayers=("attn.attention.out_proj", "mlp.c_proj"),
)
GPT_NEOX = Family(
    causal=True,
    layers="layers",
    embed=anatomy.embed_gpt_neox,
    final_norm="final_layer_norm",
    rotary="rotary_emb",
    dropout="hidden_dropout",
    cache="layer_past",
    keys_values=anatomy.keys_values_gpt_neox,
    sublayers=("attention.dense", "mlp.dense_4h_to_h"),
)
OPT = Family(
    causal=True,
    layers="decoder.layers",
    embed=anatomy.embed_opt,
    final_norm="decoder.final_layer_norm",
    lm_transform=anatomy.transform_opt,
    dropout="dropout",
    keys_values=anatomy.keys_values_opt,
    sublayers=("self_attn.out_proj", "fc2"),
)
LLAMA = Family(
    causal=True,
    layers="layers",
    embed=anatomy.embed_llama,
    final_norm="norm",
    rotary="rotary_emb",
    keys_values=anatomy.keys_values_llama,
    sublayers=("self_attn.o_proj", "mlp.down_proj"),
)
GEMMA = replace(LLAMA, refuses=anatomy.refuses_gemma)
GEMMA2 = replace(GEMMA, attentions=(EAGER,))  # the others do not cap the logits of attention
PHI = replace(
    LLAMA,
    embed=anatomy.embed_phi,
    final_norm="final_layernorm",
    dropout="resid_pdrop",
    sublayers=("self_attn.dense", "mlp.fc2"),
)
PHI3 = replace(LLAMA, dropout="resid_pdrop", keys_values=anatomy.keys_values_phi3)

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


def families_with_keys_values() -> list[str]:
    """Model types whose layers can be given keys and values."""
    return [name for name, family in FAMILIES.items() if family.keys_values is not None]


def max_length(config: Any) -> int:
    """Most tokens of a text that the positions of a Hugging Face config allow.

    Raises:
        LptError: as `family_of`.
    """
    positions: int = config.max_position_embeddings
    return positions - family_of(config).first_position(config)


def num_layers(config: Any) -> int:
    """L of a Hugging Face config.

    Raises:
        LptError: as `family_of`.
    """
    family_of(config)
    layers: int = config.num_hidden_layers
    return layers


def name_of(config: Any) -> str:
    """How errors call the backbone: the path that it was loaded from, or its type."""
    name: str = config.name_or_path or config.model_type
    return name
