import shlex

import pytest
from made_runs import write_run

from lpt.report.reproduce import commands_for, shell_quoted, split_overrides
from lpt.report.runs import collect_runs


def test_all_combinations_are_one_sweep(tmp_path):
    for method in ("lpt", "lora"):
        for seed in (1, 2):
            write_run(tmp_path / f"{method}{seed}", method=method, seed=seed)
    runs = collect_runs(tmp_path)
    assert split_overrides(runs) == (["trainer.max_epochs=3"], {"seed": ["1", "2"], "method": ["lora", "lpt"]})
    assert commands_for(runs) == ["python train.py -m trainer.max_epochs=3 seed=1,2 method=lora,lpt"]


def test_other_runs_have_a_command_each(tmp_path):
    write_run(tmp_path / "a", seed=1)
    write_run(tmp_path / "b", seed=2)
    write_run(tmp_path / "c", seed=3, method="lora")
    assert commands_for(collect_runs(tmp_path)) == [
        "python train.py seed=1 method=lpt trainer.max_epochs=3",
        "python train.py seed=2 method=lpt trainer.max_epochs=3",
        "python train.py seed=3 method=lora trainer.max_epochs=3",
    ]


@pytest.mark.parametrize("override", ["lpt.layer=4", "task.labels=[bad, good]", "backbone.path='/a b/c'"])
def test_a_shell_reads_an_override_as_it_was(override):
    assert shlex.split(shell_quoted(override)) == [override]
