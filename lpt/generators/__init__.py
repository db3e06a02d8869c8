"""Prompt generators: the hidden states entering layer k in, the soft prompt for this very input out."""

from typing import Any

from lpt.errors import LptError
from lpt.generators import attentive, inception, paper  # noqa: F401  (each registers its generators)
from lpt.generators.base import PromptGenerator
from lpt.registry import GENERATORS

__all__ = ["GENERATORS", "PromptGenerator", "build_generator"]


def build_generator(
    name: str,
    hidden_size: int,
    prompt_length: int,
    bottleneck: int = 128,
    dropout: float = 0.0,
    normalize: bool = False,
    **options: Any,
) -> PromptGenerator:
    """The generator that is registered under `name`.

    Args:
        name: `npg`, `appg`, `mppg`, `phm`, `none`, `inception`, `attentive`, or one of the user's own.
        hidden_size: H.
        prompt_length: P.
        bottleneck: m.
        dropout: rate on the prompt.
        normalize: see `PromptGenerator`.
        options: parameters that this generator has of its own.

    Raises:
        LptError: unknown name, or a size below 1.
    """
    build = GENERATORS[name]
    for option, value in (("prompt_length", prompt_length), ("bottleneck", bottleneck)):
        if value < 1:
            raise LptError(f"{option}={value} is too small; it must be at least 1")
    generator: PromptGenerator = build(hidden_size, prompt_length, bottleneck, dropout, **options)
    generator.normalize = normalize
    return generator
