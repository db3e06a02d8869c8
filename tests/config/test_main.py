"""The command that trains tells at once what it is about to do."""

import subprocess
import sys

import pytest
from places import REPOSITORY

from lpt.config.main import Training
from lpt.training import run as training

# What is printed until training would begin, and whether torch was waited for.
UNTIL_TRAINING = """
import sys
from lpt.config.main import Training, main
Training._run = lambda self, config, folder, rows, started: print("torch" in sys.modules, started is not None)
main()
"""
CHOICES = ("task=film_reviews", "backbone=minilm-l6", "method=lora", "head=linear")
LOADING = "loading task=film_reviews backbone=minilm-l6 method=lora ..."


def printed(*arguments: str, tmp_path, code: str = UNTIL_TRAINING, **environment: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-c", code, *CHOICES, f"hydra.run.dir='{tmp_path}/run'", *arguments],
        capture_output=True,
        text=True,
        env={"PYTHONPATH": str(REPOSITORY), **environment},
    )


def test_the_first_line_comes_before_torch_is_imported(tmp_path):
    assert printed(tmp_path=tmp_path).stdout.splitlines() == [LOADING, "False True"]
    resumed = printed(tmp_path=tmp_path, LOCAL_RANK="1").stdout.splitlines()
    assert resumed == ["False True"]  # the first process speaks


def test_ctrl_c_while_libraries_are_loaded_ends_as_it_does_later(tmp_path):
    code = (
        "import os, signal, sys\nfrom lpt.config.main import main\n"
        "class Stop:\n    @staticmethod\n    def find_spec(name, *_):\n"
        "        if name == 'torch': os.kill(os.getpid(), signal.SIGINT)\n"
        "sys.meta_path.insert(0, Stop)\nmain()"
    )
    run = tmp_path / "run"
    done = printed(tmp_path=tmp_path, code=code)
    assert (done.returncode, done.stdout) == (130, f"{LOADING}\n")
    assert done.stderr == f"\ninterrupted; resume with: python -c resume={run}\n"
    assert (run / ".hydra" / "config.yaml").is_file()


@pytest.mark.parametrize("argument", ["--help", "--cfg=job", "lpt.layr=3", "task.source=tsv"])
def test_help_configuration_and_complaints_are_all_that_is_printed(tmp_path, argument):
    done = printed(argument, tmp_path=tmp_path)
    assert "loading" not in done.stdout
    assert done.stdout or done.stderr.startswith("error: ")


def test_the_wall_time_is_that_of_the_command_and_then_of_each_further_run(monkeypatch, tmp_path):
    times = []

    class Result:
        objective = 0.5

    monkeypatch.setattr(training, "run", lambda config, folder, sweep, rows, started: times.append(started) or Result)
    for name in ("run_dir", "resolve", "_read_own_rows", "_say_what_is_loaded", "sweep_name", "point_latest"):
        monkeypatch.setattr(f"lpt.config.main.{name}", lambda *_: None)
    cfg = type("Cfg", (), {"resume": None})
    command = Training(started=12.5)
    assert [command(cfg), command(cfg)] == [0.5, 0.5]
    assert times == [12.5, None]
