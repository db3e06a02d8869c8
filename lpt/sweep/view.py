"""What a person sees of a sweep: a line per change, and on a terminal a table of the running points beneath."""

import csv
import re
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

from rich.live import Live
from rich.table import Table
from rich.text import Text

from lpt.console import console, say
from lpt.sweep.ledger import Row, Status

TAIL = 15  # lines of a failed point's log
REFRESH = 1.0  # seconds
STYLES = {
    Status.COMPLETED: "green",
    Status.PRUNED: "dim",
    Status.RUNNING: "bold",
    Status.FAILED: "red",
    Status.PENDING: "dim",
}


class SweepView:
    """Shows a sweep while it is worked on; a context manager, which removes the table at the end.

    Args:
        folder: the sweep folder.
        total: the number of points to be worked on.
    """

    def __init__(self, folder: Path, total: int):
        self._folder = folder
        self._total = total
        self._done = 0
        self._live = Live(console=console, auto_refresh=False, transient=True) if console.is_terminal else None
        self._next = 0.0

    def __enter__(self) -> "SweepView":
        if self._live:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live:
            self._live.stop()

    def say(self, message: str) -> None:
        """Print a message."""
        say(message)

    def started(self, row: Row) -> None:
        """Say that a point was started; on a terminal the table shows it."""
        if not self._live:
            say(f"{row.name}: started")

    def completed(self, row: Row) -> None:
        """Say that a point is completed."""
        self._done += 1
        say(f"{row.name}: completed in {_duration(row)}, {row.objective:.4f} on validation ({self._count()})")

    def failed(self, row: Row, log: Path, again: bool) -> None:
        """Say that a point has failed, with the end of its log; `again`: it is going to be tried again."""
        self._done += not again
        say(f"{row.name}: failed: {row.error}")
        for line in tail(log):
            say(f"    {line}")
        say(f"    full log: {log}" + ("; trying again" if again else f" ({self._count()})"))

    def refresh(self, rows: Callable[[], list[Row]]) -> None:
        """Draw the table of a terminal again, once per `REFRESH` seconds at most."""
        if self._live and time.monotonic() >= self._next:
            self._next = time.monotonic() + REFRESH
            self._live.update(overview(self._folder, rows(), [Status.RUNNING]), refresh=True)

    def _count(self) -> str:
        return f"{self._done} of {self._total}"


def overview(folder: Path, rows: Sequence[Row], shown: Sequence[Status]) -> Table:
    """The progress of each point whose status is in `shown`; the caption counts all."""
    table = Table(box=None, pad_edge=False, caption=counts(rows), caption_justify="left")
    for heading in ("point", "status", "tries", "step", "time", "validation"):
        table.add_column(heading, no_wrap=True, justify="left" if heading in ("point", "status") else "right")
    table.add_column("", overflow="fold")
    for row in rows:
        if row.status in shown:
            step = progress(folder / row.name) if row.attempts else ""
            value = "" if row.objective is None else f"{row.objective:.4f}"
            status = Text(row.status, STYLES[row.status])
            error = Text((row.error or "").partition("\n")[0])  # plain strings would be taken for markup
            table.add_row(row.name, status, str(row.attempts), step, _duration(row), value, error)
    return table


def counts(rows: Sequence[Row]) -> str:
    """Such as `3 points: 2 completed, 1 failed`."""
    found = Counter(row.status for row in rows)
    parts = [f"{found[status]} {status}" for status in Status if found[status]]
    return f"{len(rows)} point{'s' * (len(rows) != 1)}: {', '.join(parts)}" if rows else "no points"


def show_all(table: Table) -> None:
    """Print a table in its full width, also into a pipe."""
    wide = console.options.update(width=10_000)
    console.width = max(console.width, console.measure(table, options=wide).maximum)
    console.print(table)


def progress(folder: Path) -> str:
    """The last step of a run so far, and the number of all steps if its log gives it: `7/18`, `7`, or empty."""
    steps = re.findall(r"^step +(\d+)/(\d+)", "\n".join(tail(folder / "train.log")), re.MULTILINE)
    done, total = (int(steps[-1][0]), f"/{steps[-1][1]}") if steps else (0, "")
    try:
        with (folder / "metrics.csv").open(newline="", encoding="utf-8") as file:
            heading = next(csv.reader(file), [])
        last = next(csv.reader(tail(folder / "metrics.csv")[-1:]), [])
        done = max(done, int(dict(zip(heading, last, strict=False)).get("step", 0)))
    except (OSError, ValueError):  # none yet, or half a line
        pass
    return f"{done}{total}" if done else ""


def tail(path: Path) -> list[str]:
    """The last lines of a text file that may be large, or missing."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - 100 * TAIL))
            return file.read().decode(errors="replace").splitlines()[-TAIL:]
    except OSError:
        return []


def _duration(row: Row) -> str:
    if row.started is None:
        return ""
    seconds = round((row.ended or time.time()) - row.started)
    hours, minutes = divmod(seconds // 60, 60)
    return f"{hours}:{minutes:02}:{seconds % 60:02}" if hours else f"{minutes}:{seconds % 60:02}"
