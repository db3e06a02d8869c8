"""What there is to review of a finished run: which split, how it went, and how far its probabilities can be trusted."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lpt.calibration import Bins, Coverage, binned, coverage
from lpt.errors import LptError, did_you_mean
from lpt.report.predictions import SavedPredictions, read_predictions
from lpt.training.result import CROSS_VALIDATION, CompletedRun, read_result

FOLDER = "predictions"
PREFERRED = ("test", CROSS_VALIDATION, "validation")


@dataclass(frozen=True)
class Review:
    """The predictions of one split of a run.

    Attributes:
        folder: the run's.
        split: whose rows they are.
        found: what was predicted of them.
        result: what the run says of itself; None where it says nothing that can be read.
    """

    folder: Path
    split: str
    found: SavedPredictions
    result: CompletedRun | None

    @property
    def title(self) -> str:
        """What was run, on which rows."""
        if self.result is None:
            return f"{self.folder.name}, {self.split}"
        run = self.result
        return f"{run.task}, {run.method} over {run.backbone}, {self.split}"

    @property
    def headline(self) -> str:
        """How many rows there are, and how many are right; of a regression, how far off the values are."""
        found = self.found
        if found.labels is None:
            error_N = np.abs(found.predicted - found.gold)
            return f"{len(found.gold):,} rows, off by {error_N.mean():.3f} on average, by {error_N.max():.3f} at most"
        right = int(found.right.sum())
        return f"{right:,} of {len(found.gold):,} rows right ({found.right.mean():.1%})"

    @property
    def bins(self) -> Bins:
        """The rows by their confidence."""
        return binned(self.found.confidence, self.found.right)

    def coverage(self, confidence: float) -> Coverage:
        """Return how the rows below a confidence do, and the others."""
        return coverage(self.found.confidence, self.found.right, confidence)

    @property
    def calibration(self) -> str:
        """The expected calibration error, and what it was before the temperature."""
        said = f"expected calibration error {self.bins.error:.3f}"
        known = None if self.result is None else self.result.calibration
        if known is None or known.temperature == 1 or self.split not in known.ece_before:
            return said
        return f"{said} ({known.ece_before[self.split]:.3f} before temperature {known.temperature:.2f})"


def review_of(folder: Path, split: str | None = None) -> Review:
    """Read what a run has predicted.

    Args:
        folder: the run's.
        split: whose rows; None: the test rows, or those of cross-validation, or the validation rows.

    Raises:
        LptError: there are no such predictions, or they cannot be read.
    """
    splits = sorted(path.stem for path in (folder / FOLDER).glob("*.jsonl"))
    if not splits:
        raise LptError(
            f"{folder} has no {FOLDER}/*.jsonl to review; give the folder of a completed run, which has a result.json"
        )
    if split is None:
        split = next((name for name in PREFERRED if name in splits), splits[0])
    if split not in splits:
        raise LptError(
            f"--split {split}: {folder} has no such predictions{did_you_mean(split, splits)} (there are: "
            f"{', '.join(splits)})"
        )
    path = folder / FOLDER / f"{split}.jsonl"
    found = read_predictions(path)
    if found is None:
        raise LptError(f"{path} is empty or damaged; run `python train.py` again into another folder")
    return Review(folder, split, found, _completed(folder))


def _completed(folder: Path) -> CompletedRun | None:
    try:
        result = read_result(folder)
    except LptError:
        return None
    return result if isinstance(result, CompletedRun) else None
