"""How sure a score is, and whether two differ: bootstrap over test rows, McNemar's exact test, Holm's correction.

All configurations of a board are scored on the same resamples of its rows, so a difference between two of them is
paired, and the rows that are hard for both cancel out. Shapes: N rows, R resamples, K configurations.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy.signal
import scipy.stats

from lpt.metrics import bootstrap, percentiles
from lpt.report.predictions import SavedPredictions

LEVEL = 0.05
RESAMPLES = 10_000
MCNEMAR, BOOTSTRAP = "McNemar's exact test", "the paired bootstrap"


@dataclass(frozen=True)
class Difference:
    """How far a second configuration is from a first one, in the metric's units.

    Attributes:
        value: mean over seeds of the second, minus that of the first.
        low, high: 95% interval over test rows.
        p: two-sided, for itself.
        adjusted: the same, corrected for all comparisons that were made.
        test: how p was found.
    """

    value: float
    low: float
    high: float
    p: float
    adjusted: float
    test: str

    @property
    def sure(self) -> bool:
        """Whether it is significant at `LEVEL` after correction."""
        return self.adjusted < LEVEL


@dataclass(frozen=True)
class ResampledScores:
    """Scores of K configurations, each the mean over its seeds.

    Attributes:
        values: `[K]`, on all rows.
        resampled: `[R, K]`, on resamples of them.
    """

    values: np.ndarray
    resampled: np.ndarray

    def interval(self, k: int) -> tuple[float, float]:
        """Return the 95% interval of configuration `k` over test rows."""
        return percentiles(self.resampled[:, k])

    def difference(self, k: int, reference: int) -> tuple[float, float, float, float]:
        """Return (value, low, high, p) of configuration `k` minus `reference`.

        p is twice the share of resamples on which the difference is not on its side of zero, one resample added to
        each side: never 0, and 1 for two that always agree.
        """
        resampled_R = self.resampled[:, k] - self.resampled[:, reference]
        resampled_R[np.abs(resampled_R) < 1e-12] = 0  # what is equal but for rounding
        beyond = min((resampled_R <= 0).sum(), (resampled_R >= 0).sum())
        p = min(1.0, 2 * (int(beyond) + 1) / (len(resampled_R) + 1))
        return (float(self.values[k] - self.values[reference]), *percentiles(resampled_R), p)


def score_resamples(
    metric: str, found: Sequence[Sequence[SavedPredictions]], resamples: int = RESAMPLES
) -> ResampledScores:
    """Score each configuration on resamples of the test rows; seeds are averaged over, not resampled.

    Args:
        metric: one of `lpt.metrics.METRICS`.
        found: the predictions of the seeds of each of K configurations, all of the same N rows in the same order.
    """

    def scores(weights_RN: np.ndarray) -> np.ndarray:
        return np.stack([np.mean([run.scores(metric, weights_RN) for run in seeds], axis=0) for seeds in found], axis=1)

    rows = len(found[0][0].gold)
    return ResampledScores(scores(np.ones((1, rows)))[0], bootstrap(scores, np.ones(rows), resamples))


def mcnemar(first: Sequence[SavedPredictions], second: Sequence[SavedPredictions]) -> float:
    """Return the exact two-sided p that two configurations are right equally often, each given by its seeds' answers.

    If they were alike, what sets them apart on a row would as likely be the other way round. p is the share, of all
    ways round that the rows could have been, of those with a total at least as large. For one run each this is
    McNemar's test: the binomial test of the rows that one alone gets right. Seeds are averaged within a row, as a row
    that is hard for one is hard for the others, and no more evidence for being asked several times.
    """
    unit = math.lcm(len(first), len(second))  # so that differences of the averages are whole numbers
    right, other = (sum((run.predicted == run.gold).astype(int) for run in runs) for runs in (first, second))
    differences_N = right * (unit // len(first)) - other * (unit // len(second))
    chances = np.ones(1)  # of each total, zero in the middle
    for size, rows in zip(*np.unique(np.abs(differences_N[differences_N != 0]), return_counts=True), strict=True):
        ways = np.zeros(2 * size * rows + 1)
        ways[:: 2 * size] = scipy.stats.binom.pmf(np.arange(rows + 1), rows, 0.5)
        chances = scipy.signal.fftconvolve(chances, ways)
    totals = np.abs(np.arange(len(chances)) - len(chances) // 2)
    return float(np.clip(chances[totals >= abs(differences_N.sum())].sum(), 0, 1))


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down correction: the chance of one false finding among all of them stays below the level."""
    adjusted, highest, left = [0.0] * len(p_values), 0.0, len(p_values)
    for place in sorted(range(len(p_values)), key=lambda place: p_values[place]):
        highest = max(highest, min(1.0, left * p_values[place]))
        adjusted[place] = highest
        left -= 1
    return adjusted


def compare(
    metric: str, found: Sequence[Sequence[SavedPredictions]], scored: ResampledScores, pairs: Sequence[tuple[int, int]]
) -> dict[tuple[int, int], Difference]:
    """Compare the pairs (reference, other), p corrected for as many comparisons as there are pairs.

    Accuracies are compared by McNemar's exact test, other metrics by the paired bootstrap.
    """
    differences, p_values, tests = [], [], []
    for reference, other in pairs:
        value, low, high, p = scored.difference(other, reference)
        exact = metric == "accuracy"
        differences.append((value, low, high))
        p_values.append(mcnemar(found[reference], found[other]) if exact else p)
        tests.append(MCNEMAR if exact else BOOTSTRAP)
    adjusted = holm(p_values)
    return {
        pair: Difference(*value, p, corrected, test)
        for pair, value, p, corrected, test in zip(pairs, differences, p_values, adjusted, tests, strict=True)
    }
