import json
import shutil
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


def test_a_run_folder_holds_what_it_promises(experiment, plain):
    folder = experiment.run_dir("plain")
    assert {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()} == {
        "result.json",
        "metrics.csv",
        "predictions/validation.jsonl",
        "predictions/test.jsonl",
        "adapter/adapter_config.json",
        "adapter/adapter.safetensors",
        "checkpoints/best.ckpt",
        "checkpoints/last.ckpt",
    }
    assert json.loads((folder / "result.json").read_text()) == json.loads(json.dumps(plain))
    assert plain["status"] == "completed"
    assert plain["train"]["steps"] == 18
    assert plain["data"]["sizes"] == {"train": 44, "validation": 30, "test": 30}
    assert plain["trainable_parameters"] == 16 * 8 + 8 + 8 * 5 * 16 + 5 * 16
    assert plain["lpt"] == {"layer": 3, "prompt_length": 5, "generator": "npg", "bottleneck": 8}


def test_a_run_learns_what_can_be_learnt(tmp_path):
    """A word of each text tells its label; a random backbone without training is at chance."""
    learnable = make_experiment(tmp_path, "llama")
    before = learnable.run("before", "trainer.max_steps=0", "lpt.layer=2")
    after = learnable.run("after", "trainer.max_epochs=30", "lpt.layer=2")
    assert before["metrics"]["test"]["accuracy"] < 0.7
    assert after["metrics"]["validation"]["accuracy"] > 0.9
    assert after["metrics"]["test"]["accuracy"] > 0.85


@pytest.mark.parametrize("family", ["deberta-v2", "albert", "modernbert", "gpt_neo", "gpt_neox", "gemma2"])
def test_a_run_goes_over_families_that_differ_from_the_usual(tmp_path, family):
    result = make_experiment(tmp_path, family).run("plain", "trainer.max_steps=3")
    assert result["status"] == "completed"
    assert result["cache"]["built"] == ["train", "validation", "test"]
    assert result["attention"] in FAMILIES[family].attentions


@pytest.mark.skipif(find_spec("torchao") is None, reason="torchao is not installed")
def test_a_run_over_a_quantized_backbone_says_so_and_shares_no_states_with_others(tmp_path):
    small = make_experiment(tmp_path, "llama")
    for quantization, option in ((None, "null"), ("int8", "int8")):
        result = small.run(option, f"backbone.quantization={option}", "trainer.max_steps=3")
        assert result["quantization"] == quantization
        assert result["cache"]["built"] == ["train", "validation", "test"]


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
def test_every_head_trains_on_numbers(experiment, head):
    options = write_scores(experiment.folder)
    result = experiment.run(f"scores-{head}", *options, f"head={head}", "trainer.max_steps=4")
    assert -1 <= result["metrics"]["test"]["pearson"] <= 1


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
    assert experiment.curve(name, "test_other/accuracy") == {4: pytest.approx(right)}
    assert f"test_other accuracy  {right:.3f}" in capsys.readouterr().out


def test_checkpoints_hold_the_trained_part_alone(experiment, plain):
    trained = {f"classifier.method.generator.{p}.{w}" for p in ("proj_down", "proj_up") for w in ("weight", "bias")}
    for name in ("best", "last"):
        path = experiment.run_dir("plain") / "checkpoints" / f"{name}.ckpt"
        assert set(torch.load(path, weights_only=True)["state_dict"]) == trained
        assert path.stat().st_size < 50_000


def test_the_adapter_gives_the_predictions_of_the_run(experiment, plain):
    adapter = experiment.run_dir("plain") / "adapter"
    classifier = LatePromptClassifier.from_pretrained(adapter, accelerator="cpu", precision="32")
    rows = predictions(experiment, "plain", "test")
    texts = [line.rpartition(",")[0] for line in (experiment.folder / "reviews.csv").read_text().splitlines()[1:]]
    found = classifier.predict([texts[row["index"]] for row in rows])
    for row, prediction in zip(rows, found, strict=True):
        assert prediction.label == row["predicted"]
        assert prediction.probabilities == pytest.approx(row["probabilities"], abs=1e-5)


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


def test_the_same_seed_gives_the_same_run_and_another_one_does_not(experiment, plain):
    again = experiment.run("again")
    assert again["metrics"] == plain["metrics"]
    assert experiment.curve("again", "train/loss") == experiment.curve("plain", "train/loss")
    experiment.run("other", "seed=14")
    assert experiment.curve("other", "train/loss") != experiment.curve("plain", "train/loss")


@pytest.fixture
def cut(experiment, monkeypatch, request):
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


def test_a_resumed_run_ends_as_the_undisturbed_one(experiment, cut):
    undisturbed = experiment.run(f"{cut}-not", "trainer.eval_every=4")
    folder = experiment.run_dir(cut)
    resumed = experiment.run(cut, "trainer.eval_every=4", f"resume='{folder}'")
    assert resumed["metrics"] == undisturbed["metrics"]
    assert resumed["best_step"] == undisturbed["best_step"]
    for column in ("train/loss", "validation/loss", "lr"):
        assert experiment.curve(cut, column) == pytest.approx(experiment.curve(f"{cut}-not", column)), column


