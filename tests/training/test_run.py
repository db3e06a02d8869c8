import gc
import json
import signal
import sys
from importlib.util import find_spec

import numpy as np
import pytest
import torch
from experiment import make_experiment, write_scores
from safetensors.torch import load_file
from torch.utils._python_dispatch import TorchDispatchMode

from lpt import LatePromptClassifier
from lpt.backbones.families import FAMILIES
from lpt.backbones.split import SplitBackbone
from lpt.calibration import calibration_error, fit_temperature, tempered
from lpt.errors import LptError
from lpt.training.module import PromptModule
from lpt.training.stop import SIGNALS

BOTH_OF_EACH = ["train", "train", "validation", "validation", "test", "test"]  # states; keys and values


@pytest.fixture(scope="module")
def experiment(tmp_path_factory):
    return make_experiment(tmp_path_factory.mktemp("an experiment"))  # with a space in its path


@pytest.fixture(scope="module")
def plain(experiment):
    """One ordinary run, of which several tests look at the files."""
    return experiment.run("plain")


def test_a_run_folder_holds_what_it_promises(experiment, plain):
    folder = experiment.run_dir("plain")
    assert {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()} == {
        "result.json",
        "metrics.csv",
        "predictions/validation.jsonl",
        "predictions/test.jsonl",
        "adapter/adapter_config.json",
        "adapter/adapter.safetensors",
        "adapter/README.md",
        "checkpoints/best.ckpt",
        "checkpoints/last.ckpt",
        "checkpoints/previous.ckpt",
    }
    assert json.loads((folder / "result.json").read_text()) == json.loads(json.dumps(plain))
    assert plain["status"] == "completed"
    assert plain["train"]["steps"] == 18
    assert plain["data"]["sizes"] == {"train": 44, "validation": 30, "test": 30}
    assert plain["trainable_parameters"] == 16 * 8 + 8 + 8 * 5 * 16 + 5 * 16
    assert plain["lpt"] == {
        "layer": 3,
        "prompt_length": 5,
        "generator": "npg",
        "bottleneck": 8,
        "read_only": True,
    }


def test_a_run_leaves_signals_as_they_were_and_nothing_of_its_model_in_memory(experiment):
    """Else a process could not be ended after it has trained, and one that trains often would fill the memory."""
    before, models = {number: signal.getsignal(number) for number in SIGNALS}, living_models()
    experiment.run("freed", "trainer.max_steps=1")
    assert {number: signal.getsignal(number) for number in SIGNALS} == before
    assert living_models() <= models


def living_models():
    gc.collect()
    return {id(thing) for thing in gc.get_objects() if type(thing) in (PromptModule, SplitBackbone)}


def test_a_run_learns_what_can_be_learnt(tmp_path):
    """A word of each text tells its label; a random backbone without training is at chance."""
    learnable = make_experiment(tmp_path, "llama")
    before = learnable.run("before", "trainer.max_steps=0", "lpt.layer=2")
    after = learnable.run("after", "trainer.max_epochs=30", "lpt.layer=2", "lpt.read_only=false")
    assert before["metrics"]["test"]["accuracy"] < 0.7
    assert after["metrics"]["validation"]["accuracy"] > 0.9
    assert after["metrics"]["test"]["accuracy"] > 0.85


@pytest.mark.parametrize("family", ["deberta-v2", "albert", "modernbert", "gpt_neo", "gpt_neox", "gemma2"])
def test_a_run_goes_over_families_that_differ_from_the_usual(tmp_path, family):
    result = make_experiment(tmp_path, family).run("plain", "trainer.max_steps=3")
    assert result["status"] == "completed"
    kept = 1 if FAMILIES[family].keys_values is None else 2  # states, and keys and values
    assert result["cache"]["built"] == ["train"] * kept + ["validation"] * kept + ["test"] * kept
    assert result["attention"] in FAMILIES[family].attentions


