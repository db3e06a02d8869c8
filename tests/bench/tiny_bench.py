"""Stand-ins for benches: configurations over tiny random backbones, and what a measurement returns."""

from functools import cache

from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from lpt.config.candidates import candidates
from lpt.config.declarations import declared
from lpt.config.schema import CONF_DIR

CANDIDATES = candidates(declared())

_SIZES = (
    "vocab_size=60&hidden_size=16&num_hidden_layers=4&num_attention_heads=2&intermediate_size=24"
    "&max_position_embeddings=40"
)
ROBERTA = f"random://roberta?{_SIZES}"
LLAMA = f"random://llama?{_SIZES}&num_key_value_heads=1&head_dim=8"


def options(path=ROBERTA):
    """Steps of milliseconds."""
    return [
        "experiment=bench_roberta_base",
        f"backbone.path='{path}'",
        "backbone.name=tiny",
        "trainer.accelerator=cpu",
        "optim.batch_size=4",
        "lpt.layer=3",
        "lpt.bottleneck=4",
        "bench.tokens=12",
        "bench.steps=2",
    ]


@cache
def _tiny(path, groups):
    with initialize_config_dir(version_base="1.3", config_dir=str(CONF_DIR)):
        return compose("config", overrides=[*options(path), *groups])


def composed(*overrides, path=ROBERTA):
    """What `lpt bench` composes of `options` and these; choices of groups, which take long, are composed once."""
    groups = tuple(text for text in overrides if "." not in text.partition("=")[0])
    values = [text for text in overrides if text not in groups]
    return OmegaConf.merge(_tiny(path, groups), OmegaConf.from_dotlist(values))


def measured(method, seconds=0.25, **changes):
    """A result as `measure` has it."""
    return {
        "method": method,
        "precision": "float32",
        "attention": "eager",
        "step_seconds": seconds,
        "step_seconds_all": [seconds] * 3,
        "examples_per_second": 4 / seconds,
        "loaded_bytes": 1_000_000,
        "peak_bytes_above_backbone": 2_000_000,
        "trainable_parameters": 12_345,
        "flop": 1e9,
        "matmul_flop_per_second": 1e10,
        "arithmetic_bound_seconds": 0.1,
        "vs_arithmetic_bound": seconds / 0.1,
        "cache_bytes": 0,
        "cache_rows": 16,
        "accelerator": "cpu",
        "threads": 1,
        **changes,
    }
