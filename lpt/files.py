"""Files that are whole or not there at all, whatever happens while they are written."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from difflib import get_close_matches
from pathlib import Path
from typing import IO, Any

from lpt.errors import LptError

PARTIAL = ".partial"  # what is being written has this at the end of its name


@contextmanager
def whole_file(path: Path, binary: bool = False) -> Iterator[IO[Any]]:
    """Open a file that appears under its name when it is complete and on disk; until then the old one stays.

    Args:
        path: the file; its folder is made if it does not exist.
        binary: whether bytes are written, instead of UTF-8 text.

    Raises:
        LptError: it cannot be written; what was there before is untouched.
    """
    partial = path.with_name(path.name + PARTIAL)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("wb") if binary else partial.open("w", encoding="utf-8") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
        _sync_folder(path.parent)
    except OSError as error:
        _remove(partial)
        raise LptError(f"{_unwritten(path, error)} What was there before is untouched") from None
    except BaseException:
        _remove(partial)
        raise


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """Give a folder to write into, which appears under its name when all of it is on disk.

    Args:
        path: the folder, which must not exist; the one that it is in is made if it does not exist.

    Raises:
        LptError: it exists, or cannot be written; nothing is left then.
    """
    if path.exists():
        raise LptError(f"{path} exists; choose another folder, or remove it first")
    partial = path.with_name(f"{path.name}.{os.getpid()}{PARTIAL}")
    try:
        partial.mkdir(parents=True)
        yield partial
        for file in filter(Path.is_file, partial.rglob("*")):
            with file.open("rb") as written:
                os.fsync(written.fileno())
        os.rename(partial, path)
        _sync_folder(path.parent)
    except OSError as error:
        raise LptError(_unwritten(path, error)) from None
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def check_folder(path: Path) -> None:
    """Raises LptError unless there is such a folder."""
    if not path.is_dir():
        raise LptError(f"{path}: there is no such folder{nearest_path(path)}")


def nearest_path(path: Path) -> str:
    """`"; did you mean runs/x?"` for the existing path that is written almost like this one; empty without one."""
    found = Path(path.anchor)
    for part in path.parts[len(found.parts) :]:
        if (found / part).exists():
            found /= part
            continue
        names = [entry.name for entry in os.scandir(found)] if found.is_dir() else []
        nearest = get_close_matches(part, names, n=1, cutoff=0.7)
        if not nearest:
            return ""
        found /= nearest[0]
    return f"; did you mean {found}?"


def write_text(path: Path, content: str) -> None:
    """Write a text file, whole or not at all.

    Raises:
        LptError: as for `whole_file`.
    """
    with whole_file(path) as file:
        file.write(content)


def check_writable(path: Path) -> None:
    """Make the folder of a file that is going to be written.

    Raises:
        LptError: it cannot be made.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise LptError(_unwritten(path, error)) from None


def append_text(path: Path, content: str) -> None:
    """Write at the end of a text file that is there; it may be cut off where a process is killed.

    Raises:
        LptError: it cannot be written.
    """
    try:
        with path.open("a", encoding="utf-8", newline="") as file:
            file.write(content)
    except OSError as error:
        raise LptError(_unwritten(path, error)) from None


def _unwritten(path: Path, error: OSError) -> str:
    return (
        f"{path} could not be written ({error.strerror or error}); is the disk full, or the folder read-only or gone?"
    )


def _sync_folder(folder: Path) -> None:
    """Have the new name survive a power failure too."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):  # some file systems cannot
            os.fsync(handle)
    finally:
        os.close(handle)


def _remove(path: Path) -> None:
    with suppress(OSError):
        path.unlink(missing_ok=True)
