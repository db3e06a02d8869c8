"""What is frozen keeps its bits, and a run in which it does not fails."""

import json
import re

import pytest
import torch
from experiment import make_experiment

from lpt.errors import LptError
from lpt.training.module import PromptModule


@pytest.fixture(scope="module")
def experiment(tmp_path_factory):
    return make_experiment(tmp_path_factory.mktemp("an experiment"))


@pytest.mark.parametrize("method", ["lpt", "lora", "bitfit", "full", "adapter", "linear_probe"])
def test_a_result_says_what_was_frozen_and_what_was_trained(experiment, method):
    head = ("head=linear",) if method == "linear_probe" else ()
    result = experiment.run(method, f"method={method}", "trainer.max_steps=2", *head)
    freeze, total = result["freeze"], result["trainable_parameters"] + result["freeze"]["frozen_parameters"]
    assert len(freeze["hash"]) == 32
    assert total >= result["backbone_parameters"]
    kinds = {
        "lpt": r"generator\.proj_",
        "lora": r"lora_[AB]\.",
        "adapter": r"\.(down|up)\.",
        "linear_probe": r"^head\.linear\.",
        "bitfit": "bias$",
        "full": "",
    }
    assert all(re.search(kinds[method], name) for name in freeze["trained"])


def test_runs_over_the_same_frozen_weights_have_the_same_hash(experiment):
    hashes = {experiment.run(f"seed {s}", f"seed={s}", "trainer.max_steps=1")["freeze"]["hash"] for s in (1, 2)}
    assert len(hashes) == 1


def test_an_untrained_model_has_no_certificate(experiment):
    assert experiment.run("untrained", "trainer.max_steps=0")["freeze"] is None


def change_a_weight(module):
    weight = next(p for p in module.classifier.method.backbone.model.parameters())
    with torch.no_grad():
        weight.view(-1)[0] += 1e-6


def wake_a_module(module):
    module.classifier.method.backbone.layers[0].train()


def train_a_weight(module):
    module.classifier.method.backbone.layers[3].ln_1.weight.requires_grad_(True)


def give_the_optimizer_a_weight(module):
    weight = module.classifier.method.backbone.layers[3].ln_1.weight
    module.trainer.optimizers[0].add_param_group({"params": [weight]})


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (change_a_weight, "frozen parameters have changed"),
        (wake_a_module, "modules of the frozen backbone are in train mode: .*h.0"),
        (train_a_weight, r"other parameters are trainable than before: .*h\.3\.ln_1\.weight"),
        (give_the_optimizer_a_weight, r"the optimizer trains other parameters than it should: .*h\.3\.ln_1\.weight"),
    ],
)
def test_a_run_that_breaks_its_promise_fails(experiment, monkeypatch, fault, message):
    plain = PromptModule.on_train_end

    def faulty(self):
        fault(self)
        plain(self)

    monkeypatch.setattr(PromptModule, "on_train_end", faulty)
    options = ("lpt.dropout=false", "trainer.max_steps=2")
    with pytest.raises(LptError, match=f"the run broke what its method promises: {message}"):
        experiment.run(fault.__name__, *options)
    assert experiment.result(fault.__name__)["status"] == "failed"


def test_a_run_is_resumed_over_a_moved_backbone_and_not_over_other_weights(tmp_path):
    experiment = make_experiment(tmp_path)
    experiment.run("first", "trainer.max_steps=2")
    moved = (tmp_path / "backbone").rename(tmp_path / "moved")
    more = ("trainer.max_steps=4", f"resume='{experiment.run_dir('first')}'")
    with pytest.raises(LptError, match=r"If it is elsewhere now, resume with backbone\.path=<folder or hub id>"):
        experiment.run("first", *more)
    more = (f"backbone.path='{moved}'", *more)
    assert experiment.run("first", *more)["train"]["steps"] == 4
    adapter = experiment.run_dir("first") / "adapter" / "adapter_config.json"
    assert json.loads(adapter.read_text())["backbone"] == str(moved)
    path = moved / "model.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(LptError, match="the backbone's weights, or their number format, are not those that this run"):
        experiment.run("first", *more)
