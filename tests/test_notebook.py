"""The quickstart notebook runs from its first cell to its last, here on a tiny backbone and without a network."""

import json
import shlex

import pytest
from experiment import make_experiment
from places import REPOSITORY

from lpt.training.result import read_result

NOTEBOOK = REPOSITORY / "docs" / "quickstart.ipynb"


def code_cells() -> list[str]:
    cells = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
    return ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]


def test_the_quickstart_trains_predicts_and_compares(tmp_path, monkeypatch, capsys):
    experiment = make_experiment(tmp_path)
    monkeypatch.setenv("LPT_QUICKSTART", shlex.join(experiment.options))
    monkeypatch.chdir(tmp_path)
    names = {}
    for i, cell in enumerate(code_cells()):
        exec(compile(cell, f"{NOTEBOOK.name}, code cell {i}", "exec"), names)

    result, zero_shot = names["result"], names["zero_shot"]
    assert read_result(names["folder"]) == result
    assert result.metrics["validation"]["loss"] < zero_shot.metrics["validation"]["loss"]
    assert (result.trainable_parameters > 0, zero_shot.trainable_parameters) == (True, 0)
    wrong = sum(answer["predicted"] != answer["gold"] for answer in names["answers"])
    assert 1 - wrong / len(names["answers"]) == pytest.approx(result.metrics["test"]["accuracy"])
    assert [sum(p.probabilities.values()) for p in names["predictions"]] == pytest.approx([1, 1])
    printed = capsys.readouterr().out
    assert f"test accuracy {result.metrics['test']['accuracy']:.3f}" in printed
    assert "number format of the frozen model: float32" in printed


@pytest.mark.parametrize("name", ["quickstart", "tickets"])
def test_a_notebook_is_stored_without_outputs(name):
    """Outputs would be those of one machine, and grow stale."""
    cells = json.loads(NOTEBOOK.with_name(f"{name}.ipynb").read_text(encoding="utf-8"))["cells"]
    assert all(cell["outputs"] == [] for cell in cells if cell["cell_type"] == "code")
