"""The scores of a single run."""

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
