"""What a dashboard shows of a finished run: scores, predictions that tell the most, confusion matrices.

Shapes: N rows, C classes.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from lpt.adapter import IN_RUN
from lpt.config.schema import Config
from lpt.data.batches import EncodedSplit
from lpt.metrics import confusion_counts
from lpt.training.predictions import SplitPredictions
from lpt.training.result import CompletedRun


class DashboardTable(NamedTuple):
    """Cells under named columns."""

    columns: list[str]
    rows: list[list[Any]]

    def markdown(self) -> str:
        """As a Markdown table."""
        cells = [self.columns, ["---"] * len(self.columns), *self.rows]
        return "\n".join("| " + " | ".join(str(cell).replace("|", "\\|") for cell in row) + " |" for row in cells)


@dataclass(frozen=True)
class FinishedRun:
    """What there is to show of a run.

    Attributes:
        result: what `result.json` holds.
        tests: test set -> what was predicted, and its rows.
    """

    result: CompletedRun
    tests: dict[str, tuple[SplitPredictions, EncodedSplit]]
    config: Config
    run_dir: Path

    @property
    def labels(self) -> list[str]:
        """The task's labels, in class order."""
        return self.config.task.labels

    @property
    def adapter(self) -> Path | None:
        """The adapter's folder, where there is one and dashboards are to keep it."""
        folder = self.run_dir / IN_RUN
        return folder if self.config.logger.adapter and folder.is_dir() else None

    @property
    def scores(self) -> dict[str, float]:
        """`result/<split>/<metric>` -> value, of the step that was kept."""
        metrics = self.result.metrics
        return {f"result/{split}/{name}": value for split, found in metrics.items() for name, value in found.items()}

    def prediction_table(self, test: str) -> DashboardTable:
        """The most confident mistakes first, then what was right by the least; of a regression, the largest errors.

        At most `logger.rows` rows.
        """
        predictions, split = self.tests[test]
        answers = list(predictions.rows(split, self.labels))
        rows = []
        for i in most_telling(predictions)[: self.config.logger.rows].tolist():
            text, answer = " / ".join(split.labeled.sentences[i]), answers[i]
            probabilities = answer["probabilities"].values()
            rows.append([answer["index"], text, answer["gold"], answer["predicted"], *probabilities])
        return DashboardTable(["index", "text", "gold", "predicted", *(f"p({label})" for label in self.labels)], rows)

    def confusion_matrix(self, test: str) -> DashboardTable:
        """How many rows of a class were predicted as which."""
        predictions, _ = self.tests[test]
        counts_CC = confusion_counts(predictions.predicted, predictions.gold, len(self.labels))
        rows = [[label, *counts] for label, counts in zip(self.labels, counts_CC.tolist(), strict=True)]
        return DashboardTable(["gold \\ predicted", *self.labels], rows)

    def tables(self) -> dict[str, DashboardTable]:
        """`<test set>/confusion_matrix` and `<test set>/predictions`; a regression has no confusion matrix."""
        tables = {}
        for test, (predictions, _) in self.tests.items():
            if predictions.value_range is None:
                tables[f"{test}/confusion_matrix"] = self.confusion_matrix(test)
            if self.config.logger.rows:
                tables[f"{test}/predictions"] = self.prediction_table(test)
        return tables


def most_telling(predictions: SplitPredictions) -> np.ndarray:
    """Places of all rows, `[N]`: the most confident mistakes first, then what was right by the least.

    Of a regression: the largest errors first.
    """
    if predictions.value_range is not None:
        return np.argsort(-np.abs(predictions.predicted - predictions.gold), kind="stable")
    confidence_N = predictions.probabilities.max(1)
    right_N = predictions.predicted == predictions.gold
    return np.lexsort((np.where(right_N, confidence_N, -confidence_N), right_N))
