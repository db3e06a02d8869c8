import math
from typing import Annotated, Literal

import pytest

from lpt.ranges import above, allowed_by, at_least, fraction, one_of, plain_type


@pytest.mark.parametrize(
    ("allowed", "inside", "outside"),
    [
        (at_least(1), [1, 2, 10**9], [0, -1, math.inf, math.nan]),
        (above(0), [1e-9, 1], [0, -1, math.inf, math.nan]),
        (fraction(), [0, 0.5, 0.999], [-0.1, 1, math.nan]),
        (one_of("a", "b"), ["a", "b"], ["c", "", None]),
    ],
)
def test_a_range_allows_what_it_says_and_nothing_else(allowed, inside, outside):
    assert [allowed.allows(value) for value in inside] == [True] * len(inside)
    assert [allowed.allows(value) for value in outside] == [False] * len(outside)


@pytest.mark.parametrize(
    ("hint", "plain", "text"),
    [
        (int, int, "None"),
        (Annotated[int, at_least(1)], int, "at least 1"),
        (Annotated[int, at_least(1)] | None, int | None, "at least 1"),
        (Annotated[float | None, fraction()], float | None, "0 or more and less than 1"),
        (Literal["x", "y"], str, "one of x, y"),
        (Literal["x", "y"] | None, str | None, "one of x, y"),
        (list[Annotated[str, one_of("x")]], list[str], "None"),
    ],
)
def test_a_declared_type_is_told_apart_from_what_it_allows(hint, plain, text):
    assert plain_type(hint) == plain
    assert str(allowed_by(hint)) == text


def test_an_option_of_several_types_is_refused():
    with pytest.raises(TypeError, match="several types"):
        plain_type(int | str)
