import json

import numpy as np
import pytest

from lpt.calibration import fit_temperature
from lpt.data.batches import EncodedSplit
from lpt.data.rows import LabeledRows
from lpt.report.predictions import read_predictions
from lpt.training.predictions import SplitPredictions

PROBABILITIES = np.array([[0.75, 0.25], [0.25, 0.75]])


def split(labels):
    return EncodedSplit([], LabeledRows([("a",), ("b",)], labels, [7, 3]))


def test_of_classes_the_likeliest_is_predicted_and_scored():
    predictions = SplitPredictions(PROBABILITIES, np.array([0, 0]), loss=0.5)
    assert predictions.predicted.tolist() == [0, 1]
    assert predictions.metrics(["accuracy"]) == {"accuracy": 0.5}
    low, high = predictions.intervals(["accuracy"])["accuracy"]
    assert low < 0.5 < high


def test_of_a_regression_the_mean_value_is_predicted():
    predictions = SplitPredictions(PROBABILITIES, np.array([1.0, 4.0]), loss=0.5, value_range=(0, 4))
    assert predictions.predicted.tolist() == [1.0, 3.0]
    assert predictions.metrics(["pearson"])["pearson"] == pytest.approx(1)


@pytest.mark.parametrize(
    ("value_range", "gold", "expected"),
    [(None, [0, 0], [("bad", "bad"), ("bad", "good")]), ((0, 4), [0.5, 4.0], [(0.5, 1.0), (4.0, 3.0)])],
)
def test_the_file_has_a_line_for_each_row_with_its_place_in_the_source(tmp_path, value_range, gold, expected):
    predictions = SplitPredictions(PROBABILITIES, np.array(gold), 0.5, value_range)
    path = tmp_path / "predictions" / "test.jsonl"
    predictions.write(path, split(gold), ["bad", "good"])
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert [row["index"] for row in rows] == [7, 3]
    assert [(row["gold"], row["predicted"]) for row in rows] == expected
    assert [row["probabilities"] for row in rows] == [{"bad": 0.75, "good": 0.25}, {"bad": 0.25, "good": 0.75}]


def test_the_file_keeps_the_beginning_of_each_text_with_a_mark_where_it_was_cut(tmp_path):
    texts = [("ein \u2028 schöner Film",), ("a film that is long",)]
    predictions = SplitPredictions(PROBABILITIES, np.array([0, 1]), loss=0.5)
    path = tmp_path / "test.jsonl"
    predictions.write(path, EncodedSplit([], LabeledRows(texts, [0, 1], [7, 3])), ["bad", "good"], keep_text=18)
    assert "schöner" in path.read_text()  # for people and grep
    found = read_predictions(path)
    assert found.texts == ["a film that is lo…", "ein \u2028 schöner Film"]  # by place; 18 characters fit whole
    assert found.index.tolist() == [3, 7]


def test_the_file_keeps_both_texts_of_a_pair_and_none_on_request(tmp_path):
    pairs = EncodedSplit([], LabeledRows([("a", "b"), ("c", "d")], [0, 1], [0, 1]))
    predictions = SplitPredictions(PROBABILITIES, np.array([0, 1]), loss=0.5)
    assert [row["text"] for row in predictions.rows(pairs, ["bad", "good"], keep_text=5)] == [["a", "b"], ["c", "d"]]
    path = tmp_path / "test.jsonl"
    predictions.write(path, pairs, ["bad", "good"], keep_text=5)
    assert read_predictions(path).texts == ["a / b", "c / d"]
    predictions.write(path, pairs, ["bad", "good"], keep_text=0)
    assert "text" not in json.loads(path.read_text().splitlines()[0])
    assert read_predictions(path).texts is None


def test_a_temperature_fitted_on_the_file_is_that_of_the_scores_however_small_a_probability_is(tmp_path):
    surest, rows = 1 - 4e-7, 200
    probabilities = np.array([[surest, 1 - surest], *[[0.9, 0.1]] * rows])
    gold = [1, *[0] * rows]
    texts = LabeledRows([("a",)] * len(gold), gold, list(range(len(gold))))
    predictions = SplitPredictions(probabilities, np.array(gold), loss=0.5)
    predictions.write(tmp_path / "test.jsonl", EncodedSplit([], texts), ["bad", "good"])
    found = SplitPredictions.read(tmp_path / "test.jsonl", ["bad", "good"], None, 0.5)
    expected = fit_temperature(probabilities, np.array(gold))
    assert fit_temperature(found.probabilities, found.gold) == pytest.approx(expected, rel=1e-4)
    assert expected < 5  # with 0 for 1e-7 it is the highest that is allowed
