"""Tiny random models of every family, and a tokenizer to go with them: milliseconds, no files, no network."""

import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    PreTrainedTokenizerFast,
)

LAYERS, HIDDEN, VOCABULARY = 4, 16, 50
DECODERS = ("gpt2", "llama", "mistral", "qwen2", "qwen3")
ENCODERS = ("bert", "roberta")
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
_EXTRA = {
    "gpt2": {"n_inner": 24, "resid_pdrop": 0.1, "embd_pdrop": 0.1, "attn_pdrop": 0.1},
    "llama": _DECODER,
    "mistral": _DECODER | {"sliding_window": 6},  # shorter than the texts of the tests
    "qwen2": _DECODER | {"use_sliding_window": True, "sliding_window": 6, "max_window_layers": 2},
    "qwen3": _DECODER,
}


def tiny_config(family, **changes):
    return AutoConfig.for_model(family, **(_SIZES | _EXTRA.get(family, {}) | changes))


def tiny_model(family, attention="eager", seed=0, **changes):
    """A random model of this family in eval mode, with its LM head."""
    torch.manual_seed(seed)
    auto = AutoModelForMaskedLM if family in ENCODERS else AutoModelForCausalLM
    return auto.from_config(tiny_config(family, **changes), attn_implementation=attention).eval()


def token_batch(lengths=(7, 3, 10, 1), seed=0):
    """Right-padded random tokens: input_ids `[B, T]`, attention_mask `[B, T]`."""
    generator = torch.Generator().manual_seed(seed)
    longest = max(lengths)
    ids = torch.randint(3, VOCABULARY, (len(lengths), longest), generator=generator)
    mask = (torch.arange(longest) < torch.tensor(lengths)[:, None]).long()
    return ids * mask + (1 - mask), mask


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
