"""Sweeps of the real command on a tiny backbone, killed and resumed."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest
from experiment import REPOSITORY, make_experiment

from lpt.sweep import processes
from lpt.sweep.ledger import Ledger

pytestmark = pytest.mark.e2e
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
EPOCHS = 8


@pytest.fixture(scope="module")
def experiment(tmp_path_factory):
    return make_experiment(tmp_path_factory.mktemp("it's an experiment, with dropout"))


def arguments(experiment, name: str, *options: str) -> list[str]:
    folder = str(experiment.folder / name).replace("'", "\\'")
    own = [
        option.replace(str(experiment.folder), str(experiment.folder).replace("'", "\\'"))
        for option in experiment.options
    ]
    return ["-m", *own, f"trainer.max_epochs={EPOCHS}", "lpt.layer=2", f"hydra.sweep.dir='{folder}'", *options]


def results(experiment, name: str) -> dict[str, dict]:
    """result.json by the readable part of the point's name."""
    found = (experiment.folder / name).glob("*/result.json")
    return {path.parent.name.rpartition("_")[0]: json.loads(path.read_text()) for path in found}


@pytest.fixture(scope="module")
def undisturbed(experiment):
    """One point in one process, and one in two: the second by DDP."""
    return experiment.command(*arguments(experiment, "undisturbed", "trainer.devices=1,2"))


def test_a_sweep_and_several_devices_combine(experiment, undisturbed):
    assert undisturbed.stderr == ""
    assert "2 points: 2 completed" in undisturbed.stdout
    assert (experiment.folder / "latest").is_symlink()
    assert [*(experiment.folder / "undisturbed").glob("latest")] == []  # a point is not for itself
    one, two = (results(experiment, "undisturbed")[f"devices-{count}"] for count in (1, 2))
    assert one["train"]["steps"] == two["train"]["steps"]
    assert one["trainable_parameters"] == two["trainable_parameters"]
    (log,) = (experiment.folder / "undisturbed").glob("devices-2_*/train.log")
    assert len(re.findall("^step ", log.read_text(), re.MULTILINE)) == EPOCHS, "each rank trained on its own"


def launched(experiment, name: str, *options: str) -> tuple[subprocess.Popen, Path]:
    """A sweep that is in the midst of training: its launcher, and the folder of the point that is."""
    line = arguments(experiment, name, *options)
    launcher = subprocess.Popen(
        [sys.executable, "train.py", *line], cwd=REPOSITORY, env=ENVIRONMENT, stdout=subprocess.DEVNULL
    )
    while not (begun := list((experiment.folder / name).glob("*/checkpoints/last.ckpt"))):
        assert launcher.poll() is None
        time.sleep(0.005)
    return launcher, begun[0].parents[1]


def resume(experiment, name: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "lpt", "sweep", "resume", str(experiment.folder / name)]
    return subprocess.run(command, cwd=REPOSITORY, env=ENVIRONMENT, capture_output=True, text=True, timeout=200)


def assert_same(found: dict, expected: dict) -> None:
    for fact in ("status", "lpt", "data", "metrics", "intervals", "best_step"):
        assert found[fact] == expected[fact], fact


def test_a_killed_sweep_resumes_and_ends_as_one_that_was_not(experiment, undisturbed):
    """The launcher dies and the worker with it, in the midst of training; of the two points, one always fails."""
    options = ("lpt.layer=2,9", "hydra.launcher.retries=0")
    launcher, begun = launched(experiment, "killed", *options)
    launcher.kill()
    launcher.wait()
    processes.kill(begun)
    assert not (begun / "result.json").exists(), "it ended before it could be interrupted"

    resumed = resume(experiment, "killed")
    assert (resumed.returncode, resumed.stderr) == (1, "")
    assert "    error: lpt.layer=9 does not exist: tiny has L=4 layers; choose 1..4" in resumed.stdout
    assert "attempt 2, from its last checkpoint" in (begun / "train.log").read_text()
    assert_same(results(experiment, "killed")["layer-2"], results(experiment, "undisturbed")["devices-1"])

    again = experiment.command(*arguments(experiment, "killed", *options), check=False)
    assert again.stdout.splitlines()[0] == "2 points: 1 completed, 1 failed"
    assert (again.returncode, again.stderr) == (1, "")


def test_ctrl_c_ends_every_rank_of_a_point_within_seconds_and_resume_completes_it(experiment, undisturbed):
    launcher, begun = launched(experiment, "interrupted", "trainer.devices=2")
    assert len(processes.find(begun)) > 1
    launcher.send_signal(signal.SIGINT)
    assert launcher.wait(timeout=20) == 130
    assert processes.find(begun) == []
    with closing(Ledger(begun.parent)) as ledger:
        assert [(row.status, row.error) for row in ledger.rows()] == [("pending", "interrupted")]

    resumed = resume(experiment, "interrupted")
    assert (resumed.returncode, resumed.stderr) == (0, "")
    (found,) = results(experiment, "interrupted").values()
    assert_same(found, results(experiment, "undisturbed")["devices-2"])
