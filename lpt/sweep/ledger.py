"""The ledger of a sweep: its points, and the status of each. SQLite, in the sweep folder.

What a point has computed is in its own folder, and the ledger is checked against it whenever work begins: a point is
completed if its `result.json` says so, whatever was written here before the power failed.
"""

import json
import shlex
import sqlite3
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, TypeVar

from lpt.console import say
from lpt.errors import LptError
from lpt.sweep.points import Point, differences, in_order

FILE = "sweep.db"
FORMAT = 3
SHOWN = 10  # lines of a complaint about drift
PATIENCE, RETRY = 3600.0, 1.0  # seconds
TRANSIENT = ("database is locked", "database or disk is full", "disk I/O error")

T = TypeVar("T")


class Status(StrEnum):
    """The status of a point, in the order in which counts list them."""

    COMPLETED = "completed"
    PRUNED = "pruned"  # stopped by a search, because earlier points were better
    RUNNING = "running"
    FAILED = "failed"
    PENDING = "pending"


SCHEMA = """
CREATE TABLE IF NOT EXISTS sweep (key TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS points (
    name TEXT PRIMARY KEY,
    hash TEXT NOT NULL UNIQUE,
    overrides TEXT NOT NULL,
    config TEXT NOT NULL,
    plan TEXT NOT NULL,
    status TEXT NOT NULL DEFAULT 'pending',
    attempts INTEGER NOT NULL DEFAULT 0,
    place TEXT,
    job TEXT,
    started REAL,
    ended REAL,
    objective REAL,
    error TEXT
);
"""
COLUMNS = "name, overrides, config, plan, status, attempts, place, job, started, ended, objective, error"


@dataclass(frozen=True)
class Row:
    """The ledger's entry for one point."""

    point: Point
    status: Status
    attempts: int
    # Number of processes started for it so far.
    place: str | None
    # Where the last one was started: a machine's name, or a cluster's.
    job: str | None
    # Its process or job id there.
    started: float | None
    # Seconds since the epoch.
    ended: float | None
    # Seconds since the epoch.
    objective: float | None
    # Primary metric on the validation rows.
    error: str | None

    @property
    def name(self) -> str:
        """The name of the point, and of its folder."""
        return self.point.name


class Ledger:
    """The ledger of one sweep folder; anyone may read it, and one launcher at a time writes.

    Args:
        folder: the sweep folder.
        create: make the ledger where there is none.

    Raises:
        LptError: there is none, it cannot be read, or another version of this program wrote it.
    """

    def __init__(self, folder: Path, create: bool = False):
        self.folder = folder.absolute()
        if create:
            self.folder.mkdir(parents=True, exist_ok=True)
        elif not (self.folder / FILE).is_file():
            raise LptError(
                f"{folder} is not the folder of a sweep ({FILE} is missing); name one that `python train.py -m ...` "
                "has made"
            )
        self._db = sqlite3.connect(self.folder / FILE, timeout=30, isolation_level=None)
        try:
            # What is committed survives a power failure. No write-ahead log: its readers must be on the same machine.
            self._db.execute("PRAGMA synchronous = FULL")
            if create:
                self._db.executescript(SCHEMA)
                self._db.execute("INSERT OR IGNORE INTO sweep VALUES ('format', ?)", [FORMAT])
            written_as = self["format"]
        except sqlite3.DatabaseError as error:
            raise LptError(f"{folder / FILE} cannot be read ({error}); choose another hydra.sweep.dir") from None
        if written_as != FORMAT:
            raise LptError(
                f"{folder / FILE} has format {written_as}, and this version of lpt reads format {FORMAT}; resume the "
                "sweep with the version that started it, or choose another hydra.sweep.dir"
            )

    def close(self) -> None:
        """Close the database."""
        self._db.close()

    def __getitem__(self, key: str) -> Any:
        """A fact about the whole sweep; None where it was never set."""
        row = self._execute("SELECT value FROM sweep WHERE key = ?", [key]).fetchone()
        return None if row is None else json.loads(row[0])

    def __setitem__(self, key: str, value: Any) -> None:
        self._execute("INSERT OR REPLACE INTO sweep VALUES (?, ?)", [key, json.dumps(value)])

    def _execute(self, sql: str, values: Sequence[Any] = ()) -> sqlite3.Cursor:
        """Run a statement, waiting while the database is locked or its disk is full: points run on meanwhile.

        Raises:
            LptError: it is still so after `PATIENCE`.
        """
        return patiently(lambda: self._db.execute(sql, values), self.folder / FILE)

    @property
    def resume_command(self) -> str:
        """The command that resumes the sweep, or the search that proposes its points."""
        search: str | None = (self["start"] or {}).get("search")
        return search or f"lpt sweep resume {shlex.quote(str(self.folder))}"

    def add(self, points: Iterable[Point], replaced: Iterable[str], start: dict[str, Any] | None) -> None:
        """Add the points that are not there yet, in place of those named `replaced`, and how to start them."""
        self._execute("BEGIN IMMEDIATE")  # all or nothing
        if start is not None:
            self["start"] = start
        self._db.executemany("DELETE FROM points WHERE name = ?", [[name] for name in replaced])
        self._db.executemany(
            "INSERT INTO points (name, hash, overrides, config, plan) VALUES (?, ?, ?, ?, ?) "
            "ON CONFLICT (hash) DO NOTHING",
            [(p.name, p.hash, json.dumps(p.overrides), json.dumps(p.facts, sort_keys=True), p.plan) for p in points],
        )
        self._execute("COMMIT")

    def rows(self) -> list[Row]:
        """The entry of every point, in the order added."""
        return [_row(values) for values in self._execute(f"SELECT {COLUMNS} FROM points ORDER BY rowid")]

    def row(self, name: str) -> Row:
        """The entry of the point of this name."""
        return _row(self._execute(f"SELECT {COLUMNS} FROM points WHERE name = ?", [name]).fetchone())

    def started(self, name: str, place: str) -> None:
        """Record that a process for this point is about to start: before it does, so that none is ever unknown."""
        began = "attempts = attempts + 1, ended = NULL, objective = NULL, error = NULL, job = NULL"
        self._set(name, f"status = ?, place = ?, started = ?, {began}", Status.RUNNING, place, time.time())

    def has_job(self, name: str, job: str) -> None:
        """Record the process or job id of a running point."""
        self._set(name, "job = ?", job)

    def completed(self, name: str, objective: float) -> None:
        """Record that a point is completed, with its primary metric on the validation rows."""
        self._end(name, Status.COMPLETED, objective, None)

    def failed(self, name: str, error: str) -> None:
        """Record that a point has failed for good."""
        self._end(name, Status.FAILED, None, error)

    def pruned(self, name: str) -> None:
        """Record that a search has stopped a point."""
        self._end(name, Status.PRUNED, None, None)

    def pending(self, name: str, why: str | None) -> None:
        """Record that a point is to be worked on, perhaps again; `why` says what ended the last attempt."""
        self._end(name, Status.PENDING, None, why)

    def _end(self, name: str, status: Status, objective: float | None, error: str | None) -> None:
        ended = "ended = ?, status = ?, objective = ?, error = ?, job = NULL"
        self._set(name, ended, time.time(), status, objective, error)

    def _set(self, name: str, assignments: str, *values: Any) -> None:
        self._execute(f"UPDATE points SET {assignments} WHERE name = ?", [*values, name])


