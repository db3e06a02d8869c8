"""Works on the points of a sweep until each is completed or has failed.

Whatever is killed at whatever moment, nothing is done twice and little is lost: a point is recorded in the ledger
before its process starts, its own folder holds its progress, and it is resumed from its last checkpoint.
"""

import json
import os
import shlex
import shutil
import signal
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Protocol

from filelock import FileLock, Timeout

from lpt.errors import LptError
from lpt.files import write_text
from lpt.sweep.ledger import Ledger, Row, Status
from lpt.sweep.points import Point
from lpt.training.result import CompletedRun, FailedRun, read_result

LOG = "train.log"
BAD_OPTIONS = 2  # exit status of a training run for which trying again cannot help
SIGNALS = ("SIGINT", "SIGTERM", "SIGHUP")


class Work(Protocol):
    """A point that is being worked on."""

    job: str
    # Its process or job id.
    exit_status: int | None
    # None while it is unknown, as for what an earlier launcher has started.

    def ended(self) -> bool:
        """Whether it has ended."""

    def interrupt(self) -> None:
        """Ask it to end, as Ctrl-C does."""

    def clear(self) -> None:
        """Kill what is left of it."""


class Place(Protocol):
    """A place where points run."""

    name: str

    @property
    def workers(self) -> float:
        """The number of points at a time; may be infinite."""

    def start(self, point: Point, argv: Sequence[str], cwd: Path, folder: Path, log: Path) -> Work:
        """Start `argv` for a point, with its output appended to `log`."""

    def find(self, folder: Path, job: str | None) -> Work | None:
        """The work that an earlier launcher has started for a point, if it still runs."""


class View(Protocol):
    """What a person sees of a sweep, such as a `lpt.sweep.view.SweepView`."""

    def started(self, row: Row) -> None:
        """Show that a point was started."""

    def completed(self, row: Row) -> None:
        """Show that a point is completed."""

    def failed(self, row: Row, log: Path, again: bool) -> None:
        """Show that a point has failed, with its log; `again`: it is going to be tried again."""

    def say(self, message: str) -> None:
        """Show a message."""

    def refresh(self, rows: Callable[[], list[Row]]) -> None:
        """Bring what is shown up to date; called often, so `rows` is called only when there is a need."""


