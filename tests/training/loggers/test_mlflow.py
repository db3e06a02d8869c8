import time

import pytest

from lpt.errors import LptError

tracking = pytest.importorskip("mlflow.tracking")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Where commands are typed: a database takes seconds to make, so one is made for all tests."""
    return tmp_path_factory.mktemp("folder")


@pytest.fixture(autouse=True)
def in_folder(folder, monkeypatch):
    monkeypatch.chdir(folder)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


def the_run(folder, project):
    """Client and the only run of this project."""
    client = tracking.MlflowClient(f"sqlite:///{folder}/mlflow.db")
    (run,) = client.search_runs([client.get_experiment_by_name(project).experiment_id])
    return client, run


def test_mlflow_gets_configuration_curves_tables_and_adapter(experiment, logged_columns, folder):
    experiment.run("mlflow", "logger=mlflow", "logger.group=layers", "trainer.max_epochs=2")
    experiment.run("mlflow", "logger=mlflow", "trainer.max_epochs=3", f"resume='{experiment.run_dir('mlflow')}'")
    client, run = the_run(folder, "late-prompt-tuning")
    assert (run.info.run_name, run.info.status, run.data.tags["group"]) == ("mlflow", "FINISHED", "layers")
    assert run.data.params["lpt/layer"] == "3"
    for column in logged_columns:
        if column == "lr" or column.startswith("train/"):  # each of the two runs has evaluated what it kept
            found = {metric.step: metric.value for metric in client.get_metric_history(run.info.run_id, column)}
            assert found == pytest.approx(experiment.curve("mlflow", column)), column
    assert run.data.metrics["result/test/accuracy"] == experiment.result("mlflow")["metrics"]["test"]["accuracy"]
    kept = {file.path for name in ("test", "adapter") for file in client.list_artifacts(run.info.run_id, name)}
    assert {"test/predictions.json", "test/confusion_matrix.json", "adapter/adapter.safetensors"} <= kept


def test_mlflow_marks_a_failed_run_on_the_server_that_is_named(experiment, folder, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{folder}/mlflow.db")
    monkeypatch.setattr("lpt.training.run.evaluate", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        experiment.run("fails", "logger=mlflow", "logger.project=failures", "trainer.max_steps=1")
    _, run = the_run(folder, "failures")
    assert run.info.status == "FAILED"


def test_a_server_that_does_not_answer_is_told_within_seconds(experiment, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    began = time.monotonic()
    with pytest.raises(LptError, match=r"^logger=mlflow: http://127\.0\.0\.1:9 cannot be used \(.*see that it runs"):
        experiment.run("no server", "logger=mlflow", "trainer.max_steps=1")
    assert time.monotonic() - began < 20
    assert experiment.result("no server")["status"] == "failed"


def test_a_deleted_experiment_is_told_in_one_line(experiment, folder):
    experiment.run("first", "logger=mlflow", "logger.project=deleted", "trainer.max_steps=1")
    client = tracking.MlflowClient(f"sqlite:///{folder}/mlflow.db")
    client.delete_experiment(client.get_experiment_by_name("deleted").experiment_id)
    with pytest.raises(LptError, match="if the experiment was deleted, choose another") as error:
        experiment.run("second", "logger=mlflow", "logger.project=deleted", "trainer.max_steps=1")
    assert "\n" not in str(error.value)
