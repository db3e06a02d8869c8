"""Several processes of a run: do they do the same, and what if one is lost."""

import os
import signal
import subprocess
import sys
import time

import psutil
import pytest
import torch.distributed
from experiment import make_experiment
from places import REPOSITORY

from lpt.errors import LptError
from lpt.training.together import check_agreement, lost_process


class Trainer:
    """As much of one as is asked for."""

    class strategy:  # noqa: N801
        launcher = None

    def __init__(self, world_size):
        self.world_size = world_size


@pytest.fixture
def others(monkeypatch):
    """Sets what the other processes say of themselves."""

    def set_to(change):
        def gather(found, own):
            found[:] = [own, *([own | change] * (len(found) - 1))]

        monkeypatch.setattr(torch.distributed, "all_gather_object", gather)

    return set_to


def test_processes_with_other_rows_or_options_are_told_before_they_begin(others):
    facts = {"data": {"train": "ab12"}, "configuration": {"seed": 1}}
    others({})
    check_agreement(Trainer(4), facts)
    others({"data": "x", "configuration": "y"})
    with pytest.raises(
        LptError, match=r"^process 1 of the run has another data and another configuration than process 0"
    ):
        check_agreement(Trainer(4), facts)
    check_agreement(Trainer(1), facts)


def test_errors_of_other_kinds_are_not_blamed_on_a_lost_process():
    gone = RuntimeError("[gloo/transport/tcp/pair.cc:537] Read error: Connection reset by peer")
    assert lost_process(Trainer(2), gone) is not None
    assert lost_process(Trainer(1), gone) is None
    assert lost_process(Trainer(2), RuntimeError("out of memory")) is None
    assert lost_process(Trainer(2), ValueError("Connection reset by peer")) is None


@pytest.mark.e2e
def test_a_rank_that_is_killed_takes_the_run_down_within_seconds_and_is_named(tmp_path):
    experiment = make_experiment(tmp_path)
    folder = experiment.run_dir("x")
    command = [sys.executable, "train.py", *experiment.options, f"hydra.run.dir='{folder}'", "trainer.devices=2"]
    command += ["trainer.max_steps=100000", "trainer.eval_every=100000", "trainer.save_every=0.1"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    run = subprocess.Popen(command, cwd=REPOSITORY, env=environment, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL)
    try:
        until = time.monotonic() + 60
        while not (folder / "checkpoints" / "last.ckpt").exists() and time.monotonic() < until:
            time.sleep(0.1)
        (rank,) = [c for c in psutil.Process(run.pid).children(recursive=True) if "train.py" in " ".join(c.cmdline())]
        rank.send_signal(signal.SIGKILL)
        _, error = run.communicate(timeout=20)
    finally:
        run.kill()
    assert run.returncode == 1
    assert error.decode().splitlines()[-1].startswith("error: process 1 has ended by SIGKILL; what it printed says why")
    assert "Traceback" not in error.decode()