@pytest.mark.skipif(find_spec("torchao") is None, reason="torchao is not installed")
def test_a_run_over_a_quantized_backbone_says_so_and_shares_no_states_with_others(tmp_path):
    small = make_experiment(tmp_path, "llama")
    for quantization, option in ((None, "null"), ("int8", "int8")):
        result = small.run(option, f"backbone.quantization={option}", "trainer.max_steps=3")
        assert result["quantization"] == quantization
        assert result["cache"]["built"] == BOTH_OF_EACH


def predictions(experiment, name, split):
    text = (experiment.run_dir(name) / "predictions" / f"{split}.jsonl").read_text()
    return [json.loads(line) for line in text.splitlines()]


@pytest.mark.parametrize("split", ["validation", "test"])
def test_predictions_on_disk_give_the_metrics_of_the_result(experiment, plain, split):
    rows = predictions(experiment, "plain", split)
    assert len(rows) == len({row["index"] for row in rows}) == 30
    right = sum(row["gold"] == row["predicted"] for row in rows) / len(rows)
    assert right == pytest.approx(plain["metrics"][split]["accuracy"])
    low, high = plain["intervals"][split]["accuracy"]
    assert 0 <= low < right < high <= 1
    for row in rows:
        assert sum(row["probabilities"].values()) == pytest.approx(1, abs=1e-5)
        assert max(row["probabilities"], key=row["probabilities"].get) == row["predicted"]


def test_scikit_learn_gives_the_metrics_of_the_result_from_predictions_on_disk(experiment):
    scores = pytest.importorskip("sklearn.metrics", reason="scikit-learn is not installed")
    result = experiment.run("metrics", "task.metrics=[accuracy,f1,matthews]")
    for split in ("validation", "test"):
        rows = predictions(experiment, "metrics", split)
        gold, predicted = ([row[name] for row in rows] for name in ("gold", "predicted"))
        assert set(predicted) == {"bad", "good"}  # else F1 and Matthews say little
        found = result["metrics"][split]
        assert found["accuracy"] == pytest.approx(scores.accuracy_score(gold, predicted), abs=1e-12)
        assert found["f1"] == pytest.approx(scores.f1_score(gold, predicted, pos_label="good"), abs=1e-12)
        assert found["matthews"] == pytest.approx(scores.matthews_corrcoef(gold, predicted), abs=1e-12)


# Regression


@pytest.fixture(scope="module")
def regression(tmp_path_factory):
    """Experiment and result of one run that predicts numbers."""
    experiment = make_experiment(tmp_path_factory.mktemp("regression"), "llama")
    options = write_scores(experiment.folder)
    return experiment, experiment.run("scores", *options, "trainer.max_epochs=20", "lpt.layer=2")


def test_a_regression_learns_numbers_that_can_be_learnt(regression):
    _, result = regression
    assert result["primary_metric"] == "pearson"
    assert result["calibration"] is None
    for split in ("validation", "test"):
        assert set(result["metrics"][split]) == {"pearson", "spearman", "loss"}
        for name in ("pearson", "spearman"):
            low, high = result["intervals"][split][name]
            assert 0.5 < low < result["metrics"][split][name] < high <= 1
    assert result["data"]["sizes"] == {"train": 44, "validation": 30, "test": 40}


def test_predictions_of_a_regression_are_numbers_that_give_the_metrics_of_the_result(regression):
    experiment, result = regression
    rows = predictions(experiment, "scores", "test")
    with (experiment.folder / "scores.csv").open() as file:
        gold = [float(line.rpartition(",")[2]) for line in file.readlines()[1:]]
    assert [row["gold"] for row in rows] == [gold[row["index"]] for row in rows]
    for row in rows:
        assert row["predicted"] == pytest.approx(5 * row["probabilities"]["good"], abs=1e-5)
    found, truth = ([row[name] for row in rows] for name in ("predicted", "gold"))
    assert result["metrics"]["test"]["pearson"] == pytest.approx(np.corrcoef(found, truth)[0, 1], abs=1e-5)


