"""What the ledgers of sweeps record about their points. No other module of the report reads ledgers."""

import json
import sqlite3
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lpt.sweep.ledger import FILE


@dataclass(frozen=True)
class PointRecord:
    """What a ledger says of one point of its sweep.

    Attributes:
        folder: where its run is, or would be.
        status: one of `lpt.sweep.ledger.Status`.
    """

    folder: Path
    overrides: list[str]
    status: str
    error: str | None


def points_under(folder: Path) -> list[PointRecord]:
    """Read the points of every sweep at any depth."""
    return [point for ledger in sorted(folder.rglob(FILE)) for point in points_of(ledger.parent)]


def points_of(sweep: Path) -> list[PointRecord]:
    """Read the points of one sweep; none where it has no ledger that can be read, as a report can do without."""
    try:
        with closing(sqlite3.connect(f"{(sweep / FILE).absolute().as_uri()}?mode=ro", uri=True)) as connection:
            connection.row_factory = sqlite3.Row
            rows = [dict(row) for row in connection.execute("SELECT * FROM points")]
    except sqlite3.Error:
        return []
    return [
        PointRecord(
            sweep / str(row["name"]),
            _overrides(row.get("overrides")),
            str(row.get("status", "pending")),
            row.get("error"),
        )
        for row in rows
        if row.get("name") is not None
    ]


def _overrides(text: Any) -> list[str]:
    """Read a JSON list, or words."""
    try:
        return [str(override) for override in json.loads(text)]
    except (ValueError, TypeError):
        return str(text or "").split()
