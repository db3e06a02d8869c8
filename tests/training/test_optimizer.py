import pytest
import torch
from torch import nn

from lpt.training.optimizer import Schedule, build_optimizer


def built(**changes):
    body, head = nn.Linear(2, 2), nn.Linear(2, 2)
    frozen = nn.Linear(2, 2).requires_grad_(False)
    parameters = [*body.parameters(), *head.parameters(), *frozen.parameters()]
    values = {"lr": 0.1, "head_lr": 0.2, "weight_decay": 0.3, "warmup_steps": 2, "total_steps": 6} | changes
    return (body, head), *build_optimizer(parameters, head.parameters(), Schedule(**values))


def test_a_head_has_its_own_rate_biases_have_no_decay_and_what_is_frozen_is_left_out():
    (body, head), optimizer, _ = built()
    found = {
        p: (group["initial_lr"], group["weight_decay"]) for group in optimizer.param_groups for p in group["params"]
    }
    assert found == {body.weight: (0.1, 0.3), body.bias: (0.1, 0), head.weight: (0.2, 0.3), head.bias: (0.2, 0)}


def test_the_rate_rises_for_the_warm_up_and_falls_to_zero():
    _, optimizer, rate = built(head_lr=0.1)
    rates = []
    for _ in range(6):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        rate.step()
    assert rates == pytest.approx([0, 0.05, 0.1, 0.075, 0.05, 0.025])
    assert optimizer.param_groups[0]["lr"] == 0


def test_equal_rates_share_a_group():
    _, optimizer, _ = built(head_lr=0.1)
    assert [len(group["params"]) for group in optimizer.param_groups] == [2, 2]
    assert isinstance(optimizer, torch.optim.AdamW)
