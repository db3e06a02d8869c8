"""What a configuration costs, as means over its runs."""

from collections.abc import Callable
from dataclasses import dataclass

from lpt.report.configurations import Configuration


@dataclass(frozen=True)
class Cost:
    """One kind of cost.

    Attributes:
        label: its name and unit.
        of: what a configuration costs; None where that was not measured.
    """

    label: str
    of: Callable[[Configuration], float | None]


def trained_parameters(c: Configuration) -> float | None:
    """Return the number of trained parameters; None where a run lacks it."""
    return c.mean(lambda result: result.trainable_parameters)


def step_milliseconds(c: Configuration) -> float | None:
    """Return the time of a training step; None where nothing was trained."""
    steps_per_second = c.mean(lambda result: result.train.steps_per_second)
    return 1000 / steps_per_second if steps_per_second else None


def peak_gigabytes(c: Configuration) -> float | None:
    """Return the peak memory of training in GB (10^9 bytes); None where it was not measured."""
    peak = c.mean(lambda result: result.train.peak_memory_bytes)
    return peak / 1e9 if peak else None


COSTS = (
    Cost("trained parameters", trained_parameters),
    Cost("ms per training step", step_milliseconds),
    Cost("peak memory, GB", peak_gigabytes),
)
