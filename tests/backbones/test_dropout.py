"""Dropout with cheap masks: the same law as PyTorch's, one byte per element, and only where it is asked for."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.autograd.graph import saved_tensors_hooks

import lpt.backbones.dropout
from lpt.backbones.dropout import CheapDropout, dropout


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
def test_each_element_is_dropped_independently_with_its_probability_and_the_others_scaled(p, dtype):
    rows = 400_000
    y = dropout(torch.ones(4 * rows, dtype=dtype), p)
    torch.testing.assert_close(y[y != 0], torch.full_like(y[y != 0], 1 / (1 - p)), rtol=0.01, atol=0)
    dropped = (y == 0).view(rows, 4).double()  # a row is what one random number decides about
    five_sigma = 5 * (0.25 / rows) ** 0.5
    assert ((dropped.mean(0) - p).abs() < five_sigma).all()
    together = dropped.T @ dropped / rows
    assert ((together - p * p)[~torch.eye(4, dtype=torch.bool)].abs() < five_sigma).all()
    assert abs((dropped[1:, 0] * dropped[:-1, 3]).mean() - p * p) < five_sigma


def test_the_scale_makes_up_for_what_is_dropped():
    y = dropout(torch.ones(1001, dtype=torch.float64), 0.25)
    assert set(y.tolist()) == {0.0, 4 / 3}


def test_a_seed_gives_its_mask_again_and_another_seed_another():
    x = torch.ones(1001)
    first, again, other = (dropout(x, 0.5) for seed in (1, 1, 2) if torch.manual_seed(seed))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_the_gradient_is_zero_exactly_where_the_output_is_and_scaled_elsewhere(dtype):
    x = torch.ones(33, 7, dtype=dtype).T.requires_grad_()  # however it lies in memory
    y, gradient = dropout(x, 0.25), torch.randn(7, 33).to(dtype)
    assert 0 < (y == 0).sum() < y.numel()
    y.backward(gradient)
    torch.testing.assert_close(x.grad, torch.where(y == 0, 0, gradient * (4 / 3)))


def test_nothing_is_dropped_with_probability_0_and_all_with_1():
    x = torch.randn(400_000)
    assert torch.equal(dropout(x, 0.0), x)
    assert not dropout(x, 1.0).any()


def test_one_byte_per_element_is_kept_for_the_backward_pass():
    kept = []
    with saved_tensors_hooks(lambda tensor: kept.append(tensor) or tensor, lambda tensor: tensor):
        dropout(torch.randn(33, 7, requires_grad=True), 0.1)
    assert [tensor.nbytes for tensor in kept] == [33 * 7]


@pytest.mark.parametrize("pytorchs", [lambda x: F.dropout(x, p=0.1), nn.Dropout(0.1)], ids=["function", "module"])
def test_pytorchs_dropout_is_ours_inside_the_context_alone(pytorchs):
    def seeded(function):
        torch.manual_seed(3)
        return function(torch.ones(1001))

    outside, ours = seeded(pytorchs), seeded(lambda x: dropout(x, 0.1))
    assert not torch.equal(outside, ours)
    with CheapDropout():
        assert torch.equal(seeded(pytorchs), ours)
    assert torch.equal(seeded(pytorchs), outside)


def test_what_drops_nothing_stays_as_it_is_inside_the_context():
    x = torch.randn(5)
    with CheapDropout():
        assert F.dropout(x, 0.0) is x
        assert F.dropout(x, 0.5, training=False) is x
        assert nn.Dropout(0.5).eval()(x) is x


def test_other_devices_and_dropout_in_place_are_left_to_pytorch(monkeypatch):
    monkeypatch.setattr(lpt.backbones.dropout, "dropout", lambda x, p: pytest.fail("not for us"))
    x = torch.ones(1001)
    with CheapDropout():
        assert F.dropout(torch.ones(3, device="meta"), 0.5).device.type == "meta"
        assert F.dropout(x, 0.5, inplace=True) is x
        assert set(x.tolist()) == {0.0, 2.0}
        with pytest.raises(pytest.fail.Exception):
            F.dropout(x, 0.5)
