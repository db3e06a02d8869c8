"""The runs under a folder, quickly: what each `result.json` says, and a line for each sweep.

Nothing else is read, so a thousand runs take no longer than a breath; `lpt.report.runs` reads all that a report needs.
"""

import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from lpt.errors import LptError
from lpt.files import check_folder
from lpt.report.sweep_points import points_of
from lpt.sweep.ledger import FILE as LEDGER
from lpt.sweep.ledger import Status
from lpt.training.result import CROSS_VALIDATION, FILE, CompletedRun, FailedRun, ResultFormatError, read_result

UNFINISHED = "unfinished"  # still running, or interrupted
OUTDATED = "outdated"  # its result is of a format that this version does not read


@dataclass(frozen=True)
class Outcome:
    """What became of a run, as its folder says."""

    status: str
    # completed, failed, unfinished or outdated.
    error: str | None
    result: CompletedRun | FailedRun | None
    finished: float
    # Seconds since the epoch; of an unfinished run, when something was last made in its folder.


def outcome_of(folder: Path) -> Outcome:
    """Read what became of the run in a folder."""
    result, status, error, path = None, UNFINISHED, None, folder / FILE
    try:
        result = read_result(folder)
    except ResultFormatError as problem:
        status, error = OUTDATED, str(problem)
    except LptError as problem:
        status, error = Status.FAILED, str(problem)
    if result is not None:
        status = Status(result.status)
        error = result.error if isinstance(result, FailedRun) else None
    return Outcome(status, error, result, (path if path.exists() else folder).stat().st_mtime)


@dataclass(frozen=True)
class Line:
    """A run, or a sweep in one line; None for what is not known, or differs among the points of a sweep."""

    folder: str
    sweep: str | None
    # The folder of the sweep that a run is part of.
    task: str | None
    backbone: str | None
    method: str | None
    seed: int | None
    metric: str | None
    # The primary one.
    validation: float | None
    test: float | None
    seconds: float | None
    # From the start of the command to its end; of a sweep, of all its points together.
    status: str
    error: str | None
    finished: float

    def as_json(self) -> dict[str, Any]:
        """The same for other programs, the time in ISO 8601."""
        return vars(self) | {"finished": datetime.fromtimestamp(self.finished).astimezone().isoformat("T", "seconds")}


def list_runs(folder: Path, task: str | None = None) -> list[Line]:
    """A line for every run at any depth, in no order.

    Args:
        folder: that of all runs, of a sweep, or of a single run.
        task: leave out the runs of all others.

    Raises:
        LptError: there is no such folder.
    """
    check_folder(folder)
    found = [_line(place, sweep) for place, sweep in _places(folder, None)]
    return [line for line in found if task in (None, line.task)]


def with_sweeps_in_one_line(lines: Sequence[Line]) -> list[Line]:
    """The same with one line for all runs of each sweep."""
    sweeps: dict[str, list[Line]] = {}
    for line in lines:
        if line.sweep is not None:
            sweeps.setdefault(line.sweep, []).append(line)
    return [*(line for line in lines if line.sweep is None), *(_of_sweep(*each) for each in sweeps.items())]


SORTS: dict[str, Callable[[Line], float]] = {
    "date": lambda line: -line.finished,
    "score": lambda line: float("inf") if line.test is None else -line.test,
    "time": lambda line: float("inf") if line.seconds is None else -line.seconds,
}


def _places(folder: Path, sweep: Path | None) -> Iterator[tuple[Path, Path | None]]:
    """Each run folder, with that of its sweep; links, such as runs/latest, are not followed."""
    with os.scandir(folder) as entries:
        inside = sorted(
            entry.name for entry in entries if entry.is_dir(follow_symlinks=False) or entry.name in (FILE, LEDGER)
        )
    if FILE in inside or ".hydra" in inside:
        yield folder, sweep
        return
    sweep = folder if LEDGER in inside else sweep
    for name in inside:
        if not name.startswith(".") and name != LEDGER:
            yield from _places(folder / name, sweep)


def _line(folder: Path, sweep: Path | None) -> Line:
    outcome = outcome_of(folder)
    result = outcome.result
    completed = result if isinstance(result, CompletedRun) else None
    metric = None if completed is None else completed.primary_metric
    scores = {} if completed is None else {split: found.get(str(metric)) for split, found in completed.metrics.items()}
    return Line(
        folder=str(folder),
        sweep=None if sweep is None else str(sweep),
        task=None if result is None else result.task,
        backbone=None if result is None else result.backbone,
        method=None if result is None else result.method,
        seed=None if result is None else result.seed,
        metric=metric,
        validation=scores.get("validation", scores.get(CROSS_VALIDATION)),
        test=scores.get("test"),
        seconds=None if completed is None else completed.wall_seconds,
        status=str(outcome.status),
        error=outcome.error,
        finished=outcome.finished,
    )


def _of_sweep(folder: str, lines: Sequence[Line]) -> Line:
    """A sweep in one line: what its runs have in common, and the scores of the one that is best on validation rows."""
    common = {name: _common(getattr(line, name) for line in lines) for name in ("task", "backbone", "method", "metric")}
    best = max(lines, key=lambda line: float("-inf") if line.validation is None else line.validation)
    points = [point.status for point in points_of(Path(folder))] or [line.status for line in lines]
    counts = Counter(points)
    status = ", ".join(f"{counts[status]} {status}" for status in sorted(counts, key=lambda name: -counts[name]))
    return Line(
        folder=folder,
        sweep=folder,
        **common,
        seed=None,
        validation=best.validation,
        test=best.test,
        seconds=sum(line.seconds or 0.0 for line in lines),
        status=f"sweep of {len(points)}: {status}",
        error=None,
        finished=max(line.finished for line in lines),
    )


def _common(values: Iterator[Any]) -> Any:
    known = {value for value in values if value is not None}
    return known.pop() if len(known) == 1 else None
