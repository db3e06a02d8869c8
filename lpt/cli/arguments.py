"""Command-line arguments: their parser and their types."""

import argparse
import re
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn, TypeAlias

from lpt.latest import follow

Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"
# What a parser's add_subparsers() returns.


HOURS = {"h": 1, "d": 24, "w": 7 * 24}


class Parser(argparse.ArgumentParser):
    """A parser of a command or of all; it says how to write a text that begins with a dash."""

    _words: Sequence[str] = ()

    def parse_known_args(self, args: Sequence[str] | None = None, namespace: Any = None) -> Any:  # type: ignore[override]
        """As argparse does, also for each command's own parser."""
        self._words = list(args or ())
        return super().parse_known_args(args, namespace)

    def error(self, message: str) -> NoReturn:
        """End with the message, and with a hint where a text was taken for an option."""
        texts = self._words[self._words.index("--text") + 1 :] if "--text" in self._words else []
        if message.startswith("argument --text: expected"):
            dashed = texts[:1]
        else:
            unrecognized = message.partition("unrecognized arguments: ")[2]
            dashed = [text for text in texts if text.startswith("-") and text in unrecognized]
        if dashed:
            message += f"; a text that begins with a dash is given as --text={shlex.quote(dashed[0])}"
        super().error(message)


def folder(text: str) -> Path:
    """A folder; the one that `runs/latest` leads to."""
    return follow(Path(text).expanduser())


def age(text: str) -> float:
    """Seconds, from a number with a unit: `12h`, `30d`, `4w`."""
    found = re.fullmatch(r"(\d+)([hdw])", text, re.ASCII)
    if found is None:
        raise argparse.ArgumentTypeError(f"{text!r} must be a number of hours, days or weeks: 12h, 30d or 4w")
    return int(found[1]) * HOURS[found[2]] * 3600.0


def positive(text: str) -> int:
    """A whole number of at least 1."""
    return _at_least(1, text)


def count(text: str) -> int:
    """A whole number of at least 0."""
    return _at_least(0, text)


def fraction(text: str) -> float:
    """A number from 0 to 1."""
    try:
        number = float(text)
    except ValueError:
        number = -1.0
    if not 0 <= number <= 1:
        raise argparse.ArgumentTypeError(f"{text!r} must be a number from 0 to 1")
    return number


def _at_least(lowest: int, text: str) -> int:
    if not text.isdecimal() or int(text) < lowest:
        raise argparse.ArgumentTypeError(f"{text!r} must be a whole number of at least {lowest}")
    return int(text)
