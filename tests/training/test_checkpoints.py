import json
import shutil

import pytest
import torch
from experiment import make_experiment
from pytorch_lightning.callbacks import ModelCheckpoint

from lpt.data.batches import TrainBatches
from lpt.errors import LptError
from lpt.training.module import PromptModule


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


@pytest.fixture
def interrupted(experiment, monkeypatch, request):
    """A run that died in the middle of its second epoch, two steps after its last checkpoint."""
    name = request.node.name

    def die(self, outputs, batch, batch_idx):
        if self.global_step == 10:
            raise RuntimeError("power cut")

    with monkeypatch.context() as patch:
        patch.setattr(PromptModule, "on_train_batch_end", die)
        with pytest.raises(RuntimeError, match="power cut"):
            experiment.run(name, "trainer.eval_every=4")
    assert experiment.result(name)["status"] == "failed"
    assert experiment.result(name)["error"] == "power cut"
    return name


@pytest.fixture(scope="module")
def undisturbed(experiment):
    """The same run, to its end."""
    return experiment.run("undisturbed", "trainer.eval_every=4")


def test_a_resumed_run_ends_as_the_undisturbed_one(experiment, interrupted, undisturbed):
    folder = experiment.run_dir(interrupted)
    resumed = experiment.run(interrupted, "trainer.eval_every=4", f"resume='{folder}'")
    assert resumed["metrics"] == undisturbed["metrics"]
    assert resumed["best_step"] == undisturbed["best_step"]
    for column in ("train/loss", "validation/loss", "lr"):
        assert experiment.curve(interrupted, column) == pytest.approx(experiment.curve("undisturbed", column)), column


def test_the_test_above_would_notice_rows_that_are_served_twice(experiment, interrupted, undisturbed, monkeypatch):
    start = TrainBatches.__init__
    monkeypatch.setattr(TrainBatches, "__init__", lambda self, *a, **k: start(self, *a, **(k | {"first_step": 0})))
    folder = experiment.run_dir(interrupted)
    experiment.run(interrupted, "trainer.eval_every=4", f"resume='{folder}'")
    curves = [experiment.curve(name, "train/loss") for name in (interrupted, "undisturbed")]
    assert curves[0] != pytest.approx(curves[1])


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


def test_a_checkpoint_of_another_configuration_is_refused(experiment, interrupted):
    with pytest.raises(LptError, match=r"checkpoint does not fit .*proj_down.weight: \(8, 16\), expected \(4, 16\)"):
        experiment.run(
            interrupted, "trainer.eval_every=4", f"resume='{experiment.run_dir(interrupted)}'", "lpt.bottleneck=4"
        )


def test_a_run_without_a_checkpoint_is_not_resumed(experiment):
    folder = experiment.run_dir("without checkpoint")
    with pytest.raises(LptError) as error:
        experiment.run("without checkpoint", f"resume='{folder}'")
    assert str(error.value) == (
        f"resume={folder}: this run was interrupted before its first checkpoint (there is no "
        f"{folder}/checkpoints/last.ckpt); start it again in another folder, without resume"
    )


def test_a_checkpoint_that_cannot_be_written_is_an_error(experiment, monkeypatch):
    """Lightning would continue silently."""
    monkeypatch.setattr(ModelCheckpoint, "_save_checkpoint", lambda self, trainer, path: None)
    with pytest.raises(LptError, match=r"best.ckpt could not be written; is the disk full or the folder read-only\?$"):
        experiment.run("full disk", "trainer.max_steps=2")
