"""The values that an option allows, written where the option is declared: `lr: Annotated[float, above(0)] = 3e-3`.

The same declaration is checked before a run starts and shown by `--help`.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from lpt.errors import LptError, did_you_mean


@dataclass(frozen=True)
class Between:
    """Finite numbers between two bounds.

    Attributes:
        low: lower bound; part of the range unless `open_low`.
        high: upper bound, itself never part of the range; infinity for none.
    """

    low: float
    high: float = math.inf
    open_low: bool = False

    def allows(self, value: Any) -> bool:
        """Whether a number is in the range."""
        above_low: bool = value > self.low if self.open_low else value >= self.low
        return above_low and bool(value < self.high)

    def __str__(self) -> str:
        if self.high < math.inf:
            return f"{'more than ' if self.open_low else ''}{self.low:g} or more and less than {self.high:g}"
        return f"greater than {self.low:g}" if self.open_low else f"at least {self.low:g}"


@dataclass(frozen=True)
class OneOf:
    """A fixed set of words."""

    words: tuple[str, ...]

    def allows(self, value: Any) -> bool:
        """Whether a value is one of the words."""
        return value in self.words

    def __str__(self) -> str:
        return f"one of {', '.join(self.words)}"


Allowed = Between | OneOf


def at_least(low: float) -> Between:
    """Finite numbers from `low` on."""
    return Between(low)


def check_word(option: str, value: str, words: Any) -> None:
    """Complain unless a value is one of the words of a `Literal`.

    Raises:
        LptError: it is not; names the option, the words and the nearest one.
    """
    known = get_args(words)
    if value not in known:
        raise LptError(f"{option}={value!r} is not known; choose one of {', '.join(known)}{did_you_mean(value, known)}")


def above(low: float) -> Between:
    """Finite numbers greater than `low`."""
    return Between(low, open_low=True)


def fraction() -> Between:
    """Numbers of 0 or more and less than 1: a probability, or a part of a whole."""
    return Between(0, 1)


def one_of(*words: str) -> OneOf:
    """Exactly one of these words."""
    return OneOf(words)


def allowed_by(hint: Any) -> Allowed | None:
    """What a type annotation allows beyond its type; None where that is everything."""
    if get_origin(hint) is Annotated:
        found = next((extra for extra in get_args(hint)[1:] if isinstance(extra, Between | OneOf)), None)
        return found or allowed_by(get_args(hint)[0])
    if get_origin(hint) is Literal:
        return OneOf(get_args(hint))
    if get_origin(hint) in (Union, UnionType):
        return next((found for part in get_args(hint) if (found := allowed_by(part))), None)
    return None


def plain_type(hint: Any) -> Any:
    """The annotation without ranges, in the types that a configuration knows: a Literal of words is `str`."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return plain_type(arguments[0])
    if origin is Literal:
        return str
    if origin in (Union, UnionType):
        parts: Sequence[Any] = [plain_type(part) for part in arguments if part is not NoneType]
        if len(parts) != 1:
            raise TypeError(f"{hint} has several types; a type and None is possible")
        return parts[0] | None
    if origin is list:
        return list[plain_type(arguments[0])]  # type: ignore[misc]
    return hint
