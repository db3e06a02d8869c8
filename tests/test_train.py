"""The real command in processes of its own, on a tiny backbone without dropout."""

import json
import re
import shlex

import pytest
import slurm
from experiment import make_experiment
from places import REPOSITORY

from lpt.config.flags import assignment
from lpt.latest import follow

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def experiment(tmp_path_factory):
    return make_experiment(tmp_path_factory.mktemp("an experiment"), "llama")


@pytest.fixture(scope="module")
def one(experiment):
    return experiment.train("one", "trainer.eval_batch_size=7", "cache=off")


def test_the_command_prints_a_table_and_nothing_else_on_stderr(experiment, one):
    result = experiment.result("one")
    assert one.stderr == ""
    assert follow(experiment.run_dir("latest")).is_dir()
    for line in (
        "task                 custom  (44 train, 30 validation, 30 test)",
        "prompt               npg, 5 prompt tokens entering layer 3, read-only",
        f"test accuracy        {result['metrics']['test']['accuracy']:.3f}  (95% interval",
    ):
        assert line in one.stdout
    assert one.stdout.count("validation/accuracy") == 3  # a line per evaluation
    assert (experiment.run_dir("one") / ".hydra" / "config.yaml").is_file()
    assert result["git"] is None or len(result["git"]["commit"]) == 40


TWO_PROCESSES = ("trainer.devices=2", "trainer.eval_batch_size=7", "cache=off")


def test_two_processes_change_nothing(experiment, one):
    """44 rows in batches of 8 leave an uneven last batch; 30 rows in batches of 7 an uneven number of them."""
    experiment.train("two processes", *TWO_PROCESSES)
    assert_same(experiment, "two processes")


def test_micro_batches_change_nothing(experiment, one):
    experiment.run("micro-batches", "optim.gradient_accumulation=3", "trainer.eval_batch_size=30")
    assert_same(experiment, "micro-batches")


def assert_same(experiment, name):
    found, expected = experiment.result(name), experiment.result("one")
    assert found["data"] == expected["data"]
    assert found["best_step"] == expected["best_step"]
    for error in ("ece", "ece_before"):
        assert found["calibration"][error] == pytest.approx(expected["calibration"][error], abs=1e-3), error
    assert found["calibration"]["temperature"] == pytest.approx(expected["calibration"]["temperature"], rel=1e-2) != 1
    for split in ("validation", "test"):
        assert found["metrics"][split] == pytest.approx(expected["metrics"][split], rel=1e-4)
        written = [(experiment.run_dir(run) / "predictions" / f"{split}.jsonl").read_text() for run in (name, "one")]
        rows = [[json.loads(line) for line in text.splitlines()] for text in written]
        assert [row["index"] for row in rows[0]] == [row["index"] for row in rows[1]]
        for a, b in zip(*rows, strict=True):
            assert a["probabilities"] == pytest.approx(b["probabilities"], abs=1e-4)
    for column in ("validation/loss", "validation/accuracy"):
        assert experiment.curve(name, column) == pytest.approx(experiment.curve("one", column), rel=1e-4), column


def test_the_loss_curve_does_not_depend_on_the_number_of_processes(experiment, one):
    if not (experiment.run_dir("two processes") / "metrics.csv").exists():
        experiment.train("two processes", *TWO_PROCESSES)
    for column in ("train/loss", "lr"):
        curves = [experiment.curve(name, column) for name in ("two processes", "one")]
        assert len(curves[0]) == 18
        assert curves[0] == pytest.approx(curves[1], rel=1e-4), column


def test_a_node_started_by_hand_changes_nothing(experiment, one, tmp_path):
    """Two nodes with a cache on a disk of each: nobody but the first node could read it, so it is left alone."""
    options = [*experiment.options, f"hydra.run.dir='{experiment.run_dir('two nodes')}'", "trainer.nodes=2"]
    place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": slurm.free_port()}
    nodes = [{**place, "NODE_RANK": str(node), "LPT_CACHE": str(tmp_path / str(node))} for node in range(2)]
    first, second = experiment.together(nodes, *options, "cache=disk")
    assert_same(experiment, "two nodes")
    assert f"off, because not every node sees {tmp_path / '0' / 'trunk'}; set LPT_CACHE" in first.stdout
    assert experiment.result("two nodes")["cache"]["mode"] == "off"
    assert (second.stdout, second.stderr) == ("", "")


