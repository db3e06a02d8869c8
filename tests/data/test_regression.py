import numpy as np
import pytest
import torch

from lpt.data.regression import interpolate, soft_targets


@pytest.mark.parametrize("value_range", [(0, 5), (-1.0, 1.0), (1, 100)])
def test_a_value_is_the_mixture_of_the_labels_that_it_is_read_back_from(value_range):
    low, high = value_range
    values = np.linspace(low, high, 41)
    mixtures = soft_targets(values.tolist(), value_range)
    assert mixtures.dtype == torch.float32
    torch.testing.assert_close(mixtures.sum(1), torch.ones(41))
    np.testing.assert_allclose(interpolate(mixtures, value_range), values, rtol=0, atol=1e-6 * (high - low))


def test_the_ends_are_one_label_alone_the_lower_end_the_first():
    assert soft_targets([0, 5, 1], (0, 5)).tolist() == [[1, 0], [0, 1], [pytest.approx(0.8), pytest.approx(0.2)]]


def test_no_prediction_lies_beyond_the_ends():
    certain = torch.tensor([[0.0, 1.0], [1.0, 0.0], [1e-9, 1.0]])
    assert interpolate(certain, (0, 5)).tolist() == [5, 0, 5]
    assert interpolate(certain.numpy(), (0, 5)).tolist() == [5, 0, 5]
