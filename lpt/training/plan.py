"""How long a run trains, how often it is evaluated and logged: counted in optimizer steps."""

import math
from dataclasses import dataclass

from lpt.config.schema import Config

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


def plan_training(config: Config, num_rows: int, gradient_accumulation: int, trainable: bool = True) -> TrainingPlan:
    """The plan of this configuration for `num_rows` training rows; no steps where nothing is `trainable`."""
    trainer = config.trainer
    steps_per_epoch = math.ceil(num_rows / config.optim.batch_size)
    total_steps = trainer.max_steps
    if total_steps is None:
        total_steps = max(trainer.max_epochs * steps_per_epoch, trainer.min_steps)
    if not trainable:
        total_steps = 0
    eval_every = trainer.eval_every or max(steps_per_epoch, math.ceil(total_steps / EVALUATIONS))
    return TrainingPlan(
        steps_per_epoch=steps_per_epoch,
        total_steps=total_steps,
        warmup_steps=round(config.optim.warmup_ratio * total_steps),
        eval_every=min(eval_every, total_steps or 1),
        log_every=min(trainer.log_every, steps_per_epoch),
        gradient_accumulation=gradient_accumulation,
    )
