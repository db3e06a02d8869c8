"""Sweeps of the real command on a tiny backbone, killed and gone on with."""

import json
import os
import re
import subprocess
import sys
import time

import pytest
from experiment import REPOSITORY, make_experiment

from lpt.sweep import processes

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
    one, two = (results(experiment, "undisturbed")[f"devices-{count}"] for count in (1, 2))
    assert one["train"]["steps"] == two["train"]["steps"]
    assert one["trainable_parameters"] == two["trainable_parameters"]
    (log,) = (experiment.folder / "undisturbed").glob("devices-2_*/train.log")
    assert len(re.findall("^step ", log.read_text(), re.MULTILINE)) == EPOCHS, "each rank trained on its own"


def test_a_sweep_that_was_killed_goes_on_and_ends_as_one_that_was_not(experiment, undisturbed):
    """The launcher dies and the worker with it, in the midst of training; of the two points, one always fails."""
    folder = experiment.folder / "killed"
    line = arguments(experiment, "killed", "lpt.layer=2,9", "hydra.launcher.retries=0")
    launcher = subprocess.Popen(
        [sys.executable, "train.py", *line], cwd=REPOSITORY, env=ENVIRONMENT, stdout=subprocess.DEVNULL
    )
    while not (begun := [path.parents[1] for path in folder.glob("*/checkpoints/last.ckpt")]):
        assert launcher.poll() is None
        time.sleep(0.005)
    launcher.kill()
    launcher.wait()
    processes.kill(begun[0])
    assert not (begun[0] / "result.json").exists(), "it was over too soon to be cut"

    command = [sys.executable, "-m", "lpt", "sweep", "resume", str(folder)]
    resumed = subprocess.run(command, cwd=REPOSITORY, env=ENVIRONMENT, capture_output=True, text=True, timeout=200)
    assert (resumed.returncode, resumed.stderr) == (1, "")
    assert "    error: lpt.layer=9 does not exist: tiny has L=4 layers; choose 1..4" in resumed.stdout
    assert "attempt 2, from its last checkpoint" in (begun[0] / "train.log").read_text()
    found, expected = results(experiment, "killed")["layer-2"], results(experiment, "undisturbed")["devices-1"]
    for fact in ("status", "lpt", "data", "metrics", "intervals", "best_step"):
        assert found[fact] == expected[fact], fact

    again = experiment.command(*line, check=False)
    assert again.stdout.splitlines()[0] == "2 points: 1 completed, 1 failed"
    assert (again.returncode, again.stderr) == (1, "")
