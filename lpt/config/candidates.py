"""What `lpt bench` can measure, by name."""

from lpt.config.declarations import Declarations

STOCK = ("full", "lora", "prompt_tuning", "per_label")  # by Hugging Face's own forward pass


def candidates(declarations: Declarations) -> list[str]:
    """Every name that `bench.methods` may have.

    A method by its own name is measured as `train.py` trains it; `late_` in front has it begin at `lpt.layer`, and
    `_cached` behind has it read the states entering that layer from the trunk cache.
    """
    names = list(STOCK)
    for name, method in declarations["method"].items():
        own = [] if name in STOCK else [name]
        if method.traits.get("late"):
            names += [*own, f"{name}_cached"]
        elif "layer" in method.parameters:
            names += [*own, f"late_{name}", f"late_{name}_cached"]
        else:
            names += own
    return names


def method_of(candidate: str) -> str:
    """The method that a candidate is named by."""
    return candidate.removeprefix("late_").removesuffix("_cached")
