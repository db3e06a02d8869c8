"""Scores of predictions against gold labels, each with an interval that says how far to trust it.

Scores of classes are functions of the confusion matrix. torchmetrics does the counting; the three formulas are
written out in float64, because torchmetrics returns float32, and because its Matthews correlation is 1 or an
artefact of its epsilon where GLUE's is 0. Scores of a regression's values are correlations, and know no C.

Shapes: N rows, C classes.
"""

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import scipy.stats
import torch
from torch import Tensor
from torchmetrics.functional.classification import multiclass_confusion_matrix

from lpt.errors import LptError, did_you_mean

BOOTSTRAP_RESAMPLES = 1000


def confusion_matrix(predicted: Tensor, gold: Tensor, num_classes: int) -> np.ndarray:
    """Counts `[C, C]`: row = gold class, column = predicted class.

    Raises:
        LptError: no rows, unequal numbers of rows, a class outside 0 .. C-1.
    """
    _check(predicted, gold, num_classes)
    return _confusion(predicted, gold, num_classes)


def accuracy(predicted: Tensor, gold: Tensor, num_classes: int) -> float:
    """Share of the rows whose predicted class is the gold one."""
    counts_CC = _confusion(predicted, gold, num_classes)
    return float(np.trace(counts_CC) / counts_CC.sum())


def f1(predicted: Tensor, gold: Tensor, num_classes: int) -> float:
    """F1 of class 1 of two, as GLUE scores MRPC and QQP: 2 TP / (2 TP + FP + FN), or 0 for 0 / 0."""
    if num_classes != 2:
        raise LptError(f"metric f1 scores class 1 of 2, but there are {num_classes} classes; use accuracy")
    (_, false_positive), (false_negative, true_positive) = _confusion(predicted, gold, num_classes).tolist()
    denominator = 2 * true_positive + false_positive + false_negative
    return 2 * true_positive / denominator if denominator else 0.0


def matthews(predicted: Tensor, gold: Tensor, num_classes: int) -> float:
    """Matthews correlation, as GLUE scores CoLA; any number of classes.

    The correlation of the one-hot predictions and gold labels (Gorodkin 2004):
    `(s c - p.g) / sqrt((s^2 - p.p) (s^2 - g.g))` with s rows, c of them right, and p, g [C] the rows of each
    predicted and gold class. 0 where either side has one class only, which leaves it undefined.
    """
    counts_CC = _confusion(predicted, gold, num_classes)
    rows, right = int(counts_CC.sum()), int(np.trace(counts_CC))
    predicted_C, gold_C = counts_CC.sum(axis=0), counts_CC.sum(axis=1)
    spread_predicted = rows**2 - int(predicted_C @ predicted_C)
    spread_gold = rows**2 - int(gold_C @ gold_C)
    if spread_predicted == 0 or spread_gold == 0:
        return 0.0
    return (rows * right - int(predicted_C @ gold_C)) / (spread_predicted * spread_gold) ** 0.5


def pearson(predicted: Tensor, gold: Tensor, num_classes: None = None) -> float:
    """Pearson correlation, as GLUE scores STS-B; 0 where either side has one value only, which leaves it undefined."""
    return _correlation(predicted.cpu().double().numpy(), gold.cpu().double().numpy())


def spearman(predicted: Tensor, gold: Tensor, num_classes: None = None) -> float:
    """Spearman correlation, that of the ranks; equal values share the mean of their ranks."""
    return _correlation(scipy.stats.rankdata(predicted.cpu().numpy()), scipy.stats.rankdata(gold.cpu().numpy()))


def _correlation(predicted_N: np.ndarray, gold_N: np.ndarray) -> float:
    if np.ptp(predicted_N) == 0 or np.ptp(gold_N) == 0:
        return 0.0
    return float(scipy.stats.pearsonr(predicted_N, gold_N).statistic)


METRICS: dict[str, Callable[[Tensor, Tensor, Any], float]] = {
    "accuracy": accuracy,
    "f1": f1,
    "matthews": matthews,
    "pearson": pearson,
    "spearman": spearman,
}


def compute(names: Iterable[str], predicted: Tensor, gold: Tensor, num_classes: int | None) -> dict[str, float]:
    """The value of each named metric.

    Args:
        names: keys of `METRICS`.
        predicted: [N] int64, or float of a regression.
        gold: [N] likewise.
        num_classes: C; None for a regression.

    Raises:
        LptError: an unknown name, no rows, unequal numbers of rows, a class outside 0 .. C-1.
    """
    _check(predicted, gold, num_classes)
    return {name: _metric(name)(predicted, gold, num_classes) for name in names}


def interval(
    name: str, predicted: Tensor, gold: Tensor, num_classes: int | None, confidence: float = 0.95, seed: int = 0
) -> tuple[float, float]:
    """Where the metric would lie on other test rows of the same kind: (low, high).

    Accuracy: Wilson's interval. Other metrics: the percentile bootstrap over rows. One row, or rows whose
    resamples all score the same, give (value, value). The spread between training seeds is not in it.

    Args:
        name: a key of `METRICS`.
        predicted: [N] int64, or float of a regression.
        gold: [N] likewise.
        num_classes: C; None for a regression.
        confidence: probability that the interval covers the truth, between 0 and 1.
        seed: of the bootstrap's resamples; the same seed gives the same interval.

    Raises:
        LptError: as in `compute`.
    """
    _check(predicted, gold, num_classes)
    metric = _metric(name)
    if name == "accuracy":
        right = int((predicted == gold).sum())
        low, high = scipy.stats.binomtest(right, len(gold)).proportion_ci(confidence, method="wilson")
        return float(low), float(high)
    value = metric(predicted, gold, num_classes)
    if len(gold) == 1:
        return value, value

    def statistic(predicted_N: np.ndarray, gold_N: np.ndarray) -> float:
        return metric(torch.from_numpy(predicted_N), torch.from_numpy(gold_N), num_classes)

    result = scipy.stats.bootstrap(
        (predicted.cpu().numpy(), gold.cpu().numpy()),
        statistic,
        n_resamples=BOOTSTRAP_RESAMPLES,
        batch=100,  # bounds the memory on large test sets
        vectorized=False,
        paired=True,
        confidence_level=confidence,
        method="percentile",
        rng=np.random.default_rng(seed),
    )
    low, high = result.confidence_interval
    return float(low), float(high)


def _confusion(predicted: Tensor, gold: Tensor, num_classes: int) -> np.ndarray:
    return multiclass_confusion_matrix(predicted, gold, num_classes, validate_args=False).cpu().numpy()


def _metric(name: str) -> Callable[[Tensor, Tensor, Any], float]:
    if name not in METRICS:
        raise LptError(f"unknown metric {name!r}{did_you_mean(name, METRICS)} (known: {', '.join(METRICS)})")
    return METRICS[name]


def _check(predicted: Tensor, gold: Tensor, num_classes: int | None) -> None:
    if predicted.shape != gold.shape or predicted.ndim != 1:
        raise LptError(
            f"predicted and gold must be two [N] tensors, but have shapes {list(predicted.shape)} "
            f"and {list(gold.shape)}"
        )
    if len(gold) == 0:
        raise LptError("there are no rows to score")
    if num_classes is None:
        return
    for which, classes_N in (("predicted", predicted), ("gold", gold)):
        low, high = int(classes_N.min()), int(classes_N.max())
        if low < 0 or high >= num_classes:
            raise LptError(
                f"{which} class {low if low < 0 else high} is outside 0 .. {num_classes - 1}"
                + ("; is this a split without gold labels?" if which == "gold" else "")
            )
