"""The console that messages are printed on, and how they write texts and times."""

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console

# Plain lines in a notebook too: its cells show what a file would get.
console = Console(highlight=False, force_jupyter=False)
stderr = Console(highlight=False, force_jupyter=False, stderr=True)  # where the output is for another program


_part: list[str] = []  # what is being done as a part of something larger, outermost first


def say(message: str) -> None:
    """Print one message, unwrapped and without markup; not of what is a part."""
    if not _part:
        console.print(message, soft_wrap=True, markup=False)


def say_on_stderr(message: str) -> None:
    """Print one message where the output is for another program."""
    stderr.print(message, soft_wrap=True, markup=False)


def part_name() -> str:
    """What is being done as a part of something larger; empty where it is the whole."""
    return ", ".join(_part)


@contextmanager
def part(name: str) -> Iterator[None]:
    """Print no lines while this lasts, as it is a part of something larger; bars stay, and name it."""
    _part.append(name)
    try:
        yield
    finally:
        _part.pop()


def printable(text: str) -> str:
    """The same text, but for what would steer the terminal."""
    return "".join(c if c.isprintable() or c == "\n" else "\N{REPLACEMENT CHARACTER}" for c in text)


@contextmanager
def quietly() -> Iterator[None]:
    """Print nothing while this lasts."""
    before, console.quiet = console.quiet, True
    try:
        yield
    finally:
        console.quiet = before


def clock(duration: float) -> str:
    """A duration in seconds such as `0:07` or `1:02:03`."""
    seconds = round(duration)
    hours, minutes = divmod(seconds // 60, 60)
    return f"{hours}:{minutes:02}:{seconds % 60:02}" if hours else f"{minutes}:{seconds % 60:02}"
