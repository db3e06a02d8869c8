"""`lpt sweep status|resume|retry-failed|results <folder>`."""

import csv
import socket
import sys
from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path

from rich.table import Table
from rich.text import Text

from lpt.console import say
from lpt.errors import LptError
from lpt.sweep.ledger import COMPLETED, FAILED, PENDING, RUNNING, STATUSES, Ledger, enter
from lpt.sweep.processes import find_all
from lpt.sweep.queue import sole_launcher
from lpt.sweep.view import counts, overview, show_whole
from lpt.training.result import CompletedRun, read_result


def show_status(folder: Path) -> None:
    """Every point and how far it has come."""
    with closing(Ledger(folder)) as ledger:
        rows, go_on = ledger.rows(), ledger.go_on
    here = [row for row in rows if row.status == RUNNING and row.place == socket.gethostname()]
    processes = find_all(folder.absolute() / row.name for row in here)
    cut = {row.name for row in here if not processes[folder.absolute() / row.name]}
    shown = [replace(row, error="cut: its process is gone") if row.name in cut else row for row in rows]
    show_whole(overview(folder, shown, STATUSES))
    at_work = any(row.status == RUNNING and row.name not in cut for row in rows)
    if not at_work and any(row.status in (PENDING, RUNNING) for row in rows):
        say(f"nobody is at work on it; go on with: {go_on}")


def resume(
    folder: Path,
    workers: int | None = None,
    retries: int | None = None,
    accept_drift: bool = False,
    failed_too: bool = False,
) -> None:
    """Work on what is not completed: start what is missing, go on with what was cut.

    Args:
        workers: points at a time; None: as the sweep was started.
        retries: of points that fail; None: as the sweep was started.
        accept_drift: go on with today's values where defaults have changed since.
        failed_too: also work on points that have failed.

    Raises:
        LptError: there is no sweep, somebody is at work on it, or defaults have changed since.
        SystemExit: a point has failed, or an interruption.
    """
    from lpt.sweep.launcher import as_of_today, failures, one_of_each_kind, work_on

    with sole_launcher(folder) as ledger:
        wanted = [PENDING, RUNNING, *([FAILED] if failed_too else [])]
        rows = [row for row in ledger.rows() if row.status in wanted]
        start = ledger["start"]
        if start is None:
            raise LptError(f"{folder} was cut before any point was entered; give the command of the sweep again")
        others = partial(one_of_each_kind, ledger)
        names = enter(ledger, as_of_today(ledger, rows), accept_drift, others=others)
        for name in names:
            if ledger.row(name).status == FAILED:
                ledger.pending(name, "to be tried again")
        given = {"workers": workers, "retries": retries}
        options = start["options"] | {name: value for name, value in given.items() if value is not None}
        work_on(ledger, [row.name for row in ledger.rows()], options)
        if start["search"]:
            say(f"these are the points proposed so far; the search goes on with: {start['search']}")
    if failures:
        raise SystemExit(1)


def show_results(folder: Path, as_csv: bool = False) -> None:
    """A line per point, those that are not completed too: what varies, and the metrics."""
    with closing(Ledger(folder)) as ledger:
        rows = ledger.rows()
    given = [dict(text.lstrip("+").split("=", 1) for text in row.point.overrides if "=" in text) for row in rows]
    options = dict.fromkeys(option for line in given for option in line)
    varied = [option for option in options if len({line.get(option) for line in given}) > 1]
    lines = []
    for row, values in zip(rows, given, strict=True):
        line = {"point": row.name, **{option: values.get(option, "") for option in varied}, "status": row.status}
        if row.status == COMPLETED:
            result = read_result(folder / row.name)
            line |= _metrics(result) if isinstance(result, CompletedRun) else {}
        lines.append(line)
    columns = list(dict.fromkeys(column for line in lines for column in line))
    if as_csv:
        writer = csv.DictWriter(sys.stdout, columns, restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows(lines)
        return
    table = Table(box=None, pad_edge=False)
    for column in columns:
        table.add_column(column, no_wrap=True)
    for line in lines:
        table.add_row(*(Text(line.get(column, "")) for column in columns))  # strings would be taken for markup
    show_whole(table)
    say(counts(rows))


def _metrics(result: CompletedRun) -> dict[str, str]:
    metrics = {
        f"{split} {name}": f"{value:.4f}"
        for split, found in result.metrics.items()
        for name, value in found.items()
        if name != "loss"
    }
    return metrics | {"trained": str(result.trainable_parameters), "seconds": f"{result.wall_seconds:.0f}"}
