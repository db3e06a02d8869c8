"""What a command line leaves unsaid, and what it says in vain."""

import shlex

import pytest

from lpt.config.command_line import check_command_line
from lpt.config.compose import compose_points
from lpt.config.resume import complete_arguments, path_name
from lpt.errors import ConfigError


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/models/my-model", "my-model"),
        ("/models/my model/", "my-model"),
        ("some-lab/Some_Model-1.5", "Some_Model-1.5"),
        ("wheel://pkg==1.0/pkg/Tiny.Q4_1.gguf", "Tiny.Q4_1"),
        ("random://llama?hidden_size=64", "random-llama"),
        ("/", "unnamed"),
    ],
)
def test_a_backbone_of_which_only_the_path_is_known_is_named_by_its_last_part(path, name):
    assert path_name(path) == name


def test_a_path_alone_names_the_backbone_and_a_name_or_a_choice_stays():
    assert complete_arguments(["backbone.path=/a/mine"]) == ["backbone.path=/a/mine", "backbone.name=mine"]
    for given in (["backbone.path=/a/mine", "backbone.name=x"], ["backbone=gpt2", "backbone.path=/a/mine"]):
        assert complete_arguments(given) == given
    swept = complete_arguments(["-m", "backbone.path=/a/one,/a/two"])
    points = [["backbone.path=/a/one", swept[-1]], ["backbone.path=/a/two", swept[-1]]]
    assert [cfg.backbone.name for cfg in compose_points(points)] == ["one", "two"]


def test_files_of_plugins_are_found_from_anywhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert complete_arguments(["plugins=[mine.py]"]) == [f"plugins=['{tmp_path}/mine.py']"]


@pytest.mark.parametrize(
    ("line", "unread"),
    [
        ("method=lora generator=appg lpt.prompt_length=7", ["generator=appg", "lpt.prompt_length=7"]),
        ("method=prompt_tuning lpt.prompt_length=7", ["lpt.prompt_length=7"]),
        ("method=lora lpt.layer=3", []),
        ("method=lora lpt.read_only=true lpt.dropout=true lpt.trunk_dropout=true", []),
        ("method=lpt lpt.read_only=true lpt.dropout=true lpt.trunk_dropout=true", []),
        ("method=prompt_tuning lpt.read_only=true lpt.dropout=true", []),
        ("method=prompt_tuning lpt.trunk_dropout=true", ["lpt.trunk_dropout=true"]),
        ("method=prompt_tuning generator.init=vocabulary", []),
        ("method=lpt_lora generator=appg", []),
        ("-m method=lora,lpt generator=appg", []),
        ("-m method=lora,adapter generator=appg", ["generator=appg"]),
    ],
)
def test_an_option_that_no_point_of_a_command_reads_is_refused(line, unread):
    try:
        check_command_line(shlex.split(line))
        found = []
    except ConfigError as error:
        found = [complaint.partition(": method=")[0] for complaint in error.complaints]
    assert found == unread
