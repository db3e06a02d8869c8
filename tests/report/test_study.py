import sqlite3

import numpy as np
import pytest
from made_runs import older, write_run

from lpt.errors import LptError
from lpt.report.board_tables import standings_table
from lpt.report.standings import difference_between
from lpt.report.study import study_of
from lpt.report.words import headline, legend


def flipped(rows, wrong):
    """SavedPredictions of the rows of `write_run`, wrong on the given ones."""
    gold = np.arange(rows) % 2
    predicted = gold.copy()
    predicted[list(wrong)] = 1 - gold[list(wrong)]
    return predicted


@pytest.fixture
def three(tmp_path):
    """lora best, adapter like it, zero_shot far behind; two seeds each."""
    wrong = {"lora": range(30), "adapter": range(2, 33), "zero_shot": range(140)}
    for method, rows in wrong.items():
        for seed in (1, 2):
            write_run(tmp_path / f"{method}{seed}", predicted=flipped(300, rows), method=method, seed=seed)
    return tmp_path


def differences(standings):
    return {row.label: row.difference.value for row in standings.rows if row.difference}


def whats(study):
    return [(gap.label, gap.seed, gap.what) for gap in study.gaps]


def test_the_best_comes_first_and_who_is_not_shown_to_be_worse_is_marked(three):
    (standings,) = study_of(three).standings
    assert [(row.label, row.tied) for row in standings.rows] == [
        ("lora", True),
        ("adapter", True),
        ("zero_shot", False),
    ]
    assert standings.best.mean == pytest.approx(0.9)
    assert standings.best.difference is None
    assert [row.difference.value for row in standings.rows[1:]] == pytest.approx([-1 / 300, -110 / 300])


def test_mean_and_spread_are_over_seeds(tmp_path):
    for seed, wrong in ((1, 10), (2, 20), (3, 60)):
        write_run(tmp_path / f"{seed}", seed=seed, predicted=flipped(100, range(wrong)), rows=100)
    (standings,) = study_of(tmp_path).standings
    (row,) = standings.rows
    assert (row.mean, row.sd) == pytest.approx((0.7, np.std([0.9, 0.8, 0.4], ddof=1)))
    assert row.interval[0] < row.mean < row.interval[1]


def test_one_seed_has_no_spread(tmp_path):
    write_run(tmp_path / "a")
    assert study_of(tmp_path).standings[0].rows[0].sd is None


def test_a_difference_seen_from_the_other_side_has_the_other_sign(three):
    (standings,) = study_of(three).standings
    there = difference_between(standings, "lora", "zero_shot")
    back = difference_between(standings, "zero_shot", "lora")
    assert (back.value, back.low, back.high) == (-there.value, -there.high, -there.low)
    assert back.adjusted == there.adjusted
    assert difference_between(standings, "lora", "lora") is None


def test_a_baseline_is_whom_the_others_are_compared_with_corrected_for_these_alone(three):
    (standings,) = study_of(three, ["method=adapter"]).standings
    assert differences(standings) == pytest.approx({"lora": 1 / 300, "zero_shot": -109 / 300})
    from_baseline = standings.rows[2].difference
    assert from_baseline.adjusted == pytest.approx(2 * from_baseline.p)
    among_all = difference_between(standings, "lora", "zero_shot")
    assert among_all.adjusted == pytest.approx(3 * among_all.p)


@pytest.mark.parametrize(
    ("baseline", "complaint"),
    [("method=full", "fits no completed configuration; there are adapter; lora"), ("lora", "must be option=value")],
)
def test_a_baseline_that_fits_nothing_is_refused(three, baseline, complaint):
    with pytest.raises(LptError, match=complaint):
        study_of(three, [baseline])


def test_a_baseline_that_fits_several_equally_well_is_refused_until_it_fits_one(tmp_path):
    write_run(tmp_path / "a", 0.9, method="lora")
    write_run(tmp_path / "b", 0.8, method="lora", lpt__layer=16)
    write_run(tmp_path / "c", 0.7, method="adapter", lpt__layer=4)
    with pytest.raises(LptError, match=r"fits 2 configurations of reviews, tiny .* for adapter: add option=value"):
        study_of(tmp_path, ["method=lora"])
    (standings,) = study_of(tmp_path, ["method=lora", "lpt.layer=1"]).standings
    means = {row.label: row.mean for row in standings.rows}
    assert differences(standings) == pytest.approx(
        {label: means[label] - means["lora · layer 1"] for label in list(means)[1:]}
    )


def test_of_several_baselines_each_is_compared_with_the_one_most_like_it(tmp_path):
    for k, right in ((16, 0.6), (64, 0.8)):
        for method, more in (("lora", 0.0), ("lpt", 0.05), ("adapter", -0.05)):
            write_run(tmp_path / f"{method}{k}", right + more, method=method, fewshot__k=k, rows=200)
    (standings,) = study_of(tmp_path, ["method=lora"]).standings
    expected = {"lpt · k=16": 0.05, "lpt · k=64": 0.05, "adapter · k=16": -0.05, "adapter · k=64": -0.05}
    assert differences(standings) == pytest.approx(expected, abs=0.006)