@contextmanager
def sole_launcher(folder: Path, create: bool = False) -> Iterator[Ledger]:
    """Open the ledger of a sweep for this process alone to work on. The lock is the system's: it ends with its holder.

    Raises:
        LptError: another process is working on it; or as for `Ledger`.
    """
    ledger = Ledger(folder, create)
    lock = FileLock(folder / "sweep.lock", blocking=False)
    try:
        try:
            lock.acquire()
        except Timeout:
            raise LptError(
                f"{folder} is being worked on by {ledger['launcher']}; wait for it, or end it first. Its progress: "
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
        ledger: the ledger of a sweep, of which this process is the sole launcher.
        command: the command to start for a point, given its folder and whether to resume from its last checkpoint.
        place: where points run.
        view: what a person sees of every change.
        cwd: the working directory of every point; None: this process's.
        retries: how often a point that fails is tried again.
        grace_period: seconds in which interrupted points may end by themselves.
        poll: seconds between looks at the processes.
        watch: whether to stop a running point, because it will not be the best.
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
        grace_period: float = 10.0,
        poll: float = 0.2,
        watch: Callable[[Row], bool] = lambda row: False,
    ):
        self._ledger = ledger
        self._command = command
        self._place = place
        self._view = view
        self._cwd = cwd or Path.cwd()
        self._retries = retries
        self._grace_period = grace_period
        self._poll = poll
        self._watch = watch
        self._failures: dict[str, int] = {}
        self._running: dict[str, Work] = {}
        self._interrupts = 0

    def run(self, names: Collection[str]) -> None:
        """Work on those of the named points that are not completed and have not failed.

        Points that an earlier launcher has left running are waited for, named or not.

        Raises:
            KeyboardInterrupt: after Ctrl-C, SIGTERM or SIGHUP, when every process has ended.
        """
        self._recover()
        rows = self._ledger.rows()
        waiting = deque(row for row in rows if row.name in names and row.status == Status.PENDING)
        with self._signals():
            try:
                while waiting or self._running:
                    while waiting and len(self._running) < self._place.workers and not self._interrupts:
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
        """Bring the ledger up to date with the folders and processes of its points."""
        for row in self._ledger.rows():
            folder = self._folder(row)
            here = row.status == Status.RUNNING and row.place == self._place.name
            if here and (work := self._place.find(folder, row.job)):
                self._ledger.has_job(row.name, work.job)
                self._running[row.name] = work
                self._view.say(f"{row.name}: still running as process {work.job}, started by an earlier launcher")
            elif (objective := read_objective(folder)) is not None:
                if row.status != Status.COMPLETED:
                    self._ledger.completed(row.name, objective)
            elif row.status == Status.RUNNING:
                where = "" if row.place == self._place.name else f" on {row.place}, where it is assumed to have ended"
                self._ledger.pending(row.name, f"interrupted while it ran{where}")
                self._view.say(f"{row.name}: interrupted while it ran{where}")
            elif row.status == Status.COMPLETED:
                self._ledger.pending(row.name, "its result.json is gone")
                self._view.say(f"{row.name}: was completed, but its result.json is gone; computing it again")

    def _start(self, row: Row) -> None:
        folder = self._folder(row)
        resuming = has_checkpoint(folder)
        self._ledger.started(row.name, self._place.name)
        _prepare(folder, row.point, resuming)
        log = folder / LOG
        with log.open("a") as file:
            file.write(f"--- attempt {row.attempts + 1}{', from its last checkpoint' if resuming else ''}\n")
        argv = self._command(row.point, folder, resuming)
        work = self._place.start(row.point, argv, self._cwd, folder, log)
        self._ledger.has_job(row.name, work.job)
        self._running[row.name] = work
        self._view.started(row)

    def _settle(self) -> list[Row]:
        """Record what has ended; returns what is to be tried again."""
        again = []
        for name, work in [(name, work) for name, work in self._running.items() if work.ended()]:
            work.clear()  # ranks, if their first process was killed
            del self._running[name]
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
        """Stop the points that will not be the best."""
        for name, work in list(self._running.items()):
            if self._watch(self._ledger.row(name)):
                work.clear()
                del self._running[name]
                self._ledger.pruned(name)
                self._view.say(f"{name}: pruned")

    def _end_all(self) -> None:
        """Interrupt what runs; after the grace period, or at a second request, kill it."""
        if not self._running:
            return
        self._view.say(f"ending {len(self._running)} running points")
        for work in self._running.values():
            work.interrupt()
        deadline, requests = time.monotonic() + self._grace_period, self._interrupts
        running = list(self._running.values())
        while running and time.monotonic() < deadline and self._interrupts == requests:
            time.sleep(min(self._poll, 0.1))
            running = [work for work in running if not work.ended()]
        for name, work in self._running.items():
            try:
                work.clear()
            except LptError as error:  # it stays running in the ledger, so that the next launcher looks for it
                self._view.say(f"{name}: {error}")
                continue
            objective = read_objective(self._ledger.folder / name)
            if objective is None:
                self._ledger.pending(name, "interrupted")
            else:
                self._ledger.completed(name, objective)
        self._running.clear()

    @contextmanager
    def _signals(self) -> Iterator[None]:
        """Count requests to end instead of raising them, so that nothing is left half recorded."""

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


# What a point's folder holds


def read_objective(folder: Path) -> float | None:
    """The primary metric on the validation rows; None unless the point is completed."""
    result = _result(folder)
    return result.objective if isinstance(result, CompletedRun) else None


def _result(folder: Path) -> CompletedRun | FailedRun | None:
    """The result of a point; None also if the file is damaged, so that the point is computed again."""
    try:
        return read_result(folder)
    except LptError:
        return None


def has_checkpoint(folder: Path) -> bool:
    """Whether a point has left a checkpoint, and the configuration to resume it with. The run judges if it is good."""
    return any((folder / "checkpoints").glob("*.ckpt")) and (folder / ".hydra" / "config.yaml").is_file()


def _prepare(folder: Path, point: Point, resuming: bool) -> None:
    """Make a point's folder ready for an attempt: remove the last result and, unless resuming, all but the log."""
    folder.mkdir(exist_ok=True)
    for path in folder.iterdir():
        if path.name == "result.json" or not (resuming or path.name == LOG):
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
    write_text(folder / ".hydra" / "config.yaml", point.plan)
    write_text(folder / ".hydra" / "overrides.yaml", json.dumps(point.overrides) + "\n")  # which is YAML too


def _why(folder: Path, exit_status: int | None) -> str:
    """Why a point has failed, in one sentence."""
    if exit_status is not None and exit_status < 0:
        return f"killed by {signal.Signals(-exit_status).name}"
    result = _result(folder)
    if isinstance(result, FailedRun):
        return result.error
    return "its process is gone" if exit_status is None else f"ended with exit status {exit_status}"
