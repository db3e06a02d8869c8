"""Every method through a whole experiment in miniature."""

import json

import pytest
import torch
from experiment import make_experiment
from method_zoo import BOTTLENECK, DEEP, PROMPT, RANK, REDUCTION, SETTINGS, expected, first_layer
from safetensors.torch import load_file
from tiny import HIDDEN, LAYERS

from lpt.methods import METHODS
from lpt.training.module import PromptModule

WITH_GENERATOR = ("lpt", "lpt_lora", *DEEP)
SHORT = ["fewshot.k=16", "trainer.max_steps=2", "trainer.eval_batch_size=64", "logger=none"]
RECORDED = {  # in result.json, of the method
    "lpt": {"layer": 3, "prompt_length": PROMPT, "generator": "npg", "bottleneck": BOTTLENECK, "normalize": False},
    "lpt_lora": {"layer": 3, "prompt_length": PROMPT, "generator": "npg", "bottleneck": BOTTLENECK, "normalize": False}
    | {"rank": RANK, "alpha": 16, "targets": "all"},
    "lora": {"layer": 1, "rank": RANK, "alpha": 16, "targets": "attention"},
    "adapter": {"layer": 1, "bottleneck": BOTTLENECK, "placement": "houlsby"},
    "adapterdrop": {"layer": 3, "bottleneck": BOTTLENECK, "placement": "houlsby"},
    "bitfit": {"layer": None},
    "full": {"layer": None},
    "prompt_tuning": {"prompt_length": PROMPT},
    "p_tuning_v2": {"layer": 1, "prompt_length": PROMPT},
    "s_idpg": {"prompt_length": PROMPT, "bottleneck": BOTTLENECK},
    **{name: {"layer": 3, "prompt_length": PROMPT, "bottleneck": BOTTLENECK, "normalize": False} for name in DEEP},
    "ladder": {"layer": 1, "reduction": REDUCTION, "rungs": "linear"},
    "state_probe": {"layer": 3, "pool": "attention"},
    "linear_probe": {"layer": LAYERS},
    "zero_shot": {"layer": LAYERS},
}
for name in DEEP:
    RECORDED[name] |= {"generator": "attentive" if name == "iapt" else "npg", "normalize": name == "iapt", "every": 1}
RECORDED = {name: settings | {"read_only": name in ("lpt", *DEEP)} for name, settings in RECORDED.items()}


def options(name):
    of_the_prompt = ("prompt_length", "bottleneck") if name in WITH_GENERATOR else ()
    group, given = {True: "lpt", False: "method"}, SETTINGS.get(name, {})
    sizes = [
        f"{group[option in of_the_prompt]}.{option}={size}" for option, size in given.items() if option != "generator"
    ]
    return [f"method={name}", *sizes]


@pytest.fixture(scope="module")
def experiments(tmp_path_factory):
    return {family: make_experiment(tmp_path_factory.mktemp(family), family) for family in ("gpt2", "roberta")}


@pytest.fixture(autouse=True)
def cache_of_its_own(tmp_path, monkeypatch):
    """Other tests run the same backbone on the same rows, and ask what was computed and what was there."""
    monkeypatch.setenv("LPT_CACHE", str(tmp_path))


@pytest.fixture
def experiment(experiments):
    return experiments["gpt2"]


@pytest.mark.parametrize(
    ("name", "family"),
    [*((name, "gpt2") for name in METHODS), ("full", "roberta"), ("linear_probe", "roberta")],
)
def test_every_method_runs_and_its_result_says_what_was_trained(experiments, name, family):
    experiment = experiments[family]
    result = experiment.run(name, *SHORT, *options(name))
    names, size = expected(name, family)
    if name in ("linear_probe", "state_probe"):
        names, size = names | {"linear.weight", "linear.bias"}, size + HIDDEN * 2 + 2
    assert json.loads(json.dumps(result)) == experiment.result(name)
    assert (result["status"], result["method"]) == ("completed", name)
    assert result["settings"] == RECORDED[name]
    assert result["trainable_parameters"] == size
    prompt = {option: RECORDED[name].get(option) for option in ("prompt_length", "generator", "bottleneck")}
    if name not in WITH_GENERATOR:
        prompt = dict.fromkeys(prompt)
    assert result["lpt"] == {"layer": first_layer(name, None), "read_only": RECORDED[name]["read_only"]} | prompt
    adapter = experiment.run_dir(name) / "adapter"
    if name == "zero_shot":
        assert not adapter.exists()
        return
    saved = {tensor.removeprefix("method.") for tensor in load_file(adapter / "adapter.safetensors")}
    assert {tensor.removeprefix("backbone.model.").removeprefix("head.") for tensor in saved} == names
    assert json.loads((adapter / "adapter_config.json").read_text())["settings"] == RECORDED[name]


