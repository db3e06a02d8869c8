"""The processes of a point, found by a mark in their environment.

The mark is there from a process's first instruction, and everything that the process starts inherits it. So the ranks
of a point are found too, and a point whose launcher was killed before it could record a process id. A process id alone
may by then belong to another program.
"""

import os
import signal
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

import psutil

from lpt.errors import LptError

MARK = "LPT_SWEEP_POINT"
LAST_WAIT = 30.0  # seconds until a killed process must be gone


def find(folder: Path) -> list[psutil.Process]:
    """The living processes of the point with this folder, including those that it has started, oldest first."""
    return find_all([folder])[folder]


def find_all(folders: Iterable[Path]) -> dict[Path, list[psutil.Process]]:
    """As `find`, for several points in one pass over the system's processes."""
    found: dict[str, list[psutil.Process]] = {str(folder): [] for folder in folders}
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):  # another user's, or just gone
            mark = process.environ().get(MARK)
            if mark in found and process.status() != psutil.STATUS_ZOMBIE:
                found[mark].append(process)
    return {Path(folder): sorted(those, key=lambda p: p.create_time()) for folder, those in found.items()}


def interrupt(processes: Iterable[psutil.Process]) -> None:
    """Ask processes to end, as Ctrl-C does."""
    _signal(processes, signal.SIGINT)


def kill(folder: Path) -> None:
    """Kill every process of a point, except this process and its parents; returns when they are gone.

    Raises:
        LptError: the system does not end a process within `LAST_WAIT` seconds, as when a driver hangs.
    """
    deadline = time.monotonic() + LAST_WAIT
    me = psutil.Process()
    spared = [me, *me.parents()]
    while processes := [process for process in find(folder) if process not in spared]:
        if time.monotonic() > deadline:
            raise LptError(f"process {processes[0].pid} of {folder.name} cannot be ended; end it yourself")
        _signal(processes, signal.SIGKILL)
        time.sleep(0.01)


def _signal(processes: Iterable[psutil.Process], number: int) -> None:
    for process in processes:
        with suppress(psutil.Error, OSError):
            os.kill(process.pid, number)
