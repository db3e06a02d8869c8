"""Scores of predictions against gold labels, and intervals that say how far to trust them.

Each formula is written once. Metrics of classes are functions of confusion counts `[..., C, C]` (row = gold class,
column = predicted class); metrics of numbers are correlations of weighted rows. Both score many weightings of the rows
at once, as a bootstrap needs it: a row counts as often as a resample has drawn it. Plain scores count every row once.

The formulas are written out in float64, because torchmetrics returns float32, and because its Matthews correlation is 1
or an artifact of its epsilon where GLUE's is 0. Importing this module imports neither torch nor scipy.

Shapes: N rows, C classes, R weightings of the rows, V different values.
"""

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from lpt.errors import LptError, did_you_mean

if TYPE_CHECKING:
    from torch import Tensor

M = TypeVar("M")

BOOTSTRAP_RESAMPLES = 1000
CHUNK = 250_000  # weights or counts at a time: few enough to stay in the processor's cache


def accuracy(counts: np.ndarray) -> np.ndarray:
    """Share of the rows whose predicted class is the gold one, `[...]`.

    Args:
        counts: confusion counts `[..., C, C]`.
    """
    return _divided(_right(counts), counts.sum((-2, -1)))


def f1(counts: np.ndarray) -> np.ndarray:
    """F1 of class 1 of two, as GLUE scores MRPC and QQP, `[...]`: 2 TP / (2 TP + FP + FN), or 0 for 0 / 0.

    Args:
        counts: confusion counts `[..., 2, 2]`.

    Raises:
        LptError: more than two classes.
    """
    if counts.shape[-1] != 2:
        raise LptError(f"metric f1 scores class 1 of 2, but there are {counts.shape[-1]} classes; use accuracy")
    doubled = 2 * counts[..., 1, 1]
    return _divided(doubled, doubled + counts[..., 0, 1] + counts[..., 1, 0])


def matthews(counts: np.ndarray) -> np.ndarray:
    """Matthews correlation, as GLUE scores CoLA, `[...]`; any number of classes.

    The correlation of the one-hot predictions and gold labels (Gorodkin 2004):
    `(s c - p.g) / sqrt((s^2 - p.p) (s^2 - g.g))` with s rows, c of them right, and p, g [C] the rows of each
    predicted and gold class. 0 where either side has one class only, which leaves it undefined.

    Args:
        counts: confusion counts `[..., C, C]`.
    """
    counts = counts.astype(np.float64)  # the squares of large test sets overflow whole numbers
    rows = counts.sum((-2, -1))
    predicted, gold = counts.sum(-2), counts.sum(-1)
    spread = (rows**2 - (predicted**2).sum(-1)) * (rows**2 - (gold**2).sum(-1))
    return _divided(rows * _right(counts) - (predicted * gold).sum(-1), np.sqrt(spread))


def pearson(predicted_N: np.ndarray, gold_N: np.ndarray, weights_RN: np.ndarray) -> np.ndarray:
    """Pearson correlation, as GLUE scores STS-B, `[R]`; 0 where either side has one value only."""
    return _correlation(predicted_N[None], gold_N[None], weights_RN)


def spearman(predicted_N: np.ndarray, gold_N: np.ndarray, weights_RN: np.ndarray) -> np.ndarray:
    """Spearman correlation, that of the ranks, `[R]`; equal values share the mean of their ranks."""
    return _correlation(_ranks(predicted_N, weights_RN), _ranks(gold_N, weights_RN), weights_RN)


CLASS_METRICS: dict[str, Callable[[np.ndarray], np.ndarray]] = {"accuracy": accuracy, "f1": f1, "matthews": matthews}
NUMBER_METRICS: dict[str, Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]] = {
    "pearson": pearson,
    "spearman": spearman,
}
METRICS = (*CLASS_METRICS, *NUMBER_METRICS)


def confusion_matrix(predicted: "Tensor", gold: "Tensor", num_classes: int) -> np.ndarray:
    """Counts `[C, C]`: row = gold class, column = predicted class.

    Raises:
        LptError: no rows, unequal numbers of rows, a class outside 0 .. C-1.
    """
    _check_rows(predicted, gold, num_classes)
    counts: np.ndarray = (gold * num_classes + predicted).bincount(minlength=num_classes**2).cpu().numpy()
    return counts.reshape(num_classes, num_classes)


