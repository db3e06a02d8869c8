"""What a point has left so far, while it runs or after: its step, its evaluations, the end of its log."""

import csv
import re
from pathlib import Path

from lpt.metrics_csv import FILE, read_lines

TAIL = 15  # lines of a log


def steps(folder: Path) -> tuple[int, int | None]:
    """The last step of a run so far, 0 if there is none, and the number of all steps if its log gives it."""
    found = re.findall(r"^step +(\d+)/(\d+)", "\n".join(tail(folder / "train.log")), re.MULTILINE)
    done, total = map(int, found[-1]) if found else (0, None)
    try:
        with (folder / FILE).open(newline="", encoding="utf-8") as file:
            heading = next(csv.reader(file), [])
        last = next(csv.reader(tail(folder / FILE)[-1:]), [])
        done = max(done, int(dict(zip(heading, last, strict=False)).get("step", 0)))
    except (OSError, ValueError):  # none yet, or half a line
        pass
    return done, total


def evaluations(folder: Path, column: str) -> list[tuple[int, float]]:
    """(step, value) of each evaluation of a run so far, from one column of its metrics.csv."""
    return [(int(line["step"]), float(line[column])) for line in read_lines(folder) if column in line]


def tail(path: Path) -> list[str]:
    """The last lines of a text file that may be large, or missing."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - 100 * TAIL))
            return file.read().decode(errors="replace").splitlines()[-TAIL:]
    except OSError:
        return []