def patiently(work: Callable[[], T], database: Path, causes: tuple[type[Exception], ...] = ()) -> T:
    """Do something with a database, and again while it is locked or its disk is full; says so.

    Args:
        work: what to do.
        database: its file, for messages.
        causes: what a library around SQLite raises.

    Raises:
        LptError: it is still so after `PATIENCE`.
    """
    began, said = time.monotonic(), False
    kinds: tuple[type[Exception], ...] = (sqlite3.OperationalError, *causes)
    while True:
        try:
            return work()
        except kinds as error:
            told = f"{error} {error.__cause__}"
            reason = next((text for text in TRANSIENT if text in told), None)
            if reason is None:
                raise
            if time.monotonic() - began > PATIENCE:
                raise LptError(
                    f"{database} cannot be used ({reason}), for {PATIENCE / 60:.0f} minutes now; end what holds it or "
                    "free the disk, and resume the sweep"
                ) from None
            if not said:
                say(f"{database} cannot be used now ({reason}); waiting, while running points run on")
                said = True
            time.sleep(RETRY)


def enter(
    ledger: Ledger,
    points: Sequence[Point],
    accept_drift: bool = False,
    start: dict[str, Any] | None = None,
    others: Callable[[], Sequence[Point]] = tuple,
) -> list[str]:
    """Enter the points that the ledger does not have yet, in the order to work in; returns the name of each.

    Args:
        ledger: the ledger.
        points: the points of this launch.
        accept_drift: keep what is completed, and work on the rest with today's values, where defaults have changed.
        start: `flags` and `cwd` of each point's command, the launcher's `options`, and the command of the `search` that
            proposes the points, if one does; None: as before.
        others: points of the ledger as they compose today, called only if there is something to compare them with.

    Raises:
        LptError: the same options have composed to other values before, and `accept_drift` is false.
    """
    rows = ledger.rows()
    known = {row.point.hash: row.name for row in rows}
    typed = {tuple(sorted(row.point.overrides)): row for row in rows}
    drifted = {}
    for point in (*points, *others()) if points and not accept_drift else points:
        earlier = typed.get(tuple(sorted(point.overrides)))
        if earlier is not None and point.hash not in known:
            drifted[point.hash] = (point, earlier)
    if drifted and not accept_drift:
        raise LptError(_drift_complaint(ledger.folder, drifted.values()))
    kept = {content: row.name for content, (_, row) in drifted.items() if row.status == Status.COMPLETED}
    replaced = [row.name for _, row in drifted.values() if row.status != Status.COMPLETED]
    ledger.add(in_order(point for point in points if point.hash not in kept), replaced, start)
    known = {row.point.hash: row.name for row in ledger.rows()} | kept
    return [known[point.hash] for point in points]


def _drift_complaint(folder: Path, drifted: Iterable[tuple[Point, Row]]) -> str:
    lines = []
    for point, row in drifted:
        lines += [f"{row.name}: {change}" for change in differences(row.point.facts, point.facts)]
    more = [f"and {len(lines) - SHOWN} more"] if len(lines) > SHOWN else []
    return "\n  - ".join(
        [
            f"{folder} was started with other defaults: the same options stood for other values than today, and old "
            "and new results would be mixed. Choose another folder (hydra.sweep.dir=...), give the old values as "
            "options, or keep what is completed and continue with today's values "
            "(hydra.launcher.accept_drift=true, or lpt sweep resume --accept-drift):",
            *lines[:SHOWN],
            *more,
        ]
    )


def _row(values: Sequence[Any]) -> Row:
    name, overrides, config, plan, status, *others = values
    return Row(Point(name, tuple(json.loads(overrides)), json.loads(config), plan), Status(status), *others)
