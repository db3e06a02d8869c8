"""An output that is being written: beside it stands how far it is, so that the same command continues it."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

from lpt.errors import LptError
from lpt.files import PARTIAL, check_writable, write_text

STATE = ".state"


@dataclass
class Progress:
    """How far an output is.

    Attributes:
        command: what it depends on: input, adapters, options. None: it cannot be continued, as its input is read once.
        rows: that are answered and written.
        bytes: that these take.
        unsure: of them below the confidence that is counted.
        blank: of them without an answer.
    """

    command: dict[str, Any] | None
    rows: int = 0
    bytes: int = 0
    unsure: int = 0
    blank: int = 0


@contextmanager
def unfinished(
    output: Path, command: dict[str, Any] | None, restart: bool, overwrite: bool
) -> Iterator[tuple[IO[bytes], Progress]]:
    """Open an output to be written or continued; it gets its name when the block ends without an error.

    Args:
        output: the file.
        command: what it depends on.
        restart: begin anew where there is an unfinished one.
        overwrite: replace a finished one.

    Raises:
        LptError: it is there already; or an unfinished one is of another command.
    """
    partial = output.with_name(output.name + PARTIAL)
    check_writable(output)
    if output.exists() and not overwrite:
        raise LptError(f"--output {output} is there already; name another file, or replace it with --overwrite")
    progress = _begun(partial, command, restart)
    try:
        with partial.open("r+b" if progress.rows else "wb") as file:
            file.truncate(progress.bytes)
            file.seek(progress.bytes)
            note(output, file, progress)
            yield file, progress
    except OSError as error:
        raise LptError(
            f"{output} could not be written ({error.strerror or error}); what is there is kept in {partial}"
        ) from None
    os.replace(partial, output)
    _state(partial).unlink(missing_ok=True)


def note(output: Path, file: IO[bytes], progress: Progress) -> None:
    """Note how far an output is, once it is on disk so far."""
    os.fsync(file.fileno())
    progress.bytes = file.tell()
    if progress.command is not None:
        write_text(_state(output.with_name(output.name + PARTIAL)), json.dumps(asdict(progress)) + "\n")


def _state(partial: Path) -> Path:
    return partial.with_name(partial.name + STATE)


def _begun(partial: Path, command: dict[str, Any] | None, restart: bool) -> Progress:
    fresh = Progress(command)
    if restart or not partial.exists():
        _state(partial).unlink(missing_ok=True)
        return fresh
    found = None
    with suppress(OSError, ValueError, TypeError):
        found = Progress(**json.loads(_state(partial).read_text(encoding="utf-8")))
    if found is None and not partial.stat().st_size:
        return fresh
    anew = f"remove {partial}, or begin anew with --restart"
    if found is None or command is None:
        raise LptError(f"{partial} is unfinished, and cannot be continued; {anew}")
    differing = [name for name in command if json.loads(json.dumps(command[name])) != (found.command or {}).get(name)]
    if differing:
        raise LptError(f"{partial} is unfinished, of a command with other {', '.join(differing)}; {anew}")
    if partial.stat().st_size < found.bytes:
        raise LptError(f"{partial} is shorter than it was; {anew}")
    return found
