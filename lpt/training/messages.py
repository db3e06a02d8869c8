"""What is printed before training: number format, rows, and what was chosen for this machine and these texts."""

import textwrap
from collections.abc import Sequence

import torch

from lpt.backbones.placement import Placement
from lpt.config.schema import Config
from lpt.data.audit import class_cautions
from lpt.data.batches import EncodedSplit
from lpt.data.splits import Splits
from lpt.hardware import bf16_hardware, describe_device
from lpt.methods import trains_backbone
from lpt.training.first_process import say
from lpt.training.plan import TrainingPlan

WIDTH = 80  # columns
FORMATS = {torch.float32: "float32", torch.bfloat16: "bf16", torch.float16: "fp16"}


def say_placement(config: Config, placement: Placement) -> None:
    """Say which number format is used, on which device, and why."""
    _say_within_width(describe_placement(config, placement))


def describe_placement(config: Config, placement: Placement) -> str:
    """Number format, device and reason, as in `bf16 on 2 CPU cores (AVX512-BF16)`."""
    accelerator = placement.accelerator
    text = f"{FORMATS[placement.compute_dtype]} on {describe_device(accelerator, config.trainer.processes)}"
    if trains_backbone(config.method.name):
        return f"{text}; the backbone's weights are trained, so they are kept in float32"
    bf16 = bf16_hardware(accelerator)
    if config.trainer.precision == "auto" and bf16 is None:
        lacking = "GPU has no bf16" if accelerator == "gpu" else "processor has no fast bf16 (AMX or AVX512-BF16)"
        return f"{text}: this {lacking}; choose with trainer.precision"
    if placement.dtype is torch.bfloat16 and accelerator == "cpu":
        return f"{text} ({bf16})" if bf16 else f"{text}, which has no fast bf16; trainer.precision=32 may be faster"
    return text


def say_rows(config: Config, rows: Splits) -> None:
    """Say how the rows were drawn, and of each split how many it has."""
    for line in describe_rows(config, rows):
        _say_within_width(line)


def describe_rows(config: Config, rows: Splits) -> list[str]:
    """A heading, and a line for each split: rows, rows of each class, and the beginning of its fingerprint."""
    facts, few = rows.describe(config.task.classes), config.fewshot
    lines = [f"{config.task.name}, drawn with fewshot={few.protocol} fewshot.seed={few.seed}:"]
    width = max(map(len, facts["sizes"]))
    for name, size in facts["sizes"].items():
        classes = ", ".join(f"{count} {label}" for label, count in facts["sizes_per_class"][name].items())
        source = f"; the {rows.test_split} split" if name == "test" and rows.test_split != "test" else ""
        about = f"{classes}; " if classes else ""
        lines.append(f"  {name:<{width}}  {size} ({about}fingerprint {facts['fingerprint'][name][:8]}{source})")
    return lines


def say_choices(config: Config, attention: str, plan: TrainingPlan, length: float) -> None:
    """Say what was chosen automatically, as the options that would ask for it."""
    chosen = describe_choices(config, attention, plan)
    if chosen:
        _say_within_width(f"chosen for texts of about {length:.0f} tokens: {' '.join(chosen)}")


def describe_choices(config: Config, attention: str, plan: TrainingPlan) -> list[str]:
    """The options that were left open, with the values that they were given."""
    chosen = []
    if config.backbone.attention == "auto":
        chosen.append(f"backbone.attention={attention}")
    if config.optim.gradient_accumulation is None and plan.total_steps:
        chosen.append(f"optim.gradient_accumulation={plan.gradient_accumulation}")
    return chosen


def say_compiling(layer: int, last: int) -> None:
    """Say which layers the first step is going to compile."""
    _say_within_width(f"compiling layers {layer}..{last} in the first step (trainer.compile): this may take a minute")


def warn_about_rows(
    rows: Splits, splits: dict[str, EncodedSplit], classes: Sequence[str] | None, max_length: int
) -> None:
    """Say what is odd about the rows and their classes, and which texts are truncated to `max_length` tokens."""
    for caution in (*rows.cautions, *class_cautions(rows.train.sizes_per_class(classes))):
        _say_within_width(f"warning: {caution}")
    for message in rows.audit.messages():
        _say_within_width(message)
    for name, split in splits.items():
        if split.truncated_share:
            _say_within_width(
                f"{split.truncated_share:.1%} of the {name} texts are truncated to {max_length} tokens "
                "(task.max_length)"
            )


def _say_within_width(text: str) -> None:
    indent = " " * (len(text) - len(text.lstrip()) + 2)
    for line in textwrap.wrap(text, WIDTH, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False):
        say(line)