def test_an_adapter_of_a_regression_gives_the_numbers_of_the_run(regression):
    experiment, _ = regression
    adapter = experiment.run_dir("scores") / "adapter"
    classifier = LatePromptClassifier.from_pretrained(adapter, accelerator="cpu", precision="32")
    rows = predictions(experiment, "scores", "test")
    texts = [line.rpartition(",")[0] for line in (experiment.folder / "scores.csv").read_text().splitlines()[1:]]
    for row, found in zip(rows, classifier.predict([texts[row["index"]] for row in rows]), strict=True):
        assert found.value == pytest.approx(row["predicted"], abs=1e-4)
        assert found.label == max(found.probabilities, key=found.probabilities.get)


@pytest.mark.parametrize("head", ["vocabulary", "linear"])
def test_every_head_learns_from_numbers(experiment, head):
    options = [*write_scores(experiment.folder), "task.metrics=[pearson]"]
    experiment.run(f"scores-{head}", *options, f"head={head}", "lpt.layer=2", "trainer.max_steps=24")
    losses = [*experiment.curve(f"scores-{head}", "train/loss").values()]
    assert len(losses) == 24
    assert sum(losses[-6:]) < sum(losses[:6])


# Further test sets


@pytest.mark.parametrize("cache", ["memory", "disk"])
def test_a_further_test_set_is_scored_beside_the_test_set(experiment, cache, capsys):
    reviews = (experiment.folder / "reviews.csv").read_text().splitlines(keepends=True)
    (experiment.folder / "other.csv").write_text("".join(reviews[:8]))
    extra = f"task.files.extra_tests={{test_other: '{experiment.folder}/other.csv'}}"
    name = f"further-{cache}"
    result = experiment.run(name, extra, f"cache={cache}", "trainer.max_steps=4", "trainer.progress=false")
    without = experiment.run(f"{name}-not", f"cache={cache}", "trainer.max_steps=4")
    assert result["data"]["sizes"] == {"train": 44, "validation": 30, "test": 30, "test_other": 7}
    assert list(result["metrics"]) == list(result["intervals"]) == ["validation", "test", "test_other"]
    assert result["metrics"]["test"] == without["metrics"]["test"]
    cached = {"test", "test_other"} if cache == "disk" else set()
    assert cached == {*result["cache"]["built"], *result["cache"]["reused"]} - {"train", "validation"}
    rows = predictions(experiment, name, "test_other")
    assert [row["index"] for row in rows] == list(range(7))
    assert [row["gold"] for row in rows] == ["bad", "good", "bad", "good", "bad", "good", "bad"]
    right = sum(row["gold"] == row["predicted"] for row in rows) / 7
    assert result["metrics"]["test_other"]["accuracy"] == pytest.approx(right)
    assert f"test_other accuracy  {right:.3f}" in capsys.readouterr().out


def test_the_adapter_gives_the_predictions_of_the_run(experiment, plain):
    adapter = experiment.run_dir("plain") / "adapter"
    classifier = LatePromptClassifier.from_pretrained(adapter, accelerator="cpu", precision="32")
    assert classifier.config.temperature == plain["calibration"]["temperature"] != 1
    rows = predictions(experiment, "plain", "test")
    texts = [line.rpartition(",")[0] for line in (experiment.folder / "reviews.csv").read_text().splitlines()[1:]]
    found = classifier.predict([texts[row["index"]] for row in rows])
    for row, prediction in zip(rows, found, strict=True):
        assert prediction.label == row["predicted"]
        assert prediction.probabilities == pytest.approx(row["probabilities"], abs=1e-5)
        assert row["text"] == texts[row["index"]]


@pytest.fixture(scope="module")
def learned(experiment):
    """What is no better than chance has a temperature at its bound."""
    return experiment.run("learned", "lpt.read_only=false")


