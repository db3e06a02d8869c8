import pytest
from experiment import make_experiment

from lpt.training.complete import completed, describe

OPTIONS = ("trainer.eval_every=6", "trainer.max_epochs=40", "optim.lr=1e-9", "lpt.dropout=false")


@pytest.fixture(scope="module")
def experiment(tmp_path_factory):
    return make_experiment(tmp_path_factory.mktemp("patience"))


def test_training_ends_when_evaluations_no_longer_get_better(experiment, capsys):
    result = experiment.run("said", *OPTIONS, "trainer.patience=2")
    assert result["train"]["steps"] == result["best_step"] + 2 * 6 < 240  # two evaluations that are no better
    assert result["train"]["still_improving"] is False
    assert "training ends here: 2 evaluations without a better score (trainer.patience)" in capsys.readouterr().out


def test_a_run_that_ended_early_says_so_and_goes_on_with_more_patience(experiment):
    first = experiment.run("patient", *OPTIONS, "trainer.patience=2")
    folder, config = experiment.run_dir("patient"), experiment.config(*OPTIONS, "trainer.patience=2")
    done = completed(folder, config, [])
    assert done is not None
    assert describe(done, folder, config, "lpt train resume=x").endswith(
        "resume=x trainer.patience=<more than 2, or null>"
    )
    more = ("trainer.patience=4",)
    assert completed(folder, experiment.config(*OPTIONS, *more), more) is None
    result = experiment.run("patient", *OPTIONS, *more, f"resume='{folder}'")
    assert result["best_step"] == first["best_step"]
    whole = experiment.run("whole", *OPTIONS, *more)
    assert result["metrics"] == whole["metrics"]
    assert whole["train"]["steps"] == whole["best_step"] + 4 * 6
