import itertools

import numpy as np
import pytest
import scipy.stats

from lpt.report.comparison import BOOTSTRAP, MCNEMAR, ResampledScores, compare, holm, mcnemar, score_resamples
from lpt.report.predictions import SavedPredictions


def answers(right):
    """SavedPredictions of rows of class 1 that are right where told."""
    right = np.asarray(right, dtype=int)
    return SavedPredictions(np.arange(len(right)), np.ones_like(right), right, np.ones(len(right)), ["a", "b"])


def test_mcnemar_is_the_exact_binomial_test_of_the_rows_that_one_alone_gets_right():
    first = answers([1] * 10 + [1] + [0] * 5)
    second = answers([1] * 10 + [0] + [1] * 5)
    assert mcnemar([first], [second]) == pytest.approx(2 * (1 + 6) / 2**6)
    assert mcnemar([answers([1] * 9 + [0])], [answers([0] * 9 + [0])]) == pytest.approx(2 / 2**9)


def test_mcnemar_sees_no_difference_where_errors_are_the_same_or_as_many():
    assert mcnemar([answers([1, 0, 1])], [answers([1, 0, 1])]) == 1.0
    assert mcnemar([answers([1, 0])], [answers([0, 1])]) == 1.0


def test_mcnemar_of_several_seeds_counts_every_way_round_that_the_rows_could_have_been():
    random = np.random.default_rng(0)
    first = [answers(random.random(10) < 0.8) for _ in range(2)]
    second = [answers(random.random(10) < 0.5) for _ in range(3)]
    sides = (np.mean([run.predicted for run in runs], axis=0) for runs in (first, second))
    differences = np.subtract(*sides)
    totals = [abs(np.dot(ways, differences)) for ways in itertools.product((1, -1), repeat=10)]
    expected = np.mean(np.array(totals) >= abs(differences.sum()) - 1e-9)
    assert 0.001 < expected < 0.9
    assert mcnemar(first, second) == pytest.approx(expected)


def test_mcnemar_does_not_take_more_seeds_for_more_rows():
    random = np.random.default_rng(0)
    first, second = (answers(random.random(100) < share) for share in (0.7, 0.8))
    assert mcnemar([first] * 3, [second] * 3) == pytest.approx(mcnemar([first], [second]))


def test_holm_multiplies_by_the_comparisons_left_and_never_decreases():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.5, 0.9]) == [1.0, 1.0]
    assert holm([0.03]) == [0.03]
    assert holm([]) == []


def test_an_interval_is_that_of_scipys_bootstrap_and_near_the_closed_form():
    right = np.random.default_rng(0).random(400) < 0.8
    low, high = score_resamples("accuracy", [[answers(right)]]).interval(0)
    theirs = scipy.stats.bootstrap((right,), np.mean, method="percentile", n_resamples=9999, rng=1).confidence_interval
    assert (low, high) == pytest.approx(tuple(theirs), abs=0.004)
    share = right.mean()
    assert (high - low) / 2 == pytest.approx(1.96 * (share * (1 - share) / 400) ** 0.5, rel=0.06)


def test_seeds_are_averaged_before_rows_are_weighed():
    random = np.random.default_rng(0)
    seeds = [answers(random.random(200) < share) for share in (0.6, 0.7, 0.8)]
    scored = score_resamples("accuracy", [seeds])
    rights = np.mean([seed.predicted for seed in seeds], axis=0)
    assert scored.values[0] == pytest.approx(rights.mean())
    # Runs that err on different rows are surer together than any of them alone.
    assert scored.resampled[:, 0].std() == pytest.approx(rights.std() / 200**0.5, rel=0.05)


def test_a_difference_is_paired_so_that_rows_hard_for_both_cancel_out():
    hard = np.random.default_rng(0).random(500) < 0.5
    better = hard.copy()
    better[np.flatnonzero(~hard)[:15]] = True  # three points better, and never worse
    found = [[answers(hard)], [answers(better)]]
    scored = score_resamples("accuracy", found)
    value, low, high, p = scored.difference(1, 0)
    assert value == pytest.approx(0.03)
    assert 0 < low < value < high
    assert p < 0.001
    # Unpaired, the two intervals overlap by far.
    assert scored.interval(0)[1] > scored.interval(1)[0]


def test_p_is_twice_the_share_of_resamples_on_the_other_side_of_zero():
    differences = np.array([-1.0] * 3 + [0.0] + [1.0] * 95)
    scored = ResampledScores(np.array([0.0, 1.0]), np.stack([np.zeros(99), differences], axis=1))
    assert scored.difference(1, 0)[3] == pytest.approx(2 * (4 + 1) / 100)
    assert scored.difference(0, 1)[3] == pytest.approx(2 * (4 + 1) / 100)


def test_what_always_agrees_does_not_differ():
    same = answers(np.random.default_rng(0).random(100) < 0.7)
    assert score_resamples("accuracy", [[same], [same]]).difference(1, 0) == (0, 0, 0, 1)


@pytest.mark.parametrize(("metric", "seeds"), [("accuracy", 2), ("f1", 1)])
def test_chance_alone_is_rarely_called_a_difference(metric, seeds):
    random = np.random.default_rng(0)
    p_values = []
    for _ in range(200):
        found = [[answers(random.random(150) < 0.7) for _ in range(seeds)] for _ in range(2)]
        p_values.append(compare(metric, found, score_resamples(metric, found, resamples=500), [(0, 1)])[0, 1].p)
    assert 0.01 <= np.mean(np.array(p_values) < 0.05) <= 0.1


def test_accuracies_are_compared_exactly_and_p_is_corrected_for_the_pairs():
    random = np.random.default_rng(0)
    found = [[answers(random.random(100) < 0.7) for _ in range(seeds)] for seeds in (1, 1, 2)]
    compared = compare("accuracy", found, score_resamples("accuracy", found), [(0, 1), (0, 2)])
    assert {difference.test for difference in compared.values()} == {MCNEMAR}
    assert compared[0, 2].p == mcnemar(found[0], found[2])
    assert [d.adjusted for d in compared.values()] == holm([d.p for d in compared.values()])


def test_other_metrics_than_accuracy_are_compared_by_bootstrap():
    found = [[answers([1, 0, 1, 1])], [answers([1, 1, 0, 1])]]
    assert compare("f1", found, score_resamples("f1", found), [(0, 1)])[0, 1].test == BOOTSTRAP


def test_large_test_sets_are_resampled_in_pieces_with_the_same_result(monkeypatch):
    found = [[answers(np.random.default_rng(0).random(50) < 0.7)]]
    whole = score_resamples("accuracy", found, resamples=100)
    monkeypatch.setattr("lpt.metrics.CHUNK", 350)
    pieces = score_resamples("accuracy", found, resamples=100)
    assert pieces.resampled.tolist() == whole.resampled.tolist()
