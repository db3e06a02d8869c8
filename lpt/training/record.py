"""The result of a run, put together from what was prepared, trained and predicted."""

from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch

from lpt.cache.trunk import TrunkCache
from lpt.classifier import LatePromptClassifier
from lpt.config.schema import Config
from lpt.hardware import peak_memory_bytes
from lpt.metrics import class_scores, confusion_counts
from lpt.training.environment import git_state, hardware, package_versions
from lpt.training.experiment import Experiment
from lpt.training.module import PromptModule
from lpt.training.plan import TrainingPlan
from lpt.training.predictions import SplitPredictions
from lpt.training.result import (
    Calibration,
    CompletedRun,
    DataFacts,
    FreezeFacts,
    LatePromptFacts,
    TrainFacts,
    identity,
)


def completed_run(
    experiment: Experiment,
    predictions: dict[str, SplitPredictions],
    train: TrainFacts,
    cache: TrunkCache,
    best_step: int,
    wall_seconds: float,
    freeze: FreezeFacts | None,
    calibration: Calibration | None,
) -> CompletedRun:
    """What `result.json` is going to hold.

    Args:
        predictions: of validation rows and test sets, by split.
        train: from `training_facts`.
        best_step: optimizer steps before the values that were tested; 0 where nothing was trained.
        wall_seconds: since the command was started.
        freeze: the freeze certificate; None where nothing was trained.
        calibration: of the classes' probabilities; None for a regression.
    """
    config, placement, classifier = experiment.config, experiment.placement, experiment.classifier
    names = config.task.metrics
    return CompletedRun(
        **vars(identity(config)),
        lpt=late_prompt_facts(classifier),
        settings=classifier.config.settings,
        data=data_facts(experiment),
        metrics={split: found.metrics(names) | {"loss": found.loss} for split, found in predictions.items()},
        intervals={split: found.intervals(names) for split, found in predictions.items()},
        primary_metric=names[0],
        best_step=best_step,
        trainable_parameters=experiment.trainable_parameters,
        backbone_parameters=experiment.backbone_parameters,
        train=train,
        cache=cache.facts,
        precision=placement.precision,
        quantization=config.backbone.quantization,
        attention=experiment.attention,
        backbone_commit=experiment.pretrained.commit,
        wall_seconds=round(wall_seconds, 2),
        hardware=hardware(placement.accelerator, config.trainer.processes),
        versions=package_versions(),
        git=git_state(),
        freeze=freeze,
        calibration=calibration,
    )


def training_summary(result: CompletedRun, found: SplitPredictions | None, config: Config) -> dict[str, Any]:
    """What an adapter keeps of its training, for whoever finds it.

    Args:
        result: of the run.
        found: what was predicted of the rows that the run is judged by; None where there are none.
        config: of the run.
    """
    labels, classes = config.task.labels, {}
    if found is not None and found.value_range is None:
        scores = class_scores(confusion_counts(found.predicted, found.gold, len(labels)))
        rows = zip(*(part.tolist() for part in scores), strict=True)
        classes = {name: [*(round(x, 4) for x in row[:3]), row[3]] for name, row in zip(labels, rows, strict=True)}
    return {
        "rows": result.data.sizes,
        "seed": result.seed,
        "lr": config.optim.lr,
        "steps": result.train.steps,
        "best_step": result.best_step,
        "precision": result.precision,
        "judged_on": result.judged_on,
        "primary_metric": result.primary_metric,
        "metrics": {split: _rounded(metrics) for split, metrics in result.metrics.items()},
        "intervals": {split: _rounded(intervals) for split, intervals in result.intervals.items()},
        "classes": classes,
    }


def _rounded(values: dict[str, Any]) -> dict[str, Any]:
    return {name: np.round(value, 4).tolist() for name, value in values.items()}


def data_facts(experiment: Experiment) -> DataFacts:
    """Sizes, fingerprints and truncated texts of each split."""
    truncated = {name: round(split.truncated_share, 4) for name, split in experiment.splits.items()}
    return DataFacts(**experiment.rows.describe(experiment.config.task.classes), truncated=truncated)


def late_prompt_facts(classifier: LatePromptClassifier) -> LatePromptFacts:
    """Where the trained part begins, and the prompt that enters there, if the method writes one."""
    settings = classifier.config.settings
    prompt = settings if "generator" in settings else {}
    return LatePromptFacts(
        classifier.method.backbone.layer,
        prompt.get("prompt_length"),
        prompt.get("generator"),
        prompt.get("bottleneck"),
        classifier.method.read_only,
    )


def training_facts(
    trainer: pl.Trainer, module: PromptModule, accelerator: str, plan: TrainingPlan, best_step: int
) -> TrainFacts:
    """What training took. Every process of the run must call this: tokens are summed over all of them."""
    seconds = module.train_seconds
    tokens = trainer.strategy.reduce(
        torch.tensor(float(module.train_tokens), device=trainer.strategy.root_device), reduce_op="sum"
    )
    return TrainFacts(
        steps=trainer.global_step,
        gradient_accumulation=trainer.accumulate_grad_batches,
        seconds=round(seconds, 3),
        steps_per_second=round(module.train_steps / seconds, 3) if seconds else 0.0,
        tokens_per_second=round(float(tokens) / seconds, 1) if seconds else 0.0,
        peak_memory_bytes=peak_memory_bytes(accelerator),
        # A single evaluation tells nothing of it, and none even less.
        still_improving=trainer.limit_val_batches != 0
        and best_step == trainer.global_step == plan.total_steps > plan.eval_every,
    )
