from dataclasses import replace

import pytest
from results import COMPLETED

from lpt.config.schema import Config
from lpt.training.result import LatePromptFacts
from lpt.training.summary import show_result, summary_lines

INTERVALS = {split: {"accuracy": (0.75, 0.85)} for split in ("validation", "test")}


def lines(**changes):
    return dict(summary_lines(replace(COMPLETED, intervals=INTERVALS, **changes)))


def test_the_summary_has_what_was_run_its_scores_and_its_costs():
    assert lines() == {
        "task": "reviews  (400 train, 200 validation, 300 test)",
        "backbone": "tiny  (134.5M parameters, bfloat16)",
        "prompt": "npg, 5 prompt tokens entering layer 16, seen by the text",
        "trained parameters": "445,376  (0.331% of the backbone)",
        "validation accuracy": "[bold]0.800[/bold]  (95% interval 0.750 to 0.850)",
        "test accuracy": "[bold]0.800[/bold]  (95% interval 0.750 to 0.850)",
        "best step": "75 of 75",
        "training": "30 s, 2.50 steps/s, 900 tokens/s",
        "peak memory": "1.76 GB",
        "wall time": "90 s, loading included",
    }


@pytest.mark.parametrize(
    ("method", "settings", "lpt", "expected"),
    [
        (
            "lora",
            {"rank": 8, "layer": 4, "dropout": 0},
            LatePromptFacts(4, None, None, None),
            {"method": "lora  (layer 4, rank 8)"},
        ),
        (
            "lpt_lora",
            {"rank": 8, "layer": 4, "generator": "none", "prompt_length": 1},
            LatePromptFacts(4, 1, "none", None),
            {"method": "lpt_lora  (rank 8)", "prompt": "none, 1 prompt token entering layer 4, seen by the text"},
        ),
    ],
)
def test_another_method_is_named_with_its_settings_that_the_prompt_does_not_have(method, settings, lpt, expected):
    found = lines(method=method, settings=settings, lpt=lpt)
    assert {name: found[name] for name in ("method", "prompt") if name in found} == expected


def test_what_others_have_got_stands_below_the_test_score():
    found = summary_lines(replace(COMPLETED, intervals=INTERVALS), (0.76, 0.82))
    names = [name for name, _ in found]
    assert names.index("to be expected") == names.index("test accuracy") + 1
    assert dict(found)["to be expected"] == "0.76 to 0.82, by seed and machine"


def test_a_run_that_trained_nothing_has_no_speed():
    untrained = replace(COMPLETED.train, steps=0)
    assert not {"best step", "training", "trained parameters"} & lines(train=untrained, trainable_parameters=0).keys()


def test_the_printed_summary_fits_eighty_columns(tmp_path, capsys):
    show_result(replace(COMPLETED, intervals=INTERVALS), tmp_path, Config())
    *printed, folder, use = capsys.readouterr().out.splitlines()
    assert max(map(len, printed)) <= 80
    assert folder == f"run folder           {tmp_path}"  # in line with the table above
    assert use == f"to use it            lpt predict {tmp_path} --input <file>"
