"""The scores of a single run, and its rows."""

from lpt.data.audit import class_cautions
from lpt.report.prediction_tables import MATRIX
from lpt.report.runs import Run
from lpt.report.text_table import NONE, TextTable
from lpt.training.result import CompletedRun


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


def data_notes(result: CompletedRun) -> list[str]:
    """What is odd about the rows, as the log of the run had it."""
    return [*class_cautions(result.data.sizes_per_class.get("train", {})), *result.data.audit.messages()]


def data_table(result: CompletedRun) -> TextTable:
    """The rows of each split, how many of each class and how many truncated."""
    data = result.data
    classes = list(dict.fromkeys(name for counts in data.sizes_per_class.values() for name in counts))
    shown = classes if len(classes) <= MATRIX else []
    rows = []
    for split, size in data.sizes.items():
        counts = data.sizes_per_class.get(split, {})
        per_class = [f"{counts.get(name, 0):,}" for name in shown]
        rows.append([split, f"{size:,}", *per_class, f"{data.truncated.get(split, 0.0):.1%}"])
    return TextTable(["split", "rows", *shown, "truncated"], rows)
