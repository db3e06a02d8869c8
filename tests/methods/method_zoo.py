"""Every method over tiny models, and what each must train, told from the families' anatomy and the papers' formulas."""

from dataclasses import dataclass
from math import gcd

import torch
from tiny import ENCODERS, HIDDEN, LAYERS, tiny_model

from lpt.methods import build_method

INNER, KEYS = 24, 8  # of feed-forward networks, and of keys and values where heads share them: tests/tiny.py
PROMPT, BOTTLENECK, RANK, REDUCTION = 4, 8, 2, 2

SETTINGS = {
    "lpt": {"prompt_length": PROMPT, "bottleneck": BOTTLENECK},
    "lpt_lora": {"prompt_length": PROMPT, "bottleneck": BOTTLENECK, "rank": RANK},
    "lora": {"rank": RANK},
    "adapter": {"bottleneck": BOTTLENECK},
    "adapterdrop": {"bottleneck": BOTTLENECK},
    "bitfit": {},
    "full": {},
    "prompt_tuning": {"prompt_length": PROMPT},
    "p_tuning_v2": {"prompt_length": PROMPT},
    "s_idpg": {"prompt_length": PROMPT, "bottleneck": BOTTLENECK},
    "deep_lpt": {"prompt_length": PROMPT, "bottleneck": BOTTLENECK},
    "spt": {"prompt_length": PROMPT, "bottleneck": BOTTLENECK},
    "iapt": {"prompt_length": PROMPT, "bottleneck": BOTTLENECK, "generator": "attentive"},
    "ladder": {"reduction": REDUCTION},
}
DEEP = ("deep_lpt", "spt", "iapt")
FROM_THE_INPUT = ("prompt_tuning", "s_idpg")  # methods that cannot be late
WITHOUT_BIASES = ("llama", "mistral", "qwen3")


@dataclass(frozen=True)
class Anatomy:
    """Where the parts of a tiny model are, by name; maps with their sizes (in, out)."""

    layers: str
    attention: dict[str, tuple[int, int]]
    feed_forward: dict[str, tuple[int, int]]
    lora: tuple[str, ...]
    # The maps that the LoRA paper adapts, query and value, or what has them.
    sublayers: tuple[str, str]
    above: tuple[str, ...]
    # Modules above layer L that are trained with the layers.
    embeddings: tuple[str, ...]


def _bert(base: str, above: tuple[str, ...]) -> Anatomy:
    square = (HIDDEN, HIDDEN)
    attention = {f"attention.self.{name}": square for name in ("query", "key", "value")}
    return Anatomy(
        f"{base}.encoder.layer",
        attention | {"attention.output.dense": square},
        {"intermediate.dense": (HIDDEN, INNER), "output.dense": (INNER, HIDDEN)},
        ("attention.self.query", "attention.self.value"),
        ("attention.output.dense", "output.dense"),
        above,
        (f"{base}.embeddings",),
    )


_GPT2 = Anatomy(
    "transformer.h",
    {"attn.c_attn": (HIDDEN, 3 * HIDDEN), "attn.c_proj": (HIDDEN, HIDDEN)},
    {"mlp.c_fc": (HIDDEN, INNER), "mlp.c_proj": (INNER, HIDDEN)},
    ("attn.c_attn",),
    ("attn.c_proj", "mlp.c_proj"),
    ("transformer.ln_f",),
    ("transformer.wte", "transformer.wpe"),
)
_LLAMA = Anatomy(
    "model.layers",
    {
        "self_attn.q_proj": (HIDDEN, HIDDEN),
        "self_attn.k_proj": (HIDDEN, KEYS),
        "self_attn.v_proj": (HIDDEN, KEYS),
        "self_attn.o_proj": (HIDDEN, HIDDEN),
    },
    {"mlp.gate_proj": (HIDDEN, INNER), "mlp.up_proj": (HIDDEN, INNER), "mlp.down_proj": (INNER, HIDDEN)},
    ("self_attn.q_proj", "self_attn.v_proj"),
    ("self_attn.o_proj", "mlp.down_proj"),
    ("model.norm",),
    ("model.embed_tokens",),
)
ANATOMY = {
    "bert": _bert("bert", ("cls.predictions.transform",)),
    "roberta": _bert("roberta", ("lm_head.dense", "lm_head.layer_norm")),
    "gpt2": _GPT2,
    **dict.fromkeys(("llama", "mistral", "qwen2", "qwen3"), _LLAMA),
}


def build(name, family, layer=None, attention="eager", seed=1, **settings):
    """A method over a tiny model, in eval mode; a `layer` of None is the paper's."""
    model = tiny_model(family, attention)
    torch.manual_seed(seed)
    if layer is not None:
        settings["layer"] = layer
    return build_method(name, model, **(SETTINGS.get(name, {}) | settings)).eval()


