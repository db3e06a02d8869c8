"""What `lpt bench` can measure, by name."""

from lpt.config.declarations import Declarations

STOCK = ("full", "lora", "alora", "prompt_tuning", "per_label")  # by Hugging Face's own forward pass


def candidates(declarations: Declarations) -> list[str]:
    """Every name that `bench.methods` may have.

    A method by its own name is measured as `train.py` trains it; `late_` in front has it begin at `lpt.layer`,
    `_read_only` behind has it read the text once, and `_cached` behind that has it take from the cache what is kept of
    the text.
    """
    names = list(STOCK)
    for name, method in declarations["method"].items():
        late = method.traits.get("late")
        begun = [name, f"late_{name}"] if "layer" in method.parameters and not late else [name]
        names += [each for each in begun if each not in STOCK]
        names += [f"{each}_cached" for each in begun if late or each != name]
        if "read_only" in method.parameters:
            names += [f"{each}_read_only{cached}" for each in begun for cached in ("", "_cached")]
    return names


def method_of(candidate: str) -> str:
    """The method that a candidate is named by."""
    return candidate.removeprefix("late_").removesuffix("_cached").removesuffix("_read_only")
