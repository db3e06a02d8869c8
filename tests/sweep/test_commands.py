"""`lpt sweep ...`, with a trivial job in place of training."""

import csv
import io
import json
import shlex
import socket
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest
from miniature import DONE, shell
from omegaconf import DictConfig, OmegaConf
from results import failed

from lpt.cli import main
from lpt.config.command_line import check_command_line
from lpt.config.compose import compose_points
from lpt.config.resolve import resolve
from lpt.config.resume import restore
from lpt.config.saved import read_saved_overrides
from lpt.sweep import launcher
from lpt.sweep.launcher import train_command, work_on
from lpt.sweep.ledger import Ledger, enter
from lpt.sweep.points import make_point, result_facts

OPTIONS = {"workers": 2, "retries": 0, "grace_period": 1.0}


@pytest.fixture
def folder(tmp_path) -> Path:
    return tmp_path / "it's a sweep"


@pytest.fixture
def job(monkeypatch):
    """Sets the job to run in place of training; what options compose to is computed once for all tests."""
    monkeypatch.setattr(launcher, "compose_points", lambda points, flags: [composed(tuple(each)) for each in points])

    def set_to(script: str) -> None:
        monkeypatch.setattr(launcher, "train_command", shell(script))

    set_to(DONE)
    return set_to


@cache
def composed(overrides: tuple[str, ...]) -> DictConfig:
    """What `train.py` composes of these overrides; not to be changed."""
    (cfg,) = compose_points([overrides])
    return cfg


def begin(folder: Path, *lines: str, work: bool = True, search: str | None = None) -> Ledger:
    """A sweep over the points of these command lines."""
    overrides = [shlex.split(line) for line in lines]
    points = []
    for given in overrides:
        cfg = composed(tuple(given))
        points.append(make_point(given, resolve(cfg), ["seed"], OmegaConf.to_yaml(cfg, resolve=True)))
    ledger = Ledger(folder, create=True)
    names = enter(ledger, points, start={"flags": [], "cwd": str(folder), "options": OPTIONS, "search": search})
    if work:
        work_on(ledger, names, OPTIONS)
    return ledger


