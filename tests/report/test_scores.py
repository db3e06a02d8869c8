import numpy as np
import pytest
import scipy.stats
import torch

from lpt.metrics import METRICS
from lpt.report.runs import Predictions
from lpt.report.scores import SCORES, score


def made_up(classes, rows=60, seed=0):
    random = np.random.default_rng(seed)
    gold = random.integers(0, classes, rows)
    predicted = np.where(random.random(rows) < 0.6, gold, random.integers(0, classes, rows))
    return Predictions(np.arange(rows), gold, predicted, np.ones(rows), [str(c) for c in range(classes)])


def repeated(found, weights):
    return (torch.from_numpy(np.repeat(side, weights)) for side in (found.predicted, found.gold))


@pytest.mark.parametrize(("metric", "classes"), [("accuracy", 3), ("f1", 2), ("matthews", 2), ("matthews", 4)])
def test_a_weighted_score_is_that_of_the_rows_written_out(metric, classes):
    found = made_up(classes)
    weights_RN = np.random.default_rng(1).integers(0, 4, (5, len(found.gold)))
    expected = [METRICS[metric](*repeated(found, weights), classes) for weights in weights_RN]
    assert SCORES[metric](found, weights_RN.astype(float)) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("metric", ["f1", "matthews"])
def test_scores_that_are_undefined_are_zero(metric):
    one_class = Predictions(np.arange(4), np.zeros(4, int), np.zeros(4, int), np.ones(4), ["a", "b"])
    assert score(metric, one_class) == 0.0


@pytest.mark.parametrize("metric", ["pearson", "spearman"])
def test_a_weighted_correlation_is_that_of_the_rows_written_out(metric):
    random = np.random.default_rng(0)
    gold = random.integers(0, 6, 50) / 2  # with ties, as people's ratings have
    found = Predictions(np.arange(50), gold, np.round(gold + random.normal(0, 1, 50), 1), np.ones(50), None)
    weights_RN = random.integers(0, 4, (5, 50))
    reference = scipy.stats.pearsonr if metric == "pearson" else scipy.stats.spearmanr
    expected = [reference(*repeated(found, weights)).statistic for weights in weights_RN]
    assert SCORES[metric](found, weights_RN.astype(float)) == pytest.approx(expected, abs=1e-12)
    constant = Predictions(np.arange(50), gold, np.full(50, 0.1), np.ones(50), None)
    assert score(metric, constant) == 0.0
