"""What a point is named by, and the order to work in."""

import re

import pytest
from hydra import compose, initialize_config_dir

from lpt.config.resolve import resolve
from lpt.config.schema import CONF_DIR
from lpt.sweep.points import NAME_LENGTH, differences, in_order, make_point


def point(*overrides: str, swept: tuple[str, ...] = ("lpt.layer", "seed")):
    with initialize_config_dir(version_base="1.3", config_dir=str(CONF_DIR)):
        config = resolve(compose("config", overrides=[text for text in overrides if not text.startswith("hydra")]))
    return make_point(overrides, config, swept)


@pytest.fixture(scope="module")
def base():
    return point("lpt.layer=8", "seed=21")


def test_a_name_says_what_varies_and_ends_in_a_hash(base):
    assert re.fullmatch(r"layer-8_seed-21_[0-9a-f]{8}", base.name)


@pytest.mark.parametrize(
    "aside",
    [
        "logger=none",
        "cache=off",
        "trainer.progress=false",
        "hydra.sweep.dir=runs/elsewhere",
        "hydra.launcher.workers=7",
        "lpt.bottleneck=128",  # as it is anyway
    ],
)
def test_options_that_results_do_not_depend_on_change_no_hash(base, aside):
    assert point("lpt.layer=8", "seed=21", aside).hash == base.hash


@pytest.mark.parametrize("changed", ["lpt.layer=9", "optim.lr=1e-2", "fewshot.seed=3", "task=subj", "generator=appg"])
def test_what_results_depend_on_changes_the_hash(base, changed):
    assert point("lpt.layer=8", "seed=21", changed).hash != base.hash


def test_an_option_that_is_null_is_as_one_that_is_not_there(base):
    """So that a new option, null at first, leaves the points of older sweeps what they were."""
    assert None not in base.facts.values()


def test_points_of_one_kind_have_all_that_was_not_given_by_default():
    def kind(*overrides):
        return point("lpt.layer=8", *overrides).kind

    assert kind("seed=1", "optim.lr=1") == kind("optim.lr=2", "seed=2")
    others = [kind(), kind("seed=1"), kind("optim.lr=1"), kind("task=rte"), kind("task=subj"), kind("method=lora")]
    assert len({*others}) == len(others)


def test_overrides_that_say_how_to_sweep_are_not_a_points_own():
    overrides = [
        "seed=1",
        "hydra.sweep.dir=x",
        "hydra/launcher=local_queue",
        "hydra.launcher.workers=2",
        "hydra.mode=RUN",
    ]
    assert point(*overrides, "hydra.verbose=true").overrides == ("seed=1", "hydra.verbose=true")


def test_any_value_gives_a_name_that_is_safe_and_not_too_long():
    name = point("seed=1", "task.data_dir='/a b/ü=1,2;$(x)'", swept=("task.data_dir",)).name
    assert re.fullmatch(r"data-dir-a-b-1-2-x_[0-9a-f]{8}", name)
    long = point(f"task.data_dir={'x' * 300}", swept=("task.data_dir",)).name
    assert len(long) == NAME_LENGTH


def test_of_an_option_that_is_given_twice_the_last_counts():
    assert point("seed=1", "lpt.layer=3", "seed=2", swept=("seed",)).name.startswith("seed-2_")


def test_options_of_one_last_name_are_told_apart():
    name = point("seed=1", "fewshot.seed=2", swept=("seed", "fewshot.seed")).name
    assert name.startswith("seed-1_fewshot.seed-2_")


def test_points_of_one_trunk_are_neighbors_lower_layers_first():
    """A seed draws other rows, so that it has states of its own; a generator has not."""
    given = [(8, 13, "npg"), (4, 21, "npg"), (4, 13, "appg"), (8, 21, "npg"), (4, 13, "npg")]
    points = {case: point(f"lpt.layer={case[0]}", f"seed={case[1]}", f"generator={case[2]}") for case in given}
    cases = {made: case for case, made in ((case, made.name) for case, made in points.items())}
    ordered = [cases[made.name] for made in in_order(points.values())]
    assert [(layer, seed) for layer, seed, _ in ordered] == [(4, 13), (4, 13), (8, 13), (4, 21), (8, 21)]


def test_baselines_are_ordered_by_their_first_trained_layer():
    late = [point("method=lora", f"lpt.layer={layer}", swept=("lpt.layer",)) for layer in (9, 5)]
    whole = point("method=lora", swept=())
    assert in_order([whole, *late]) == [late[1], late[0], whole]


def test_differences_are_told_with_both_values(base):
    other = {**base.facts, "optim.lr": 1.0, "new": 2}
    assert differences(base.facts, other) == ["new: None -> 2", f"optim.lr: {base.facts['optim.lr']} -> 1.0"]
