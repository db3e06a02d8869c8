"""What the runs under a folder were, what came of each, and what they predicted.

Shapes: N rows, C classes.
"""

import csv
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import MISSING, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from lpt.config.schema import Config
from lpt.errors import LptError
from lpt.report.ledger import points_of
from lpt.sweep.ledger import Status
from lpt.sweep.points import flat
from lpt.training.result import FILE, read_result

# What results.json calls otherwise than the configuration; needed where .hydra/ is missing.
RESULT_OPTIONS = {"task": "task.name", "backbone": "backbone.name", "method": "method.name", "head": "head.name"}


@dataclass(frozen=True)
class Predictions:
    """What a run said of a split.

    Attributes:
        index: `[N]` int, each row's place in the source.
        gold: `[N]` int classes, or float values of a regression.
        predicted: `[N]`, of the kind of `gold`.
        confidence: `[N]` float, probability of the predicted class; ones for a regression.
        labels: the C class names in class order; None for a regression.
    """

    index: np.ndarray
    gold: np.ndarray
    predicted: np.ndarray
    confidence: np.ndarray
    labels: list[str] | None


@dataclass(frozen=True)
class Run:
    """One run folder.

    Attributes:
        name: the folder, as seen from the one that the report is about.
        status: completed, failed, pruned (ended by a search), or unfinished (still running, or cut).
        error: why it failed, or was cut.
        options: every option of its configuration by its dotted name.
        overrides: what its command line said.
        result: what `result.json` holds.
        finished: seconds since the epoch.
    """

    folder: Path
    name: str
    status: str
    error: str | None
    options: dict[str, Any]
    overrides: list[str]
    result: dict[str, Any]
    finished: float

    @property
    def task(self) -> str:
        return str(self.options.get("task.name", "?"))

    @property
    def backbone(self) -> str:
        return str(self.options.get("backbone.name", "?"))

    @property
    def seed(self) -> Any:
        return self.options.get("seed")

    @property
    def metric(self) -> str:
        """Name of the primary metric."""
        return self.result.get("primary_metric", "accuracy")

    @property
    def test_set(self) -> str | None:
        """Fingerprint of the test rows."""
        return self.result.get("data", {}).get("fingerprint", {}).get("test")

    def score(self, split: str = "test", metric: str | None = None) -> float | None:
        return self.result.get("metrics", {}).get(split, {}).get(metric or self.metric)

    @cached_property
    def test_predictions(self) -> Predictions | None:
        return read_predictions(self.folder / "predictions" / "test.jsonl")


def collect_runs(folder: Path) -> list[Run]:
    """Every run at any depth, by name.

    Raises:
        LptError: there is no such folder, or no run in it.
    """
    if not folder.is_dir():
        raise LptError(f"{folder} is not a folder; name one with runs in it, such as runs/")
    runs = [_read_run(place, folder) for place in sorted(_run_folders(folder))]
    if not runs:
        raise LptError(
            f"there is no run under {folder}: no folder there has a result.json or a .hydra/; `python train.py` "
            "leaves runs under runs/"
        )
    _fill_in_layers(runs)
    return _as_ledgers_know(runs)


def read_predictions(path: Path) -> Predictions | None:
    """What a run saved of a split; None where it saved nothing that can be read."""
    try:
        rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        rows.sort(key=lambda row: row["index"])
        index = np.array([row["index"] for row in rows])
        if not rows or isinstance(rows[0]["gold"], int | float):
            gold, predicted = (np.array([row[key] for row in rows], dtype=float) for key in ("gold", "predicted"))
            return Predictions(index, gold, predicted, np.ones(len(rows)), None) if rows else None
        labels = list(rows[0]["probabilities"])
        gold, predicted = (np.array([labels.index(row[key]) for row in rows]) for key in ("gold", "predicted"))
        confidence = np.array([row["probabilities"][row["predicted"]] for row in rows])
        return Predictions(index, gold, predicted, confidence, labels)
    except (OSError, ValueError, KeyError, TypeError):
        return None


