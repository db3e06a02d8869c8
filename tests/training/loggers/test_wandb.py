import json
import shutil
import struct
import time

import pytest
import wandb
import yaml
from experiment import write_scores
from places import REPOSITORY
from wandb.proto.wandb_internal_pb2 import Record
from wandb.sdk.launch.sweeps.utils import create_sweep_command_args

from lpt.config.command_line import compose_config
from lpt.config.resolve import resolve
from lpt.errors import LptError
from lpt.training.loggers.build import build_loggers
from lpt.training.loggers.wandb import WandbLogger
from lpt.training.module import PromptModule

BLOCK, FILE_HEADER, RECORD_HEADER = 32768, 7, 7


def wandb_records(folder):
    """What an offline run really wrote, the last where there are several.

    Its last record may follow `finish()` by a moment.
    """
    path = sorted(folder.glob("wandb/offline-run-*/*.wandb"), key=lambda path: path.stat().st_mtime)[-1]
    for _ in range(100):
        records = list(parse(path.read_bytes()))
        if any(record.WhichOneof("record_type") == "exit" for record in records):
            break
        time.sleep(0.1)
    return records


def parse(data):
    """Records in LevelDB's log format, as far as they are written."""
    place, parts = FILE_HEADER, b""
    while place + RECORD_HEADER <= len(data):
        if BLOCK - place % BLOCK < RECORD_HEADER:  # the rest of a block too short for a header
            place += BLOCK - place % BLOCK
            continue
        _, length, kind = struct.unpack_from("<IHB", data, place)
        place += RECORD_HEADER
        if place + length > len(data):  # it is being written
            return
        parts += data[place : place + length]
        place += length
        if kind in (1, 4):  # whole, or the last part
            record = Record()
            record.ParseFromString(parts)
            parts = b""
            yield record


def of_kind(records, kind):
    return [getattr(record, kind) for record in records if record.WhichOneof("record_type") == kind]


def history(records):
    return [
        {item.key or item.nested_key[0]: json.loads(item.value_json) for item in row.item}
        for row in of_kind(records, "history")
    ]


def adapters(records):
    return [artifact for artifact in of_kind(records, "artifact") if artifact.type == "adapter"]


def curve(records, column):
    return {row["trainer/global_step"]: row[column] for row in history(records) if column in row}


