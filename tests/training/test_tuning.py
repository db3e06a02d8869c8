import json
import shutil

import pytest
from experiment import make_experiment

from lpt.errors import ConfigError

CANDIDATES = ("optim.lr_candidates=[1e-9,3e-2,1e-2]", "trainer.max_epochs=2", "trainer.patience=9", "lpt.dropout=false")
FOLDS = ("fewshot=full", "fewshot.folds=2", "task.files.test_rows=0")


@pytest.fixture(scope="module")
def experiment(tmp_path_factory):
    return make_experiment(tmp_path_factory.mktemp("tuning"))


@pytest.fixture(scope="module")
def tuned(experiment):
    return experiment.run("tuned", *CANDIDATES)


def best_of(result):
    scores = result["lr_scores"]
    assert list(scores) == ["1e-09", "0.03", "0.01"]
    return max(scores, key=scores.get)


def test_the_best_learning_rate_on_the_validation_rows_is_taken(experiment, tuned):
    best = best_of(tuned)
    assert best != "1e-09"
    parts = {lr: experiment.result(f"tuned/candidates/{lr}") for lr in tuned["lr_scores"]}
    assert {lr: part["metrics"]["validation"]["accuracy"] for lr, part in parts.items()} == tuned["lr_scores"]
    alone = experiment.run("alone", *CANDIDATES[1:], f"optim.lr={best}")
    assert tuned["metrics"] == alone["metrics"]


def test_candidates_see_no_test_rows(experiment, tuned):
    for lr in tuned["lr_scores"]:
        assert set(experiment.result(f"tuned/candidates/{lr}")["metrics"]) == {"validation"}


def test_a_run_interrupted_between_candidates_does_not_try_them_again(experiment, tuned):
    folder = experiment.run_dir("interrupted")
    shutil.copytree(experiment.run_dir("tuned"), folder)
    (folder / "result.json").unlink()
    for lost in ("candidates/0.01", "checkpoints", "adapter", "predictions"):
        shutil.rmtree(folder / lost)
    before = (folder / "candidates" / "0.03" / "result.json").stat().st_mtime_ns
    result = experiment.run("interrupted", *CANDIDATES, f"resume='{folder}'")
    assert (folder / "candidates" / "0.03" / "result.json").stat().st_mtime_ns == before
    assert (result["metrics"], result["lr_scores"]) == (tuned["metrics"], tuned["lr_scores"])


def test_folds_choose_too_and_are_not_trained_twice(experiment):
    result = experiment.run("folds", *CANDIDATES, *FOLDS)
    best = best_of(result)
    assert result["metrics"]["cross_validation"]["accuracy"] == result["lr_scores"][best]
    folder = experiment.run_dir("folds")
    assert not (folder / "folds").exists()
    answers = (folder / "predictions" / "cross_validation.jsonl").read_text().splitlines()
    assert len({json.loads(line)["index"] for line in answers}) == result["data"]["sizes"]["train"]


def test_candidates_need_rows_to_be_compared_on_and_one_process(experiment):
    with pytest.raises(ConfigError) as caught:
        experiment.config(*CANDIDATES, "fewshot.k_dev=0", "trainer.max_steps=0", "trainer.devices=2")
    assert [text.partition(" ")[0] for text in caught.value.complaints] == ["optim.lr_candidates=[1e-09,0.03,0.01]"] * 3
    with pytest.raises(ConfigError, match=r"optim\.lr_candidates"):
        experiment.config("optim.lr_candidates=[0]")
