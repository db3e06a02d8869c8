"""Real processes that are really killed, again and again; what they end with is what an undisturbed one has.

`make test` runs a small share, with fixed seeds; `make torture` the long form (`LPT_TORTURE=<number of kills>`).
"""

import gc
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from contextlib import contextmanager, suppress

import psutil
import pytest
import torch
from experiment import make_experiment
from slurm import free_port
from traces import differences, traces

from lpt.errors import LptError
from lpt.training.checkpoints import read_checkpoint
from lpt.training.module import PromptModule
from lpt.training.result import CompletedRun, read_result

KILLS = int(os.environ.get("LPT_TORTURE", "5"))
OPTIONS = ("trainer.eval_every=4", "trainer.save_every=1e-9", "trainer.max_epochs=4", "trainer.progress=false")
CASES = {
    "cached": (1, ()),  # and read-only
    "uncached": (1, ("cache=off", "lpt.trunk_dropout=true", "lpt.read_only=false")),
    "two processes": (2, ("trainer.devices=2",)),
}

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="starts processes by fork"),
    pytest.mark.filterwarnings("ignore:This process:DeprecationWarning"),
]


@pytest.fixture(scope="module")
def experiment(tmp_path_factory):
    return make_experiment(tmp_path_factory.mktemp("an experiment"))


def start(experiment, name: str, options, ranks: int) -> list[int]:
    """The processes of a run. They are forked, as importing torch in each takes longer than the run."""
    port, pids = free_port(), []
    for rank in range(ranks):
        pid = os.fork()
        if pid == 0:
            try:
                with open(os.devnull, "w") as null:
                    os.dup2(null.fileno(), 1)
                    os.dup2(null.fileno(), 2)
                if ranks > 1:
                    os.environ |= {
                        "TORCHELASTIC_RUN_ID": "torture",
                        "MASTER_ADDR": "127.0.0.1",
                        "MASTER_PORT": port,
                        "RANK": str(rank),
                        "LOCAL_RANK": str(rank),
                        "WORLD_SIZE": str(ranks),
                        "LOCAL_WORLD_SIZE": str(ranks),
                    }
                torch.set_num_threads(1)
                experiment.run(name, *options)
                os._exit(0)
            finally:
                os._exit(1)
        pids.append(pid)
    return pids


def wait(pids: list[int], seconds: float) -> None:
    """Until all have ended, or for some seconds."""
    left, until = list(pids), time.monotonic() + seconds
    while left and time.monotonic() < until:
        left = [pid for pid in left if os.waitpid(pid, os.WNOHANG)[0] == 0]
        time.sleep(0.002)
    pids[:] = left


def kill(pids: list[int], chance: random.Random) -> None:
    """Kill all processes of a run, or one, and the others when they have noticed; now and then they are asked first."""
    if chance.random() < 0.3:
        for pid in chance.sample(pids, chance.randint(1, len(pids))):
            os.kill(pid, chance.choice([signal.SIGTERM, signal.SIGINT, signal.SIGUSR1]))
        wait(pids, chance.choice([0.0, 0.05, 5.0]))
    for pid in list(pids):
        if pid in pids:  # it may have ended meanwhile
            os.kill(pid, signal.SIGKILL)
            wait(pids, chance.choice([0.0, 0.1]))
    wait(pids, 20)
    assert not pids, "a process outlives SIGKILL"


@pytest.mark.parametrize("case", CASES)
def test_a_run_that_is_killed_again_and_again_ends_with_the_same_bits(experiment, case):
    ranks, own = CASES[case]
    options, chance, kills, lives = (*OPTIONS, *own), random.Random(case), 0, 0
    plain = start(experiment, f"undisturbed {case}", options, ranks)
    began = time.monotonic()
    wait(plain, 120)
    whole = time.monotonic() - began
    expected = traces(experiment.run_dir(f"undisturbed {case}"))
    while kills < KILLS:
        name, lives = f"{case} {lives}", lives + 1
        while not isinstance(read_result(experiment.run_dir(name)), CompletedRun):
            resumed = (f"resume='{experiment.run_dir(name)}'",) if experiment.run_dir(name).exists() else ()
            pids = start(experiment, name, (*options, *resumed), ranks)
            if kills < KILLS:
                wait(pids, chance.uniform(0, whole))
            else:
                wait(pids, 120)
            if pids:
                kill(pids, chance)
                kills += 1
        assert differences(traces(experiment.run_dir(name)), expected) == [], name
    print(f"{case}: {kills} kills in {lives} runs, each compared bit for bit; a run takes {whole:.1f} s")


def test_ten_processes_that_start_at_once_on_an_empty_cache_all_succeed(experiment, tmp_path, monkeypatch):
    monkeypatch.setenv("LPT_CACHE", str(tmp_path / "cache"))
    options = ("trainer.max_steps=3", "trainer.progress=false", "cache=disk")
    pids = [pid for i in range(10) for pid in start(experiment, f"at once {i}", options, ranks=1)]
    wait(pids, 120)
    assert not pids
    results = [experiment.result(f"at once {i}") for i in range(10)]
    assert {result["status"] for result in results} == {"completed"}
    assert len({str(result["metrics"]) for result in results}) == 1
    assert sum(bool(result["cache"]["built"]) for result in results) >= 1
    assert not list((tmp_path / "cache").rglob("*.partial"))


