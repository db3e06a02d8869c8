"""Errors meant for the person at the keyboard: what was given, what is allowed, what to do."""

from collections.abc import Iterable
from difflib import get_close_matches


class LptError(Exception):
    """Bad input. Commands print the message alone, without a traceback, and exit with 1."""


class ConfigError(LptError):
    """Every complaint about a configuration at once.

    Args:
        complaints: one finished sentence per problem, each naming option, value and remedy.
    """

    def __init__(self, complaints: Iterable[str]):
        self.complaints = list(complaints)
        count = len(self.complaints)
        heading = "One problem" if count == 1 else f"{count} problems"
        super().__init__("\n  - ".join([f"{heading} with the configuration:", *self.complaints]))


def did_you_mean(given: str, known: Iterable[str]) -> str:
    """`"; did you mean 'x'?"` for the nearest known name, else an empty string."""
    nearest = get_close_matches(given, list(known), n=1, cutoff=0.5)
    return f"; did you mean {nearest[0]!r}?" if nearest else ""
