import json
import shutil
import signal

import pytest
import torch
from experiment import make_experiment
from traces import differences, traces

from lpt.data.batches import TrainBatches
from lpt.errors import LptError
from lpt.training import checkpoints
from lpt.training.checkpoints import Checkpoints, WholeCheckpoints, read_checkpoint
from lpt.training.module import PromptModule
from lpt.training.stop import Interrupted


@pytest.fixture(scope="module")
def experiment(tmp_path_factory):
    return make_experiment(tmp_path_factory.mktemp("an experiment"))  # with a space in its path


@pytest.fixture(scope="module")
def plain(experiment):
    """One ordinary run, of which several tests look at the files."""
    return experiment.run("plain")


def test_checkpoints_hold_the_trained_part_alone(experiment, plain):
    trained = {f"classifier.method.generator.{p}.{w}" for p in ("proj_down", "proj_up") for w in ("weight", "bias")}
    for name in ("best", "last"):
        path = experiment.run_dir("plain") / "checkpoints" / f"{name}.ckpt"
        assert set(torch.load(path, weights_only=True)["state_dict"]) == trained
        assert path.stat().st_size < 50_000


def test_what_is_kept_is_the_best_step_on_validation_rows_the_earlier_of_two(experiment, plain):
    curve = experiment.curve("plain", "validation/accuracy")
    first_best = max(curve, key=curve.__getitem__)  # of equals, max takes the first
    assert plain["best_step"] == first_best + 1  # metrics.csv counts steps from 0
    assert plain["metrics"]["validation"]["accuracy"] == pytest.approx(curve[first_best])


def test_the_end_of_training_is_evaluated_too(experiment):
    """8 steps, evaluation every 5: the last three are not lost."""
    result = experiment.run("end", "trainer.max_steps=8", "trainer.eval_every=5")
    steps = sorted(experiment.curve("end", "validation/accuracy"))
    assert result["train"]["steps"] == 8
    assert result["best_step"] in (5, 8)
    assert steps[0] == 4
    assert steps[-1] >= 7


# Resumed, bit for bit

OFTEN = "trainer.save_every=1e-9"  # a checkpoint after every step
SELDOM = {"seldom": ("trainer.save_every=1000",)}  # beside those of evaluations
CASES = {
    "cached": (),  # and read-only
    "uncached": ("cache=off", "lpt.trunk_dropout=true", "lpt.read_only=false"),
    "micro-batches": ("optim.gradient_accumulation=2", "lpt.read_only=false"),
}
OPTIONS = ("trainer.eval_every=4", OFTEN)


class PowerCutError(Exception):
    pass


def power_cut(*_, **__):
    raise PowerCutError("power cut")


@pytest.fixture(scope="module")
def undisturbed(experiment):
    """The files of runs that nobody disturbed, by case."""
    found = {}

    def ask(case):
        if case not in found:
            experiment.run(f"undisturbed {case}", *OPTIONS, *(CASES | SELDOM)[case])
            found[case] = traces(experiment.run_dir(f"undisturbed {case}"))
        return found[case]

    return ask


def ask_to_end(number):
    return lambda *_, **__: signal.raise_signal(number)


def interrupt(experiment, monkeypatch, name, case, cls, method, step, fault=power_cut):
    """Start a run in which `cls.method`, called at this step, is a fault."""
    plain = getattr(cls, method)

    def faulty(self, *arguments, **options):
        module = next((a for a in (self, *arguments) if hasattr(a, "global_step")), None)
        if (step if module is None else module.global_step) == step:
            fault(self, *arguments, **options)
        return plain(self, *arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(cls, method, faulty)
        experiment.run(name, *OPTIONS, *(CASES | SELDOM)[case])


def resume(experiment, name, case, *options):
    experiment.run(name, *OPTIONS, *(CASES | SELDOM)[case], f"resume='{experiment.run_dir(name)}'", *options)


MOMENTS = {  # an hour at which anything can happen: class, method, steps
    "before a step": (PromptModule, "training_step", (6, 17)),
    "before the first line of metrics.csv": (PromptModule, "training_step", (0,)),
    "after a step": (PromptModule, "on_train_batch_end", (5, 8, 18)),
    "during an evaluation": (PromptModule, "validation_step", (4, 18)),
    "before a checkpoint is written": (WholeCheckpoints, "write_held", (None,)),
    "between two epochs": (PromptModule, "on_train_epoch_end", (6,)),
}


@pytest.mark.parametrize("case", CASES)
def test_a_run_that_is_cut_off_anywhere_and_resumed_ends_with_the_same_bits(experiment, undisturbed, monkeypatch, case):
    for moment, (cls, method, steps) in MOMENTS.items():
        for step in steps if case == "cached" else steps[:1]:
            name = f"{case} {moment} {step}"
            with pytest.raises(PowerCutError):
                interrupt(experiment, monkeypatch, name, case, cls, method, step)
            assert experiment.result(name)["error"] == "power cut"
            resume(experiment, name, case)
            assert differences(traces(experiment.run_dir(name)), undisturbed(case)) == [], name


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1])
def test_a_run_that_is_asked_to_end_finishes_its_step_and_loses_nothing(experiment, undisturbed, monkeypatch, number):
    for step in (0, 3, 5, 9):  # 3 and 9 are followed by an evaluation and by the end of an epoch
        name = f"{number.name} {step}"
        with pytest.raises(Interrupted) as end:
            interrupt(experiment, monkeypatch, name, "seldom", PromptModule, "training_step", step, ask_to_end(number))
        assert end.value.exit_status == 128 + number
        assert signal.getsignal(number) is not None
        last = read_checkpoint(experiment.run_dir(name) / "checkpoints" / "last.ckpt")
        assert last["global_step"] == step + 1
        resume(experiment, name, "cached")
        assert differences(traces(experiment.run_dir(name)), undisturbed("cached")) == [], name


