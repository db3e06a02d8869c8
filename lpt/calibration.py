"""Probabilities that mean what they say: how far they are from it, and the one number that brings them there.

The calibration error is the expected one (ECE): the rows in `BINS` bins of equal width by their confidence, which is
the probability of the predicted class; in each bin, how far the mean confidence is from the share of right answers;
the mean of this over the rows (Naeini et al. 2015).

The temperature T divides the scores before the softmax; the order of the classes stays, so no answer changes. It is the
one that gives the gold labels of the validation rows the highest likelihood (Guo et al. 2017, arXiv 1706.04599). The
softmax of the divided scores is `p^(1/T)`, normalized, so the probabilities are all that is needed.

Importing this module imports neither torch nor scipy. Shapes: N rows, C classes, B bins.
"""

from dataclasses import dataclass

import numpy as np

BINS = 15
COLDEST, HOTTEST = 0.1, 10.0  # the range of the temperature
SMALLEST = 1e-300  # for the logarithm of a probability of 0


@dataclass(frozen=True)
class Bins:
    """Rows by their confidence, those bins that have any, the least confident first.

    Attributes:
        low: `[B]` lower ends; a bin is as wide as 1 / BINS, and has its upper end but not its lower one.
        rows: `[B]` how many.
        confidence: `[B]` their mean.
        accuracy: `[B]` share of the right answers.
    """

    low: np.ndarray
    rows: np.ndarray
    confidence: np.ndarray
    accuracy: np.ndarray

    @property
    def error(self) -> float:
        """The expected calibration error, 0 to 1."""
        return float((self.rows * np.abs(self.confidence - self.accuracy)).sum() / self.rows.sum())


def binned(confidence_N: np.ndarray, right_N: np.ndarray) -> Bins:
    """Sort rows into bins by their confidence.

    Args:
        confidence_N: probability of the predicted class, 0 to 1.
        right_N: whether it is the gold one.
    """
    bin_N = np.clip(np.ceil(confidence_N * BINS).astype(int) - 1, 0, BINS - 1)
    rows = np.bincount(bin_N, minlength=BINS)
    there = np.flatnonzero(rows)
    confidence, right = (np.bincount(bin_N, weights=side, minlength=BINS) for side in (confidence_N, right_N))
    return Bins(there / BINS, rows[there], confidence[there] / rows[there], right[there] / rows[there])


def calibration_error(confidence_N: np.ndarray, right_N: np.ndarray) -> float:
    """Return the expected calibration error (see above)."""
    return binned(confidence_N, right_N).error


def tempered(probabilities_NC: np.ndarray, temperature: float) -> np.ndarray:
    """Return the probabilities of the scores divided by the temperature, `[N, C]` float64."""
    powers_NC = probabilities_NC.astype(np.float64) ** (1 / temperature)
    scaled: np.ndarray = powers_NC / powers_NC.sum(1, keepdims=True)
    return scaled


def fit_temperature(probabilities_NC: np.ndarray, gold_N: np.ndarray) -> float:
    """Return the temperature that makes the gold classes likeliest, from `COLDEST` to `HOTTEST`.

    1 where every row is right: no finite temperature is best then, and a few rows would make all that is to come
    certain.

    Args:
        probabilities_NC: at temperature 1.
        gold_N: int classes.
    """
    from scipy.optimize import brentq

    if (probabilities_NC.argmax(1) == gold_N).all():
        return 1.0
    scores_NC = np.log(np.maximum(probabilities_NC.astype(np.float64), SMALLEST))
    gold = scores_NC[np.arange(len(gold_N)), gold_N].mean()

    def slope(log_temperature: float) -> float:
        """Derivative of the mean negative log-likelihood by 1 / T, which it is convex in: it rises with 1 / T."""
        expected_N = (tempered(probabilities_NC, float(np.exp(log_temperature))) * scores_NC).sum(1)
        return float(expected_N.mean() - gold)

    low, high = float(np.log(COLDEST)), float(np.log(HOTTEST))
    if slope(low) <= 0:  # the colder the likelier
        return COLDEST
    if slope(high) >= 0:
        return HOTTEST
    return float(np.exp(brentq(slope, low, high, xtol=1e-6)))


@dataclass(frozen=True)
class Coverage:
    """Rows below a confidence, and the rest.

    Attributes:
        threshold: the confidence.
        below: how many rows have less.
        rows: how many there are.
        right_below: share of the right answers below it; None where there is no row.
        right_above: the same of the rest.
    """

    threshold: float
    below: int
    rows: int
    right_below: float | None
    right_above: float | None

    def __str__(self) -> str:
        low, high = (None if share is None else f"{share:.1%} right" for share in (self.right_below, self.right_above))
        if low is None:
            return f"none of {self.rows:,} rows below {self.threshold:g}: {high}"
        rest = "" if high is None else f", the rest {high}"
        return f"{self.below:,} of {self.rows:,} rows below {self.threshold:g}: {low}{rest}"


def coverage(confidence_N: np.ndarray, right_N: np.ndarray, threshold: float) -> Coverage:
    """Say how many rows a person would look at who trusts answers from this confidence on, and how right each part is.

    Args:
        confidence_N: probability of the predicted class.
        right_N: whether it is the gold one.
        threshold: the confidence, 0 to 1.
    """
    below_N = confidence_N < threshold
    shares = (float(right_N[part].mean()) if part.any() else None for part in (below_N, ~below_N))
    return Coverage(threshold, int(below_N.sum()), len(confidence_N), *shares)
