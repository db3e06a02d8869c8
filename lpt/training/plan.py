"""How long a run trains, how often it is evaluated and logged: counted in optimizer steps."""

import math
from dataclasses import dataclass

from lpt.config.schema import Config

# Where trainer.max_epochs is left open: with few rows, six epochs are too few steps (experiments/README.md).
USUAL_EPOCHS, USUAL_STEPS = 6, 300
EVALUATIONS = 20  # at most, unless trainer.eval_every says otherwise or there are more epochs


@dataclass(frozen=True)
class TrainingPlan:
    """Counts of optimizer steps.

    Attributes:
        steps_per_epoch: steps that see every training row once.
        total_steps: 0 where an untrained model is evaluated.
        warmup_steps: steps over which the learning rate rises.
        eval_every: steps between evaluations.
        log_every: steps between lines of `metrics.csv`.
        gradient_accumulation: micro-batches per step.
    """

    steps_per_epoch: int
    total_steps: int
    warmup_steps: int
    eval_every: int
    log_every: int
    gradient_accumulation: int

    @property
    def epochs(self) -> int:
        """Epochs begun."""
        return math.ceil(self.total_steps / self.steps_per_epoch)


def steps_per_epoch(config: Config, num_rows: int) -> int:
    """Optimizer steps that see each of `num_rows` training rows once."""
    return math.ceil(num_rows / config.optim.batch_size)


def planned_steps(config: Config, num_rows: int) -> int:
    """Optimizer steps that the configuration asks for, with `num_rows` training rows."""
    trainer, epoch = config.trainer, steps_per_epoch(config, num_rows)
    if trainer.max_steps is not None:
        return trainer.max_steps
    steps = max(USUAL_EPOCHS * epoch, USUAL_STEPS) if trainer.max_epochs is None else trainer.max_epochs * epoch
    return max(steps, trainer.min_steps)


def plan_training(config: Config, num_rows: int, gradient_accumulation: int, trainable: bool = True) -> TrainingPlan:
    """The plan of this configuration for `num_rows` training rows; no steps where nothing is `trainable`."""
    trainer, epoch = config.trainer, steps_per_epoch(config, num_rows)
    total_steps = planned_steps(config, num_rows) if trainable else 0
    eval_every = trainer.eval_every or max(epoch, math.ceil(total_steps / EVALUATIONS))
    return TrainingPlan(
        steps_per_epoch=epoch,
        total_steps=total_steps,
        warmup_steps=round(config.optim.warmup_ratio * total_steps),
        eval_every=min(eval_every, total_steps or 1),
        log_every=min(trainer.log_every, epoch),
        gradient_accumulation=gradient_accumulation,
    )
