"""The entries of the trunk cache on disk: listed, verified, made room for, published, removed.

    <folder>/<key>/numbers.bin   states [T, H] or keys and values [layers, 2, g, T, d], row after row, no padding
    <folder>/<key>/entry.json    what they belong to, and their checksum

An entry is written as `<key>.partial` beside its place and moved there when it is complete, under `<key>.lock`.
"""

import hashlib
import json
import os
import shutil
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from lpt.assets.wheels import cache_dir
from lpt.errors import LptError

NUMBERS, ENTRY = "numbers.bin", "entry.json"
CHUNK = 2**24  # bytes written at a time where a file cannot be reserved at once


@dataclass(frozen=True)
class Entry:
    """One entry, as `lpt cache list` shows it."""

    place: Path
    facts: dict[str, Any]
    # The contents of its entry.json; empty where that is missing or damaged.
    bytes: int
    used: float
    # When it was last read, in seconds since the epoch.


def trunk_folder() -> Path:
    """Where entries are, unless a cache is given a folder of its own."""
    return cache_dir() / "trunk"


def entries(folder: Path) -> list[Entry]:
    """All entries in a cache folder; half-written and unreadable ones count too."""
    found = []
    for place in sorted(folder.glob("*")) if folder.is_dir() else []:
        if not place.is_dir():
            continue
        try:
            facts, used = _described(place), (place / ENTRY).stat().st_mtime
        except (OSError, ValueError):
            facts, used = {}, 0.0
        found.append(Entry(place, facts, _size(place), used))
    return found


def used_bytes(folder: Path) -> int:
    """What all entries take."""
    return sum(entry.bytes for entry in entries(folder))


def free_bytes(folder: Path) -> int:
    """Free space on the disk of a folder, which need not exist yet."""
    existing = folder
    while not existing.exists():
        existing = existing.parent
    return shutil.disk_usage(existing).free


def clear(folder: Path, older: float = 0.0, backbone: str | None = None) -> int:
    """Remove entries but those being built; what a run has open stays readable to it.

    Args:
        folder: the cache folder.
        older: remove what was last used at least so many seconds ago.
        backbone: remove what belongs to this one alone.

    Returns:
        Bytes removed.

    Raises:
        LptError: no entry belongs to this backbone.
    """
    found = entries(folder)
    if backbone is not None:
        names = {str(entry.facts["backbone"]) for entry in found if "backbone" in entry.facts}
        if backbone not in names:
            raise LptError(
                f"--backbone {backbone}: no entry belongs to it; there are {', '.join(sorted(names)) or 'none'}"
            )
        found = [entry for entry in found if entry.facts.get("backbone") == backbone]
    found = [entry for entry in found if entry.used <= time.time() - older]
    for entry in found:
        _remove(entry.place)
    return sum(entry.bytes for entry in found if not entry.place.exists())


def lock(place: Path) -> FileLock:
    """The lock under which an entry is looked up and built."""
    return FileLock(place.with_suffix(".lock"))


def partial(place: Path) -> Path:
    """Where an entry is written until it is complete."""
    return place.with_suffix(".partial")


def verify(place: Path, key: dict[str, str], size: int) -> bool | None:
    """Whether the entry at a place is what it says; None where there is none. A damaged one is removed.

    Args:
        key: the fields of its `TrunkKey`.
        size: bytes that its numbers take.
    """
    if not place.exists():
        return None
    try:
        entry = _described(place)
        intact = entry["key"] == key and (place / NUMBERS).stat().st_size == size
        intact = intact and _checksum(place / NUMBERS) == entry["checksum"]
    except (OSError, ValueError, KeyError):
        intact = False
    if intact:
        os.utime(place / ENTRY)  # used now: the last to be evicted
    else:
        _remove(place)
    return intact


def reserve(place: Path, size: int, budget: int) -> None:
    """Make room for an entry and reserve its file; the least recently used entries go first.

    Args:
        size: bytes that its numbers take.
        budget: bytes that all entries of the folder may take together.

    Raises:
        OSError: for instance, the disk is full.
    """
    for entry in sorted(entries(place.parent), key=lambda entry: entry.used):
        if used_bytes(place.parent) + size <= budget:
            break
        _remove(entry.place)
    folder = partial(place)
    shutil.rmtree(folder, ignore_errors=True)
    try:
        folder.mkdir(parents=True)
        with (folder / NUMBERS).open("wb") as file:
            # Reserved now: writing to a mapped file on a full disk would kill the process.
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(file.fileno(), 0, max(size, 1))
            else:  # macOS
                for start in range(0, size, CHUNK):
                    file.write(bytes(min(CHUNK, size - start)))
            file.truncate(size)
    except OSError:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def publish(place: Path, key: dict[str, str], facts: dict[str, Any], flush: bool) -> None:
    """Describe the numbers just computed and move them to their place.

    Args:
        key: the fields of its `TrunkKey`.
        facts: what else `entry.json` has.
        flush: write through to the disk, from which other nodes read.

    Raises:
        OSError: for instance, the disk is full; what was computed is then removed.
    """
    folder = partial(place)
    try:
        if flush:
            with (folder / NUMBERS).open("rb+") as file:
                os.fsync(file.fileno())
        created = time.strftime("%Y-%m-%d %H:%M:%S")
        entry = {"key": key, "checksum": _checksum(folder / NUMBERS), **facts, "created": created}
        (folder / ENTRY).write_text(json.dumps(entry, indent=2) + "\n", encoding="utf-8")
        os.replace(folder, place)
    except OSError:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def human_bytes(count: int) -> str:
    """A size for people: `999 B`, `12 kB`, `3.4 GB`."""
    size = float(count)
    for unit in ("B", "kB", "MB"):
        if size < 1000:
            return f"{size:.0f} {unit}"
        size /= 1000
    return f"{size:.1f} GB"


def _remove(place: Path) -> None:
    """Remove an entry; or what a killed run left of one, unless another run is building it."""
    if place.suffix == ".partial":
        try:
            with FileLock(place.with_suffix(".lock"), timeout=0):
                shutil.rmtree(place, ignore_errors=True)
        except Timeout:
            pass
    elif place.is_dir():
        shutil.rmtree(place, ignore_errors=True)
    else:
        with suppress(OSError):
            place.unlink()


def _described(place: Path) -> dict[str, Any]:
    """The contents of an entry's entry.json.

    Raises:
        OSError: there is none.
        ValueError: it is damaged.
    """
    try:
        found = json.loads((place / ENTRY).read_text(encoding="utf-8"))
    except RecursionError:
        found = None
    if not isinstance(found, dict):
        raise ValueError(f"{place / ENTRY} describes no entry")
    return found


def _size(place: Path) -> int:
    """Bytes of an entry, which another run may remove or complete meanwhile."""
    total = 0
    for path in place.glob("*"):
        with suppress(OSError):
            total += path.stat().st_size
    return total


def _checksum(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()
