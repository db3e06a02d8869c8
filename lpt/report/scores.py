"""Metrics under many weightings of the rows at once, which is what a bootstrap asks for.

The metrics are those of `lpt.metrics`, which scores one set of predictions; here a row counts as often as a resample
has drawn it. Shapes: N rows, R weightings, C classes, V different values.
"""

from collections.abc import Callable

import numpy as np

from lpt.report.runs import Predictions


def accuracy(found: Predictions, weights_RN: np.ndarray) -> np.ndarray:
    """`[R]`: share of the rows whose predicted class is the gold one."""
    return weights_RN @ (found.predicted == found.gold) / weights_RN.sum(1)


def f1(found: Predictions, weights_RN: np.ndarray) -> np.ndarray:
    """`[R]`: 2 TP / (2 TP + FP + FN) of class 1, or 0 for 0 / 0."""
    true = weights_RN @ ((found.predicted == 1) & (found.gold == 1))
    positive = weights_RN @ (found.predicted == 1) + weights_RN @ (found.gold == 1)
    return _divided(2 * true, positive)


def matthews(found: Predictions, weights_RN: np.ndarray) -> np.ndarray:
    """`[R]`: (s c - p.g) / sqrt((s^2 - p.p) (s^2 - g.g)), or 0 where predicted or gold rows have one class."""
    assert found.labels is not None
    classes = np.arange(len(found.labels))
    predicted_RC, gold_RC = (weights_RN @ (side[:, None] == classes) for side in (found.predicted, found.gold))
    rows, right = weights_RN.sum(1), weights_RN @ (found.predicted == found.gold)
    spread = (rows**2 - (predicted_RC**2).sum(1)) * (rows**2 - (gold_RC**2).sum(1))
    return _divided(rows * right - (predicted_RC * gold_RC).sum(1), np.sqrt(np.maximum(spread, 0)))


def pearson(found: Predictions, weights_RN: np.ndarray) -> np.ndarray:
    """`[R]`: correlation of predicted and gold values, or 0 where either has one value only."""
    return _correlation(found.predicted[None], found.gold[None], weights_RN)


def spearman(found: Predictions, weights_RN: np.ndarray) -> np.ndarray:
    """`[R]`: correlation of the ranks; equal values share the mean of their ranks."""
    return _correlation(_ranks(found.predicted, weights_RN), _ranks(found.gold, weights_RN), weights_RN)


SCORES: dict[str, Callable[[Predictions, np.ndarray], np.ndarray]] = {
    "accuracy": accuracy,
    "f1": f1,
    "matthews": matthews,
    "pearson": pearson,
    "spearman": spearman,
}


def score(metric: str, found: Predictions) -> float:
    """The metric itself: every row once."""
    return float(SCORES[metric](found, np.ones((1, len(found.gold))))[0])


def _ranks(values_N: np.ndarray, weights_RN: np.ndarray) -> np.ndarray:
    """`[R, N]`: each row's rank among the rows of each weighting."""
    values_V, place_N = np.unique(values_N, return_inverse=True)
    in_order = np.argsort(place_N, kind="stable")
    first_V = np.searchsorted(place_N[in_order], np.arange(len(values_V)))
    count_RV = np.add.reduceat(weights_RN[:, in_order], first_V, axis=1)
    return (count_RV.cumsum(1) - (count_RV - 1) / 2)[:, place_N]


def _correlation(x_RN: np.ndarray, y_RN: np.ndarray, weights_RN: np.ndarray) -> np.ndarray:
    shares_RN = weights_RN / weights_RN.sum(1, keepdims=True)
    x_RN, y_RN = (side - (shares_RN * side).sum(1, keepdims=True) for side in (x_RN, y_RN))
    spread = np.sqrt((shares_RN * x_RN**2).sum(1) * (shares_RN * y_RN**2).sum(1))
    spread[spread < 1e-12] = 0  # one value only, but for rounding
    return _divided((shares_RN * x_RN * y_RN).sum(1), spread)


def _divided(over: np.ndarray, under: np.ndarray) -> np.ndarray:
    return np.divide(over, under, out=np.zeros_like(over, dtype=float), where=under != 0)
