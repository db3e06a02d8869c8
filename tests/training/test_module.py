import pytest
import torch
from experiment import make_experiment

from lpt.late_prompt import LateMethod
from lpt.training.experiment import prepare
from lpt.training.module import PromptModule, norm_ratio
from lpt.training.run import build_module


@pytest.fixture(scope="module")
def experiment(tmp_path_factory):
    return make_experiment(tmp_path_factory.mktemp("experiment"), "llama")


def test_the_norm_ratio_is_that_of_mean_norms_and_padding_does_not_count():
    prompt_BPH = torch.tensor([[[3.0, 4.0], [0.0, 1.0]]]).expand(2, -1, -1)  # norms 5 and 1: 3
    h_BTH = torch.tensor([[[0.0, 2.0], [9.0, 9.0]], [[0.0, 1.0], [3.0, 0.0]]])  # 2, 1 and 3 without the padding: 2
    mask_BT = torch.tensor([[True, False], [True, True]])
    assert norm_ratio(prompt_BPH, h_BTH, mask_BT).item() == pytest.approx(1.5)
    assert norm_ratio(prompt_BPH, h_BTH[1:], None).item() == pytest.approx(1.5)


LOGGED = [("cache=off",), ("cache=memory",), ("method=s_idpg",), ("lpt.layer=4",), ("lpt.read_only=false",)]


@pytest.mark.parametrize("options", LOGGED)
def test_the_ratio_that_is_logged_is_of_what_enters_layer_k(experiment, monkeypatch, options):
    seen = []

    def note(prompt, h, mask):
        if torch.is_grad_enabled():
            seen.append(norm_ratio(prompt.detach(), h, mask).item())

    def watch_upper(self, prompt, h, mask, position, entering, upper=LateMethod.upper):
        note(prompt, h, mask)
        return upper(self, prompt, h, mask, position, entering)

    def watch_over(self, prompt, context, position, entering, over=LateMethod.over):
        note(prompt, context.states, context.attention_mask)
        return over(self, prompt, context, position, entering)

    monkeypatch.setattr(LateMethod, "upper", watch_upper)
    monkeypatch.setattr(LateMethod, "over", watch_over)
    name = "ratio " + options[0].replace("=", " ")
    experiment.run(name, *options, "trainer.max_steps=4", "optim.gradient_accumulation=1")
    assert experiment.curve(name, "train/prompt_norm_ratio") == pytest.approx(dict(enumerate(seen)))


def test_a_method_without_a_prompt_has_no_ratio_but_the_rest(experiment):
    experiment.run("adapter", "method=adapter", "trainer.max_steps=2")
    assert experiment.curve("adapter", "train/prompt_norm_ratio") == {}
    assert len(experiment.curve("adapter", "train/grad_norm")) == 2


def test_the_gradient_norm_is_that_before_clipping_at_the_learning_rate_of_the_step(experiment, monkeypatch):
    norms, rates = [], []

    def measure(self, optimizer):
        gradients = [p.grad for p in self.parameters() if p.grad is not None]
        norms.append(torch.cat([g.flatten() for g in gradients]).norm().item())
        rates.append(optimizer.param_groups[0]["lr"])

    monkeypatch.setattr(PromptModule, "on_before_optimizer_step", measure)
    experiment.run("norms", "trainer.max_steps=5", "optim.max_grad_norm=1e-3", "optim.gradient_accumulation=2")
    assert min(norms) > 1e-3
    assert experiment.curve("norms", "train/grad_norm") == pytest.approx(dict(enumerate(norms)), rel=1e-4)
    assert experiment.curve("norms", "lr") == pytest.approx(dict(enumerate(rates)))


def test_a_linear_head_learns_at_its_own_rate_if_it_has_one(experiment):
    for option, rate in (("head.lr=0.02", 0.02), ("head.lr=null", 0.01)):
        module = build_module(prepare(experiment.config("head=linear", "optim.lr=0.01", option)))
        assert (module.schedule.lr, module.schedule.head_lr) == (0.01, rate)
        groups = module.configure_optimizers()["optimizer"].param_groups
        head = set(module.classifier.head.parameters())
        assert {group["initial_lr"] for group in groups if set(group["params"]) & head} == {rate}


def test_examples_per_second_are_those_since_the_last_line_without_evaluations(experiment, monkeypatch):
    """A clock that counts its readings: 8 rows a step, a reading between lines, some more around an evaluation."""
    ticks = iter(range(10_000))
    monkeypatch.setattr("lpt.training.module.time.perf_counter", lambda: float(next(ticks)))
    experiment.run("speed", "trainer.max_steps=5", "trainer.log_every=2", "trainer.eval_every=2")
    # The clock is read as training starts, at the line of step 2, before and after its evaluation, at that of step 4.
    assert experiment.curve("speed", "train/examples_per_second") == pytest.approx({1: 16 / 1, 3: 16 / 2})


def test_a_line_is_written_every_so_many_steps_however_many_micro_batches_they_have(experiment):
    experiment.run("lines", "trainer.log_every=2", "optim.gradient_accumulation=3")
    for column in ("train/loss", "lr", "train/grad_norm", "train/prompt_norm_ratio", "train/examples_per_second"):
        assert list(experiment.curve("lines", column)) == [*range(1, 18, 2)], column


def test_between_lines_nothing_but_the_loss_is_handed_to_lightning(experiment, monkeypatch):
    """Even that of a plain number waits for a GPU."""
    given = []

    def log(self, name, value, *args, log=PromptModule.log, **kwargs):
        given.append((self.global_step, name, isinstance(value, torch.Tensor)))
        return log(self, name, value, *args, **kwargs)

    monkeypatch.setattr(PromptModule, "log", log)
    experiment.run("log", "trainer.max_steps=4", "trainer.log_every=4", "trainer.eval_every=100")
    assert [entry for entry in given if entry[0] < 3] == [(step, "train/loss", True) for step in range(3)]
    assert (3, "lr", False) in given
