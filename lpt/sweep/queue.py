"""Works on the points of a sweep until each is completed or has failed.

Whatever is killed at whatever moment, nothing is done twice and little is lost: a point is noted in the ledger before
its process starts, its own folder says how far it has come, and it goes on from its last checkpoint.
"""

import os
import shlex
import shutil
import signal
import socket
import threading
import time
import zipfile
from collections import deque
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Protocol

from filelock import FileLock, Timeout

from lpt.errors import LptError
from lpt.sweep.ledger import COMPLETED, PENDING, RUNNING, Ledger, Row
from lpt.sweep.points import Point
from lpt.training.result import CompletedRun, FailedRun, read_result

LOG = "train.log"
BAD_OPTIONS = 2  # exit status of train.py where trying again cannot help
SIGNALS = ("SIGINT", "SIGTERM", "SIGHUP")


class Work(Protocol):
    """A point that is being worked on."""

    job: str
    exit_status: int | None
    # None while it is not known, as of what an earlier launcher has started.

    def ended(self) -> bool: ...

    def interrupt(self) -> None: ...  # as Ctrl-C would

    def clear(self) -> None: ...  # end what is left of it, now


class Place(Protocol):
    """Where points are worked on."""

    name: str

    @property
    def workers(self) -> float: ...  # points at a time

    def start(self, point: Point, argv: Sequence[str], cwd: Path, folder: Path, log: Path) -> Work: ...

    def find(self, folder: Path, job: str | None) -> Work | None: ...


class View(Protocol):
    """What a person sees."""

    def started(self, row: Row) -> None: ...

    def completed(self, row: Row) -> None: ...

    def failed(self, row: Row, log: Path, again: bool) -> None: ...

    def say(self, message: str) -> None: ...

    def refresh(self, rows: Callable[[], list[Row]]) -> None: ...


@contextmanager
def sole_launcher(folder: Path, create: bool = False) -> Iterator[Ledger]:
    """The ledger of a sweep, with nobody else at work on it. The lock is the system's: it ends with its holder.

    Raises:
        LptError: somebody is at work on it already; or as `Ledger`.
    """
    ledger = Ledger(folder, create)
    lock = FileLock(folder / "sweep.lock", blocking=False)
    try:
        try:
            lock.acquire()
        except Timeout:
            raise LptError(
                f"{folder} is being worked on by {ledger['launcher']}; wait for it, or end it first. How far it is: "
                f"lpt sweep status {shlex.quote(str(folder))}"
            ) from None
        ledger["launcher"] = f"process {os.getpid()} on {socket.gethostname()}"
        try:
            yield ledger
        finally:
            lock.release()
    finally:
        ledger.close()


