import pytest

from lpt.config.compose import compose_points
from lpt.config.resolve import resolve
from lpt.training.expected import MEASURED, expected_accuracy


def expected(*options):
    (cfg,) = compose_points([options])
    return expected_accuracy(resolve(cfg))


@pytest.mark.parametrize(
    "options",
    [
        (),
        ("seed=21", "logger=none", "lpt.layer=16", "trainer.precision=32", "optim.gradient_accumulation=2"),
        ("lpt.read_only=true", "cache=off"),
    ],
)
def test_the_first_run_is_known_whatever_its_seed_and_machine(options):
    assert expected(*options) == MEASURED


@pytest.mark.parametrize(
    "option",
    [
        "task.template.decoder='{a}. It was'",
        "backbone=minilm-l6",
        "method=lora",
        "generator=mppg",
        "generator.init=states",
        "fewshot.k=200",
        "optim.lr=1e-3",
        "lpt.layer=8",
        "lpt.prompt_length=10",
        "lpt.read_only=false",
        "trainer.max_epochs=6",
        "trainer.max_steps=10",
    ],
)
def test_of_another_run_nothing_is_expected(option):
    assert expected(option) is None
