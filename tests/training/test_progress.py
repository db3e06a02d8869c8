"""What a person sees while a run trains."""

import re

import pytest
from experiment import make_experiment
from terminal import Terminal

from lpt import bars, console
from lpt.report.learning import read_curves
from lpt.report.runs import collect_runs
from lpt.training import module, progress
from lpt.training.checkpoints import Checkpoints

ACCURACY = {6: 0.5, 12: 0.75, 18: 0.75, 24: 0.625}  # step -> what the validation rows are made to say


@pytest.fixture(scope="module")
def experiment(tmp_path_factory):
    return make_experiment(tmp_path_factory.mktemp("watched"))


@pytest.fixture
def scores(monkeypatch):
    """Have validation scores be those of ACCURACY, or of what the test puts there."""
    told = dict(ACCURACY)

    def metrics(self, names):
        return {"accuracy": told[current[-1]]}

    current = []

    def log_evaluation(self, split, log=module.PromptModule._log_evaluation):
        current.append(self.global_step)
        if split == "validation":
            with pytest.MonkeyPatch.context() as patched:
                patched.setattr(module.SplitPredictions, "metrics", metrics)
                return log(self, split)
        return log(self, split)

    monkeypatch.setattr(module.PromptModule, "_log_evaluation", log_evaluation)
    return told


def evaluations(text: str) -> list[str]:
    """The lines of evaluations, without the losses, which depend on the machine."""
    lines = [line for line in text.splitlines() if line.startswith("step ")]
    return [re.sub(r"train/loss \d+\.\d{3}", "train/loss x", line) for line in lines]


def test_a_file_gets_a_line_per_evaluation_and_the_best_so_far_is_marked(experiment, scores, capsys):
    experiment.run("file", "trainer.max_epochs=4")
    printed = capsys.readouterr().out
    assert evaluations(printed) == [
        "step  6/24  train/loss x  validation/accuracy 0.500  best",
        "step 12/24  train/loss x  validation/accuracy 0.750  best",
        "step 18/24  train/loss x  validation/accuracy 0.750",  # a tie goes to the earlier step
        "step 24/24  train/loss x  validation/accuracy 0.625",
    ]
    assert not set("\r\x1b") & set(printed)
    assert experiment.result("file")["best_step"] == 12


def test_the_second_evaluation_of_the_kept_step_is_no_point_of_the_curves(experiment, scores):
    experiment.run("curves", "trainer.max_epochs=4")
    assert experiment.curve("curves", "validation/accuracy") == {step - 1: value for step, value in ACCURACY.items()}
    (run,) = collect_runs(experiment.run_dir("curves"))
    assert read_curves(run)["validation/accuracy"] == list(ACCURACY.items())


def test_where_training_ends_between_evaluations_its_end_has_a_line_too(experiment, scores, capsys):
    scores[8] = 0.875
    experiment.run("between", "trainer.max_steps=8")
    assert evaluations(capsys.readouterr().out) == [
        "step 6/8  train/loss x  validation/accuracy 0.500  best",
        "step 8/8  validation/accuracy 0.875  best",
    ]


def test_an_untrained_model_has_no_steps(experiment, capsys):
    experiment.run("untrained", "trainer.max_steps=0")
    printed = capsys.readouterr().out
    assert evaluations(printed) == []
    assert "still improving" not in printed


@pytest.fixture
def terminal(monkeypatch):
    screen = Terminal()
    shared = screen.console
    monkeypatch.setattr(console, "console", shared)
    monkeypatch.setattr(bars, "console", shared)
    return screen


def test_a_terminal_has_one_bar_for_the_whole_run_and_none_at_its_end(experiment, scores, terminal, monkeypatch):
    seen = []

    def look(self, *arguments, update=bars.Bar.update):
        update(self, *arguments)
        self._progress.refresh()
        seen.append(terminal.screen()[-1])

    monkeypatch.setattr(bars.Bar, "update", look)
    monkeypatch.setattr(progress, "MOMENT", -1.0)  # every evaluation takes long
    experiment.run("terminal", "trainer.max_epochs=2")
    drawn = [line for line in seen if line.startswith("training ")]
    assert [int(done) for done in dict.fromkeys(re.search(r"(\d+)/12 eta", line)[1] for line in drawn)] == [
        *range(1, 13)
    ]
    assert all("best" not in line for line in drawn[:6])
    assert drawn[-1].endswith("best accuracy 0.500")
    assert any(line.endswith("evaluating 1/1") for line in drawn)
    assert len(evaluations("\n".join(terminal.screen()))) == 2
    assert not [line for line in terminal.screen() if "eta" in line]


@pytest.mark.parametrize("steps", [12, 13], ids=["after an evaluation", "before one"])
def test_a_run_that_is_ended_early_leaves_no_bar_either(experiment, scores, terminal, monkeypatch, steps):
    scores[13] = 0.8

    def stop(self, trainer, *_, ended=Checkpoints.on_train_batch_end):
        ended(self, trainer)
        trainer.should_stop = trainer.global_step == steps

    monkeypatch.setattr(Checkpoints, "on_train_batch_end", stop)
    experiment.run(f"early {steps}", "trainer.max_epochs=4")
    assert experiment.result(f"early {steps}")["train"]["steps"] == steps
    assert [line.split()[1] for line in evaluations("\n".join(terminal.screen()))] == [
        "6/24",
        "12/24",
        *(["13/24"] if steps == 13 else []),
    ]
    assert not [line for line in terminal.screen() if "eta" in line]
    assert experiment.result(f"early {steps}")["train"]["still_improving"] is False


@pytest.mark.parametrize(
    ("last", "options", "expected"),
    [
        (0.9, ["trainer.max_epochs=4"], "trainer.max_epochs=8"),
        (0.9, ["trainer.max_steps=24"], "trainer.max_steps=48"),
        (0.6, ["trainer.max_epochs=4"], None),
        (0.9, ["trainer.max_epochs=4", "trainer.eval_every=24"], None),  # the first evaluation and the only one
    ],
    ids=["epochs", "steps", "not improving", "one evaluation"],
)
def test_a_run_whose_last_step_is_its_best_says_what_to_try(experiment, scores, capsys, last, options, expected):
    scores[24] = last
    name = f"improving {last} {len(options)} {options[0]}"
    experiment.run(name, *options)
    hint = f"still improving at the last step: {expected} may do better"
    assert (hint in capsys.readouterr().out.splitlines()) is (expected is not None)
    assert experiment.result(name)["train"]["still_improving"] is (expected is not None)


def test_a_resumed_run_says_where_it_resumes_and_knows_the_best_so_far(experiment, scores, capsys):
    experiment.run("resumed", "trainer.max_epochs=2")
    capsys.readouterr()
    folder = experiment.run_dir("resumed")
    experiment.run("resumed", "trainer.max_epochs=4", f"resume='{folder}'")
    lines = capsys.readouterr().out.splitlines()
    assert "resuming after step 12 of 24" in lines
    assert [line.split()[-1] for line in evaluations("\n".join(lines))] == ["0.750", "0.625"]
