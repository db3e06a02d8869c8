"""What a person sees of a sweep: a line per change, and on a terminal a table of the running points beneath."""

import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

from rich.live import Live
from rich.table import Table
from rich.text import Text

from lpt.console import clock, console, say
from lpt.sweep.ledger import Row, Status
from lpt.sweep.so_far import evaluations, steps, tail

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
        total: the number of points to be worked on, those of earlier launches of a search included.
        done: how many of them are done already.
    """

    def __init__(self, folder: Path, total: int, done: int = 0):
        self._folder = folder
        self._total = total
        self._done = done
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
            found = rows()
            waiting = self._total - self._done - sum(row.status == Status.RUNNING for row in found)
            left = seconds_left(self._folder, found, max(waiting, 0))
            self._live.update(overview(self._folder, found, [Status.RUNNING], left), refresh=True)

    def _count(self) -> str:
        return f"{self._done} of {self._total}"


def overview(folder: Path, rows: Sequence[Row], shown: Sequence[Status], left: float | None = None) -> Table:
    """The progress of each point whose status is in `shown`; the caption counts all, and says how long they will take.

    Args:
        folder: the sweep folder.
        rows: of its ledger.
        shown: what to show.
        left: seconds that they will take; None where it is unknown.
    """
    caption = counts(rows) + ("" if left is None else f"; about {clock(left)} left")
    table = Table(box=None, pad_edge=False, caption=caption, caption_justify="left")
    for heading in ("point", "status", "tries", "step", "time", "validation"):
        table.add_column(heading, no_wrap=True, justify="left" if heading in ("point", "status") else "right")
    table.add_column("", overflow="fold")
    for row in rows:
        if row.status in shown:
            step = progress(folder / row.name) if row.attempts else ""
            status = Text(row.status, STYLES[row.status])
            error = Text((row.error or "").partition("\n")[0])  # plain strings would be taken for markup
            table.add_row(row.name, status, str(row.attempts), step, _duration(row), _score(folder, row), error)
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
    """The step of a run: `7/18`, `7`, or empty."""
    done, total = steps(folder)
    return f"{done}{'' if total is None else f'/{total}'}" if done else ""


def seconds_left(folder: Path, rows: Sequence[Row], waiting: int) -> float | None:
    """About how long until all are done, if points take as long as those that are; None where nothing tells.

    Args:
        folder: the sweep folder.
        rows: of its ledger.
        waiting: points to come after those that are running.
    """
    running = [row for row in rows if row.status == Status.RUNNING]
    if not running:
        return None
    took = [row.ended - row.started for row in rows if row.status == Status.COMPLETED and row.started and row.ended]
    if not took:  # by what the running ones have done
        done = [(_seconds(row), *steps(folder / row.name)) for row in running]
        took = [seconds * total / step for seconds, step, total in done if step and total]
    if not took:
        return None
    mean = sum(took) / len(took)
    return (sum(max(mean - _seconds(row), 0.0) for row in running) + mean * waiting) / len(running)


def _score(folder: Path, row: Row) -> str:
    """The primary metric on the validation rows: of a point that is not completed, the best so far."""
    if row.objective is not None:
        return f"{row.objective:.4f}"
    metrics = row.point.facts.get("task.metrics")
    found = evaluations(folder / row.name, f"validation/{metrics[0]}") if metrics and row.attempts else []
    return f"{max(value for _, value in found):.4f} so far" if found else ""


def _seconds(row: Row) -> float:
    """How long a point that was started took, or has taken until now."""
    assert row.started is not None
    return (row.ended or time.time()) - row.started


def _duration(row: Row) -> str:
    return "" if row.started is None else clock(_seconds(row))
