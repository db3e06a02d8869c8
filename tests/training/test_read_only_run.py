"""Whole runs of methods that read the text once."""

import json

import pytest
from experiment import make_experiment

from lpt.classifier import LatePromptClassifier
from lpt.errors import LptError
from lpt.training.experiment import prepare

READ_ONLY = "lpt.read_only=true"


def predictions(folder):
    return [json.loads(line) for line in (folder / "predictions" / "test.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def experiment(tmp_path_factory):
    return make_experiment(tmp_path_factory.mktemp("read_only"), "llama")


@pytest.mark.parametrize(
    "options",
    [
        ["method=lpt", "lpt.layer=2"],
        ["method=lora", "method.targets=all", "optim.lr=1e-2"],
        ["method=full", "optim.lr=1e-2"],
        ["method=lpt", "lpt.layer=2", "head=continuation"],
    ],
    ids=lambda options: "-".join(text.partition("=")[2] for text in options[:3]),
)
def test_a_read_only_run_learns_keeps_what_it_read_and_leaves_an_adapter_that_knows(experiment, options, request):
    name = request.node.callspec.id
    result = experiment.run(name, READ_ONLY, "trainer.max_epochs=30", *options)
    assert result["metrics"]["test"]["accuracy"] > 0.85
    assert result["lpt"]["read_only"] is True
    assert result["cache"] | {"bytes": 0, "built": [], "reused": []} == {
        "mode": "disk", "keys_values": True, "bytes": 0, "built": [], "reused": []
    }  # fmt: skip
    adapter = experiment.run_dir(name) / "adapter"
    assert json.loads((adapter / "adapter_config.json").read_text())["settings"]["read_only"] is True
    classifier = LatePromptClassifier.from_pretrained(adapter, accelerator="cpu", precision="32")
    texts = [line.rpartition(",")[0] for line in (experiment.folder / "reviews.csv").read_text().splitlines()[1:]]
    rows = predictions(experiment.run_dir(name))
    for row, prediction in zip(rows, classifier.predict([texts[row["index"]] for row in rows]), strict=True):
        assert prediction.probabilities == pytest.approx(row["probabilities"], abs=1e-5)


def test_every_cache_gives_the_same_run_also_where_keys_and_values_do_not_fit(experiment):
    caches = {"off": ["cache=off"], "disk": ["cache=disk"], "memory": ["cache=memory"]}
    caches["states"] = ["cache=memory", "cache.max_bytes=200000"]
    for name, options in caches.items():
        result = experiment.run(f"cache-{name}", READ_ONLY, "lpt.layer=2", *options)
        assert result["cache"]["keys_values"] is (name in ("disk", "memory"))
    assert experiment.result("cache-states")["cache"]["mode"] == "memory"
    expected = predictions(experiment.run_dir("cache-off"))
    for name in caches:
        for found, row in zip(predictions(experiment.run_dir(f"cache-{name}")), expected, strict=True):
            assert found["probabilities"] == pytest.approx(row["probabilities"], abs=1e-3)


@pytest.mark.parametrize(
    ("family", "options", "expected"),
    [
        ("llama", [], True),
        ("llama", ["method=spt"], True),
        ("llama", ["lpt.read_only=false"], False),
        ("llama", ["method=lora"], False),
        ("llama", ["method=lpt_lora"], False),
        ("llama", ["method=prompt_tuning", "lpt.layer=null"], False),
        ("deberta-v2", [], False),
    ],
)
def test_unless_said_otherwise_a_late_prompt_is_read_only_where_the_backbone_can(tmp_path, family, options, expected):
    classifier = prepare(make_experiment(tmp_path, family).config(*options)).classifier
    assert classifier.method.read_only is expected
    assert classifier.config.settings["read_only"] is expected  # so that loading it again has no choice


def test_a_backbone_that_cannot_be_read_only_fails_with_what_can(tmp_path):
    with pytest.raises(LptError, match=r"lpt.read_only=true: .* \(deberta-v2\) cannot be read once"):
        make_experiment(tmp_path, "deberta-v2").run("refused", READ_ONLY)


def test_dropout_goes_by_one_switch_for_layers_and_prompt(tmp_path):
    gpt2 = make_experiment(tmp_path)
    rates = {}
    switches = {
        "off": ["lpt.dropout=false"],
        "on": ["lpt.dropout=true"],
        "own": ["lpt.dropout=false", "generator.dropout=0.3"],
    }
    for name, options in switches.items():
        config = gpt2.config("trainer.max_steps=1", *options)
        method = prepare(config).classifier.method.train()
        rates[name] = (method.generator.dropout.p, {module.training for module in method.backbone.layers[3].modules()})
    assert rates == {"off": (0.0, {False}), "on": (0.1, {True}), "own": (0.3, {False})}
