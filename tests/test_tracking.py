import json
import struct
import time

import pytest
from experiment import make_experiment, write_scores
from wandb.proto.wandb_internal_pb2 import Record

from lpt.module import PromptModule
from lpt.tracking import MetricsFile

BLOCK, FILE_HEADER, RECORD_HEADER = 32768, 7, 7


def wandb_records(folder):
    """What an offline run really wrote; its last record may follow `finish()` by a moment."""
    (path,) = folder.glob("wandb/offline-run-*/*.wandb")
    for _ in range(100):
        records = list(parse(path.read_bytes()))
        if any(record.WhichOneof("record_type") == "exit" for record in records):
            break
        time.sleep(0.1)
    return records


def parse(data):
    """Records in LevelDB's log format."""
    place, parts = FILE_HEADER, b""
    while place + RECORD_HEADER <= len(data):
        if BLOCK - place % BLOCK < RECORD_HEADER:  # the rest of a block too short for a header
            place += BLOCK - place % BLOCK
            continue
        _, length, kind = struct.unpack_from("<IHB", data, place)
        place += RECORD_HEADER
        parts += data[place : place + length]
        place += length
        if kind in (1, 4):  # whole, or the last part
            record = Record()
            record.ParseFromString(parts)
            parts = b""
            yield record


@pytest.fixture(scope="module")
def experiment(tmp_path_factory):
    return make_experiment(tmp_path_factory.mktemp("experiment"), "llama")


@pytest.fixture(autouse=True)
def no_key(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("WANDB_API_KEY", raising=False)


@pytest.fixture(scope="module")
def offline(experiment):
    """Without a key, a wandb run is kept offline."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", str(experiment.folder))
        patch.delenv("WANDB_API_KEY", raising=False)
        result = experiment.run("offline", "logger=wandb", "logger.group=layers", "trainer.max_epochs=2")
    return result, wandb_records(experiment.run_dir("offline"))


def test_wandb_gets_name_group_and_configuration(experiment, offline):
    _, records = offline
    (run,) = (record.run for record in records if record.WhichOneof("record_type") == "run")
    assert run.display_name == "offline"
    assert run.run_group == "layers"
    config = {update.key: json.loads(update.value_json) for update in run.config.update}
    assert config["lpt"]["layer"] == 3
    assert config["optim"]["batch_size"] == 8


def test_wandb_gets_the_curves_of_metrics_csv(experiment, offline):
    _, records = offline
    history = [
        {item.key or item.nested_key[0]: json.loads(item.value_json) for item in record.history.item}
        for record in records
        if record.WhichOneof("record_type") == "history"
    ]
    for column in ("train/loss", "validation/loss"):
        curve = {row["trainer/global_step"]: row[column] for row in history if column in row}
        assert curve == pytest.approx(experiment.curve("offline", column))
    keys = set().union(*history)
    assert {"lr", "test/accuracy", "test/predictions", "test/confusion_matrix_table"} <= keys


def test_wandb_gets_every_test_prediction(experiment, offline):
    (path,) = experiment.run_dir("offline").glob("wandb/offline-run-*/files/media/table/test/predictions*.json")
    table = json.loads(path.read_text())
    assert table["columns"] == ["index", "text", "gold", "predicted", "p(bad)", "p(good)"]
    written = (experiment.run_dir("offline") / "predictions" / "test.jsonl").read_text().splitlines()
    assert [(row[0], row[2], row[3]) for row in table["data"]] == [
        (row["index"], row["gold"], row["predicted"]) for row in map(json.loads, written)
    ]


def test_wandb_gets_numbers_and_their_plot_of_a_regression_and_every_test_set(experiment):
    options = write_scores(experiment.folder)
    extra = f"task.files.extra_tests={{test_other: '{experiment.folder}/scores.csv'}}"
    experiment.run("numbers", *options, extra, "logger=wandb", "trainer.max_steps=2")
    folder = experiment.run_dir("numbers")
    logged = {
        (item.key or item.nested_key[0])
        for record in wandb_records(folder)
        if record.WhichOneof("record_type") == "history"
        for item in record.history.item
    }
    assert {
        f"{split}/{what}" for split in ("test", "test_other") for what in ("predictions", "scatter_table")
    } <= logged
    assert not any("confusion" in key for key in logged)
    (path,) = folder.glob("wandb/offline-run-*/files/media/table/test_other/predictions*.json")
    table = json.loads(path.read_text())
    assert table["columns"] == ["index", "text", "gold", "predicted", "p(bad)", "p(good)"]
    written = (folder / "predictions" / "test_other.jsonl").read_text().splitlines()
    assert [(row[0], row[2], row[3]) for row in table["data"]] == [
        (row["index"], row["gold"], row["predicted"]) for row in map(json.loads, written)
    ]


def test_wandb_runs_are_finished_with_success(offline):
    _, records = offline
    assert [r.exit.exit_code for r in records if r.WhichOneof("record_type") == "exit"] == [0]


def test_wandb_runs_are_finished_when_the_run_fails(experiment, monkeypatch):
    def die(self, batch, batch_idx):
        raise RuntimeError("out of luck")

    monkeypatch.setattr(PromptModule, "training_step", die)
    with pytest.raises(RuntimeError, match="out of luck"):
        experiment.run("failing", "logger=wandb")
    records = wandb_records(experiment.run_dir("failing"))
    assert [r.exit.exit_code for r in records if r.WhichOneof("record_type") == "exit"] == [1]


def test_tensorboard_writes_events_and_metrics_csv_too(experiment):
    experiment.run("tensorboard", "logger=tensorboard", "trainer.max_steps=2")
    folder = experiment.run_dir("tensorboard")
    assert list(folder.glob("tensorboard/events.out.tfevents.*"))
    assert (folder / "metrics.csv").is_file()


def test_logger_none_writes_no_metrics_but_a_result(experiment):
    experiment.run("none", "logger=none", "trainer.max_steps=2")
    assert not (experiment.run_dir("none") / "metrics.csv").exists()
    assert experiment.result("none")["status"] == "completed"


@pytest.mark.filterwarnings("ignore:Experiment logs directory")
def test_a_resumed_metrics_file_keeps_the_steps_up_to_the_checkpoint(tmp_path):
    first = MetricsFile(tmp_path, first_step=0)
    for step in range(6):
        first.log_metrics({"loss": step / 10}, step)
    resumed = MetricsFile(tmp_path, first_step=3)
    resumed.log_metrics({"loss": 9.0, "new": 1.0}, 3)
    resumed.save()
    assert (tmp_path / "metrics.csv").read_text().split() == [
        "loss,new,step",
        "0.0,,0",
        "0.1,,1",
        "0.2,,2",
        "9.0,1.0,3",
    ]
