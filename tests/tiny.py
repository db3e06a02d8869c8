"""Tiny random models of every family, and a tokenizer to go with them: milliseconds, no files, no network."""

import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from torch import nn
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    PreTrainedTokenizerFast,
)

from lpt.adapter import AdapterConfig
from lpt.backbones.families import FAMILIES as KNOWN
from lpt.data.reading import Reading, default_values

LAYERS, HIDDEN, VOCABULARY = 4, 16, 50
ENCODERS = tuple(name for name, family in KNOWN.items() if not family.causal)
DECODERS = tuple(name for name, family in KNOWN.items() if family.causal)
FAMILIES = (*ENCODERS, *DECODERS)

_SIZES = {
    "vocab_size": VOCABULARY,
    "hidden_size": HIDDEN,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "max_position_embeddings": 40,
    "initializer_range": 0.3,  # large, so that every layer matters
    "pad_token_id": 1,
    "bos_token_id": 0,
    "eos_token_id": 2,
}
_DECODER = {"num_key_value_heads": 1, "head_dim": 8}
_WINDOW = 6  # shorter than the texts of the tests
_RELATIVE = {"relative_attention": True, "position_biased_input": False, "pos_att_type": ["c2p", "p2c"]}
_PARTIAL = {"rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 0.5}}
_EXTRA = {
    "albert": {"embedding_size": 12, "hidden_dropout_prob": 0.1, "attention_probs_dropout_prob": 0.1},
    "deberta": _RELATIVE,
    "deberta-v2": _RELATIVE | {"position_buckets": 8, "norm_rel_ebd": "layer_norm"},
    "distilbert": {"hidden_dim": 24},
    "electra": {"embedding_size": 12},
    "gemma": _DECODER,
    "gemma2": _DECODER | {"sliding_window": _WINDOW, "query_pre_attn_scalar": 8, "attn_logit_softcapping": 2.0},
    "gemma3_text": _DECODER | {"sliding_window": _WINDOW, "query_pre_attn_scalar": 8, "sliding_window_pattern": 2},
    "gpt2": {"n_inner": 24, "resid_pdrop": 0.1, "embd_pdrop": 0.1, "attn_pdrop": 0.1},
    "gpt_neo": {"attention_types": [[["global", "local"], LAYERS // 2]], "window_size": _WINDOW},
    "gpt_neox": _PARTIAL,
    "llama": _DECODER,
    "mistral": _DECODER | {"sliding_window": _WINDOW},
    "modernbert": {"local_attention": _WINDOW, "cls_token_id": 0, "sep_token_id": 2, "classifier_bias": True},
    "opt": {"ffn_dim": 24, "init_std": 0.3},
    "phi": _PARTIAL,
    "phi3": {"num_key_value_heads": 1} | _PARTIAL,
    "qwen2": _DECODER | {"use_sliding_window": True, "sliding_window": _WINDOW, "max_window_layers": 2},
    "qwen3": _DECODER,
}
_VARIANTS = {  # what else checkpoints of a family may be: its name, and what to change
    "albert of two groups": ("albert", {"num_hidden_groups": 2}),
    "deberta with positions at the input": ("deberta", {"position_biased_input": True, "relative_attention": False}),
    "deberta with its own head": ("deberta", {"legacy": False}),
    "deberta-v2 that shares its keys": ("deberta-v2", {"share_att_key": True}),
    "deberta-v2 with its own head": ("deberta-v2", {"legacy": False}),
    "gpt_neox in sequence": ("gpt_neox", {"use_parallel_residual": False}),
    "opt that is normed behind": ("opt", {"do_layer_norm_before": False, "word_embed_proj_dim": 12}),
    "phi with normed keys": ("phi", {"qk_layernorm": True}),
    "phi3 with a window": ("phi3", {"sliding_window": _WINDOW}),
}
SHAPES = (*FAMILIES, *_VARIANTS)


PREFIXABLE = tuple(name for name in FAMILIES if KNOWN[name].keys_values is not None)  # that tell keys and values


def model_type(shape):
    return _VARIANTS.get(shape, (shape,))[0]


def attentions(shapes):
    """Each of these shapes with each attention implementation that it has."""
    return [(shape, attention) for shape in shapes for attention in KNOWN[model_type(shape)].attentions]


def tiny_config(shape, **changes):
    family, variation = _VARIANTS.get(shape, (shape, {}))
    return AutoConfig.for_model(family, **(_SIZES | _EXTRA.get(family, {}) | variation | changes))


def tiny_model(shape, attention="eager", seed=0, **changes):
    """A random model of this family, or variant of one, in eval mode, with its LM head."""
    torch.manual_seed(seed)
    auto = AutoModelForMaskedLM if model_type(shape) in ENCODERS else AutoModelForCausalLM
    return auto.from_config(tiny_config(shape, **changes), attn_implementation=attention).eval()


def trained_model(shape, attention="eager"):
    """The same with biases and norms away from 0 and 1, where transformers starts them."""
    model = tiny_model(shape, attention)
    for parameter in model.parameters():
        if parameter.dim() == 1:
            nn.init.normal_(parameter, mean=parameter.mean().item(), std=0.3)
    return model


def token_batch(lengths=(7, 3, 10, 1), seed=0):
    """Right-padded random tokens: input_ids `[B, T]`, attention_mask `[B, T]`."""
    generator = torch.Generator().manual_seed(seed)
    longest = max(lengths)
    ids = torch.randint(3, VOCABULARY, (len(lengths), longest), generator=generator)
    mask = (torch.arange(longest) < torch.tensor(lengths)[:, None]).long()
    return ids * mask + (1 - mask), mask


def no_prompt(h):
    """A prompt of no tokens for states `[B, T, H]`."""
    return h.new_empty(len(h), 0, h.shape[2])


WORDS = ["it", "was", "is", "a", "the", "film", "plot", "good", "bad", "great", "terrible"]
WORDS += ["dull", "fine", "never", "again", "Yes", "No", ".", "?", ","]


def tiny_tokenizer(words=WORDS):
    """Whole words, split at spaces."""
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    vocabulary = {token: i for i, token in enumerate([*special, "It", "was,", *words])}
    assert len(vocabulary) <= VOCABULARY
    tokenizer = Tokenizer(WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<s>",
        pad_token="<pad>",
        eos_token="</s>",
        unk_token="<unk>",
        mask_token="<mask>",
    )


def tiny_adapter(folder, shape):
    """What a classifier of film reviews is, over a tiny model that is saved under `folder`."""
    tiny_model(shape).save_pretrained(folder / "backbone")
    tiny_tokenizer().save_pretrained(folder / "backbone")
    return AdapterConfig(
        task="reviews",
        backbone=str(folder / "backbone"),
        revision=None,
        method="lpt",
        settings={"layer": None, "prompt_length": 3, "generator": "npg", "bottleneck": 4},
        head="label_words",
        labels=["bad", "good"],
        label_words={"bad": "terrible", "good": "great"},
        template="{a} It was" if shape in DECODERS else "{a} It was {mask} .",
        answer="{word} .",
        max_length=30,
        reading=Reading(values=default_values(["bad", "good"])),
    )
