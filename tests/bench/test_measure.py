from itertools import pairwise

import pytest
import torch
from tiny_bench import LLAMA, ROBERTA, composed, measured
from torch.optim.optimizer import register_optimizer_step_post_hook

from lpt.bench import measure as measuring
from lpt.bench.candidates import STOCK, Full
from lpt.bench.measure import measure
from lpt.config.resolve import resolve
from lpt.errors import LptError

RATE = 1e9


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """Large matrix products and a look at all of this process' objects would take longer than all else here."""
    monkeypatch.setattr(measuring, "matmul_rate", lambda *arguments: RATE)
    monkeypatch.setattr("gc.collect", lambda: None)


@pytest.fixture(params=[ROBERTA, LLAMA], ids=["roberta", "llama"])
def path(request):
    return request.param


def run(method, *overrides, path=ROBERTA):
    return measure(method, resolve(composed("trainer.precision=32", *overrides, path=path)))


def flop(method, *overrides, path=ROBERTA):
    return run(method, "bench.steps=1", *overrides, path=path)["flop"]


STATES, KEYS_AND_VALUES = 16, 2 * 2 * 16  # numbers of a token: entering layer 3, and of layers 3 and 4
KEPT = {"lpt_cached": STATES, "lpt_read_only_cached": STATES + KEYS_AND_VALUES}


@pytest.mark.parametrize("method", ["full", "lora", "prompt_tuning", "lpt", "lpt_read_only", *KEPT])
def test_a_measurement_says_everything(method):
    result = run(method)
    assert set(result) == set(measured(method))
    assert (result["method"], result["precision"], result["accelerator"]) == (method, "float32", "cpu")
    assert len(result["step_seconds_all"]) == 2
    assert result["examples_per_second"] == pytest.approx(4 / result["step_seconds"])
    assert result["arithmetic_bound_seconds"] == pytest.approx(result["flop"] / RATE)
    assert result["vs_arithmetic_bound"] == pytest.approx(result["step_seconds"] / result["arithmetic_bound_seconds"])
    assert result["cache_bytes"] == measuring.BATCHES * 4 * 12 * KEPT.get(method, 0) * 4


def test_each_saving_saves_arithmetic(path):
    methods = ("lpt_read_only_cached", "lpt_cached", "lpt", "lora", "full")
    read, cached, late, lora, full = (flop(method, path=path) for method in methods)
    assert read < cached < late < lora < full


def test_with_cached_states_every_higher_layer_saves_the_same(path):
    at = [flop("lpt_cached", f"lpt.layer={layer}", path=path) for layer in (1, 2, 3, 4)]
    saved = [below - above for below, above in pairwise(at)]
    assert saved[0] > 0
    assert saved == [saved[0]] * 3


def test_a_candidate_that_cannot_cache_says_why():
    with pytest.raises(
        LptError, match=r"nothing can be cached: the trunk cache is off, because lpt.trunk_dropout=true"
    ):
        run("lpt_cached", "lpt.trunk_dropout=true")


def test_an_evaluation_has_no_gradient_and_per_label_costs_a_pass_for_each(monkeypatch):
    gradients = []

    class Watched(Full):
        def scores(self, batch):
            gradients.append(torch.is_grad_enabled())
            return super().scores(batch)

    monkeypatch.setitem(STOCK, "full", Watched)
    once = flop("full", "bench.step=evaluate")
    assert set(gradients) == {False}
    assert flop("per_label", "bench.step=evaluate", "bench.labels=3") == 3 * once
    assert once < flop("full")
    assert set(gradients) == {False, True}


def test_micro_batches_take_as_many_optimizer_steps_and_the_same_arithmetic(monkeypatch):
    steps, batches = [], []
    losses = Full.losses
    monkeypatch.setattr(Full, "losses", lambda self, batch: batches.append(batch) or losses(self, batch))
    hook = register_optimizer_step_post_hook(lambda *_: steps.append(1))
    try:
        whole = flop("full"), len(steps)
        parts = flop("full", "optim.gradient_accumulation=2"), len(steps) - whole[1]
    finally:
        hook.remove()
    assert parts == whole
    assert sorted({len(batch.labels) for batch in batches}) == [2, 4]
    assert sum(len(batch.labels) == 2 for batch in batches) == 2 * sum(len(batch.labels) == 4 for batch in batches)


def test_more_tokens_than_the_backbone_has_positions_are_refused():
    with pytest.raises(LptError, match=r"bench\.tokens=39 is more than tiny allows \(38\)"):
        run("lora", "bench.tokens=39")
