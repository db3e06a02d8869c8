import json

import numpy as np
import pandas
import pytest
import torch
from experiment import make_experiment

import lpt
from lpt import LatePromptClassifier, fit, train
from lpt.errors import ConfigError, LptError
from lpt.training.result import read_result

TEXTS = [f"a {'good' if i % 2 else 'bad'} film {i}" for i in range(40)]
LABELS = ["fresh" if i % 2 else "rotten" for i in range(40)]


@pytest.fixture(scope="module")
def experiment(tmp_path_factory):
    return make_experiment(tmp_path_factory.mktemp("api"), "bert")


@pytest.fixture(scope="module")
def options(experiment):
    return [
        f"backbone.path='{experiment.folder}/backbone'",
        "recipe=quick",
        "trainer.max_steps=60",
        "trainer.accelerator=cpu",
        "trainer.precision=32",
        "lpt.layer=3",
        "optim.lr=3e-3",
        "cache=memory",
    ]


@pytest.fixture(scope="module")
def classifier(options):
    return fit(TEXTS, LABELS, *options, folds=2)


def test_few_rows_are_cross_validated_and_all_trained_on(classifier):
    assert isinstance(classifier, LatePromptClassifier)
    assert classifier.labels == ["fresh", "rotten"]
    assert set(classifier.metrics) == {"cross_validation"}
    assert classifier.metrics["cross_validation"]["accuracy"] > 0.8


def test_one_text_or_many_and_always_in_eval_mode(classifier):
    many = classifier.predict(TEXTS[:3])
    classifier.train()
    one = classifier.predict(TEXTS[0])
    assert not classifier.training
    assert classifier(TEXTS[0]) == one
    assert one.probabilities == pytest.approx(many[0].probabilities, abs=1e-5)
    assert str(one) == one.label
    found = classifier.predict_proba(TEXTS[:3])
    assert found == pytest.approx(np.array([list(p.probabilities.values()) for p in many]), abs=1e-5)
    assert classifier.predict_proba([]).shape == (0, 2)


def test_it_scores_itself_on_labeled_texts(classifier):
    right = sum(p.label == label for p, label in zip(classifier.predict(TEXTS), LABELS, strict=True))
    assert classifier.evaluate(TEXTS, LABELS)["accuracy"] == right / 40
    with pytest.raises(LptError, match=r"labels\[0\] is 'great'; give one of 'fresh', 'rotten'"):
        classifier.evaluate(["x"], ["great"])
    with pytest.raises(LptError, match="1 texts and 2 labels"):
        classifier.evaluate(["x"], ["fresh", "rotten"])


def test_a_folder_keeps_the_run_and_a_second_run_is_refused(options, tmp_path):
    classifier = fit(
        np.array(TEXTS), LABELS, *options, test=(TEXTS[:6], LABELS[:6]), folds=0, folder=tmp_path / "a run", seed=3
    )
    result = read_result(tmp_path / "a run")
    assert (result.seed, result.metrics["test"]) == (3, classifier.metrics["test"])
    assert "validation" in result.metrics
    with pytest.raises(LptError, match="already holds a run"):
        fit(TEXTS, LABELS, *options, folder=tmp_path / "a run")


def test_pairs_and_numbers(options):
    pairs = [(text, "the film") for text in TEXTS]
    classifier = fit(pairs, [i % 2 for i in range(40)], *options, regression=True, folds=0)
    assert set(classifier.metrics["test"]) == {"pearson", "spearman", "loss"}
    assert 0 <= classifier.predict(("a film", "the film")).value <= 1


@pytest.mark.parametrize(
    ("texts", "labels", "problem"),
    [
        (["a", None], ["x", "y"], r"train texts\[1\] is missing"),
        (["a", b"b"], ["x", "y"], r"train texts\[1\] is bytes"),
        (["a", {"text": "b"}], ["x", "y"], r"train texts\[1\] is \{'text': 'b'\}, of type dict"),
        ({"a": 1}, ["x"], "train texts is dict; give a list"),
        ("a text", ["x"], "train texts is str; give a list"),
        (["a", ("b", "c")], ["x", "y"], r"train texts\[1\] is \('b', 'c'\); give one text"),
        (["a", "b"], ["x", float("nan")], r"train labels\[1\] is missing"),
        (["a", "b"], ["x", pandas.NA], r"train labels\[1\] is missing"),
        (["a", "b"], ["x"], "2 texts and 1 labels"),
        (["a", "b"], ["x", "x"], "labels: all are 'x'; give at least two classes"),
        ([], [], "train: no texts"),
    ],
)
def test_what_cannot_be_trained_on_is_told_with_its_row(texts, labels, problem):
    with pytest.raises(LptError, match=problem):
        fit(texts, labels)


def test_a_whole_configuration_runs_from_python(experiment, tmp_path):
    folder = tmp_path / "run"
    trained = train(*experiment.options, f"hydra.run.dir='{folder}'")
    assert trained.folder == folder
    assert trained.metrics == read_result(folder).metrics
    assert train(f"resume='{folder}'").result == trained.result  # completed, and not trained again
    assert torch.is_tensor(trained.classifier.method.generator.proj_down.weight)
    # the same as the command: the same numbers, and it can be resumed
    experiment.train("the command")
    assert experiment.result("the command")["metrics"] == json.loads((folder / "result.json").read_text())["metrics"]


def test_options_are_checked_as_on_the_command_line():
    with pytest.raises(ConfigError) as caught:
        train("lpt.layr=3", "task=rtee")
    assert len(caught.value.complaints) == 2
    with pytest.raises(ConfigError, match="flags are for the command line"):
        train("-m", "seed=1,2")
    with pytest.raises(ConfigError, match="from Python a run has one process"):
        train("trainer.devices=2", "trainer.accelerator=cpu")


def test_the_public_names_are_offered_and_nothing_else():
    classes = ["LatePromptClassifier", "LatePromptModel", "MultiTaskClassifier", "Trained"]
    assert dir(lpt) == [*classes, "__version__", "fit", "train"]
    assert callable(lpt.train)
