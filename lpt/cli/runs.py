"""`lpt runs`: what was run, and what came of it."""

import argparse
import json
import shlex
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from lpt.cli.arguments import Commands, folder

if TYPE_CHECKING:
    from lpt.report.listing import Line

HEADINGS = ("when", "task", "backbone", "method", "metric", "validation", "test", "time", "status", "folder")
NUMBERS = ("validation", "test", "time")  # to the right
NONE = "-"


def add(commands: Commands) -> None:
    """Add the command."""
    runs = commands.add_parser(
        "runs",
        help="list runs with their scores",
        description="List the runs under a folder, newest first; a sweep in one line, with the scores of its run that "
        "is best on the validation rows. The folder of a sweep lists its runs.",
    )
    runs.add_argument(
        "folder",
        nargs="?",
        type=folder,
        default=Path("runs"),
        help="that of all runs, a sweep or a run (default: runs)",
    )
    runs.add_argument(
        "--sort",
        choices=("date", "score", "time"),
        default="date",
        help="the newest, best or longest first (default: date)",
    )
    runs.add_argument("--task", help="only the runs of this task")
    runs.add_argument("--json", action="store_true", help="print every run as JSON, also those of sweeps")
    runs.set_defaults(command=_runs)


def _runs(arguments: argparse.Namespace) -> None:
    from lpt.console import printable
    from lpt.report.listing import SORTS, list_runs, with_sweeps_in_one_line

    lines = list_runs(arguments.folder, arguments.task)
    alone = len(lines) == 1 and lines[0].folder == str(arguments.folder)
    is_sweep = any(line.sweep == str(arguments.folder) for line in lines)
    shown = lines if arguments.json or is_sweep else with_sweeps_in_one_line(lines)
    shown = sorted(shown, key=SORTS[arguments.sort])
    if arguments.json:
        print(json.dumps([line.as_json() for line in shown], indent=2))
        return
    if not shown:
        print(f"no run{'' if arguments.task is None else f' of {arguments.task}'} under {arguments.folder}")
        return
    print("\n".join(map(printable, _table([_cells(line) for line in shown]))))
    if alone and lines[0].status != "completed":
        resume = (
            f"it is running, or was interrupted; to resume it: python train.py resume={shlex.quote(lines[0].folder)}"
        )
        print(resume if lines[0].error is None else f"why: {printable(lines[0].error)}")


def _cells(line: "Line") -> list[str]:
    from lpt.console import clock

    known = [line.task, line.backbone, line.method, line.metric]
    scores = [NONE if score is None else f"{score:.3f}" for score in (line.validation, line.test)]
    when = time.strftime("%Y-%m-%d %H:%M", time.localtime(line.finished))
    return [
        when,
        *(NONE if name is None else name for name in known),
        *scores,
        NONE if line.seconds is None else clock(line.seconds),
        line.status,
        line.folder,
    ]


def _table(rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines of aligned columns; the last one may be as long as it likes."""
    widths = [max(map(len, column)) for column in zip(HEADINGS, *rows, strict=True)]
    cells = [
        [
            cell.rjust(width) if name in NUMBERS else cell.ljust(width)
            for name, cell, width in zip(HEADINGS, row, widths, strict=True)
        ]
        for row in (HEADINGS, *rows)
    ]
    return ["  ".join(row).rstrip() for row in cells]
