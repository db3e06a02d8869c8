"""Cross-validation of a run: its folds are runs of their own in `folds/`, their answers together its score."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from lpt.config.schema import Config
from lpt.console import part
from lpt.data.folds import folds
from lpt.data.splits import Splits
from lpt.training.first_process import say
from lpt.training.predictions import SplitPredictions
from lpt.training.result import CompletedRun, read_result

FOLDER = "folds"
Train = Callable[[Config, Path, Splits], CompletedRun]


def cross_validate(config: Config, rows: Splits, run_dir: Path, train: Train) -> SplitPredictions:
    """Train and test once for each fold, and return what was said of every row by a model that had not seen it.

    A fold that is completed is not run again.

    Args:
        config: of the run, with `fewshot.folds`.
        rows: of the run, without validation rows.
        run_dir: the run folder.
        train: runs one fold in a folder of its own.

    Raises:
        LptError: as of a run; or rows that cannot be divided so.
    """
    num_folds, metric = config.fewshot.folds, config.task.metrics[0]
    assert num_folds is not None
    alone = replace(config, fewshot=replace(config.fewshot, folds=None, k_dev=0))
    parts: list[tuple[list[int], SplitPredictions]] = []
    for i, (places, fold) in enumerate(folds(rows, num_folds, config.task.classes, config.fewshot.seed)):
        folder = run_dir / FOLDER / str(i + 1)
        done = read_result(folder)
        if not isinstance(done, CompletedRun):
            folder.mkdir(parents=True, exist_ok=True)
            with part(f"fold {i + 1}/{num_folds}"):
                done = train(part_of(alone, folder), folder, fold)
        path = folder / "predictions" / "test.jsonl"
        found = SplitPredictions.read(path, config.task.labels, config.task.value_range, done.metrics["test"]["loss"])
        parts.append((places, found))
        say(f"fold {i + 1}/{num_folds}  {metric} {found.metrics([metric])[metric]:.3f}  ({len(places)} rows)")
    return _together(parts)


def part_of(config: Config, folder: Path) -> Config:
    """The configuration of a run that is part of another: without dashboards, resumed where the other is."""
    return replace(
        config,
        logger=replace(config.logger, name="none"),
        resume=None if config.resume is None else str(folder),
    )


def _together(parts: list[tuple[list[int], SplitPredictions]]) -> SplitPredictions:
    """The answers to all rows, in the order of the rows."""
    order = np.argsort(np.concatenate([places for places, _ in parts]))
    probabilities = np.concatenate([found.probabilities for _, found in parts])[order]
    gold = np.concatenate([found.gold for _, found in parts])[order]
    loss = sum(found.loss * len(places) for places, found in parts) / len(order)
    return SplitPredictions(probabilities, gold, loss, parts[0][1].value_range)
