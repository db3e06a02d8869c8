import pytest

from lpt.config.schema import Config, OptimConfig, TrainerConfig
from lpt.training.plan import plan_training


def plan(rows=44, trainable=True, warmup_ratio=0.06, **trainer):
    config = Config(optim=OptimConfig(batch_size=8, warmup_ratio=warmup_ratio), trainer=TrainerConfig(**trainer))
    return plan_training(config, rows, gradient_accumulation=2, trainable=trainable)


def test_epochs_are_counted_in_steps_the_short_one_too():
    found = plan(max_epochs=3, warmup_ratio=0.1)
    assert (found.steps_per_epoch, found.total_steps, found.epochs) == (6, 18, 3)
    assert (found.warmup_steps, found.eval_every, found.log_every) == (2, 6, 6)


@pytest.mark.parametrize(("max_steps", "epochs"), [(0, 0), (1, 1), (6, 1), (7, 2)])
def test_max_steps_ends_training_instead_of_max_epochs(max_steps, epochs):
    found = plan(max_epochs=3, max_steps=max_steps)
    assert (found.total_steps, found.epochs) == (max_steps, epochs)


@pytest.mark.parametrize(("rows", "min_steps", "expected"), [(44, 0, 300), (44, 400, 400), (800, 0, 600)])
def test_unless_said_otherwise_few_rows_are_trained_on_for_300_steps_and_many_for_6_epochs(rows, min_steps, expected):
    assert plan(rows, min_steps=min_steps).total_steps == expected


def test_evaluations_and_lines_are_at_most_as_far_apart_as_training_and_an_epoch_are_long():
    found = plan(max_steps=4, eval_every=100, log_every=100)
    assert (found.eval_every, found.log_every) == (4, 6)
    assert plan(max_epochs=3, eval_every=5, log_every=2).eval_every == 5


def test_a_method_that_trains_nothing_has_no_steps():
    assert plan(max_epochs=3, trainable=False).total_steps == 0
