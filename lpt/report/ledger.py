"""Points of a sweep that left no run folder yet, from the sweep's ledger. Nothing else here knows ledgers."""

import json
import sqlite3
from collections.abc import Collection
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lpt.sweep.ledger import FILE


@dataclass(frozen=True)
class Point:
    """A point without a result."""

    name: str
    overrides: list[str]
    status: str
    error: str | None


def points_without_run(folder: Path, runs: Collection[str]) -> list[Point]:
    """Points in any `sweep.db` under `folder` whose name is no run folder's.

    Args:
        runs: names of the folders that runs are in.
    """
    points = [point for ledger in sorted(folder.rglob(FILE)) for point in _points(ledger)]
    return [point for point in points if point.name not in runs]


def _points(ledger: Path) -> list[Point]:
    """None of a ledger that cannot be read: a report needs none."""
    try:
        with closing(sqlite3.connect(f"{ledger.absolute().as_uri()}?mode=ro", uri=True)) as connection:
            connection.row_factory = sqlite3.Row
            rows = [dict(row) for row in connection.execute("SELECT * FROM points")]
    except sqlite3.Error:
        return []
    return [
        Point(str(row["name"]), _overrides(row.get("overrides")), str(row.get("status", "pending")), row.get("error"))
        for row in rows
        if row.get("name") is not None
    ]


def _overrides(text: Any) -> list[str]:
    """A JSON list, or words."""
    try:
        return [str(override) for override in json.loads(text)]
    except (ValueError, TypeError):
        return str(text or "").split()
