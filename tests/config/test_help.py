"""`--help`: one screen; `--help all`: everything, with meaning, range and value."""

import re

import pytest
from groups import choices

from lpt.config.fields import Schema, fields_of
from lpt.config.help import WIDTH, show_help
from lpt.config.schema import LocalQueueConfig, OptunaConfig, SubmititSlurmConfig
from lpt.errors import ConfigError


def page(*arguments):
    return show_help(["--help", *arguments], "python train.py")


def options(text):
    """Names of the options that a page shows, in order."""
    return re.findall(r"^  ([\w.]+)=", text, re.MULTILINE)


def test_help_is_one_screen_of_examples_groups_and_everyday_options():
    text = page()
    assert len(text.splitlines()) <= 60
    assert "python train.py backbone=gpt2-large lpt.layer=13" in text
    for group in ("method", "generator", "head", "task", "logger"):
        assert all(re.search(rf"\b{re.escape(name)}\b", text) for name in choices(group))
    assert "  optim.lr=0.003                  Learning rate after warm-up. [greater than 0]\n" in text
    assert "trainer.compile" not in text


def test_help_shows_the_options_of_what_is_chosen_and_not_those_that_it_does_not_read():
    text = page("method=lora")
    assert "  method.rank=8                   r, the rank of the updates. [at least 1]\n" in text
    assert "  optim.lr=0.0004 " in text
    assert "lpt.layer=null" in text
    assert "lpt.prompt_length" not in text


@pytest.mark.parametrize(
    ("overrides", "plugins"),
    [
        ([], {"launcher": LocalQueueConfig}),
        (
            ["method=lora", "hydra/launcher=submitit_slurm", "hydra/sweeper=optuna"],
            {"launcher": SubmititSlurmConfig, "sweeper": OptunaConfig},
        ),
    ],
)
def test_help_all_shows_every_option_of_what_is_chosen_with_value_and_meaning(overrides, plugins):
    text = page("all", *overrides)
    chosen = dict(override.split("=") for override in overrides if "/" not in override)
    unread = ("task.hub.", "task.tsv.", "task.files.", "recipe", "experiment")
    expected = [field.name for field in Schema(chosen).all() if not field.name.startswith(unread)]
    expected += [f"hydra.{part}.{f.name}" for part, cls in plugins.items() for f in fields_of(cls) if f.name[0] != "_"]
    assert options(text) == expected
    assert max(map(len, text.splitlines())) <= WIDTH + 10
    assert "The network that writes the prompt." in text


def test_every_option_has_a_meaning_that_is_a_sentence():
    fields = [field for field in Schema().all() if field.name not in ("recipe", "experiment")]
    bad = [f.name for f in fields if not re.fullmatch(r"(?!Of |Whom )[^ ].*[.)]", f.meaning, re.DOTALL)]
    assert bad == []


def test_help_of_a_cluster_has_its_own_meaning_of_workers():
    assert "workers=null     Points at a time." in page("all")
    assert "workers=null     Jobs at a time." in page("all", "hydra/launcher=submitit_slurm")


def test_help_of_what_does_not_exist_is_a_complaint():
    with pytest.raises(ConfigError, match="there is no method 'loraa'"):
        page("method=loraa")