def compute(names: Iterable[str], predicted: "Tensor", gold: "Tensor", num_classes: int | None) -> dict[str, float]:
    """Return the value of each named metric.

    Args:
        names: of `CLASS_METRICS`, or of `NUMBER_METRICS` for a regression.
        predicted: [N] int64 classes, or float values of a regression.
        gold: [N] likewise.
        num_classes: C; None for a regression.

    Raises:
        LptError: an unknown name, no rows, unequal numbers of rows, a class outside 0 .. C-1.
    """
    if num_classes is not None:
        counts = confusion_matrix(predicted, gold, num_classes)
        return {name: float(_named(name, CLASS_METRICS)(counts)) for name in names}
    sides = _values(predicted, gold)
    once = np.ones((1, len(gold)))
    return {name: float(_named(name, NUMBER_METRICS)(*sides, once)[0]) for name in names}


def interval(
    name: str, predicted: "Tensor", gold: "Tensor", num_classes: int | None, confidence: float = 0.95, seed: int = 0
) -> tuple[float, float]:
    """Where the metric would lie on other test rows of the same kind: (low, high).

    Accuracy: Wilson's interval. Other metrics: the percentile bootstrap over rows. One row, or rows whose
    resamples all score the same, give (value, value). The spread between training seeds is not in it.

    Args:
        name: of `CLASS_METRICS`, or of `NUMBER_METRICS` for a regression.
        predicted: [N] int64 classes, or float values of a regression.
        gold: [N] likewise.
        num_classes: C; None for a regression.
        confidence: probability that the interval covers the truth, between 0 and 1.
        seed: seed of the bootstrap; the same seed gives the same interval.

    Raises:
        LptError: as in `compute`.
    """
    if num_classes is None:
        number_metric, sides = _named(name, NUMBER_METRICS), _values(predicted, gold)
        scores_R = bootstrap(lambda weights_RN: number_metric(*sides, weights_RN), np.ones(len(gold)), seed=seed)
        return percentiles(scores_R, confidence)
    class_metric, counts = _named(name, CLASS_METRICS), confusion_matrix(predicted, gold, num_classes)
    if name == "accuracy":
        return _wilson(int(_right(counts)), len(gold), confidence)
    # Only the counts of a resample matter; they are drawn without drawing its rows.
    cells_V = np.flatnonzero(counts)
    scores_R = bootstrap(
        lambda drawn_RV: class_metric(_confusions(drawn_RV, cells_V, num_classes)), counts.flat[cells_V], seed=seed
    )
    return percentiles(scores_R, confidence)


def weighted(
    name: str, predicted_N: np.ndarray, gold_N: np.ndarray, num_classes: int | None, weights_RN: np.ndarray
) -> np.ndarray:
    """Score the same predictions under many weightings of their rows, `[R]`.

    Args:
        name: of `CLASS_METRICS`, or of `NUMBER_METRICS` for a regression.
        predicted_N: int classes, or float values of a regression.
        gold_N: likewise.
        num_classes: C; None for a regression.
        weights_RN: how often each row counts.

    Raises:
        LptError: an unknown name.
    """
    if num_classes is None:
        return _named(name, NUMBER_METRICS)(predicted_N, gold_N, weights_RN)
    cells_V, place_N = np.unique(gold_N * num_classes + predicted_N, return_inverse=True)
    return _named(name, CLASS_METRICS)(_confusions(_sums(weights_RN, place_N), cells_V, num_classes))


