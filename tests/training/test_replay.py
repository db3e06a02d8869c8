"""Numbers that are not finite end a run, and `lpt replay` shows where they came from."""

import json

import pytest
import torch
from experiment import make_experiment

from lpt.errors import LptError
from lpt.training.module import FiniteWatch, NotFiniteError, PromptModule
from lpt.training.replay import replay


@pytest.fixture(scope="module")
def experiment(tmp_path_factory):
    return make_experiment(tmp_path_factory.mktemp("an experiment"))


HUGE = ("optim.lr=1e30", "lpt.dropout=false", "trainer.eval_every=2", "optim.warmup_ratio=0")


def complaint(experiment, name, *options):
    with pytest.raises(LptError) as error:
        experiment.run(name, *options)
    return str(error.value)


def test_a_run_ends_at_the_step_whose_loss_is_not_finite_and_says_how_to_look_into_it(experiment):
    message = complaint(experiment, "huge", *HUGE)
    assert message.startswith("step 2: the loss or its gradient is not finite, and training has ended there. Its ")
    assert "(optim.lr=1e+30)" in message
    assert message.endswith(f"lpt replay '{experiment.run_dir('huge')}'")
    result = experiment.result("huge")
    assert (result["status"], result["error"]) == ("failed", message)
    found = replay(experiment.config(*HUGE), experiment.run_dir("huge"))
    assert (found.step, found.lr) == (2, pytest.approx(1e30, rel=0.1))
    assert found.largest[0] > 1e29
    assert found.module is not None or found.gradients
    assert found.lines()[0].startswith("step 2, learning rate 9")


def test_a_replay_names_row_and_module(experiment, monkeypatch):
    """One row of the third step makes the generator overflow; the run has a checkpoint before it."""
    plain = PromptModule.training_step

    def poisoned(self, batch, batch_idx):
        if self.global_step == 3:
            poison(self, batch)
        return plain(self, batch, batch_idx)

    def poison(self, batch):
        row = int(batch.rows[0])

        def overflow(module, given, output):
            if len(output) != len(batch.rows):
                return output
            return output * torch.where(batch.rows == row, torch.nan, 1.0)[:, None, None]

        self.classifier.method.generator.register_forward_hook(overflow)

    monkeypatch.setattr(PromptModule, "training_step", poisoned)
    assert complaint(experiment, "row", "trainer.eval_every=2").startswith("step 4: the loss or its gradient")
    found = replay(experiment.config("trainer.eval_every=2"), experiment.run_dir("row"))
    assert found.step == 4
    assert len(found.bad_rows) == 1
    assert found.rows == 8
    assert found.module == "method.generator"
    assert set(found.gradients) == {
        f"method.generator.{p}.{w}" for p in ("proj_down", "proj_up") for w in ("weight", "bias")
    }


def test_a_run_without_such_a_step_is_replayed_to_its_end(experiment):
    experiment.run("fine", "trainer.max_steps=3")
    assert replay(experiment.config("trainer.max_steps=3"), experiment.run_dir("fine")) is None


def test_scores_that_are_not_finite_end_a_run_too(experiment, monkeypatch):
    from lpt.classifier import Scorer

    plain = Scorer.probabilities_and_losses
    monkeypatch.setattr(
        Scorer, "probabilities_and_losses", lambda self, batch: tuple(x * torch.nan for x in plain(self, batch))
    )
    message = complaint(experiment, "scores", "trainer.eval_every=2")
    assert message.startswith("step 2: the scores of 30 validation rows are not finite")


def test_a_gpu_is_looked_at_one_step_later_and_nothing_is_missed(monkeypatch):
    watch = FiniteWatch()
    watch.note(1, torch.tensor(1.0))
    with pytest.raises(NotFiniteError, match=r"^step 2: "):
        watch.note(2, torch.tensor(torch.inf))
    watch.note(3, torch.tensor(0.5))  # it has forgotten the step that it told of


def test_results_are_json_and_finite(experiment):
    experiment.run("json", "trainer.max_steps=2")
    text = (experiment.run_dir("json") / "result.json").read_text()
    assert "NaN" not in text
    assert None not in json.loads(text)["metrics"]["validation"].values()
