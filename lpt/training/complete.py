"""Whether a run that is to be resumed is complete already; asked before torch is imported."""

import math
from collections.abc import Iterable
from pathlib import Path

from lpt.config.schema import Config
from lpt.errors import LptError
from lpt.training.plan import planned_steps, steps_per_epoch
from lpt.training.result import CompletedRun, read_result

LENGTHS = ("trainer.max_epochs", "trainer.min_steps", "trainer.max_steps", "trainer.patience")


def completed(folder: Path, config: Config, overrides: Iterable[str]) -> CompletedRun | None:
    """The result of a run that has nothing left to do; None where it is to train, further than before or at all.

    Args:
        folder: the run folder.
        config: what the command that resumes it would run.
        overrides: what that command says; only a length that is typed makes a completed run train on, since it may have
            ended before the length that it was started with, or after it if it was resumed before.
    """
    try:
        result = read_result(folder)
    except LptError:  # damaged: to be written anew
        return None
    if not isinstance(result, CompletedRun):
        return None
    typed = any(text.lstrip("+").startswith(LENGTHS) for text in overrides)
    longer = planned_steps(config, result.data.sizes["train"]) > result.train.steps
    return None if typed and longer and _can_go_on(result) else result


def describe(result: CompletedRun, folder: Path, config: Config, resume: str) -> str:
    """Say that the run is complete, with its scores, and how to train it further, `resume` being the command."""
    scores = [
        f"{split} {result.primary_metric} {result.metrics[split][result.primary_metric]:.3f}"
        for split in result.metrics
    ]
    said = f"{folder} is complete: {', '.join(scores)}"
    if not _can_go_on(result):
        return said
    steps, rows, patience = result.train.steps, result.data.sizes["train"], config.trainer.patience
    epochs = math.ceil(steps / steps_per_epoch(config, rows))
    if patience is not None and steps < planned_steps(config, rows):
        more = f"patience=<more than {patience}, or null>"
    else:
        more = (
            f"max_epochs=<more than {epochs}>" if config.trainer.max_steps is None else f"max_steps=<more than {steps}>"
        )
    return f"{said}, best step {result.best_step} of {steps}\nto train it further: {resume} trainer.{more}"


def _can_go_on(result: CompletedRun) -> bool:
    """Not where nothing is trained, nor where the score is that of folds, which were trained as long as the run was."""
    return bool(result.trainable_parameters) and result.fewshot.folds is None