def test_an_evaluation_that_takes_too_long_to_wait_for_is_done_again(experiment, undisturbed, monkeypatch):
    monkeypatch.setattr(checkpoints, "PATIENCE", -1.0)
    ask = ask_to_end(signal.SIGTERM)
    with pytest.raises(Interrupted):
        interrupt(experiment, monkeypatch, "long evaluation", "cached", PromptModule, "validation_step", 8, ask)
    assert read_checkpoint(experiment.run_dir("long evaluation") / "checkpoints" / "last.ckpt")["global_step"] == 7
    resume(experiment, "long evaluation", "cached")
    assert differences(traces(experiment.run_dir("long evaluation")), undisturbed("cached")) == []


@pytest.mark.parametrize("mistake", ["rows served twice", "other dropout"])
def test_the_tests_above_would_notice_a_mistake(experiment, undisturbed, monkeypatch, mistake):
    with pytest.raises(PowerCutError):
        interrupt(experiment, monkeypatch, mistake, "cached", PromptModule, "training_step", 9)
    if mistake == "rows served twice":
        start = TrainBatches.__init__
        monkeypatch.setattr(TrainBatches, "__init__", lambda self, *a, **k: start(self, *a, **(k | {"first_step": 0})))
    else:
        seed = PromptModule.on_train_batch_start
        monkeypatch.setattr(PromptModule, "on_train_batch_start", lambda self, b, i: (seed(self, b, i), torch.rand(1)))
    resume(experiment, mistake, "cached")
    assert "last: state_dict" in differences(traces(experiment.run_dir(mistake)), undisturbed("cached"))


def test_a_flat_score_does_not_keep_progress_from_being_saved(experiment, monkeypatch):
    """Lightning's own checkpoints are written when the best score improves, and not otherwise."""
    monkeypatch.setattr(Checkpoints, "is_better", lambda self, trainer: trainer.global_step == 4)
    with pytest.raises(PowerCutError):
        interrupt(experiment, monkeypatch, "flat", "seldom", PromptModule, "training_step", 14)
    folder = experiment.run_dir("flat") / "checkpoints"
    steps = {path.stem: read_checkpoint(path)["global_step"] for path in folder.iterdir()}
    assert steps == {"best": 4, "previous": 8, "last": 12}


@pytest.mark.parametrize(
    "damage", [lambda content: content[: len(content) // 2], lambda content: b"", lambda _: b"x" * 99]
)
def test_a_damaged_checkpoint_is_named_and_passed_over(experiment, undisturbed, monkeypatch, capsys, damage):
    name = f"damaged {len(damage(b'12'))}"
    with pytest.raises(PowerCutError):
        interrupt(experiment, monkeypatch, name, "cached", PromptModule, "training_step", 9)
    last, previous = (experiment.run_dir(name) / "checkpoints" / f"{each}.ckpt" for each in ("last", "previous"))
    last.write_bytes(damage(last.read_bytes()))
    resume(experiment, name, "cached")
    assert f"warning: {last} is damaged (" in capsys.readouterr().out
    assert differences(traces(experiment.run_dir(name)), undisturbed("cached")) == []
    for path in (last, previous):
        path.write_bytes(damage(path.read_bytes()))
    resume(experiment, name, "cached")  # from the first step
    assert differences(traces(experiment.run_dir(name)), undisturbed("cached")) == []


def test_a_moved_run_keeps_its_best_step_when_it_is_resumed(experiment, plain):
    """Two more epochs at a learning rate of nothing new: the best step is still that of the first three."""
    moved = experiment.run_dir("moved")
    shutil.copytree(experiment.run_dir("plain"), moved)
    best = (moved / "checkpoints" / "best.ckpt").read_bytes()
    resumed = experiment.run("moved", f"resume='{moved}'")
    assert resumed["best_step"] == plain["best_step"]
    assert resumed["metrics"] == plain["metrics"]
    assert (moved / "checkpoints" / "best.ckpt").read_bytes() == best


def test_a_resumption_that_fails_leaves_the_result_that_was_there(experiment, plain):
    folder = experiment.run_dir("plain")
    with pytest.raises(LptError, match="more than this machine has"):
        experiment.run("plain", f"resume='{folder}'", "trainer.devices=999", "optim.batch_size=999")
    assert experiment.result("plain") == json.loads(json.dumps(plain))


def test_a_checkpoint_of_another_configuration_is_refused(experiment, plain):
    with pytest.raises(LptError, match=r"checkpoint does not fit .*proj_down.weight: \(8, 16\), expected \(4, 16\)"):
        experiment.run("plain", f"resume='{experiment.run_dir('plain')}'", "lpt.bottleneck=4")


@pytest.mark.parametrize("failure", ["full disk", "read-only", "half written"])
def test_a_checkpoint_that_cannot_be_written_ends_the_run_and_leaves_the_good_ones(experiment, monkeypatch, failure):
    with pytest.raises(PowerCutError):
        interrupt(experiment, monkeypatch, failure, "cached", PromptModule, "training_step", 9)
    folder = experiment.run_dir(failure) / "checkpoints"
    before = {path.name: path.read_bytes() for path in folder.iterdir()}

    def fail(content, file):
        if failure == "half written":
            file.write(b"half")
        else:
            raise OSError(28 if failure == "full disk" else 30, "No space left on device")

    monkeypatch.setattr(torch, "save", fail)
    with pytest.raises(LptError, match=r"new\.ckpt (could not be written|is damaged)"):
        resume(experiment, failure, "cached")
    monkeypatch.undo()
    after = {path.name: path.read_bytes() for path in folder.iterdir() if path.name != "new.ckpt"}
    assert after == before
