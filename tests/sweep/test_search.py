"""The search asks Optuna for points, has them worked on, and resumes where it was interrupted."""

import math
import shlex
import sqlite3
from pathlib import Path
from threading import Timer

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.utils import JobReturn, JobStatus
from omegaconf import OmegaConf

from lpt.config.command_line import check_command_line
from lpt.config.compose import compose_points
from lpt.sweep import search
from lpt.sweep.search import STUDY, Search, Watch
from lpt.sweep.so_far import evaluations

optuna = pytest.importorskip("optuna")
SPACE = ["optim.lr=tag(log,interval(1e-4,1e-1))", "lpt.layer=range(2,9,2)", "generator=npg,appg", "seed=3"]


class Launcher:
    """Answers at once: the best is lr = 0.01. Fails or is killed where told."""

    def __init__(self, folder: Path, fail=(), killed_at: int | None = None):
        self.points: list[list[str]] = []
        self.batches: list[tuple[int, int]] = []
        self._fail, self._killed_at = fail, killed_at

    def launch(self, points, initial, watch=None, search=None, total=None):
        self.search, self.batches, returns = search, [*self.batches, (initial, total)], []
        for point in points:
            if len(self.points) == self._killed_at:
                raise KeyboardInterrupt
            number = len(self.points)
            self.points.append(point)
            lr = next(float(text.partition("=")[2]) for text in point if text.startswith("optim.lr="))
            result = JobReturn(status=JobStatus.COMPLETED)
            result.return_value = math.nan if number in self._fail else -abs(math.log10(lr) + 2)
            returns.append(result)
        return returns


@pytest.fixture(autouse=True)
def typed(monkeypatch):
    """What was typed to start a search."""
    monkeypatch.setattr("sys.argv", ["train.py", "-m"])
    monkeypatch.setattr(search, "typed_program", lambda: ["python", "train.py"])


def make(folder: Path, trials: int, parallel_trials: int = 1, **options) -> tuple[Search, Launcher]:
    made = Search(trials, parallel_trials, startup_trials=3, prune=False, seed=1)
    made._config = OmegaConf.create({"hydra": {"sweep": {"dir": str(folder)}}, "task": {"metrics": ["accuracy"]}})
    made._launcher = launcher = Launcher(folder, **options)
    return made, launcher


def test_proposals_are_within_what_was_typed_and_options_that_do_not_vary_go_with_them(tmp_path):
    made, launcher = make(tmp_path / "it's a search", trials=8, parallel_trials=3)
    best = made.sweep(SPACE)
    assert len(launcher.points) == 8
    for point in launcher.points:
        values = dict(text.split("=") for text in point)
        assert 1e-4 <= float(values["optim.lr"]) <= 1e-1
        assert values["lpt.layer"] in "2468"
        assert values["generator"] in ("npg", "appg")
        assert values["seed"] == "3"
    assert best == max(-abs(math.log10(float(dict(t.split("=") for t in p)["optim.lr"])) + 2) for p in launcher.points)


def test_an_interrupted_search_resumes_the_same_point_and_counts_earlier_trials(tmp_path):
    made, launcher = make(tmp_path, trials=6, killed_at=3)
    with pytest.raises(KeyboardInterrupt):
        made.sweep(SPACE)
    study = optuna.load_study(study_name=STUDY, storage=f"sqlite:///{tmp_path / STUDY}")
    cut = study.trials[-1].params
    made, again = make(tmp_path, trials=6)
    made.sweep(SPACE)
    assert {f"{option}={value}" for option, value in cut.items()} <= set(again.points[0])
    assert len(launcher.points) + len(again.points) == 6
    proposed = [tuple(point) for point in [*launcher.points, *again.points]]
    assert len(set(proposed)) == 6
    made, idle = make(tmp_path, trials=6)
    made.sweep(SPACE)
    assert idle.points == []


def test_typed_options_replace_what_an_experiment_file_searches(tmp_path):
    made, launcher = make(tmp_path, trials=3)
    made._params = {"lpt.layer": "range(2,9,2)", "generator": "npg,appg"}
    made.sweep(["lpt.layer=5", "generator=mppg,npg", "optim.lr=0.01"])
    found = [dict(text.split("=") for text in point) for point in launcher.points]
    assert [len(point) for point in launcher.points] == [3] * 3
    assert {values["lpt.layer"] for values in found} == {"5"}
    assert {values["generator"] for values in found} <= {"mppg", "npg"}


@pytest.mark.parametrize("given", [[], ["hydra.sweep.dir={}"]])
def test_the_command_that_resumes_a_search_is_its_own_with_its_folder(tmp_path, monkeypatch, given):
    folder = tmp_path / "my search"
    typed = [text.format(folder) for text in given]
    monkeypatch.setattr("sys.argv", ["train.py", "-m", "hydra/sweeper=optuna", *typed])
    made, launcher = make(folder, trials=1)
    made.sweep(SPACE)
    assert launcher.search == f"python train.py -m hydra/sweeper=optuna 'hydra.sweep.dir={folder}'"