def test_that_test_would_notice_rows_served_twice(experiment, cut, monkeypatch):
    start = TrainBatches.__init__
    monkeypatch.setattr(TrainBatches, "__init__", lambda self, *a, **k: start(self, *a, **(k | {"first_step": 0})))
    folder = experiment.run_dir(cut)
    experiment.run(cut, "trainer.eval_every=4", f"resume='{folder}'")
    undisturbed = experiment.run(f"{cut}-not", "trainer.eval_every=4")
    assert undisturbed["status"] == "completed"
    curves = [experiment.curve(name, "train/loss") for name in (cut, f"{cut}-not")]
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


def test_a_checkpoint_of_another_configuration_is_refused(experiment, cut):
    with pytest.raises(LptError, match=r"checkpoint does not fit .*proj_down.weight: \(8, 16\), expected \(4, 16\)"):
        experiment.run(cut, "trainer.eval_every=4", f"resume='{experiment.run_dir(cut)}'", "lpt.bottleneck=4")


def test_a_folder_with_a_run_is_not_written_over(experiment, plain):
    with pytest.raises(LptError, match="already holds a run"):
        experiment.run("plain")
    assert experiment.result("plain")["status"] == "completed"


@pytest.mark.parametrize("mode", ["disk", "memory"])
def test_training_on_cached_states_is_training(experiment, mode):
    """Dropout is on above layer k in both."""
    names = [f"cache-{mode}", f"no-cache-for-{mode}"]
    cached = experiment.run(names[0], f"cache={mode}", "lpt.layer=2")
    computed = experiment.run(names[1], "cache=off", "lpt.layer=2")
    assert cached["cache"]["mode"] == mode
    assert computed["cache"] == {"mode": "off", "bytes": 0, "built": [], "reused": []}
    for column in ("train/loss", "validation/loss"):
        assert experiment.curve(names[0], column) == pytest.approx(experiment.curve(names[1], column), rel=1e-6), column
    assert cached["metrics"]["test"] == pytest.approx(computed["metrics"]["test"], rel=1e-6)


def test_runs_share_the_states_on_disk(experiment, tmp_path, monkeypatch):
    monkeypatch.setenv("LPT_CACHE", str(tmp_path))  # where no other test has left anything
    options = ["cache=disk", "lpt.layer=4", "trainer.max_steps=2"]
    first = experiment.run("first-to-cache", *options)
    second = experiment.run("second-to-cache", *options, "generator=none", "lpt.prompt_length=2")
    assert first["cache"]["built"] == ["train", "validation", "test"]
    assert second["cache"]["reused"] == ["train", "validation", "test"]


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


@pytest.mark.parametrize("generator", ["appg", "mppg", "none"])
@pytest.mark.parametrize("head", ["label_words", "vocabulary", "linear"])
def test_every_generator_trains_with_every_head(experiment, generator, head):
    options = [f"generator={generator}", f"head={head}", "trainer.max_steps=4"]
    result = experiment.run(f"{generator}-{head}", *options)
    losses = experiment.curve(f"{generator}-{head}", "train/loss")
    assert result["status"] == "completed"
    assert len(losses) == 4
    assert (experiment.run_dir(f"{generator}-{head}") / "adapter" / "adapter.safetensors").is_file()


def test_a_static_prompt_cannot_start_from_embeddings_of_another_size(tmp_path):
    with pytest.raises(LptError, match=r"^generator.init=vocabulary: .* has embeddings of 12, and a prompt of H=16 "):
        make_experiment(tmp_path, "electra").run("vocabulary", "generator=none", "generator.init=vocabulary")


@pytest.mark.parametrize("generator", ["npg", "phm", "none"])
def test_a_prompt_starts_from_states_of_training_texts_on_request(experiment, generator):
    options = [f"generator={generator}", "generator.normalize=true", "generator.init=states", "optim.lr=1e-9"]
    experiment.run(f"states-{generator}", *options, "trainer.max_steps=1")
    found = load_file(experiment.run_dir(f"states-{generator}") / "adapter" / "adapter.safetensors")
    rows = found[f"method.generator.{'prompt' if generator == 'none' else 'proj_up.bias'}"].view(5, 16)
    torch.testing.assert_close(rows.square().mean(1), torch.ones(5))
    assert len(rows.unique(dim=0)) > 1


def test_a_static_prompt_starts_from_the_vocabulary_on_request(experiment):
    result = experiment.run("vocabulary", "generator=none", "generator.init=vocabulary", "trainer.max_steps=2")
    assert result["trainable_parameters"] == 5 * 16


class Waits(TorchDispatchMode):
    """Counts how often a number is read from a tensor, for which a GPU would have to be waited for."""

    count = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.count += function is torch.ops.aten._local_scalar_dense.default
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("logger", ["none", "csv"])
@pytest.mark.parametrize("cache", ["memory", "off"])
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


def test_compiled_layers_train_as_the_others_do(tmp_path, monkeypatch):
    compile_layers, compiled = SplitBackbone.compile, []

    def without_machine_code(self, **options):  # which takes a minute to make
        compiled.append(self)
        compile_layers(self, backend="aot_eager", **options)

    monkeypatch.setattr(SplitBackbone, "compile", without_machine_code)
    experiment = make_experiment(tmp_path, "llama")  # has no dropout
    options = ("trainer.max_steps=3", "trainer.eval_batch_size=64", "cache=memory")
    losses = [
        experiment.run(f"compile={wanted}", *options, f"trainer.compile={wanted}")["metrics"]["test"]["loss"]
        for wanted in ("false", "true")
    ]
    assert losses[1] == pytest.approx(losses[0], rel=1e-5)
    assert len(compiled) == 1