def test_a_single_option_that_is_a_number_puts_the_rows_in_order(tmp_path):
    for layer, right in ((21, 0.8), (4, 0.7), (16, 0.9)):
        write_run(tmp_path / f"{layer}", right, lpt__layer=layer)
    (standings,) = study_of(tmp_path).standings
    assert [row.label for row in standings.rows] == ["layer 4", "layer 16", "layer 21"]
    assert standings.best.label == "layer 16"


def test_complete_runs_leave_no_gaps_and_no_cautions(three):
    study = study_of(three)
    assert study.gaps == []
    assert study.cautions == []


def test_a_missing_seed_is_named(three):
    for path in sorted((three / "adapter2").rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    (three / "adapter2").rmdir()
    assert whats(study_of(three)) == [("adapter", "2", "no run, though others have this seed")]


def test_failed_and_unfinished_runs_are_named_with_their_errors(three):
    write_run(three / "c", method="lora", seed=3, error="out of memory")
    write_run(three / "d", method="bitfit", seed=1, unfinished=True)
    study = study_of(three)
    assert ("lora", "3", "failed") in whats(study)
    assert ("bitfit", "1", "unfinished") in whats(study)
    assert [gap.error for gap in study.gaps if gap.what == "failed"] == ["out of memory"]
    assert [row.label for row in study.standings[0].rows if not row.scores] == ["bitfit"]


def test_a_run_that_failed_and_then_was_completed_is_no_missing_seed(three):
    older(write_run(three / "c", method="lora", seed=2, error="out of memory"), 60)
    study = study_of(three)
    assert whats(study) == [("lora", "2", "failed, then completed by another run")]
    assert len(study.standings[0].rows[0].scores) == 2


def test_a_task_that_lacks_a_configuration_is_named(tmp_path):
    for task in ("one", "two"):
        for method in ("lpt", "lora"):
            if (task, method) != ("two", "lora"):
                write_run(tmp_path / task / method, method=method, task=task)
    gaps = study_of(tmp_path).gaps
    assert [(gap.task, gap.label, gap.what) for gap in gaps] == [("two", "lora", "no run, though another task has it")]


def test_what_trains_nothing_lacks_no_seed_unless_it_is_calibrated_on_training_rows(tmp_path):
    for seed in (1, 2):
        write_run(tmp_path / f"lora{seed}", method="lora", seed=seed)
    for calibrate in (False, True):
        untrained = {"method": "zero_shot", "head__calibrate": calibrate, "result": {"trainable_parameters": 0}}
        write_run(tmp_path / f"{calibrate}", seed=1, **untrained)
    lacking = ("zero_shot · head.calibrate=True", "2", "no run, though others have this seed")
    assert whats(study_of(tmp_path)) == [lacking]


def write_ledger(sweep, *points):
    """Each point: name, overrides, status, error."""
    sweep.mkdir(exist_ok=True)
    with sqlite3.connect(sweep / "sweep.db") as connection:
        connection.execute("CREATE TABLE points (name TEXT, overrides TEXT, status TEXT, error TEXT)")
        connection.executemany("INSERT INTO points VALUES (?, ?, ?, ?)", points)


def test_points_of_a_ledger_that_never_ran_are_named(three):
    write_ledger(
        three,
        ("lora1", '["method=lora"]', "completed", None),
        ("abc", '["method=full", "seed=1"]', "pending", None),
        ("def", '["method=ful"]', "failed", "no such method"),
    )
    found = [(gap.label, gap.what, gap.error) for gap in study_of(three).gaps]
    assert found == [("method=full seed=1", "pending", None), ("method=ful", "failed", "no such method")]


def test_a_point_that_could_not_say_why_it_ended_is_as_its_ledger_knows(three):
    for name, method in (("killed", "bitfit"), ("cut", "full"), ("at work", "p_tuning_v2")):
        write_run(three / name, method=method, seed=1, unfinished=True)
    write_run(three / "ended", method="s_idpg", seed=1, error="interrupted")
    write_ledger(
        three,
        ("killed", "[]", "failed", "killed by SIGKILL"),
        ("cut", "[]", "pending", "cut while it ran"),
        ("at work", "[]", "running", None),
        ("ended", "[]", "pending", "interrupted"),
        ("lora1", "[]", "failed", "as it was before its result was written"),
    )
    study = study_of(three)
    assert {(gap.label, gap.what, gap.error) for gap in study.gaps if gap.seed == "1"} == {
        ("bitfit", "failed", "killed by SIGKILL"),
        ("full", "unfinished", "cut while it ran"),
        ("p_tuning_v2", "unfinished", None),
        ("s_idpg", "unfinished", "interrupted"),
    }
    assert "6 completed runs · 1 failed · 3 unfinished" in headline(study)


def test_a_point_that_a_search_has_pruned_is_no_gap_and_is_called_so(three):
    write_run(three / "stopped", method="bitfit", seed=1, unfinished=True)
    write_ledger(three, ("stopped", "[]", "pruned", None), ("removed", "[]", "pruned", None))
    study = study_of(three)
    assert whats(study) == [("bitfit", "2", "no run, though others have this seed")]
    assert "6 completed runs · 1 pruned · " in headline(study)
    last = standings_table(study.standings[0]).rows[-1]
    assert last[:2] == ["bitfit", "pruned"]


def test_points_of_one_name_in_several_sweeps_are_told_apart(tmp_path):
    write_run(tmp_path / "a" / "point", method="lora")
    write_run(tmp_path / "b" / "point", method="lora", unfinished=True)
    write_ledger(tmp_path / "a", ("point", "[]", "completed", None))
    write_ledger(tmp_path / "b", ("point", "[]", "failed", "killed by SIGKILL"))
    write_ledger(tmp_path / "c", ("point", '["method=lora"]', "failed", "ended with exit status 2"))
    (run,) = study_of(tmp_path / "b" / "point").runs
    assert (run.status, run.error) == ("failed", "killed by SIGKILL")
    assert {(gap.what, gap.error) for gap in study_of(tmp_path).gaps} == {
        ("failed, then completed by another run", "killed by SIGKILL"),
        ("failed", "ended with exit status 2"),
    }


def test_a_ledger_that_cannot_be_read_does_no_harm(three):
    (three / "sweep.db").write_text("nonsense")
    assert study_of(three).gaps == []


def test_runs_of_different_test_rows_are_not_compared_and_it_is_said(three):
    write_run(three / "other", method="bitfit", result={"data": {"fingerprint": {"test": "changed"}}})
    study = study_of(three)
    assert [len(standings.rows) for standings in study.standings] == [1, 3]
    assert any("2 different sets of rows (changed, reviews)" in caution for caution in study.cautions)


def test_predictions_of_other_rows_under_the_same_name_are_not_paired(three):
    folder = write_run(three / "odd", method="bitfit", seed=1, rows=200, predicted=flipped(200, range(10)))
    study = study_of(three)
    row = next(row for row in study.standings[0].rows if row.label == "bitfit")
    assert (row.mean, row.interval, row.difference) == (0.95, None, None)
    assert any(folder.name in caution and "predicted other test rows" in caution for caution in study.cautions)


def test_predictions_that_contradict_the_recorded_score_are_not_trusted(three):
    write_run(three / "odd", method="bitfit", seed=1, result={"metrics": {"test": {"accuracy": 0.99}}})
    study = study_of(three)
    assert study.standings[0].rows[0].interval is None
    assert any("recorded accuracy 0.99, but its predictions give" in caution for caution in study.cautions)


def test_without_predictions_there_is_a_score_but_nothing_is_claimed(tmp_path):
    for method in ("lpt", "lora"):
        (write_run(tmp_path / method, method=method) / "predictions" / "test.jsonl").unlink()
    study = study_of(tmp_path)
    assert study.standings[0].pairs == {}
    assert all(row.interval is None and row.scores for row in study.standings[0].rows)
    assert len(study.cautions) == 2


@pytest.mark.parametrize(
    ("changed", "caution"),
    [
        ({"versions": {"torch": "2.14.0"}}, "different versions of torch: 2.13.0, 2.14.0"),
        ({"git": {"commit": "fedcba9876543210"}}, "different states of the code: 0123456789, fedcba9876"),
        ({"git": {"changed": True}}, "different states of the code: 0123456789, 0123456789, changed"),
        ({"precision": "float32"}, "different number formats"),
        (
            {"hardware": {"devices": 2}},
            "different hardware (1 x NVIDIA H200; 2 x NVIDIA H200)",
        ),
        ({"data": {"fingerprint": {"test": "reviews", "train": "new"}}}, "gave different training rows"),
    ],
    ids=["versions", "commit", "uncommitted", "precision", "hardware", "training rows"],
)
def test_what_should_not_differ_between_runs_is_pointed_out(three, changed, caution):
    write_run(three / "odd", method="bitfit", seed=1, predicted=flipped(300, range(50)), result=changed)
    assert any(caution in found for found in study_of(three).cautions)


def test_further_test_splits_and_metrics_do_not_disturb(three):
    scores = {"test": {"accuracy": 0.9, "f1": 0.8}, "test_mismatched": {"accuracy": 0.7}}
    predicted = flipped(300, range(30))
    write_run(three / "odd", method="bitfit", seed=1, predicted=predicted, result={"metrics": scores})
    assert study_of(three).standings[0].rows[0].mean == pytest.approx(0.9)


def test_what_names_leave_out_is_said_under_the_table(tmp_path):
    for name, options in {"plain": {}, "layer": {"lpt__layer": 8}, "length": {"lpt__prompt_length": 20}}.items():
        write_run(tmp_path / name, **options)
    (standings,) = study_of(tmp_path).standings
    assert legend(standings).startswith("Names leave out what most configurations of a method have: layer 16, P=5. ")
