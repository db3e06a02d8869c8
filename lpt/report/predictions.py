"""What a run predicted of each row, as its folder keeps it.

Shapes: N rows, R weightings of the rows, C classes.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lpt.metrics import CLASS_METRICS, NUMBER_METRICS, confusion_counts, weighted


@dataclass(frozen=True)
class SavedPredictions:
    """A run's answers to the rows of a split, in the order of the source.

    Attributes:
        index: `[N]` int, each row's place in the source.
        gold: `[N]` int classes, or float values of a regression.
        predicted: `[N]`, of the kind of `gold`.
        confidence: `[N]` float, probability of the predicted class; ones for a regression.
        labels: the C class names in class order; None for a regression.
        texts: N texts, `text / text` of pairs; None where the run did not keep them.
    """

    index: np.ndarray
    gold: np.ndarray
    predicted: np.ndarray
    confidence: np.ndarray
    labels: list[str] | None
    texts: list[str] | None = None

    @property
    def right(self) -> np.ndarray:
        """`[N]` whether the gold class was predicted."""
        found: np.ndarray = self.predicted == self.gold
        return found

    def confusion_counts(self) -> np.ndarray:
        """Return how many rows of a class were predicted as which, `[C, C]`; row = gold class."""
        assert self.labels is not None
        return confusion_counts(self.predicted, self.gold, len(self.labels))

    def mistakes(self) -> np.ndarray:
        """Return the places of the wrong answers, the surest first; of a regression, of all rows, the furthest off."""
        if self.labels is None:
            return np.argsort(-np.abs(self.predicted - self.gold), kind="stable")
        wrong = np.flatnonzero(~self.right)
        return wrong[np.argsort(-self.confidence[wrong], kind="stable")]

    def scored_by(self, metric: str) -> bool:
        """Whether the metric scores what these are, classes or numbers."""
        return metric in (NUMBER_METRICS if self.labels is None else CLASS_METRICS)

    def score(self, metric: str) -> float:
        """Return the metric over all rows."""
        return float(self.scores(metric, np.ones((1, len(self.gold))))[0])

    def scores(self, metric: str, weights_RN: np.ndarray) -> np.ndarray:
        """Return the metric under many weightings of the rows, `[R]`."""
        num_classes = None if self.labels is None else len(self.labels)
        return weighted(metric, self.predicted, self.gold, num_classes, weights_RN)


def read_predictions(path: Path) -> SavedPredictions | None:
    """Read a file of predictions; None where there is none, or none that can be read."""
    try:
        rows = [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]
        rows.sort(key=lambda row: row["index"])
        index = np.array([row["index"] for row in rows])
        texts = [_text(row["text"]) for row in rows] if rows and "text" in rows[0] else None
        if not rows or isinstance(rows[0]["gold"], int | float):
            gold, predicted = (np.array([row[key] for row in rows], dtype=float) for key in ("gold", "predicted"))
            return SavedPredictions(index, gold, predicted, np.ones(len(rows)), None, texts) if rows else None
        labels = list(rows[0]["probabilities"])
        gold, predicted = (np.array([labels.index(row[key]) for row in rows]) for key in ("gold", "predicted"))
        confidence = np.array([row["probabilities"][row["predicted"]] for row in rows])
        return SavedPredictions(index, gold, predicted, confidence, labels, texts)
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _text(found: str | list[str]) -> str:
    return found if isinstance(found, str) else " / ".join(found)