@pytest.mark.parametrize("split", ["validation", "test"])
def test_the_result_tells_how_far_probabilities_are_off_with_the_temperature_and_without(experiment, learned, split):
    rows = predictions(experiment, "learned", split)
    probabilities = np.array([[*row["probabilities"].values()] for row in rows])
    right = np.array([row["gold"] == row["predicted"] for row in rows])
    temperature = learned["calibration"]["temperature"]
    assert set(learned["calibration"]["ece"]) == set(learned["calibration"]["ece_before"]) == {"validation", "test"}
    for name, found in (("ece", probabilities), ("ece_before", tempered(probabilities, 1 / temperature))):
        assert learned["calibration"][name][split] == pytest.approx(calibration_error(found.max(1), right), abs=1e-4)
    if split == "validation":  # on which it was fitted
        gold = np.array([[*row["probabilities"]].index(row["gold"]) for row in rows])
        assert fit_temperature(probabilities, gold) == pytest.approx(1, abs=1e-3)


def test_the_same_seed_gives_the_same_bits_and_another_one_does_not(experiment, plain):
    again = experiment.run("again")
    assert again["metrics"] == plain["metrics"]
    assert experiment.curve("again", "train/loss") == experiment.curve("plain", "train/loss")
    experiment.run("other", "seed=14")
    assert experiment.curve("other", "train/loss") != experiment.curve("plain", "train/loss")
    files = [experiment.run_dir(name) / "adapter" / "adapter.safetensors" for name in ("plain", "again", "other")]
    plain_bytes, again_bytes, other_bytes = (path.read_bytes() for path in files)
    assert again_bytes == plain_bytes != other_bytes


def test_a_folder_with_a_run_is_not_written_over(experiment, plain):
    with pytest.raises(LptError, match="already holds a run"):
        experiment.run("plain")
    assert experiment.result("plain")["status"] == "completed"


def test_training_on_cached_states_is_training(experiment):
    """Dropout is on above layer k with and without a cache."""
    computed = experiment.run("cache-off", "cache=off", "lpt.layer=2")
    assert computed["cache"] == {"mode": "off", "bytes": 0, "built": [], "reused": [], "keys_values": False}
    for mode in ("disk", "memory"):
        cached = experiment.run(f"cache-{mode}", f"cache={mode}", "lpt.layer=2")
        assert cached["cache"]["mode"] == mode
        assert cached["metrics"]["test"] == pytest.approx(computed["metrics"]["test"], rel=1e-6)
        for column in ("train/loss", "validation/loss"):
            found, expected = (experiment.curve(f"cache-{name}", column) for name in (mode, "off"))
            assert found == pytest.approx(expected, rel=1e-6), column


def test_runs_share_the_states_on_disk(experiment, tmp_path, monkeypatch):
    monkeypatch.setenv("LPT_CACHE", str(tmp_path))  # where no other test has left anything
    options = ["cache=disk", "lpt.layer=4", "trainer.max_steps=2"]
    first = experiment.run("first-to-cache", *options)
    second = experiment.run("second-to-cache", *options, "generator=none", "lpt.prompt_length=2")
    assert first["cache"]["built"] == BOTH_OF_EACH
    assert second["cache"]["reused"] == BOTH_OF_EACH


@pytest.mark.parametrize("trunk_dropout", [False, True])
def test_dropout_is_on_while_training_from_layer_k_on_and_below_on_request(experiment, monkeypatch, trunk_dropout):
    modes = []

    def watch(self, batch, batch_idx, step=PromptModule.training_step):
        modes.append([layer.training for layer in self.classifier.method.backbone.layers])
        modes.append([self.classifier.method.generator.dropout.training])
        return step(self, batch, batch_idx)

    monkeypatch.setattr(PromptModule, "training_step", watch)
    options = ["trainer.max_steps=4", "trainer.eval_every=2", f"lpt.trunk_dropout={trunk_dropout}"]
    experiment.run(f"modes-{trunk_dropout}", *options)
    expected = [[trunk_dropout, trunk_dropout, True, True], [True]]
    assert modes == expected * 4  # also after an evaluation