@pytest.fixture(scope="module")
def offline(experiment):
    """Without a key, a wandb run is kept offline."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", str(experiment.folder))
        patch.delenv("WANDB_API_KEY", raising=False)
        options = ("logger=wandb", "logger.group=layers", "logger.rows=7", "trainer.max_epochs=2")
        result = experiment.run("offline", *options)
    return result, wandb_records(experiment.run_dir("offline"))


def test_wandb_gets_name_group_and_configuration(experiment, offline):
    _, records = offline
    (run,) = of_kind(records, "run")
    assert run.display_name == "offline"
    assert run.run_group == "layers"
    config = {update.key: json.loads(update.value_json) for update in run.config.update}
    assert config["lpt"]["layer"] == 3
    assert config["optim"]["batch_size"] == 8


def test_wandb_gets_the_curves_of_metrics_csv(experiment, offline, logged_columns):
    _, records = offline
    for column, values in logged_columns.items():
        expected = experiment.curve("offline", column)
        assert len(expected) == values, column
        assert curve(records, column) == pytest.approx(expected), column


def test_wandb_shows_curves_against_the_step(offline):
    _, records = offline
    metrics = of_kind(records, "metric")
    assert ("trainer/global_step", "*") in {(metric.step_metric, metric.glob_name) for metric in metrics}


def wandb_table(experiment, name, split="test"):
    (path,) = experiment.run_dir(name).glob(f"wandb/offline-run-*/files/media/table/{split}/predictions*.json")
    return json.loads(path.read_text())


def test_wandb_gets_the_most_telling_predictions_and_no_more_than_asked_for(
    experiment, offline, written_predictions, most_telling
):
    table = wandb_table(experiment, "offline")
    assert table["columns"] == ["index", "text", "gold", "predicted", "p(bad)", "p(good)"]
    telling = most_telling(written_predictions("offline"))
    assert [tuple(row[i] for i in (0, 2, 3, 4)) for row in table["data"]] == [
        (row["index"], row["gold"], row["predicted"], row["probabilities"]["bad"]) for row in telling[:7]
    ]
    lines = (experiment.folder / "reviews.csv").read_text().splitlines()[1:]
    for index, text, *_ in table["data"]:
        assert lines[index].rpartition(",")[0] == text


def test_wandb_gets_the_confusion_matrix(experiment, offline, written_predictions):
    (path,) = experiment.run_dir("offline").glob("wandb/offline-run-*/files/media/table/test/confusion_matrix*.json")
    counted = {(row[0], row[1]): row[2] for row in json.loads(path.read_text())["data"]}
    rows = written_predictions("offline")
    for gold in ("bad", "good"):
        for predicted in ("bad", "good"):
            found = sum((row["gold"], row["predicted"]) == (gold, predicted) for row in rows)
            assert counted[gold, predicted] == found


def test_wandb_gets_results_in_the_summary(offline):
    result, records = offline
    summary = {
        item.key or item.nested_key[0]: json.loads(item.value_json)
        for update in of_kind(records, "summary")
        for item in update.update
    }
    for name in ("metrics", "train", "trainable_parameters", "lpt"):
        assert summary[name] == json.loads(json.dumps(result[name]))
    assert summary["train"]["peak_memory_bytes"] > 0


def test_wandb_gets_the_adapter_as_an_artifact_that_lies_in_the_run_folder(experiment, offline):
    result, records = offline
    (artifact,) = adapters(records)
    assert artifact.name == "custom-tiny-lpt"
    folder = experiment.run_dir("offline") / "adapter"
    assert {entry.path: entry.local_path for entry in artifact.manifest.contents} == {
        path.name: str(path) for path in folder.iterdir()
    }
    metadata = json.loads(artifact.metadata)
    assert metadata["result/test/accuracy"] == result["metrics"]["test"]["accuracy"]


def test_a_run_without_tables_or_artifacts_has_none(experiment):
    experiment.run("bare", "logger=wandb", "logger.rows=0", "logger.adapter=false", "trainer.max_steps=2")
    records = wandb_records(experiment.run_dir("bare"))
    assert not adapters(records)
    assert not any("predictions" in key for row in history(records) for key in row)


def test_wandb_gets_numbers_and_their_plot_of_a_regression_and_every_test_set(experiment, written_predictions):
    options = write_scores(experiment.folder)
    extra = f"task.files.extra_tests={{test_other: '{experiment.folder}/scores.csv'}}"
    experiment.run("numbers", *options, extra, "logger=wandb", "trainer.max_steps=2")
    logged = set().union(*history(wandb_records(experiment.run_dir("numbers"))))
    assert {
        f"{split}/{what}" for split in ("test", "test_other") for what in ("predictions", "scatter_table")
    } <= logged
    assert not any("confusion" in key for key in logged)
    table = wandb_table(experiment, "numbers", "test_other")
    assert table["columns"] == ["index", "text", "gold", "predicted", "p(bad)", "p(good)"]
    written = written_predictions("numbers", "test_other")
    by_error = sorted(written, key=lambda row: -abs(row["gold"] - row["predicted"]))
    errors = [abs(row[2] - row[3]) for row in table["data"]]
    assert errors == pytest.approx([abs(row["gold"] - row["predicted"]) for row in by_error])
    assert sorted(row[0] for row in table["data"]) == sorted(row["index"] for row in written)


def test_wandb_runs_are_finished_with_success(offline):
    _, records = offline
    assert [record.exit_code for record in of_kind(records, "exit")] == [0]


def test_wandb_runs_are_finished_when_the_run_fails(experiment, monkeypatch):
    def die(self, batch, batch_idx):
        raise RuntimeError("out of luck")

    monkeypatch.setattr(PromptModule, "training_step", die)
    with pytest.raises(RuntimeError, match="out of luck"):
        experiment.run("failing", "logger=wandb")
    records = wandb_records(experiment.run_dir("failing"))
    assert [record.exit_code for record in of_kind(records, "exit")] == [1]


def test_a_resumed_run_continues_its_wandb_run_even_where_its_folder_was_moved(experiment, interrupted):
    interrupted("interrupted", "logger=wandb")
    moved = experiment.run_dir("moved")
    (before,) = of_kind(wandb_records(experiment.run_dir("interrupted")), "run")
    shutil.move(experiment.run_dir("interrupted"), moved)
    experiment.run("moved", "logger=wandb", f"resume='{moved}'")
    records = wandb_records(moved)
    (after,) = of_kind(records, "run")
    assert after.run_id == before.run_id
    assert list(curve(records, "train/loss")) == [*range(6, 18)]


def test_the_command_to_sync_an_offline_run_is_printed_at_the_end(experiment, capsys):
    experiment.run("to sync", "logger=wandb", "trainer.max_steps=1")
    *_, last = capsys.readouterr().out.strip().splitlines()
    assert last.endswith(f"wandb sync '{experiment.run_dir('to sync')}/wandb'/offline-run-*")


class FakeRun:
    """Of W&B, online."""

    url = "https://wandb.example/run"

    def define_metric(self, *args, **kwargs):
        pass


@pytest.fixture
def started(experiment, monkeypatch):
    """What `wandb.init` is given where a key is set, by `started(folder, sweep)`."""
    given = {}
    monkeypatch.setattr(wandb, "login", lambda **options: True)
    monkeypatch.setattr(wandb, "init", lambda **options: given.update(options) or FakeRun())
    monkeypatch.setattr(WandbLogger, "__init__", lambda self, experiment: None)

    def start(folder, sweep=None, *options):
        folder.mkdir(exist_ok=True)
        build_loggers(experiment.config("logger=wandb", *options), folder, sweep)
        return dict(given)

    return start


def test_the_points_of_a_sweep_are_grouped_by_its_name_and_called_as_their_folders(started, tmp_path):
    given = started(tmp_path / "layer-4_seed-13_3fa9c1d2", "layers")
    assert (given["group"], given["name"]) == ("layers", "layer-4_seed-13_3fa9c1d2")
    assert given["mode"] == "online"
    assert started(tmp_path / "one")["group"] is None


def test_a_run_that_wandb_starts_has_the_id_that_wandb_knows_but_points_of_a_sweep_each_their_own(
    started, tmp_path, monkeypatch
):
    monkeypatch.setenv("WANDB_RUN_ID", "abc123")
    assert started(tmp_path / "one")["id"] == "abc123"
    points = [started(tmp_path / name, "layers")["id"] for name in ("a", "b")]
    assert len({*points, "abc123"}) == 3
    monkeypatch.delenv("WANDB_RUN_ID")
    assert started(tmp_path / "one")["id"] == "abc123"


def test_a_run_that_wandb_starts_is_named_by_what_varies(started, tmp_path, monkeypatch):
    values = "wandb_version: 1\nlpt.layer: {value: 8}\ngenerator: {value: appg}\n"
    (tmp_path / "values.yaml").write_text(values)
    monkeypatch.setenv("WANDB_SWEEP_PARAM_PATH", str(tmp_path / "values.yaml"))
    assert started(tmp_path / "one")["name"] == "layer-8_generator-appg"


def test_the_sweep_for_wandb_gives_options_that_there_are_and_a_metric_that_is_logged(experiment, offline):
    sweep = yaml.safe_load((REPOSITORY / "experiments" / "wandb_sweep.yaml").read_text())
    values = {}
    for name, parameter in sweep["parameters"].items():
        values[name] = {"value": parameter["values"][0] if "values" in parameter else parameter["min"]}
    arguments = create_sweep_command_args({"args": values})["args_no_hyphens"]
    assert sweep["command"][-1] == "${args_no_hyphens}"
    options = [text for text in sweep["command"] if "=" in text]
    config = resolve(compose_config([*options, *arguments]))
    assert config.logger.name == "wandb"
    assert config.lpt.layer == sweep["parameters"]["lpt.layer"]["values"][0]
    _, records = offline
    assert curve(records, sweep["metric"]["name"])


@pytest.mark.parametrize(
    ("variable", "options", "mode"),
    [("offline", (), "offline"), ("disabled", (), "disabled"), ("online", ("logger.offline=true",), "offline")],
)
def test_wandb_mode_is_what_was_asked_for(started, tmp_path, monkeypatch, variable, options, mode):
    monkeypatch.setenv("WANDB_MODE", variable)
    assert started(tmp_path / "one", None, *options)["mode"] == mode


def test_wandb_out_of_reach_is_one_clear_error(experiment, monkeypatch, tmp_path):
    def unreachable(**options):
        raise wandb.errors.CommError("no such host")

    monkeypatch.setattr(wandb, "init", unreachable)
    with pytest.raises(LptError, match=r"^logger=wandb: W&B cannot be used \(no such host\); with logger.offline=true"):
        build_loggers(experiment.config("logger=wandb"), tmp_path, None)


@pytest.mark.e2e
def test_several_processes_are_one_wandb_run(experiment):
    experiment.run("one process")
    done = experiment.train("two processes", "logger=wandb", "trainer.devices=2", WANDB_MODE="offline")
    folder = experiment.run_dir("two processes")
    assert len(list(folder.glob("wandb/offline-run-*"))) == 1
    records = wandb_records(folder)
    assert len(curve(records, "train/loss")) == 18
    assert [record.exit_code for record in of_kind(records, "exit")] == [0]
    assert done.stdout.count("wandb sync") == 1
    alone = experiment.curve("one process", "train/grad_norm")
    assert experiment.curve("two processes", "train/grad_norm") == pytest.approx(alone, rel=1e-3)
    # Of each process's own rows, and the mean of these.
    alone = experiment.curve("one process", "train/prompt_norm_ratio")
    assert experiment.curve("two processes", "train/prompt_norm_ratio") == pytest.approx(alone, rel=0.05)
