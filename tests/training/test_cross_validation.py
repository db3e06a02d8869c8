import json
import shutil

import pytest
from experiment import make_experiment

from lpt.config.compose import compose_points
from lpt.config.resolve import resolve
from lpt.errors import ConfigError
from lpt.training.complete import completed, describe
from lpt.training.run import run

FOLDS = ("fewshot=full", "fewshot.folds=3", "task.files.test_rows=0", "trainer.max_epochs=2", "lpt.dropout=false")


@pytest.fixture(scope="module")
def experiment(tmp_path_factory):
    return make_experiment(tmp_path_factory.mktemp("folds"))


@pytest.fixture(scope="module")
def options(experiment):
    return [*experiment.options_but("fewshot.k", "fewshot.k_dev", "lpt.dropout", "trainer.max_epochs"), *FOLDS]


def cross_validated(experiment, options, name, resume=None):
    (cfg,) = compose_points([options])
    config = resolve(cfg)
    config.resume = resume
    experiment.run_dir(name).mkdir(parents=True, exist_ok=True)
    run(config, experiment.run_dir(name))
    return experiment.result(name)


def answers(experiment, name):
    return (experiment.run_dir(name) / "predictions" / "cross_validation.jsonl").read_text()


@pytest.fixture(scope="module")
def whole(experiment, options):
    return cross_validated(experiment, options, "whole")


def test_every_row_is_tested_by_a_model_that_has_not_seen_it(experiment, whole):
    rows = [json.loads(line) for line in answers(experiment, "whole").splitlines()]
    assert list(whole["metrics"]) == ["cross_validation"]
    assert whole["data"]["sizes"] == {"train": len(rows)}
    right = sum(row["gold"] == row["predicted"] for row in rows)
    assert whole["metrics"]["cross_validation"]["accuracy"] == pytest.approx(right / len(rows))
    parts = [experiment.run_dir("whole") / "folds" / str(i) for i in (1, 2, 3)]
    files = [part / "predictions" / "test.jsonl" for part in parts]
    tested = [json.loads(line)["index"] for file in files for line in file.read_text().splitlines()]
    assert sorted(tested) == [row["index"] for row in rows]
    assert all((part / "adapter").is_dir() for part in (*parts, experiment.run_dir("whole")))


def test_the_last_step_is_kept_as_nothing_chooses_another(whole):
    assert whole["best_step"] == whole["train"]["steps"]
    assert whole["train"]["still_improving"] is False


def test_a_run_that_was_interrupted_between_folds_ends_as_one_that_was_not(experiment, options, whole):
    folder = experiment.run_dir("interrupted")
    shutil.copytree(experiment.run_dir("whole"), folder)
    (folder / "result.json").unlink()
    for lost in ("folds/3", "checkpoints", "adapter", "predictions"):
        shutil.rmtree(folder / lost)
    before = (folder / "folds" / "1" / "result.json").stat().st_mtime_ns
    result = cross_validated(experiment, options, "interrupted", resume=str(folder))
    assert (folder / "folds" / "1" / "result.json").stat().st_mtime_ns == before
    assert result["metrics"] == whole["metrics"]
    assert answers(experiment, "interrupted") == answers(experiment, "whole")
    adapters = [experiment.run_dir(name) / "adapter" / "adapter.safetensors" for name in ("whole", "interrupted")]
    assert adapters[0].read_bytes() == adapters[1].read_bytes()


def test_folds_go_with_one_process_and_with_training(options, experiment):
    with pytest.raises(ConfigError) as caught:
        experiment.config(*FOLDS, "trainer.devices=2", "trainer.max_steps=0")
    assert [text.split(" ")[0] for text in caught.value.complaints] == ["fewshot.folds=3", "fewshot.folds=3"]


def test_a_cross_validated_run_that_is_complete_stays_as_it_is(experiment, options, whole):
    folder, config = experiment.run_dir("whole"), experiment.config(*FOLDS, "trainer.max_epochs=99")
    done = completed(folder, config, ["trainer.max_epochs=99"])
    assert done is not None
    score = f"cross_validation accuracy {whole['metrics']['cross_validation']['accuracy']:.3f}"
    assert describe(done, folder, config, "lpt train resume=x") == f"{folder} is complete: {score}"
