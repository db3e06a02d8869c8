import subprocess
import sys
import warnings

import numpy as np
import pytest
import scipy.stats
import torch
from torchmetrics.functional import classification as torchmetrics

from lpt.errors import LptError
from lpt.metrics import class_scores, compute, confusion_counts, confusion_matrix, interval, weighted


def binary(tn: int, fp: int, fn: int, tp: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Predicted and gold classes [N] with these numbers of true / false negatives / positives."""
    predicted = torch.tensor([0] * tn + [1] * fp + [0] * fn + [1] * tp)
    gold = torch.tensor([0] * tn + [0] * fp + [1] * fn + [1] * tp)
    return predicted, gold


def mostly_right(rows: int, num_classes: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Random gold classes and predictions of which about seven in ten are right."""
    generator = torch.Generator().manual_seed(1)
    gold = torch.randint(num_classes, (rows,), generator=generator)
    guess = torch.randint(num_classes, (rows,), generator=generator)
    return torch.where(torch.rand(rows, generator=generator) < 0.6, gold, guess), gold


def value_of(name: str, predicted: torch.Tensor, gold: torch.Tensor, num_classes: int | None) -> float:
    return compute([name], predicted, gold, num_classes)[name]


def test_confusion_matrix_counts_gold_classes_in_rows_and_predictions_in_columns():
    predicted = torch.tensor([0, 0, 2, 2, 2, 1])
    gold = torch.tensor([0, 1, 1, 2, 2, 2])
    counts = confusion_matrix(predicted, gold, 4)
    assert counts.tolist() == [[1, 0, 0, 0], [1, 0, 1, 0], [0, 1, 2, 0], [0, 0, 0, 0]]


def test_each_class_has_the_precision_recall_and_f1_of_scikit_learn():
    gold = np.array([0, 0, 0, 0, 1, 1, 1, 2, 2, 3])
    predicted = np.array([0, 0, 1, 2, 1, 1, 0, 2, 1, 0])
    # precision_recall_fscore_support(gold, predicted, labels=range(4), zero_division=0) of scikit-learn 1.9
    expected = ([0.5, 0.5, 0.5, 0], [0.5, 2 / 3, 0.5, 0], [0.5, 4 / 7, 0.5, 0], [4, 3, 2, 1])
    found = class_scores(confusion_counts(predicted, gold, 4))
    for part, values in zip(found, expected, strict=True):
        assert part.tolist() == pytest.approx(values)


def test_each_class_of_many_rows_is_scored_as_torchmetrics_does():
    predicted, gold = mostly_right(500, 7)
    counts = confusion_counts(predicted.numpy(), gold.numpy(), 7)
    assert (counts == confusion_matrix(predicted, gold, 7)).all()
    found = class_scores(counts)
    for name in ("precision", "recall", "f1_score"):
        scored = getattr(torchmetrics, f"multiclass_{name}")(predicted, gold, 7, average="none")
        assert getattr(found, name.removesuffix("_score")) == pytest.approx(scored.numpy(), abs=1e-6)


def test_accuracy_is_the_share_of_right_rows_to_the_last_digit():
    predicted, gold = binary(tn=400, fp=100, fn=79, tp=421)
    assert compute(["accuracy"], predicted, gold, 2) == {"accuracy": 0.821}


def test_f1_is_that_of_class_1():
    predicted, gold = binary(tn=90, fp=1, fn=2, tp=3)
    assert compute(["f1"], predicted, gold, 2) == {"f1": 6 / 9}  # class 0 would have 180 / 183


def test_f1_is_zero_where_nothing_is_positive():
    assert compute(["f1"], *binary(tn=5, fp=0, fn=0, tp=0), 2) == {"f1": 0.0}


def test_f1_of_more_than_two_classes_is_refused():
    with pytest.raises(LptError, match="f1 scores class 1 of 2, but there are 3 classes"):
        compute(["f1"], *mostly_right(10, 3), 3)


def test_matthews_is_the_correlation_of_two_binary_columns():
    predicted, gold = binary(tn=3, fp=1, fn=2, tp=6)
    assert value_of("matthews", predicted, gold, 2) == pytest.approx(16 / 1120**0.5, rel=1e-12)


def test_matthews_of_three_classes_matches_the_closed_form():
    predicted = torch.tensor([0, 1, 1, 2, 2, 2])
    gold = torch.tensor([0, 0, 1, 1, 2, 2])
    # 6 rows, 4 right; predicted 1, 2, 3 and gold 2, 2, 2 of the classes
    expected = (6 * 4 - 12) / ((36 - 14) * (36 - 12)) ** 0.5
    assert value_of("matthews", predicted, gold, 3) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("num_classes", [2, 3])
@pytest.mark.parametrize("constant", ["predicted", "gold", "both"])
def test_matthews_is_zero_where_one_class_leaves_it_undefined(constant, num_classes):
    mixed, ones = torch.tensor([0, 1, 1, 0]), torch.ones(4, dtype=torch.int64)
    predicted = mixed if constant == "gold" else ones
    gold = mixed if constant == "predicted" else ones
    assert value_of("matthews", predicted, gold, num_classes) == 0.0


def test_matthews_is_zero_where_all_rows_are_wrong_in_the_same_way():
    assert value_of("matthews", *binary(tn=0, fp=7, fn=0, tp=0), 2) == 0.0


def test_matthews_keeps_its_digits_on_large_test_sets():
    predicted, gold = binary(tn=50_000, fp=0, fn=49_999, tp=1)
    expected = (1 * 50_000) / (1 * 50_000 * 50_000 * 99_999) ** 0.5
    assert value_of("matthews", predicted, gold, 2) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("num_classes", [2, 3, 6])
def test_metrics_agree_with_torchmetrics_where_both_are_defined(num_classes):
    predicted, gold = mostly_right(500, num_classes)
    expected = {
        "accuracy": torchmetrics.multiclass_accuracy(predicted, gold, num_classes, average="micro").item(),
        "matthews": torchmetrics.multiclass_matthews_corrcoef(predicted, gold, num_classes).item(),
    }
    if num_classes == 2:
        expected["f1"] = torchmetrics.binary_f1_score(predicted, gold).item()
    assert compute(expected, predicted, gold, num_classes) == pytest.approx(expected, abs=1e-6)


def values(rows: int, noise: float = 1.0) -> tuple[torch.Tensor, torch.Tensor]:
    """Gold values from 0 to 5 in steps of 0.2, as STS-B's are, and predictions that lie about them."""
    generator = torch.Generator().manual_seed(1)
    gold = torch.randint(26, (rows,), generator=generator) / 5
    return gold + noise * torch.randn(rows, generator=generator), gold


def test_correlations_are_those_of_values_and_of_ranks():
    predicted, gold = torch.tensor([1.0, 2.0, 3.0, 100.0]), torch.tensor([0.0, 1.0, 4.0, 5.0])
    scores = compute(["pearson", "spearman"], predicted, gold, None)
    assert scores["pearson"] == pytest.approx(np.corrcoef(predicted, gold)[0, 1], abs=1e-12)
    assert scores["spearman"] == pytest.approx(1)
    assert compute(["spearman"], -predicted, gold, None)["spearman"] == pytest.approx(-1)


def test_equal_values_share_their_ranks():
    predicted, gold = values(300)
    expected = scipy.stats.spearmanr(predicted, gold).statistic
    assert value_of("spearman", predicted, gold, None) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("name", ["pearson", "spearman"])
@pytest.mark.parametrize("constant", ["predicted", "gold"])
def test_a_correlation_with_one_value_alone_is_zero(name, constant):
    mixed, same = torch.tensor([1.0, 2.0, 5.0]), torch.full((3,), 2.5)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pair = (same, mixed) if constant == "predicted" else (mixed, same)
        assert value_of(name, *pair, None) == 0.0


@pytest.mark.parametrize("name", ["pearson", "spearman"])
def test_the_interval_of_a_correlation_surrounds_it_and_narrows_with_rows(name):
    few, many = (interval(name, *values(rows), None) for rows in (50, 800))
    assert few[0] < value_of(name, *values(50), None) < few[1]
    assert many[1] - many[0] < few[1] - few[0]


def test_compute_returns_the_metrics_asked_for_in_that_order():
    scores = compute(["matthews", "accuracy"], *mostly_right(50, 2), 2)
    assert list(scores) == ["matthews", "accuracy"]
    assert all(type(value) is float for value in scores.values())


def test_accuracy_interval_is_wilsons():
    predicted, gold = binary(tn=8, fp=1, fn=1, tp=0)
    z, n, p = 1.959963984540054, 10, 0.8
    center = (p + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * (p * (1 - p) / n + z**2 / (4 * n**2)) ** 0.5
    assert interval("accuracy", predicted, gold, 2) == pytest.approx((center - half, center + half), rel=1e-9)


@pytest.mark.parametrize("name", ["f1", "matthews"])
def test_bootstrap_interval_has_the_quantiles_of_redrawn_rows(name):
    predicted, gold = mostly_right(400, 2)
    rng = np.random.default_rng(7)
    redrawn = [rng.integers(400, size=400) for _ in range(1000)]
    scores = [value_of(name, predicted[rows], gold[rows], 2) for rows in redrawn]
    low, high = np.quantile(scores, [0.025, 0.975])
    assert interval(name, predicted, gold, 2) == pytest.approx((low, high), abs=0.02)


@pytest.mark.parametrize("name", ["f1", "matthews"])
def test_bootstrap_keeps_every_prediction_with_its_own_gold_class(name):
    _, gold = mostly_right(100, 2)
    assert interval(name, gold, gold, 2) == (1.0, 1.0)


def test_bootstrap_interval_depends_on_its_seed_alone():
    predicted, gold = mostly_right(100, 2)
    first = interval("f1", predicted, gold, 2, seed=3)
    np.random.seed(5)
    torch.manual_seed(5)
    assert interval("f1", predicted, gold, 2, seed=3) == first
    assert interval("f1", predicted, gold, 2, seed=4) != first


@pytest.mark.parametrize("name", ["accuracy", "f1", "matthews"])
def test_interval_widens_with_confidence_and_narrows_with_rows(name):
    def width(rows: int, confidence: float) -> float:
        low, high = interval(name, *mostly_right(rows, 2), 2, confidence=confidence)
        return high - low

    assert width(400, 0.5) < width(400, 0.95) < width(50, 0.95)


@pytest.mark.parametrize(
    ("name", "counts", "value"),
    [
        ("f1", {"tn": 0, "fp": 0, "fn": 0, "tp": 1}, 1.0),
        ("f1", {"tn": 1, "fp": 0, "fn": 0, "tp": 0}, 0.0),
        ("f1", {"tn": 6, "fp": 0, "fn": 4, "tp": 0}, 0.0),
        ("f1", {"tn": 0, "fp": 0, "fn": 0, "tp": 9}, 1.0),
        ("matthews", {"tn": 0, "fp": 0, "fn": 0, "tp": 1}, 0.0),
        ("matthews", {"tn": 0, "fp": 6, "fn": 0, "tp": 4}, 0.0),
        ("matthews", {"tn": 6, "fp": 0, "fn": 4, "tp": 0}, 0.0),
    ],
)
def test_rows_that_can_score_only_one_value_have_an_interval_without_width_or_warning(name, counts, value):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert interval(name, *binary(**counts), 2) == (value, value)


@pytest.mark.parametrize("score", [lambda *rows: compute(["accuracy"], *rows), confusion_matrix])
@pytest.mark.parametrize(
    ("predicted", "gold", "message"),
    [
        ([], [], "no rows to score"),
        ([0, 1], [0, 1, 1], r"shapes \[2\] and \[3\]"),
        ([[0, 1]], [[0, 1]], r"shapes \[1, 2\] and \[1, 2\]"),
        ([0, 1], [-1, -1], r"gold class -1 is outside 0 \.\. 1; is this a split without gold labels\?"),
        ([0, 2], [0, 1], r"predicted class 2 is outside 0 \.\. 1$"),
    ],
)
def test_rows_that_cannot_be_scored_are_refused(score, predicted, gold, message):
    with pytest.raises(LptError, match=message):
        score(torch.tensor(predicted, dtype=torch.int64), torch.tensor(gold, dtype=torch.int64), 2)


def test_interval_refuses_rows_that_cannot_be_scored():
    with pytest.raises(LptError, match="no rows to score"):
        interval("f1", torch.tensor([], dtype=torch.int64), torch.tensor([], dtype=torch.int64), 2)


def test_an_unknown_metric_is_refused_with_the_known_ones():
    rows = mostly_right(10, 2)
    with pytest.raises(
        LptError, match=r"'acuracy'; did you mean 'accuracy'\? \(known: accuracy, f1, matthews, pearson, spearman\)"
    ):
        compute(["acuracy"], *rows, 2)
    with pytest.raises(LptError, match=r"'mcc'.*known: accuracy, f1, matthews"):
        interval("mcc", *rows, 2)


@pytest.mark.parametrize(
    ("name", "num_classes", "wanted"), [("pearson", 2, "classes; use accuracy or f1"), ("f1", None, "numbers; use")]
)
def test_a_metric_of_the_other_kind_is_refused(name, num_classes, wanted):
    with pytest.raises(LptError, match=f"metric {name} scores .* and these are {wanted}"):
        compute([name], *mostly_right(10, 2), num_classes)


@pytest.mark.parametrize(
    ("name", "num_classes"),
    [("accuracy", 3), ("f1", 2), ("matthews", 2), ("matthews", 4), ("pearson", None), ("spearman", None)],
)
def test_a_weighted_score_is_that_of_the_rows_written_out(name, num_classes):
    predicted, gold = values(50) if num_classes is None else mostly_right(60, num_classes)
    weights_RN = np.random.default_rng(1).integers(0, 4, (5, len(gold)))
    repeated = [torch.from_numpy(np.repeat(np.arange(len(gold)), weights)) for weights in weights_RN]
    expected = [value_of(name, predicted[rows], gold[rows], num_classes) for rows in repeated]
    found = weighted(
        name,
        predicted.double().numpy() if num_classes is None else predicted.numpy(),
        gold.numpy(),
        num_classes,
        weights_RN.astype(float),
    )
    assert found == pytest.approx(expected, abs=1e-12)


def test_importing_metrics_waits_for_neither_torch_nor_scipy():
    code = "import sys, lpt.metrics; print(sorted({'torch', 'scipy', 'torchmetrics'} & sys.modules.keys()))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "[]\n"