def test_help_does_not_wait_for_torch():
    code = (
        "import sys, lpt.cli, lpt.sweep.launcher, lpt.sweep.commands\ntry: lpt.cli.main(['sweep', '--help'])\n"
        "except SystemExit: pass\nassert 'torch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "retry-failed" in done.stdout


def test_status_lists_every_point_and_says_how_to_resume(folder, job, capsys):
    job(f'case "$1" in *seed-2_*) echo "what went wrong"; exit 3;; esac; {DONE}')
    ledger = begin(folder, "seed=1", "seed=2")
    begin(folder, "seed=3", "seed=4", work=False).started(ledger.rows()[2].name, socket.gethostname())
    capsys.readouterr()
    main(["sweep", "status", str(folder)])
    *lines, counted, hint = capsys.readouterr().out.splitlines()
    shown = [" ".join(line.split()[1:]) for line in lines[1:]]
    assert [line.split()[0] for line in lines[1:]] == [row.name for row in ledger.rows()]
    assert shown[0].startswith("completed 1 0:0")
    assert shown[0].endswith(" 1.0000")
    assert shown[1].endswith("ended with exit status 3")
    assert shown[2].startswith("running 1")
    assert shown[2].endswith("interrupted: its process is gone")
    assert shown[3] == "pending 0"
    assert counted.strip() == "4 points: 1 completed, 1 running, 1 failed, 1 pending"
    assert hint == f"no process is working on it; resume with: lpt sweep resume {shlex.quote(str(folder))}"


def test_results_have_a_column_for_what_varies_and_a_line_for_points_without_metrics(folder, job, capsys):
    job(f'case "$1" in *seed-2_*) exit 3;; esac; {DONE}')
    begin(folder, "seed=1 lpt.layer=4 generator=npg", "seed=2 lpt.layer=4 generator=npg")
    capsys.readouterr()
    main(["sweep", "results", "--csv", str(folder)])
    one, two = csv.DictReader(io.StringIO(capsys.readouterr().out))
    assert (one["seed"], one["status"], one["validation x"]) == ("1", "completed", "1.0000")
    assert (two["seed"], two["status"], two["validation x"]) == ("2", "failed", "")
    assert "lpt.layer" not in one
    main(["sweep", "results", str(folder)])
    assert "2 points: 1 completed, 1 failed" in capsys.readouterr().out


def test_values_and_errors_in_brackets_are_shown_as_they_are(folder, job, capsys):
    error = "[enforce fail at alloc.cpp:114] cannot read [/data/x.csv]"
    job(f"""printf '%s' '{json.dumps(failed(error))}' > "$1"/result.json; exit 1""")
    begin(folder, "seed=1 task.labels=[fresh,rotten]", "seed=2")
    capsys.readouterr()
    main(["sweep", "status", str(folder)])
    assert capsys.readouterr().out.count(error) == 2
    main(["sweep", "results", str(folder)])
    assert "[fresh,rotten]" in capsys.readouterr().out


def test_resuming_starts_what_is_missing_and_does_not_touch_what_has_failed(folder, job, capsys):
    job(f'case "$1" in *seed-2_*) echo "what went wrong"; exit 3;; esac; {DONE}')
    begin(folder, "seed=1", "seed=2")
    assert "    what went wrong\n" in capsys.readouterr().out
    ledger = begin(folder, "seed=3", work=False)
    with pytest.raises(SystemExit, match="1"):
        main(["sweep", "resume", str(folder)])
    assert [(row.status, row.attempts) for row in ledger.rows()] == [("completed", 1), ("failed", 1), ("completed", 1)]
    assert f"to try again: lpt sweep retry-failed {shlex.quote(str(folder))}" in capsys.readouterr().out


def test_resuming_a_search_works_on_its_points_and_says_how_to_resume_the_search(folder, job, capsys):
    command = "python train.py -m hydra/sweeper=optuna"
    begin(folder, "seed=1", work=False, search=command)
    main(["sweep", "status", str(folder)])
    assert capsys.readouterr().out.endswith(f"no process is working on it; resume with: {command}\n")
    main(["sweep", "resume", str(folder)])
    *_, last = capsys.readouterr().out.splitlines()
    assert last == f"these are the points proposed so far; resume the search with: {command}"


def test_a_sweep_ends_by_saying_how_to_send_wandb_runs_that_were_kept_offline(folder, job, capsys):
    begin(folder, "seed=1")
    assert "wandb" not in capsys.readouterr().out
    job(f'mkdir -p "$1"/wandb/offline-run-20261121_7; {DONE}')
    begin(folder, "seed=2")
    assert f"wandb sync {shlex.quote(str(folder))}/*/wandb/offline-run-*\n" in capsys.readouterr().out


def test_failed_points_are_tried_again_when_asked(folder, job):
    job(f'case "$1" in *seed-2_*) exit 3;; esac; {DONE}')
    ledger = begin(folder, "seed=1", "seed=2")
    with pytest.raises(SystemExit, match="1"):
        main(["sweep", "retry-failed", str(folder), "--retries", "2", "--workers", "1"])
    assert [(row.status, row.attempts) for row in ledger.rows()] == [("completed", 1), ("failed", 4)]
    job(DONE)
    main(["sweep", "retry-failed", str(folder)])
    assert [(row.status, row.attempts) for row in ledger.rows()] == [("completed", 1), ("completed", 5)]


def test_resuming_after_a_default_has_changed_is_refused_unless_accepted(folder, job, capsys, monkeypatch):
    ledger = begin(folder, "seed=1", "seed=2", work=False)
    old = [row.name for row in ledger.rows()]
    with monkeypatch.context() as today:
        today.setattr(launcher, "compose_points", lambda points, flags: [changed(each) for each in points])
        with pytest.raises(SystemExit, match="1"):
            main(["sweep", "resume", str(folder)])
        assert f"{old[0]}: optim.max_grad_norm: 1.0 -> 2.0" in capsys.readouterr().err
        assert [row.name for row in ledger.rows()] == old
        main(["sweep", "resume", str(folder), "--accept-drift"])
    rows = ledger.rows()
    assert {row.status for row in rows} == {"completed"}
    assert [row.point.facts["optim.max_grad_norm"] for row in rows] == [2.0, 2.0]
    assert [row.name.rpartition("_")[0] for row in rows] == ["seed-1", "seed-2"]
    assert not set(old) & {row.name for row in rows}


def changed(overrides):
    return composed((*overrides, "optim.max_grad_norm=2"))


def test_a_point_runs_what_was_composed_when_it_was_planned(folder, job, monkeypatch):
    """Files of conf/ are edited while a sweep runs: neither its points nor what is recorded of them change."""
    ledger = begin(folder, "seed=1 'task.files.values={true: good, 0: bad}'", "seed=2 lpt.layer=2", work=False)
    monkeypatch.setattr(launcher, "compose_points", None)
    work_on(ledger, [row.name for row in ledger.rows()], OPTIONS)
    for row in ledger.rows():
        ran = resolve(restore(folder / row.name, []))
        assert result_facts(ran) == row.point.facts
        assert read_saved_overrides(folder / row.name) == list(row.point.overrides)
    assert set(ran.task.files.values or {}) == set()
    first = resolve(restore(folder / ledger.rows()[0].name, []))
    assert set(first.task.files.values) == {"true", "True", "TRUE", "0"}
    ledger.close()


def test_the_command_of_a_point_is_one_that_a_training_run_accepts(tmp_path):
    folder = tmp_path / "it's a sweep, of mine = yours" / "point"
    (cfg,) = compose_points([["lpt.layer=4"]])
    point = make_point(["lpt.layer=4", "hydra.sweep.dir=x"], resolve(cfg), ["lpt.layer"])
    (folder / ".hydra").mkdir(parents=True)
    OmegaConf.save(cfg, folder / ".hydra" / "config.yaml")
    _, train, *arguments = train_command(point, folder, False)
    assert Path(train).name == "train.py"
    assert len(arguments) == 1
    check_command_line(arguments)