def first_layer(name, layer):
    """Where a method that is told `layer` begins."""
    in_the_middle = dict.fromkeys(("lpt", "lpt_lora", "adapterdrop", "state_probe", *DEEP), LAYERS // 2 + 1)
    return layer or (in_the_middle | {"linear_probe": LAYERS, "zero_shot": LAYERS}).get(name, 1)


def trained(method):
    """Name in the Hugging Face model, or in the method, -> trained tensor."""
    return {n.removeprefix("backbone.model."): p for n, p in method.named_parameters() if p.requires_grad}


def stir(method, scale=0.1):
    """Move all that is trained a little: LoRA starts at zeros, behind which nothing has a gradient."""
    with torch.no_grad():
        for p in trained(method).values():
            p.add_(scale * torch.randn_like(p))
    return method


def readout(family, mask):
    """The last token in decoders, some token in encoders."""
    lengths = mask.sum(1)
    return lengths // 2 if family in ENCODERS else lengths - 1


def expected(name, family, layer=None):
    """Names of the trained tensors, and how many numbers they hold by the method's formula."""
    anatomy, k = ANATOMY[family], first_layer(name, layer)
    count = LAYERS - k + 1
    h, m, p, r = HIDDEN, BOTTLENECK, PROMPT, RANK
    names, size = set(), 0
    if name in ("lpt", "lpt_lora", "s_idpg"):
        hypercomplex, n = name == "s_idpg", gcd(16, h, m)
        tensors = ("a", "b", "bias") if hypercomplex else ("weight", "bias")
        names |= {f"generator.proj_{way}.{tensor}" for way in ("down", "up") for tensor in tensors}
        size += m + p * h + (2 * n**3 + h * m // n + m * p * h // n if hypercomplex else h * m + m * p * h)
    if name in ("lora", "lpt_lora"):
        maps = anatomy.attention | anatomy.feed_forward
        chosen = anatomy.lora if name == "lora" else maps
        names |= {f"{at}.lora_{side}.default.weight" for at in _in_layers(anatomy, k, chosen) for side in "AB"}
        size += count * sum(r * (a + b) for a, b in (maps[path] for path in chosen))
    if name in ("adapter", "adapterdrop"):
        places = _in_layers(anatomy, k, anatomy.sublayers)
        names |= {f"{at}.{way}.{tensor}" for at in places for way in ("down", "up") for tensor in ("weight", "bias")}
        size += count * 2 * (h * m + m + m * h + h)
    if name in DEEP:
        tensors = {f"proj_{way}.{tensor}" for way in ("down", "up") for tensor in ("weight", "bias")}
        if name == "iapt":
            tensors |= {"pool.weight", "activation.above", "activation.below"}
        names = {
            f"{at}.{t}" for t in tensors for at in ("generator", *(f"deeper.{i}" for i in range(k + 1, LAYERS + 1)))
        }
        one = h * m + m + m * p + 10 + m * h + h if name == "iapt" else h * m + m + m * p * h + p * h
        size = count * one
        if name == "spt":
            names, size = names | {"gates"}, size + count - 1
    if name == "ladder":
        names, size = _ladder(count, h // REDUCTION)
    if name == "state_probe":
        names, size = {"query"}, h
    if name == "prompt_tuning":
        names, size = {"generator.prompt"}, p * h
    if name == "p_tuning_v2":
        heads = KEYS if family not in (*ENCODERS, "gpt2") else h
        names, size = {"backbone.prefix.keys", "backbone.prefix.values"}, count * 2 * p * heads
    if name in ("full", "bitfit"):
        found = _weights(anatomy, family, k, whole=layer is None, ending=".bias" if name == "bitfit" else "")
        names, size = set(found), sum(p.numel() for p in found.values())
    return names, size


def _ladder(count, d):
    inside = ("norm", "qkv", "out", "feed_forward.0", "feed_forward.1", "feed_forward.3")
    modules = [f"down.{i}" for i in range(count + 1)] + [f"layers.{i}.{path}" for i in range(count) for path in inside]
    names = {f"{module}.{tensor}" for module in (*modules, "up") for tensor in ("weight", "bias")} | {"gates"}
    return names, count * (12 * d * d + 13 * d + 1) + (count + 1) * (HIDDEN * d + d) + d * HIDDEN + HIDDEN


def _in_layers(anatomy, k, paths):
    return [f"{anatomy.layers}.{i}.{path}" for i in range(k - 1, LAYERS) for path in paths]


def _weights(anatomy, family, k, whole, ending):
    """The plain model's tensors at the chosen places: layers k..L and what stands above, and below if `whole`."""
    places = [f"{anatomy.layers}.{i}" for i in range(k - 1, LAYERS)] + list(anatomy.above)
    if whole:
        places += anatomy.embeddings
    named = tiny_model(family).named_parameters()
    return {n: p for n, p in named if n.endswith(ending) and n.startswith(tuple(f"{at}." for at in places))}
