"""Tables of what was predicted: how well each class is told, which classes are confused, and the mistakes.

Shapes: N rows, C classes.
"""

from collections.abc import Sequence

import numpy as np

from lpt.data.text import cut
from lpt.metrics import class_scores
from lpt.report.predictions import SavedPredictions
from lpt.report.text_table import TextTable

MATRIX = 12  # the most classes that a confusion matrix is readable with
PAIRS = 20  # of confused classes


def class_table(found: SavedPredictions) -> TextTable:
    """Precision, recall and F1 of each class, in class order, and their plain mean."""
    assert found.labels is not None
    return class_scores_table(found.confusion_counts(), found.labels)


def class_scores_table(counts_CC: np.ndarray, labels: Sequence[str]) -> TextTable:
    """The same from confusion counts, row = gold class."""
    scores = class_scores(counts_CC)
    rows = [
        [label, *(f"{score:.3f}" for score in own), f"{support:,}"]
        for label, *own, support in zip(labels, *scores, strict=True)
    ]
    rows.append(["mean of classes", *(f"{part.mean():.3f}" for part in scores[:3]), f"{counts_CC.sum():,}"])
    return TextTable(["class", "precision", "recall", "F1", "rows"], rows, quiet={len(labels)})


def confusion_table(found: SavedPredictions, numbered: bool = False) -> TextTable:
    """Rows of each gold class by the class that was predicted; of more than `MATRIX` classes, the most confused pairs.

    Args:
        numbered: have the columns headed by numbers, which a narrow screen has room for, and the rows numbered too.
    """
    assert found.labels is not None
    if len(found.labels) > MATRIX:
        return confused_table(found)
    counts_CC = found.confusion_counts()
    recall_C = class_scores(counts_CC).recall
    names = [f"{number} {label}" for number, label in enumerate(found.labels, start=1)] if numbered else found.labels
    rows = [
        [name, *(f"{n:,}" for n in counts_C), f"{recall:.3f}"]
        for name, counts_C, recall in zip(names, counts_CC.tolist(), recall_C, strict=True)
    ]
    columns = [str(number + 1) for number in range(len(names))] if numbered else names
    marks = {(i, i + 1): ("better", "") for i in range(len(rows))}  # the right answers
    return TextTable(["gold \\ predicted", *columns, "recall"], rows, marks=marks)


def confused_table(found: SavedPredictions) -> TextTable:
    """The pairs of gold and predicted class with the most mistakes."""
    labels = found.labels
    assert labels is not None
    counts_CC = found.confusion_counts()
    support_C = counts_CC.sum(1)
    np.fill_diagonal(counts_CC, 0)
    cells = np.argsort(-counts_CC, axis=None, kind="stable")[:PAIRS]
    rows = [
        [labels[gold], labels[predicted], f"{n:,}", f"{n / support_C[gold]:.1%}"]
        for gold, predicted in zip(*np.unravel_index(cells, counts_CC.shape), strict=True)
        if (n := int(counts_CC[gold, predicted]))
    ]
    return TextTable(["gold", "predicted", "rows", "of the gold class"], rows, words=2)


def mistakes_table(found: SavedPredictions, most: int = 12, characters: int = 300) -> TextTable:
    """The wrong answers that were given with the highest probability; of a regression, the rows furthest off.

    Args:
        most: rows.
        characters: of each text, where the run kept them.
    """
    rows = []
    for i in found.mistakes()[:most].tolist():
        if found.labels is None:
            told = [f"{found.gold[i]:.2f}", f"{found.predicted[i]:.2f}"]
        else:
            told = [found.labels[found.gold[i]], found.labels[found.predicted[i]], f"{found.confidence[i]:.3f}"]
        rows.append([str(found.index[i]), *told] + ([] if found.texts is None else [cut(found.texts[i], characters)]))
    headings = ["row", "gold", "predicted", *([] if found.labels is None else ["probability"])]
    words = 1 if found.labels is None else 3
    if found.texts is not None:
        headings, words = [*headings, "text"], len(headings) + 1
    return TextTable(headings, rows, words)
