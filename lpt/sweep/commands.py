"""`lpt sweep status|resume|retry-failed|results <folder>`."""

import csv
import socket
import sys
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path

from rich.table import Table
from rich.text import Text

from lpt.console import say
from lpt.errors import LptError
from lpt.sweep.ledger import Ledger, Row, Status, enter
from lpt.sweep.processes import find_all
from lpt.sweep.queue import sole_launcher
from lpt.sweep.view import counts, overview, seconds_left, show_all
from lpt.training.result import CompletedRun, read_result


def show_status(folder: Path) -> None:
    """Print every point and its progress.

    Raises:
        LptError: the folder is not that of a sweep.
    """
    with closing(Ledger(folder)) as ledger:
        rows, resume_command = ledger.rows(), ledger.resume_command
    here = [row for row in rows if row.status == Status.RUNNING and row.place == socket.gethostname()]
    processes = find_all(folder.absolute() / row.name for row in here)
    gone = {row.name for row in here if not processes[folder.absolute() / row.name]}
    shown = [replace(row, error="interrupted: its process is gone") if row.name in gone else row for row in rows]
    pending = sum(row.status == Status.PENDING for row in rows)
    at_work = any(row.status == Status.RUNNING and row.name not in gone for row in rows)
    left = seconds_left(folder, rows, pending) if at_work else None
    show_all(overview(folder, shown, list(Status), left))
    if not at_work and any(row.status in (Status.PENDING, Status.RUNNING) for row in rows):
        say(f"no process is working on it; resume with: {resume_command}")


def resume(
    folder: Path,
    workers: int | None = None,
    retries: int | None = None,
    accept_drift: bool = False,
    failed_too: bool = False,
) -> None:
    """Work on what is not completed: start what is missing, resume what was interrupted.

    Args:
        folder: the sweep folder.
        workers: points at a time; None: as the sweep was started.
        retries: how often a point that fails is tried again; None: as the sweep was started.
        accept_drift: continue with today's values where defaults have changed since.
        failed_too: also work on points that have failed.

    Raises:
        LptError: there is no sweep, another process is working on it, or defaults have changed since.
        SystemExit: a point has failed, or an interruption.
    """
    from lpt.sweep.launcher import one_of_each_kind, recomposed, work_on

    with sole_launcher(folder) as ledger:
        wanted = [Status.PENDING, Status.RUNNING, *([Status.FAILED] if failed_too else [])]
        rows = [row for row in ledger.rows() if row.status in wanted]
        start = ledger["start"]
        if start is None:
            raise LptError(
                f"{folder} was interrupted before any point was entered; type the command of the sweep again"
            )
        others = partial(one_of_each_kind, ledger)
        names = enter(ledger, recomposed(ledger, rows), accept_drift, others=others)
        for name in names:
            if ledger.row(name).status == Status.FAILED:
                ledger.pending(name, "tried again on request")
        given = {"workers": workers, "retries": retries}
        options = start["options"] | {name: value for name, value in given.items() if value is not None}
        failed = work_on(ledger, [row.name for row in ledger.rows()], options)
        if start["search"]:
            say(f"these are the points proposed so far; resume the search with: {start['search']}")
    if failed:
        raise SystemExit(1)


def show_results(folder: Path, as_csv: bool = False) -> None:
    """Print a line per point, completed or not: what varies, its status, and the metrics.

    Raises:
        LptError: the folder is not that of a sweep.
    """
    with closing(Ledger(folder)) as ledger:
        rows = ledger.rows()
    lines = _result_lines(folder, rows)
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
    show_all(table)
    say(counts(rows))


def _result_lines(folder: Path, rows: Sequence[Row]) -> list[dict[str, str]]:
    """Column -> text for each point, with a column for each option that varies."""
    given = [dict(text.lstrip("+").split("=", 1) for text in row.point.overrides if "=" in text) for row in rows]
    options = dict.fromkeys(option for line in given for option in line)
    varied = [option for option in options if len({line.get(option) for line in given}) > 1]
    lines = []
    for row, values in zip(rows, given, strict=True):
        line = {"point": row.name, **{option: values.get(option, "") for option in varied}, "status": str(row.status)}
        if row.status == Status.COMPLETED:
            result = read_result(folder / row.name)
            line |= _metrics(result) if isinstance(result, CompletedRun) else {}
        lines.append(line)
    return lines


def _metrics(result: CompletedRun) -> dict[str, str]:
    metrics = {
        f"{split} {name}": f"{value:.4f}"
        for split, found in result.metrics.items()
        for name, value in found.items()
        if name != "loss"
    }
    return metrics | {"trained": str(result.trainable_parameters), "seconds": f"{result.wall_seconds:.0f}"}
