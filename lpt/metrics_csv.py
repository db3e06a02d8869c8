"""`metrics.csv` of a run, read while it is being written or after: training and validation metrics by step."""

import csv
from pathlib import Path

FILE = "metrics.csv"


def read_lines(run_dir: Path) -> list[dict[str, str]]:
    """Column -> text for each complete line, without empty cells; none where there is no file.

    A last line that is half written, because the run was killed or is at it, is left out.
    """
    try:
        complete, newline, _ = (run_dir / FILE).read_text(encoding="utf-8").rpartition("\n")
    except FileNotFoundError:
        return []
    lines = csv.DictReader((complete + newline).splitlines())
    return [{name: value for name, value in line.items() if value} for line in lines if line.get("step")]
