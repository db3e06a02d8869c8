"""Where a run computes, and in which number format."""

from dataclasses import dataclass

import torch

from lpt.config.schema import Config
from lpt.hardware import choose_accelerator, choose_dtype, keep_freed_memory
from lpt.methods import trains_backbone


@dataclass(frozen=True)
class Placement:
    """Device and number format of a run.

    Attributes:
        accelerator: `cpu` or `gpu`.
        dtype: of the backbone's weights.
        computed: of products; another than `dtype` where float32 weights are trained and computed in less.
    """

    accelerator: str
    dtype: torch.dtype
    computed: torch.dtype


def place(config: Config) -> Placement:
    """Choose device and number format.

    Raises:
        LptError: this machine lacks the device, or cannot compute the format.
    """
    accelerator = choose_accelerator(config.trainer.accelerator, config.trainer.devices)
    dtype = computed = choose_dtype(config.trainer.precision, accelerator)
    if trains_backbone(config.method.name):
        # Weights that are trained are float32, whatever they are computed in.
        dtype, computed = torch.float32, torch.float32 if config.trainer.precision == "auto" else computed
    if accelerator == "cpu":
        keep_freed_memory()
    return Placement(accelerator, dtype, computed)