def read_curves(run: Run) -> dict[str, list[tuple[int, float]]]:
    """Column of `metrics.csv` -> (optimizer steps taken, value) of every row that has it; without epoch and step."""
    curves: dict[str, list[tuple[int, float]]] = {}
    try:
        with (run.folder / "metrics.csv").open(newline="", encoding="utf-8") as file:
            for row in csv.DictReader(file):
                for name, value in row.items():
                    if value and name not in ("epoch", "step"):
                        curves.setdefault(name, []).append((int(row["step"]) + 1, float(value)))
    except (OSError, ValueError, KeyError, TypeError):
        return {}
    return curves


def _run_folders(folder: Path) -> Iterator[Path]:
    for place, folders, files in os.walk(folder):
        if "result.json" in files or ".hydra" in folders:
            yield Path(place)
        folders[:] = [name for name in folders if not name.startswith(".")]


def _read_run(place: Path, root: Path) -> Run:
    path = place / FILE
    result: dict[str, Any] = {}
    status, error = "unfinished", None
    try:
        found = read_result(place)
        if found is not None:
            result = asdict(found)
            status, error = result["status"], result.get("error")
    except LptError as problem:
        status, error = "failed", str(problem)
    options = _options(place / ".hydra" / "config.yaml")
    for key, option in RESULT_OPTIONS.items():
        options.setdefault(option, result.get(key))
    options.setdefault("seed", result.get("seed"))
    for key, value in result.get("fewshot", {}).items():
        options.setdefault(f"fewshot.{key}", value)
    entering = result.get("lpt", {})
    if "lpt" in str(options["method.name"]):
        options.setdefault("lpt.layer", entering.get("layer"))
        options.setdefault("lpt.prompt_length", entering.get("prompt_length"))
        options.setdefault("lpt.bottleneck", entering.get("bottleneck"))
        options.setdefault("generator.name", entering.get("generator"))
    else:  # it has no late prompt, and its results do not depend on what was set for one
        options = {name: value for name, value in options.items() if not name.startswith(("lpt.", "generator."))}
    overrides = _yaml(place / ".hydra" / "overrides.yaml") or []
    finished = (path if path.exists() else place).stat().st_mtime
    name = str(place.relative_to(root)) if place != root else place.absolute().name
    return Run(place, name, status, error, options, [str(o) for o in overrides], result, finished)


def _as_ledgers_know(runs: Sequence[Run]) -> list[Run]:
    """A run that was killed could not say so: of one without a result, its sweep's ledger knows more."""
    sweeps = {run.folder.absolute().parent for run in runs if run.status != Status.COMPLETED}
    points = {point.folder: point for sweep in sweeps for point in points_of(sweep)}
    known = []
    for run in runs:
        point = points.get(run.folder.absolute())
        if run.status == Status.COMPLETED or point is None or point.status == Status.COMPLETED:
            known.append(run)
        else:
            status = point.status if point.status in (Status.FAILED, Status.PRUNED) else "unfinished"
            known.append(replace(run, status=status, error=point.error))
    return known


def _fill_in_layers(runs: Sequence[Run]) -> None:
    """Where a configuration leaves the layer of the prompt to its backbone, results know it; also of a failed run."""
    left = [run for run in runs if run.options.get("lpt.layer", 0) is None]
    chosen = {run.backbone: run.result["lpt"]["layer"] for run in left if run.result.get("lpt")}
    for run in left:
        run.options["lpt.layer"] = chosen.get(run.backbone)


def _options(path: Path) -> dict[str, Any]:
    """What a run was configured with; what its configuration is too old to have stood at its default."""
    known = _plain(_yaml(path) or {})
    return known and {**_defaults(), **known}


@cache
def _defaults() -> dict[str, Any]:
    return {name: value for name, value in _plain(asdict(Config())).items() if value != MISSING}


def _plain(tree: dict[Any, Any]) -> dict[str, Any]:
    return {name: str(value) if isinstance(value, list) else value for name, value in flat(tree)}


def _yaml(path: Path) -> Any:
    """With interpolations such as `fewshot.seed: ${seed}` resolved; None where there is no such file."""
    try:
        return OmegaConf.to_container(OmegaConf.load(path), resolve=True)
    except (OSError, YAMLError, OmegaConfBaseException):
        return None