def test_dropout_in_the_trunk_forbids_caching(experiment):
    result = experiment.run("trunk-dropout", "lpt.trunk_dropout=true", "trainer.max_steps=2")
    assert result["cache"]["mode"] == "off"


@pytest.mark.parametrize("options", [["method=zero_shot"], ["trainer.max_steps=0"]])
def test_without_training_the_backbone_is_evaluated_and_nothing_is_saved(experiment, options):
    name = options[0]
    result = experiment.run(name, *options)
    assert result["train"]["steps"] == 0
    assert 0 <= result["metrics"]["test"]["accuracy"] <= 1
    assert not (experiment.run_dir(name) / "adapter").exists()
    assert (result["trainable_parameters"] == 0) == (options == ["method=zero_shot"])


@pytest.mark.parametrize(("generator", "head"), [("appg", "label_words"), ("mppg", "vocabulary"), ("none", "linear")])
def test_every_generator_and_every_head_trains_and_is_kept(experiment, generator, head):
    """A generator knows nothing of heads, nor a head of generators: each once is enough."""
    name = f"{generator}-{head}"
    result = experiment.run(name, f"generator={generator}", f"head={head}", "trainer.max_steps=4")
    assert result["lpt"]["generator"] == generator
    assert len(experiment.curve(name, "train/loss")) == 4
    kept = load_file(experiment.run_dir(name) / "adapter" / "adapter.safetensors")
    trained = {"prompt": (5, 16)} if generator == "none" else {"proj_down.weight": (8, 16), "proj_up.weight": (16, 8)}
    for parameter, shape in trained.items():
        assert kept[f"method.generator.{parameter}"].shape == shape
    assert any(key.startswith("head.") for key in kept) == (head == "linear")


class Waits(TorchDispatchMode):
    """Counts how often a number is read from a tensor, for which a GPU would have to be waited for."""

    count = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.count += function is torch.ops.aten._local_scalar_dense.default
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize(("cache", "logger"), [("memory", "csv"), ("off", "none")])
def test_no_step_waits_for_the_device(experiment, cache, logger, monkeypatch):
    adam = sys.modules["torch.optim.adam"]
    monkeypatch.setattr(adam, "_get_value", lambda step: float(step.numpy()))  # is on the CPU always

    def waits(name, steps):
        options = (f"cache={cache}", "trainer.log_every=1000", f"logger={logger}", "trainer.eval_every=1000")
        with Waits() as found:
            experiment.run(f"{name}, {cache}, {logger}", *options, f"trainer.max_steps={steps}")
        return found.count

    waits("what is read once per process", 2)
    # At the latest, a line is written at the end of an epoch.
    assert waits("two steps", 2) == waits("several", 5 if logger == "csv" else 6)


@pytest.mark.parametrize("read_only", ["false", "true"])
def test_compiled_layers_train_as_the_others_do(tmp_path, monkeypatch, read_only):
    compile_layers, compiled = SplitBackbone.compile, []

    def without_machine_code(self, **options):  # which takes a minute to make
        compiled.append(self)
        compile_layers(self, backend="aot_eager", **options)

    monkeypatch.setattr(SplitBackbone, "compile", without_machine_code)
    experiment = make_experiment(tmp_path, "llama")  # has no dropout
    options = ("trainer.max_steps=3", "trainer.eval_batch_size=64", "cache=memory", "lpt.layer=4")
    options += (f"lpt.read_only={read_only}",)
    losses = [
        experiment.run(f"compile={wanted}", *options, f"trainer.compile={wanted}")["metrics"]["test"]["loss"]
        for wanted in ("false", "true")
    ]
    assert losses[1] == pytest.approx(losses[0], rel=1e-5)
    assert len(compiled) == 1
