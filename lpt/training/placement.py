"""Where a run computes, and in which number format."""

from lpt.backbones.placement import Placement
from lpt.config.schema import Config
from lpt.hardware import keep_freed_memory
from lpt.methods import trains_backbone


def place(config: Config) -> Placement:
    """Choose device and number format.

    Raises:
        LptError: this machine lacks the device, or cannot compute the format.
    """
    trainer = config.trainer
    train_weights = trains_backbone(config.method.name)
    placement = Placement.choose(trainer.accelerator, trainer.precision, trainer.devices, train_weights)
    if placement.accelerator == "cpu":
        keep_freed_memory()
    return placement