def bootstrap(
    score: Callable[[np.ndarray], np.ndarray], sizes_V: np.ndarray, resamples: int = BOOTSTRAP_RESAMPLES, seed: int = 0
) -> np.ndarray:
    """Score resamples of the rows, each of as many rows, drawn with replacement, `[resamples, ...]`.

    Args:
        score: the scores `[R, ...]` of R resamples, given how often each has drawn from every group, `[R, V]` float.
        sizes_V: how many rows each group of rows alike has; ones where every row stands for itself.
        resamples: how many to draw.
        seed: the same seed gives the same resamples.
    """
    random, rows = np.random.default_rng(seed), int(sizes_V.sum())
    chunk = max(1, CHUNK // len(sizes_V))
    drawn = [min(chunk, resamples - start) for start in range(0, resamples, chunk)]
    return np.concatenate([score(random.multinomial(rows, sizes_V / rows, n).astype(float)) for n in drawn])


def percentiles(values_R: np.ndarray, confidence: float = 0.95) -> tuple[float, float]:
    """Return the ends of the middle `confidence` of the values."""
    low, high = np.quantile(values_R, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)


def _confusions(counts_RV: np.ndarray, cells_V: np.ndarray, num_classes: int) -> np.ndarray:
    """Confusion counts `[R, C, C]` from those of the cells that occur, numbered row by row."""
    counts_RK = np.zeros((len(counts_RV), num_classes**2))
    counts_RK[:, cells_V] = counts_RV
    return counts_RK.reshape(-1, num_classes, num_classes)


def _right(counts: np.ndarray) -> np.ndarray:
    right: np.ndarray = np.trace(counts, axis1=-2, axis2=-1)
    return right


def _ranks(values_N: np.ndarray, weights_RN: np.ndarray) -> np.ndarray:
    """Rank each row among the rows of each weighting, `[R, N]`."""
    _, place_N = np.unique(values_N, return_inverse=True)
    count_RV = _sums(weights_RN, place_N)
    return (count_RV.cumsum(1) - (count_RV - 1) / 2)[:, place_N]


def _sums(weights_RN: np.ndarray, place_N: np.ndarray) -> np.ndarray:
    """Sum the weights of the rows of each group, `[R, V]`; `place_N` has every number 0 .. V-1."""
    in_order = np.argsort(place_N, kind="stable")
    first_V = np.searchsorted(place_N[in_order], np.arange(place_N.max() + 1))
    return np.add.reduceat(weights_RN[:, in_order], first_V, axis=1)


def _correlation(x_RN: np.ndarray, y_RN: np.ndarray, weights_RN: np.ndarray) -> np.ndarray:
    shares_RN = weights_RN / weights_RN.sum(1, keepdims=True)
    centered = [side - (shares_RN * side).sum(1, keepdims=True) for side in (x_RN, y_RN)]
    spreads = []
    for side_RN, centered_RN in zip((x_RN, y_RN), centered, strict=True):
        variance_R, square_R = (shares_RN * centered_RN**2).sum(1), (shares_RN * side_RN**2).sum(1)
        spreads.append(np.where(variance_R > 1e-24 * square_R, variance_R, 0))  # one value only, but for rounding
    return _divided((shares_RN * centered[0] * centered[1]).sum(1), np.sqrt(spreads[0] * spreads[1]))


def _divided(over: np.ndarray, under: np.ndarray) -> np.ndarray:
    """Divide; 0 where the divisor is 0."""
    quotient = np.zeros_like(under, dtype=float)
    np.divide(over, under, out=quotient, where=under != 0)
    return quotient


def _wilson(right: int, rows: int, confidence: float) -> tuple[float, float]:
    from scipy.stats import binomtest

    low, high = binomtest(right, rows).proportion_ci(confidence, method="wilson")
    return float(low), float(high)


def _named(name: str, metrics: dict[str, M]) -> M:
    if name in metrics:
        return metrics[name]
    if name in METRICS:
        kinds = ("numbers", "classes") if name in NUMBER_METRICS else ("classes", "numbers")
        raise LptError(f"metric {name} scores {kinds[0]}, and these are {kinds[1]}; use {' or '.join(metrics)}")
    raise LptError(f"unknown metric {name!r}{did_you_mean(name, METRICS)} (known: {', '.join(METRICS)})")


def _values(predicted: "Tensor", gold: "Tensor") -> tuple[np.ndarray, np.ndarray]:
    """Take the values of a regression as float64 arrays."""
    _check_rows(predicted, gold, None)
    return predicted.cpu().double().numpy(), gold.cpu().double().numpy()


def _check_rows(predicted: "Tensor", gold: "Tensor", num_classes: int | None) -> None:
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
