"""The runs under a folder: what each one was, and what came of it."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property
from pathlib import Path
from typing import Any

from lpt.config.saved import default_config, read_saved_config, read_saved_overrides
from lpt.errors import LptError
from lpt.files import check_folder
from lpt.report.listing import OUTDATED, UNFINISHED, outcome_of
from lpt.report.predictions import SavedPredictions, read_predictions
from lpt.report.sweep_points import points_of
from lpt.sweep.ledger import Status
from lpt.sweep.points import flat
from lpt.training.result import CROSS_VALIDATION, FILE, CompletedRun, FailedRun

PROMPT_OPTIONS = ("lpt.prompt_length", "lpt.bottleneck", "generator.")


@dataclass(frozen=True)
class Run:
    """One run folder.

    Attributes:
        name: the folder, as seen from the one that the report is about.
        status: completed, failed, pruned (ended by a search), unfinished or outdated.
        error: why it failed, or was interrupted.
        options: every option of its configuration by its dotted name.
        overrides: what its command line said.
        result: what it achieved; None unless it is completed.
        finished: seconds since the epoch.
    """

    folder: Path
    name: str
    status: str
    error: str | None
    options: dict[str, Any]
    overrides: list[str]
    result: CompletedRun | None
    finished: float

    @property
    def task(self) -> str:
        """Name of the task; `?` where the configuration is not known."""
        return str(self.options.get("task.name") or "?")

    @property
    def backbone(self) -> str:
        """Name of the backbone; `?` where the configuration is not known."""
        return str(self.options.get("backbone.name") or "?")

    @property
    def method(self) -> str:
        """Name of the method; `?` where the configuration is not known."""
        return str(self.options.get("method.name") or "?")

    @property
    def seed(self) -> Any:
        """Seed of the run; None where the configuration is not known."""
        return self.options.get("seed")

    @property
    def metric(self) -> str:
        """Name of the primary metric."""
        return self.result.primary_metric if self.result else "accuracy"

    @property
    def judged_on(self) -> str:
        """The split that its score is of: `test`, or `cross_validation` where it has no test rows."""
        return self.result.judged_on if self.result else "test"

    @property
    def test_set(self) -> str | None:
        """Fingerprint of the rows that its score is of."""
        split = "train" if self.judged_on == CROSS_VALIDATION else "test"
        return self.result.data.fingerprint.get(split) if self.result else None

    def score(self) -> float | None:
        """Return the primary metric on the rows that it is judged by."""
        return self.result.metrics.get(self.judged_on, {}).get(self.metric) if self.result else None

    @cached_property
    def predictions(self) -> SavedPredictions | None:
        """Predictions for the rows that it is judged by, read once; None where the run saved none."""
        return read_predictions(self.folder / "predictions" / f"{self.judged_on}.jsonl")


def collect_runs(folder: Path) -> list[Run]:
    """Read every run at any depth, in the order of their names.

    Raises:
        LptError: there is no such folder, or no run in it.
    """
    check_folder(folder)
    runs = [_read_run(place, folder) for place in sorted(_run_folders(folder))]
    if not runs:
        raise LptError(
            f"there is no run under {folder}: no folder there has a result.json or a .hydra/; `python train.py` "
            "leaves runs under runs/"
        )
    _settle_options(runs)
    return _as_ledgers_know(runs)


def _run_folders(folder: Path) -> Iterator[Path]:
    for place, folders, files in os.walk(folder):
        if FILE in files or ".hydra" in folders:
            yield Path(place)
            folders.clear()  # what is in a run's folder is part of it: the folds of a cross-validation
        folders[:] = [name for name in folders if not name.startswith(".")]


def _read_run(place: Path, root: Path) -> Run:
    outcome = outcome_of(place)
    found = outcome.result
    return Run(
        place,
        name=str(place.relative_to(root)) if place != root else place.absolute().name,
        status=outcome.status,
        error=outcome.error,
        options=_options(read_saved_config(place), found),
        overrides=read_saved_overrides(place),
        result=found if isinstance(found, CompletedRun) else None,
        finished=outcome.finished,
    )


def _options(config: dict[str, Any], found: CompletedRun | FailedRun | None) -> dict[str, Any]:
    """Return every option by its dotted name; without a configuration, those that the result knows.

    An option that the configuration is too old to have stood at its default.
    """
    known = _plain(config)
    options = {**_defaults(), **known} if known else {}
    for option, value in _identity(found).items():
        options.setdefault(option, value)
    return options


def _identity(found: CompletedRun | FailedRun | None) -> dict[str, Any]:
    """Return the options that a result knows, by their dotted names."""
    if found is None:
        return {}
    options: dict[str, Any] = {
        "task.name": found.task,
        "backbone.name": found.backbone,
        "method.name": found.method,
        "head.name": found.head,
        "seed": found.seed,
        **{f"fewshot.{name}": value for name, value in vars(found.fewshot).items()},
    }
    if isinstance(found, CompletedRun):
        options |= {
            "lpt.layer": found.lpt.layer,
            "lpt.read_only": found.lpt.read_only,
            "lpt.prompt_length": found.lpt.prompt_length,
            "lpt.bottleneck": found.lpt.bottleneck,
            "generator.name": found.lpt.generator,
        }
    return options


def _as_ledgers_know(runs: Sequence[Run]) -> list[Run]:
    """Complete runs by the ledgers of their sweeps: one that was killed could not say so itself."""
    ended = (Status.COMPLETED, OUTDATED)
    sweeps = {run.folder.absolute().parent for run in runs if run.status not in ended}
    points = {point.folder: point for sweep in sweeps for point in points_of(sweep)}
    known = []
    for run in runs:
        point = points.get(run.folder.absolute())
        if run.status in ended or point is None or point.status == Status.COMPLETED:
            known.append(run)
        else:
            status = point.status if point.status in (Status.FAILED, Status.PRUNED) else UNFINISHED
            known.append(replace(run, status=status, error=point.error))
    return known


def _settle_options(runs: Sequence[Run]) -> None:
    """Set options to what was used, which results know, also for runs of the same kind without a result.

    A layer that was left to the method is the one it took, and a method that writes no prompt has no options of one.
    """
    layers = {(run.backbone, run.method): run.result.lpt.layer for run in runs if run.result and _layer_left(run)}
    promptless = {run.method for run in runs if run.result and run.result.lpt.generator is None}
    for run in runs:
        if _layer_left(run):
            run.options["lpt.layer"] = layers.get((run.backbone, run.method))
        if run.method in promptless:
            for name in [name for name in run.options if name.startswith(PROMPT_OPTIONS)]:
                del run.options[name]


def _layer_left(run: Run) -> bool:
    return run.options.get("lpt.layer") is None


@cache
def _defaults() -> dict[str, Any]:
    return _plain(default_config())


def _plain(config: dict[str, Any]) -> dict[str, Any]:
    return {name: str(value) if isinstance(value, list) else value for name, value in flat(config)}
