"""What a model says of a whole split, with its scores and the file that keeps it.

Shapes: N rows, C classes.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lpt.data.batches import EncodedSplit
from lpt.data.regression import interpolate
from lpt.data.text import cut
from lpt.errors import LptError
from lpt.files import write_text
from lpt.metrics import compute, interval


@dataclass(frozen=True)
class SplitPredictions:
    """What a model says of a split, in the order of its rows.

    Attributes:
        probabilities: `[N, C]` float.
        gold: `[N]` int classes, or float values of a regression.
        loss: mean training loss over the rows.
        value_range: the lowest and the highest value of a regression; None where there are classes.
    """

    probabilities: np.ndarray
    gold: np.ndarray
    loss: float
    value_range: Sequence[float] | None = None

    @property
    def predicted(self) -> np.ndarray:
        """`[N]`, classes or values as `gold` is."""
        found: np.ndarray = (
            self.probabilities.argmax(1)
            if self.value_range is None
            else interpolate(self.probabilities, self.value_range)
        )
        return found

    def metrics(self, names: list[str]) -> dict[str, float]:
        """Name -> score of these metrics (`lpt.metrics`)."""
        return compute(names, *self._scored())

    def intervals(self, names: list[str]) -> dict[str, tuple[float, float]]:
        """Name -> 95% interval of these metrics."""
        return {name: interval(name, *self._scored()) for name in names}

    def _scored(self) -> tuple[Tensor, Tensor, int | None]:
        num_classes = self.probabilities.shape[1] if self.value_range is None else None
        return torch.from_numpy(self.predicted), torch.from_numpy(self.gold), num_classes

    def rows(self, split: EncodedSplit, labels: list[str], keep_text: int = 0) -> Iterator[dict[str, Any]]:
        """One mapping for each row: its place in the source, gold and predicted label or value, probabilities, text.

        Args:
            labels: in class order.
            keep_text: characters of each text; 0: no texts.
        """
        predicted_N, probabilities_NC = self.predicted.tolist(), self.probabilities.tolist()
        labeled = split.labeled
        answers = zip(labeled.index, labeled.labels, predicted_N, probabilities_NC, labeled.sentences, strict=True)
        for index, gold, predicted, probabilities, texts in answers:
            row = {
                "index": index,
                "gold": labels[int(gold)] if self.value_range is None else gold,
                "predicted": labels[predicted] if self.value_range is None else round(predicted, 6),
                # Significant digits: one rounded to 0 would be impossible, and spoil a temperature fitted on it.
                "probabilities": {name: float(f"{p:.6g}") for name, p in zip(labels, probabilities, strict=True)},
            }
            kept = [cut(text, keep_text) for text in texts]
            yield row | ({"text": kept[0] if len(kept) == 1 else kept} if keep_text else {})

    def write(self, path: Path, split: EncodedSplit, labels: list[str], keep_text: int = 0) -> None:
        """Write one JSON object per row; see `rows`."""
        lines = [json.dumps(row, ensure_ascii=False) for row in self.rows(split, labels, keep_text)]
        write_text(path, "\n".join([*lines, ""]))

    @classmethod
    def read(
        cls, path: Path, labels: list[str], value_range: Sequence[float] | None, loss: float
    ) -> "SplitPredictions":
        """Read what `write` has written.

        Raises:
            LptError: the file is missing or damaged.
        """
        try:
            rows = [json.loads(line) for line in path.read_text(encoding="utf-8").rstrip("\n").split("\n")]
            gold = np.array([row["gold"] if value_range is not None else labels.index(row["gold"]) for row in rows])
            probabilities = np.array([[row["probabilities"][name] for name in labels] for row in rows])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise LptError(f"{path} cannot be read ({error}); remove its run folder, and resume the run") from None
        return cls(probabilities, gold, loss, value_range)
