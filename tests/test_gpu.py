"""What only a GPU can show; skipped where there is none."""

import pytest
import torch
from experiment import make_experiment
from method_zoo import build, readout, stir
from tiny import tiny_model, token_batch

from lpt.methods import build_method

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
METHODS = ("lpt", "lora", "spt", "ladder", "p_tuning_v2", "adapter", "full")
SHORT = ["fewshot.k=16", "trainer.max_steps=4", "logger=none", "trainer.accelerator=gpu"]


@pytest.mark.parametrize("attention", ["sdpa", "lean"])
@pytest.mark.parametrize("read_only", [False, True])
@pytest.mark.parametrize("family", ["bert", "gpt2", "llama"])
@pytest.mark.parametrize("name", METHODS)
def test_a_gpu_gives_the_numbers_of_the_cpu_and_their_gradients(name, family, read_only, attention):
    ids, mask = token_batch((7, 3, 10, 1))
    found = {}
    for device in ("cpu", "cuda"):
        method = stir(build(name, family, 3, attention, read_only=read_only)).to(device)
        logits = method(ids.to(device), mask.to(device), readout(family, mask).to(device))
        logits.square().sum().backward()
        gradients = {n: p.grad.cpu() for n, p in method.named_parameters() if p.grad is not None}
        found[device] = {"logits": logits.detach().cpu(), **gradients}
    for part, expected in found["cpu"].items():
        torch.testing.assert_close(found["cuda"][part], expected, atol=1e-3, rtol=1e-3, msg=part)


@pytest.mark.parametrize("name", METHODS)
def test_a_method_made_over_a_model_on_the_gpu_is_there_too(name):
    method = build_method(name, tiny_model("llama").cuda(), layer=3, read_only=True)
    assert {p.device.type for p in (*method.parameters(), *method.buffers())} == {"cuda"}


@pytest.fixture(scope="module")
def experiment(tmp_path_factory):
    return make_experiment(tmp_path_factory.mktemp("gpu"), "llama")


@pytest.mark.parametrize(
    "options",
    [
        [],
        ["lpt.read_only=true", "cache=memory"],
        ["lpt.read_only=true", "cache=disk", "trainer.precision=bf16"],
        ["method=ladder", "lpt.layer=3", "trainer.precision=bf16"],
        ["trainer.compile=true"],
        ["method=full", "trainer.precision=bf16"],
    ],
)
def test_a_run_on_a_gpu_trains_keeps_and_is_loaded(experiment, options, request):
    name = request.node.name.translate(str.maketrans("[]/", "___"))
    result = experiment.run(name, *SHORT, *options)
    assert result["status"] == "completed"
    assert result["train"]["peak_memory_bytes"] > 0