def test_memory_stays_flat_over_many_steps(experiment, monkeypatch):
    steps, seen = 100 * KILLS, {}

    def look(self, *_):
        if self.global_step in (steps // 4, steps):
            gc.collect()
            seen[self.global_step] = psutil.Process().memory_info().rss

    monkeypatch.setattr(PromptModule, "on_train_batch_end", look)
    experiment.run("soak", f"trainer.max_steps={steps}", f"trainer.eval_every={steps // 10}", "trainer.progress=false")
    growth = (seen[steps] - seen[steps // 4]) / 1e6
    assert growth < 20
    print(f"soak: {growth:.1f} MB more after {steps} steps than after {steps // 4}")


@contextmanager
def small_disk(folder, size: str):
    """A file system of a few kilobytes; None where this user may not mount one."""
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "none", str(folder)], capture_output=True)
    if mounted.returncode:
        pytest.skip("may not mount a small disk here")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)  # this process may still map a file of it


@pytest.mark.skipif(sys.platform != "linux", reason="mounts a small disk as Linux does")
def test_a_full_disk_is_told_in_one_line_and_what_was_saved_is_resumed_from(experiment, tmp_path, monkeypatch):
    plain = experiment.run("whole disk", *OPTIONS)
    with small_disk(tmp_path / "disk", "256k") as disk:
        monkeypatch.setattr(type(experiment), "run_dir", lambda self, name: disk / name)
        message = "No space left"
        chance, faults, lives = random.Random(0), 0, 0
        ballast = disk / "ballast"
        while faults < max(2, KILLS // 4):
            name, lives = f"x{lives}", lives + 1
            while not isinstance(read_result(disk / name), CompletedRun):
                resumed = (f"resume='{disk / name}'",) if (disk / name / "checkpoints").exists() else ()
                full = faults < max(2, KILLS // 4)
                with suppress(OSError):  # it may fill what is left by itself
                    ballast.write_bytes(bytes(chance.randrange(150, 245) * 1024 if full else 0))
                try:
                    experiment.run(name, *OPTIONS, *resumed)
                except (LptError, OSError) as error:
                    faults += 1
                    message = str(error)
                ballast.unlink()
                assert "\n" not in message
                assert "could not be written" in message or "No space left" in message, message
            result = experiment.result(name)
            assert result["metrics"] == plain["metrics"]
            assert result["best_step"] == plain["best_step"]
            shutil.rmtree(disk / name)
    print(f"{faults} runs met a full disk")


def at_step(monkeypatch, step: int, action) -> None:
    """Have something happen once, after a training step."""
    after_step = PromptModule.on_train_batch_end

    def act(self, *arguments):
        after_step(self, *arguments)
        if self.global_step == step:
            action()

    monkeypatch.setattr(PromptModule, "on_train_batch_end", act)


def remount(folder, how: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{how}", str(folder)], check=True)


@pytest.mark.skipif(sys.platform != "linux", reason="mounts a small disk as Linux does")
def test_a_folder_that_becomes_read_only_is_told_in_one_line_and_what_was_saved_is_resumed_from(
    experiment, tmp_path, monkeypatch
):
    plain = experiment.run("writable", *OPTIONS)
    with small_disk(tmp_path / "disk", "8m") as disk:
        folder = disk / "run"
        monkeypatch.setattr(type(experiment), "run_dir", lambda self, name: disk / name)
        with monkeypatch.context() as patch:
            at_step(patch, 6, lambda: remount(disk, "ro"))
            with pytest.raises(LptError, match=r"could not be written \(Read-only file system\)") as error:
                experiment.run("run", *OPTIONS)
        assert "\n" not in str(error.value)
        assert 1 <= read_checkpoint(folder / "checkpoints" / "last.ckpt")["global_step"] <= 6
        remount(disk, "rw")
        result = experiment.run("run", *OPTIONS, f"resume='{folder}'")
    assert result["metrics"] == plain["metrics"]


@pytest.mark.skipif(sys.platform != "linux", reason="mounts a small disk as Linux does")
@pytest.mark.parametrize("filled", [False, True])
def test_a_cache_folder_that_is_read_only_is_left_with_a_warning(experiment, tmp_path, monkeypatch, capsys, filled):
    plain = experiment.run(f"cache writable {filled}", "trainer.max_steps=3", "cache=disk")
    with small_disk(tmp_path / "disk", "8m") as disk:
        monkeypatch.setenv("LPT_CACHE", str(disk))
        if filled:
            experiment.run("cache filled", "trainer.max_steps=3", "cache=disk")
        remount(disk, "ro")
        capsys.readouterr()
        result = experiment.run(f"cache read-only {filled}", "trainer.max_steps=3", "cache=disk")
    said = capsys.readouterr()
    assert result["metrics"]["test"] == pytest.approx(plain["metrics"]["test"], rel=1e-5)
    assert "warning: trunk cache: off, because" in said.out + said.err
    assert "Read-only file system" in said.out + said.err


def test_a_run_folder_that_is_removed_during_training_is_told_in_one_line(experiment, monkeypatch):
    at_step(monkeypatch, 6, lambda: shutil.rmtree(experiment.run_dir("removed")))
    with pytest.raises(LptError, match="gone") as error:
        experiment.run("removed", *OPTIONS)
    assert "\n" not in str(error.value)
