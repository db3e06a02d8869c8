import numpy as np
import pytest
import torch
from torchmetrics.functional.classification import multiclass_calibration_error

from lpt.calibration import COLDEST, HOTTEST, binned, calibration_error, coverage, fit_temperature, tempered


def scored(temperature: float, rows: int = 4000, classes: int = 4) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Scores `[N, C]`, their softmax, and gold classes drawn from the softmax of the scores over the temperature."""
    random = np.random.default_rng(0)
    scores_NC = 3 * random.normal(size=(rows, classes))
    truth_NC = softmax(scores_NC / temperature)
    gold_N = (truth_NC.cumsum(1) > random.random((rows, 1))).argmax(1)
    return scores_NC, softmax(scores_NC), gold_N


def softmax(scores_NC: np.ndarray) -> np.ndarray:
    powers_NC = np.exp(scores_NC - scores_NC.max(1, keepdims=True))
    return powers_NC / powers_NC.sum(1, keepdims=True)


def loss(probabilities_NC: np.ndarray, gold_N: np.ndarray) -> float:
    return float(-np.log(probabilities_NC[np.arange(len(gold_N)), gold_N]).mean())


def test_the_calibration_error_is_the_mean_gap_between_confidence_and_right_answers():
    confidence, right = np.array([0.95, 0.97, 0.97, 0.61]), np.array([True, False, True, True])
    assert calibration_error(confidence, right) == pytest.approx((3 * abs(2.89 / 3 - 2 / 3) + (1 - 0.61)) / 4)
    found = binned(confidence, right)
    assert found.rows.tolist() == [1, 3]
    assert found.low.tolist() == pytest.approx([9 / 15, 14 / 15])


def test_the_calibration_error_is_that_of_torchmetrics():
    _, probabilities, gold = scored(2.5)
    expected = multiclass_calibration_error(torch.tensor(probabilities), torch.tensor(gold), 4, n_bins=15, norm="l1")
    found = calibration_error(probabilities.max(1), probabilities.argmax(1) == gold)
    assert found == pytest.approx(float(expected), abs=1e-6)
    assert found > 0.1


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.5])
def test_the_temperature_is_the_one_that_the_labels_were_drawn_with(temperature):
    scores, probabilities, gold = scored(temperature)
    found = fit_temperature(probabilities, gold)
    assert found == pytest.approx(temperature, rel=0.08)
    best = loss(softmax(scores / found), gold)
    assert all(best <= loss(softmax(scores / other), gold) for other in (found * 0.99, found * 1.01))
    calibrated = tempered(probabilities, found)
    assert calibrated == pytest.approx(softmax(scores / found), rel=1e-9)
    assert (calibrated.argmax(1) == probabilities.argmax(1)).all()
    assert calibration_error(calibrated.max(1), calibrated.argmax(1) == gold) < 0.025


def test_without_a_mistake_the_temperature_says_nothing_and_it_has_a_range():
    probabilities = np.array([[0.6, 0.4], [0.3, 0.7]])
    assert fit_temperature(probabilities, np.array([0, 1])) == 1
    assert fit_temperature(probabilities, np.array([1, 0])) == HOTTEST
    nearly_tied = np.array([[0.5 - 1e-9, 0.5 + 1e-9], [0.3, 0.7]])
    assert fit_temperature(nearly_tied, np.array([0, 1])) == COLDEST


def test_coverage_tells_the_rows_below_a_confidence_from_the_rest():
    confidence, right = np.array([0.5, 0.6, 0.9, 0.95, 0.99]), np.array([True, False, True, True, False])
    assert str(coverage(confidence, right, 0.9)) == "2 of 5 rows below 0.9: 50.0% right, the rest 66.7% right"
    assert str(coverage(confidence, right, 0.4)) == "none of 5 rows below 0.4: 60.0% right"
    assert str(coverage(confidence, right, 1.0)) == "5 of 5 rows below 1: 60.0% right"