@pytest.mark.parametrize("experiment", [[], ["experiment=search"]], ids=["-m", "an experiment that searches"])
def test_a_search_says_which_trial_it_is_at_and_how_to_run_the_best_again(tmp_path, capsys, experiment):
    made, launcher = make(tmp_path, trials=5, parallel_trials=2)
    template = "task.template.decoder='{a} It\\'s a \\\\ \"film\".','{a}'"
    best = made.sweep([*experiment, "optim.lr=tag(log,interval(1e-4,1e-1))", template, "seed=3"])
    *told, said, again = capsys.readouterr().out.splitlines()
    assert told == ["trials 1 to 2 of 5", "trials 3 to 4 of 5", "trial 5 of 5"]
    assert launcher.batches == [(0, 5), (2, 5), (4, 5)]
    assert said.startswith(f"best of 5 trials: {best:.4f} with optim.lr=")
    command = again.removeprefix("to run it again: ")
    python, program, *words = shlex.split(command)
    assert (python, program) == ("python", "train.py")
    check_command_line(words)
    (run,) = compose_points([words])
    assert run.seed == 3
    assert -abs(math.log10(run.optim.lr) + 2) == best
    assert run.task.template.decoder in ('{a} It\'s a \\ "film".', "{a}")
    assert ("hydra.mode=RUN" in words) is bool(experiment)


def test_a_failed_point_does_not_end_the_search(tmp_path):
    made, launcher = make(tmp_path, trials=4, fail=(1,))
    made.sweep(SPACE)
    assert len(launcher.points) == 4


def test_a_search_without_a_completed_trial_says_so(tmp_path, capsys):
    for _ in range(2):  # given again, there is nothing left to try
        made, launcher = make(tmp_path, trials=3, fail=range(3))
        with pytest.raises(SystemExit, match="1"):
            made.sweep(SPACE)
        told = capsys.readouterr().err
        assert told == f"error: no trial of the search was completed; to see why: lpt sweep status {tmp_path}\n"
    assert launcher.points == []


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("lpt.layer=range(1,10,3)", {1, 4, 7}),
        ("lpt.layer=4,8", {"4", "8"}),
        ("generator=choice(npg,mppg)", {"npg", "mppg"}),
        ("lpt.layer=int(interval(3,4))", {3, 4}),
    ],
)
def test_whole_numbers_and_names_are_drawn_as_typed(text, values):
    (override,) = OverridesParser.create().parse_overrides([text])
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    drawn = {study.ask({"x": search._distribution(override)}).params["x"] for _ in range(40)}
    assert drawn == values


def test_a_trial_worse_than_the_median_of_the_earlier_ones_is_stopped(tmp_path):
    study = optuna.create_study(direction="maximize", pruner=optuna.pruners.MedianPruner(n_startup_trials=2))
    verdicts = []
    for quality in (0.9, 0.8, 0.2, 0.95):
        trial = study.ask()
        watch = Watch([trial], "accuracy", tmp_path)
        folder = tmp_path / str(quality)
        folder.mkdir()
        verdicts.append([])
        for step in range(1, 4):
            lines = [f"{i},{quality + i / 100}," for i in range(1, step + 1)]
            (folder / "metrics.csv").write_text("\n".join(["step,validation/accuracy,lr", *lines, "9,,1e-3\n"]))
            verdicts[-1].append(watch(0, folder))
            watch(0, folder)  # a step is told once
        study.tell(trial, quality)
    assert verdicts == [[False] * 3, [False] * 3, [True] * 3, [False] * 3]


def test_half_written_metrics_are_read_later(tmp_path):
    assert evaluations(tmp_path, "validation/accuracy") == []
    (tmp_path / "metrics.csv").write_text("step,validation/accuracy\n1,0.5\n2,0.")
    assert evaluations(tmp_path, "validation/accuracy") == [(1, 0.5)]
    (tmp_path / "metrics.csv").write_text("step,validation/accu")
    assert evaluations(tmp_path, "validation/accuracy") == []


def test_a_search_over_other_values_than_before_is_refused_in_one_line(tmp_path, capsys):
    make(tmp_path, trials=2)[0].sweep(SPACE)
    with pytest.raises(SystemExit):
        make(tmp_path, trials=4)[0].sweep([*SPACE[:2], "generator=npg,mppg", "seed=3"])
    assert capsys.readouterr().err == (
        f"error: hydra.sweep.dir={tmp_path} holds a search over other values: generator was searched over npg, appg, "
        "and now over npg, mppg. Give the same values, or choose another folder\n"
    )


def test_a_search_outlives_a_locked_database_and_says_so(tmp_path, monkeypatch, capsys):
    """SQLite gives up after seconds, and Optuna with it."""
    monkeypatch.setattr("lpt.sweep.ledger.RETRY", 0.01)
    made, launcher = make(tmp_path, trials=3)
    made.sweep([*SPACE])
    calls = []

    def launch(*arguments):
        calls.append(holder.execute("BEGIN EXCLUSIVE"))
        Timer(6.0, lambda: holder.execute("COMMIT")).start()
        return plain(*arguments)

    holder = sqlite3.connect(tmp_path / STUDY, isolation_level=None, check_same_thread=False)
    more, launcher = make(tmp_path, trials=4)
    plain, launcher.launch = launcher.launch, launch
    more.sweep([*SPACE])
    assert len(calls) == 1
    said = capsys.readouterr().out
    assert said.count(f"{tmp_path / STUDY} cannot be used now (database is locked); waiting") == 1
    holder.close()