class Queue:
    """Works on points of a ledger.

    Args:
        ledger: of a sweep that this process is the sole launcher of.
        command: what to start for a point, given its folder and whether to go on from its last checkpoint.
        place: where.
        view: told of every change.
        retries: how often a point that fails is tried again.
        patience: seconds that points have to end in, once interrupted.
        poll: seconds between looks at the processes.
        watch: says of a running point whether to end it, as one that will not be the best.
    """

    def __init__(
        self,
        ledger: Ledger,
        command: Callable[[Point, Path, bool], Sequence[str]],
        place: Place,
        view: View,
        *,
        cwd: Path | None = None,
        retries: int = 1,
        patience: float = 10.0,
        poll: float = 0.2,
        watch: Callable[[Row], bool] = lambda row: False,
    ):
        self._ledger = ledger
        self._command = command
        self._place = place
        self._view = view
        self._cwd = cwd or Path.cwd()
        self._retries = retries
        self._patience = patience
        self._poll = poll
        self._watch = watch
        self._failures: dict[str, int] = {}
        self._under_way: dict[str, Work] = {}
        self._interrupts = 0

    def run(self, names: Collection[str]) -> None:
        """Work on those of the named points that are not completed and have not failed.

        Points that an earlier launcher has left running are waited for, named or not.

        Raises:
            KeyboardInterrupt: by Ctrl-C, SIGTERM or SIGHUP, with every process ended.
        """
        self._recover()
        rows = self._ledger.rows()
        waiting = deque(row for row in rows if row.name in names and row.status == PENDING)
        with self._signals():
            try:
                while waiting or self._under_way:
                    while waiting and len(self._under_way) < self._place.workers and not self._interrupts:
                        self._start(waiting.popleft())
                    self._view.refresh(self._ledger.rows)
                    if self._interrupts:
                        raise KeyboardInterrupt
                    time.sleep(self._poll)
                    waiting.extend(self._settle())
                    self._prune()
            finally:
                self._end_all()

    def _recover(self) -> None:
        """Make the ledger say what is so."""
        for row in self._ledger.rows():
            folder = self._folder(row)
            if row.status == RUNNING and row.place == self._place.name and (work := self._place.find(folder, row.job)):
                self._ledger.has_job(row.name, work.job)
                self._under_way[row.name] = work
                self._view.say(f"{row.name}: still running, as process {work.job}, since an earlier launcher")
            elif (objective := read_objective(folder)) is not None:
                if row.status != COMPLETED:
                    self._ledger.completed(row.name, objective)
            elif row.status == RUNNING:
                where = "" if row.place == self._place.name else f" on {row.place}, which is taken for ended"
                self._ledger.pending(row.name, f"cut while it ran{where}")
                self._view.say(f"{row.name}: cut while it ran{where}")
            elif row.status == COMPLETED:
                self._ledger.pending(row.name, "its result.json is gone")
                self._view.say(f"{row.name}: was completed, but its result.json is gone; it is computed again")

    def _start(self, row: Row) -> None:
        folder = self._folder(row)
        goes_on = has_checkpoint(folder)
        self._ledger.started(row.name, self._place.name)
        _prepare(folder, goes_on)
        log = folder / LOG
        with log.open("a") as file:
            file.write(f"--- attempt {row.attempts + 1}{', from its last checkpoint' if goes_on else ''}\n")
        argv = self._command(row.point, folder, goes_on)
        work = self._place.start(row.point, argv, self._cwd, folder, log)
        self._ledger.has_job(row.name, work.job)
        self._under_way[row.name] = work
        self._view.started(row)

    def _settle(self) -> list[Row]:
        """Note what has ended; returns what is to be tried again."""
        again = []
        for name, work in [(name, work) for name, work in self._under_way.items() if work.ended()]:
            work.clear()  # ranks, if their first process was killed
            del self._under_way[name]
            folder = self._ledger.folder / name
            objective = read_objective(folder)
            if objective is not None:
                self._ledger.completed(name, objective)
                self._view.completed(self._ledger.row(name))
                continue
            self._failures[name] = self._failures.get(name, 0) + 1
            retry = self._failures[name] <= self._retries and work.exit_status != BAD_OPTIONS
            error = _why(folder, work.exit_status)
            (self._ledger.pending if retry else self._ledger.failed)(name, error)
            self._view.failed(self._ledger.row(name), folder / LOG, retry)
            if retry:
                again.append(self._ledger.row(name))
        return again

    def _prune(self) -> None:
        """End what is not worth going on with."""
        for name, work in list(self._under_way.items()):
            if self._watch(self._ledger.row(name)):
                work.clear()
                del self._under_way[name]
                self._ledger.pruned(name)
                self._view.say(f"{name}: pruned")

    def _end_all(self) -> None:
        """End what runs: politely, then, or if asked once more, at once."""
        if not self._under_way:
            return
        self._view.say(f"ending {len(self._under_way)} running points")
        for work in self._under_way.values():
            work.interrupt()
        deadline, asked = time.monotonic() + self._patience, self._interrupts
        running = list(self._under_way.values())
        while running and time.monotonic() < deadline and self._interrupts == asked:
            time.sleep(min(self._poll, 0.1))
            running = [work for work in running if not work.ended()]
        for name, work in self._under_way.items():
            try:
                work.clear()
            except LptError as error:  # the ledger goes on to say that it runs, so that the next launcher looks for it
                self._view.say(f"{name}: {error}")
                continue
            objective = read_objective(self._ledger.folder / name)
            if objective is None:
                self._ledger.pending(name, "interrupted")
            else:
                self._ledger.completed(name, objective)
        self._under_way.clear()

    @contextmanager
    def _signals(self) -> Iterator[None]:
        """Requests to end are counted, not raised: nothing is left half noted."""

        def count(number: int, frame: FrameType | None) -> None:
            self._interrupts += 1

        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {name: signal.signal(getattr(signal, name), count) for name in SIGNALS}
        try:
            yield
        finally:
            for name, handler in before.items():
                signal.signal(getattr(signal, name), handler)

    def _folder(self, row: Row) -> Path:
        return self._ledger.folder / row.name


# What a point's folder says


def read_objective(folder: Path) -> float | None:
    """The primary metric on the validation rows; None unless the point is completed."""
    result = _result(folder)
    return result.objective if isinstance(result, CompletedRun) else None


def _result(folder: Path) -> CompletedRun | FailedRun | None:
    """None also of a damaged file: its point is computed again."""
    try:
        return read_result(folder)
    except LptError:
        return None


def has_checkpoint(folder: Path) -> bool:
    """Whether there is a whole checkpoint to go on from, and the configuration to do it with."""
    last = folder / "checkpoints" / "last.ckpt"
    return zipfile.is_zipfile(last) and (folder / ".hydra" / "config.yaml").is_file()


def _prepare(folder: Path, goes_on: bool) -> None:
    """For the next attempt: what the last one had to say of its end goes; unless this one goes on, all but the log."""
    folder.mkdir(exist_ok=True)
    for path in folder.iterdir():
        if path.name == "result.json" or not (goes_on or path.name == LOG):
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()


def _why(folder: Path, exit_status: int | None) -> str:
    if exit_status is not None and exit_status < 0:
        return f"killed by {signal.Signals(-exit_status).name}"
    result = _result(folder)
    if isinstance(result, FailedRun):
        return result.error
    return "its process is gone" if exit_status is None else f"ended with exit status {exit_status}"