def test_a_late_method_reads_the_states_that_another_has_left_on_disk(experiment):
    first = experiment.run("late-lpt", *SHORT, "cache=disk", "lpt.layer=2", "lpt.read_only=false")
    assert first["cache"]["built"] == ["train", "validation", "test"]
    for name in ("lora", "full"):
        result = experiment.run(f"late-{name}", *SHORT, *options(name), "lpt.layer=2", "cache=disk")
        assert result["lpt"]["layer"] == 2
        assert result["cache"]["reused"] == ["train", "validation", "test"]


@pytest.mark.parametrize("name", ["lora", "full"])
def test_late_training_on_cached_states_is_training(experiment, name):
    runs = {}
    for mode in ("memory", "off"):
        run = f"{name}-{mode}"
        experiment.run(run, *SHORT[:3], *options(name), "lpt.layer=3", f"cache={mode}", "trainer.max_steps=4")
        runs[mode] = experiment.curve(run, "train/loss")
    assert runs["memory"] == pytest.approx(runs["off"], rel=1e-5)
    assert len(runs["off"]) == 4


def test_a_resumed_run_of_a_method_ends_as_the_undisturbed_one(experiment, monkeypatch):
    """Dropout is on, in the backbone and on what LoRA reads."""
    with_lora = [*options("lora"), "lpt.dropout=true", "method.dropout=0.2", "lpt.layer=2", "trainer.eval_every=4"]

    def die(self, outputs, batch, batch_idx):
        if self.global_step == 10:
            raise RuntimeError("power cut")

    with monkeypatch.context() as patch:
        patch.setattr(PromptModule, "on_train_batch_end", die)
        with pytest.raises(RuntimeError, match="power cut"):
            experiment.run("cut", *with_lora)
    resumed = experiment.run("cut", *with_lora, f"resume='{experiment.run_dir('cut')}'")
    undisturbed = experiment.run("undisturbed", *with_lora)
    assert resumed["metrics"] == undisturbed["metrics"]
    assert experiment.curve("cut", "train/loss") == pytest.approx(experiment.curve("undisturbed", "train/loss"))
    files = [experiment.run_dir(name) / "adapter" / "adapter.safetensors" for name in ("cut", "undisturbed")]
    for name, tensor in load_file(files[0]).items():
        assert torch.equal(tensor, load_file(files[1])[name]), name


@pytest.mark.parametrize("layer", ["null", "3"])
def test_trained_weights_are_float32_whatever_they_are_computed_in(experiment, layer):
    """Under autocast; the small updates that bf16 would lose are kept."""
    run = f"bf16-{layer}"
    start = load_file(experiment.folder / "backbone" / "model.safetensors")
    more = [f"lpt.layer={layer}", "trainer.precision=bf16", "optim.lr=1e-5", "cache=memory"]
    result = experiment.run(run, *SHORT, *options("full"), *more)
    assert (result["precision"], result["attention"]) == ("bfloat16", "eager")
    saved = load_file(experiment.run_dir(run) / "adapter" / "adapter.safetensors")
    assert {tensor.dtype for tensor in saved.values()} == {torch.float32}
    for name, tensor in saved.items():
        moved = (tensor - start[name.removeprefix("method.backbone.model.")]).abs().max()
        assert 0 < moved < 1e-4, name
    exact = experiment.run(f"{run}-not", *SHORT, *options("full"), *more, "trainer.precision=32")
    assert exact["precision"] == "float32"
    assert 0 < abs(exact["metrics"]["test"]["loss"] / result["metrics"]["test"]["loss"] - 1) < 0.1


def test_auto_precision_trains_weights_in_float32(experiment):
    result = experiment.run("auto", *SHORT, *options("bitfit"), "trainer.precision=auto")
    assert result["precision"] == "float32"


def test_prompt_tuning_starts_from_the_vocabulary_on_request(experiment):
    experiment.run("vocabulary", *SHORT, *options("prompt_tuning"), "generator.init=vocabulary", "optim.lr=1e-9")
    prompt = load_file(experiment.run_dir("vocabulary") / "adapter" / "adapter.safetensors")["method.generator.prompt"]
    words = load_file(experiment.folder / "backbone" / "model.safetensors")["transformer.wte.weight"]
    assert (prompt[:, None] - words).abs().amax(2).amin(1).max() < 1e-5


def test_whole_answers_train(experiment):
    labels = ["task.label_words={bad: never again, good: great}", "head=continuation"]
    result = experiment.run("continuation", *SHORT, *labels, "cache=memory")
    again = experiment.run("continuation-not-cached", *SHORT, *labels, "cache=off")
    assert result["metrics"]["test"] == pytest.approx(again["metrics"]["test"], rel=1e-5)
    assert result["metrics"]["test"]["loss"] > 0


def test_the_summary_says_which_method_with_its_settings(experiment, capsys):
    experiment.run("summary", *SHORT, *options("lpt_lora"))
    shown = dict(line.split("  ", 1) for line in capsys.readouterr().out.splitlines() if "  " in line)
    method, _, settings = shown["method"].strip().partition("  ")
    assert method == "lpt_lora"
    assert set(settings.strip("()").split(", ")) == {"rank 2", "alpha 16", "targets all"}
    assert shown["prompt"].strip() == "npg, 4 prompt tokens entering layer 3, seen by the text"