def test_tasks_of_a_slurm_job_agree_on_a_folder_and_change_nothing(experiment, one, tmp_path):
    tasks = [{**task, "LPT_CACHE": str(tmp_path)} for task in slurm.tasks(nodes=2, on_each=1, job=71)]
    first, second = experiment.together(tasks, *experiment.options, "trainer.nodes=2", "cache=disk")
    (folder,) = (experiment.folder / "runs").glob("slurm-*")
    assert folder.name == "slurm-71.0_custom_tiny_lpt"
    assert re.search(rf"^run folder  +{re.escape(str(folder))}$", first.stdout, re.MULTILINE)
    assert (folder / ".hydra" / "config.yaml").is_file()
    assert_same(experiment, folder.name)
    built = experiment.result(folder.name)["cache"]["built"]
    assert built == ["train", "train", "validation", "validation", "test", "test"]
    assert (second.stdout, second.stderr) == ("", "")
    experiment.together(slurm.tasks(2, 1, job=72), f"resume='{folder}'", "trainer.max_epochs=4")
    assert experiment.result(folder.name)["train"]["steps"] == 24
    bad = experiment.together(tasks, "trainer.nodes=2", "lpt.layer=0", check=False)
    assert [done.returncode for done in bad] == [2, 2]
    assert [done.stderr.count("lpt.layer=0 must be at least 1") for done in bad] == [1, 0]


def test_the_number_of_processes_does_not_change_what_is_cached(experiment, tmp_path, monkeypatch):
    states, metrics = [], []
    options = ["cache=disk", "trainer.max_steps=2", "lpt.read_only=true"]
    monkeypatch.setenv("LPT_CACHE", str(tmp_path / "1"))
    experiment.run("caching on 1", *options)
    experiment.train("caching on 2", *options, "trainer.devices=2", LPT_CACHE=str(tmp_path / "2"))
    for devices in (1, 2):
        cache = tmp_path / str(devices)
        states.append({path.parent.name: path.read_bytes() for path in cache.glob("trunk/*/numbers.bin")})
        metrics.append(experiment.result(f"caching on {devices}")["metrics"])
    assert len(states[0]) == 6  # of three splits, the states entering layer k, and keys and values from it on
    assert states[0] == states[1]
    for split, values in metrics[0].items():
        assert metrics[1][split] == pytest.approx(values, rel=1e-4)


def test_a_finished_run_is_left_as_it_is_and_resumed_with_more_epochs_continues_in_its_folder(experiment):
    experiment.train("short", "trainer.max_epochs=1")
    config = (experiment.run_dir("short") / ".hydra" / "config.yaml").read_text()
    files = {path: path.stat().st_mtime_ns for path in experiment.run_dir("short").rglob("*")}
    command = shlex.join(["python", f"{REPOSITORY}/train.py", assignment("resume", experiment.run_dir("short"))])
    validation, test = (experiment.result("short")["metrics"][split]["accuracy"] for split in ("validation", "test"))
    scores = f"validation accuracy {validation:.3f}, test accuracy {test:.3f}"
    assert experiment.resume("short", "trainer.max_epochs=1").stdout.splitlines() == [
        f"{experiment.run_dir('short')} is complete: {scores}, best step 6 of 6",
        f"to train it further: {command} trainer.max_epochs=<more than 1>",
    ]
    assert {path: path.stat().st_mtime_ns for path in experiment.run_dir("short").rglob("*")} == files
    done = experiment.resume("short", "trainer.max_epochs=2")
    assert experiment.result("short")["train"]["steps"] == 12
    assert sorted(experiment.curve("short", "train/loss")) == list(range(12))
    assert (experiment.run_dir("short") / ".hydra" / "config.yaml").read_text() == config
    assert done.stderr == ""


def test_full_fine_tuning_trains_alike_on_several_processes(experiment):
    few = ["method=full", "head=linear", "optim.lr=1e-3", "trainer.max_steps=6", "trainer.eval_every=3"]
    experiment.run("full on one", *few)
    experiment.train("full on two", *few, "trainer.devices=2")
    for column in ("train/loss", "validation/loss"):
        alone, together = (experiment.curve(f"full on {count}", column) for count in ("one", "two"))
        assert alone
        assert together == pytest.approx(alone, rel=1e-4), column
