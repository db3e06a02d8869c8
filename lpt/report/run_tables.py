"""Tables of a single run: its scores, which classes it confuses, and its mistakes."""

from collections import Counter

from lpt.report.predictions import SavedPredictions
from lpt.report.runs import Run
from lpt.report.text_table import NONE, TextTable


def run_table(run: Run) -> TextTable:
    """Scores of one run on each split, with their intervals."""
    rows = []
    if run.result is not None:
        for split, metrics in run.result.metrics.items():
            for name, value in metrics.items():
                interval = run.result.intervals.get(split, {}).get(name)
                span = NONE if interval is None else "{:.3f} to {:.3f}".format(*interval)
                rows.append([split, name, f"{value:.3f}", span])
    return TextTable(["split", "metric", "value", "95% interval"], rows, words=2)


def confusion_table(found: SavedPredictions) -> TextTable:
    """Rows of each gold class by the class that was predicted."""
    assert found.labels is not None
    counts = Counter(zip(found.gold.tolist(), found.predicted.tolist(), strict=True))
    classes = range(len(found.labels))
    rows = []
    for gold in classes:
        cells = [counts[gold, predicted] for predicted in classes]
        recall = cells[gold] / sum(cells) if sum(cells) else 0.0
        rows.append([found.labels[gold], *(f"{n:,}" for n in cells), f"{recall:.3f}"])
    return TextTable(["gold \\ predicted", *found.labels, "recall"], rows)


def mistakes_table(found: SavedPredictions, most: int = 12) -> TextTable:
    """The wrong answers that were given with the highest probability; of a regression, those furthest off."""
    if found.labels is None:
        order = sorted(range(len(found.gold)), key=lambda i: -abs(found.predicted[i] - found.gold[i]))[:most]
        rows = [[str(found.index[i]), f"{found.gold[i]:.2f}", f"{found.predicted[i]:.2f}"] for i in order]
        return TextTable(["row of the source", "gold", "predicted"], rows)
    wrong = [i for i in range(len(found.gold)) if found.predicted[i] != found.gold[i]]
    wrong.sort(key=lambda i: -found.confidence[i])
    names = found.labels
    rows = [
        [str(found.index[i]), names[found.gold[i]], names[found.predicted[i]], f"{found.confidence[i]:.3f}"]
        for i in wrong[:most]
    ]
    return TextTable(["row of the source", "gold", "predicted", "probability"], rows, words=3)
