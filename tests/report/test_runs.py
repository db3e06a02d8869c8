import json

import numpy as np
import pytest
from made_runs import LABELS, write_run

from lpt.errors import LptError
from lpt.report.learning import read_curves
from lpt.report.predictions import read_predictions
from lpt.report.runs import collect_runs
from lpt.report.study import study_of


def test_runs_are_found_at_any_depth_and_named_from_the_folder(tmp_path):
    write_run(tmp_path / "b")
    write_run(tmp_path / "sweep one" / "0")
    write_run(tmp_path / "a" / "b" / "c", error="out of memory")
    write_run(tmp_path / "cut", unfinished=True)
    write_run(tmp_path / "b" / "folds" / "1")  # a part of its run, not one of its own
    (tmp_path / "notes").mkdir()
    found = {run.name: run.status for run in collect_runs(tmp_path)}
    assert found == {"a/b/c": "failed", "b": "completed", "cut": "unfinished", "sweep one/0": "completed"}


def test_a_run_folder_itself_is_a_run(tmp_path):
    (run,) = collect_runs(write_run(tmp_path / "one"))
    assert run.name == "one"


def test_a_folder_without_runs_is_one_clear_error(tmp_path):
    with pytest.raises(LptError, match=r"no run under .*train\.py"):
        collect_runs(tmp_path)
    with pytest.raises(LptError, match="there is no such folder"):
        collect_runs(tmp_path / "nowhere")


def test_interpolations_are_resolved_and_the_layer_is_the_one_that_was_used(tmp_path):
    (run,) = collect_runs(write_run(tmp_path / "one", seed=21))
    assert run.options["fewshot.seed"] == 21
    assert run.options["lpt.layer"] == 16


def test_a_method_without_a_prompt_has_its_layer_but_no_options_of_a_prompt(tmp_path):
    (run,) = collect_runs(write_run(tmp_path / "one", method="lora"))
    assert run.options["lpt.layer"] == 1
    assert not {"lpt.prompt_length", "lpt.bottleneck", "generator.name"} & run.options.keys()


def test_a_result_that_cannot_be_read_is_a_failed_run(tmp_path):
    (write_run(tmp_path / "one") / "result.json").write_text('{"status": "comp')
    (run,) = collect_runs(tmp_path)
    assert run.status == "failed"
    assert "result.json cannot be read" in run.error


def test_results_of_another_format_are_one_caution_and_left_out(tmp_path):
    for seed in (1, 2, 3):
        path = write_run(tmp_path / str(seed), seed=seed) / "result.json"
        if seed > 1:
            path.write_text('{"status": "completed"}')  # format 1 did not say its format
    study = study_of(tmp_path)
    assert [run.name for run in study.runs] == ["1"]
    assert study.gaps == []
    assert study.cautions == [
        "2 runs were written by another version of lpt, whose result.json this one does not read (2, 3): left out; "
        "run them again to see them."
    ]
    with pytest.raises(LptError, match=r"1 run was written by another version of lpt"):
        study_of(tmp_path / "2")


def test_without_hydras_files_a_run_is_what_its_result_says(tmp_path):
    folder = write_run(tmp_path / "one", seed=42)
    for path in (folder / ".hydra").iterdir():
        path.unlink()
    (folder / ".hydra").rmdir()
    (run,) = collect_runs(tmp_path)
    assert (run.task, run.backbone, run.seed) == ("reviews", "tiny", 42)
    assert (run.options["generator.name"], run.options["fewshot.k"]) == ("npg", 400)


def test_predictions_are_in_the_order_of_their_rows(tmp_path):
    folder = write_run(tmp_path / "one", rows=40)
    path = folder / "predictions" / "test.jsonl"
    whole = read_predictions(path)
    lines = path.read_text().splitlines()
    path.write_text("\n".join(reversed(lines)))
    found = read_predictions(path)
    assert found.index.tolist() == list(range(10, 50))
    assert (found.predicted == whole.predicted).all()
    assert found.labels == LABELS
    assert found.confidence.min() >= 0.5


def test_predictions_of_a_regression_are_numbers(tmp_path):
    path = tmp_path / "test.jsonl"
    rows = [
        {"index": i, "gold": i / 2, "predicted": i / 3, "probabilities": {"low": 0.3, "high": 0.7}} for i in range(4)
    ]
    path.write_text("\n".join(map(json.dumps, rows)))
    found = read_predictions(path)
    assert found.labels is None
    assert found.gold.tolist() == [0, 0.5, 1, 1.5]
    assert np.allclose(found.predicted, np.arange(4) / 3)


@pytest.mark.parametrize("content", [None, "", "{not json", '{"index": 1}\n'], ids=["none", "empty", "broken", "short"])
def test_predictions_that_cannot_be_read_are_none(tmp_path, content):
    path = tmp_path / "test.jsonl"
    if content is not None:
        path.write_text(content)
    assert read_predictions(path) is None


def test_curves_count_the_steps_that_were_taken(tmp_path):
    (run,) = collect_runs(write_run(tmp_path / "one"))
    curves = read_curves(run)
    assert curves["validation/accuracy"] == [(25, 0.6), (50, 0.7), (75, 0.8)]
    assert "epoch" not in curves


def test_a_cross_validated_run_is_judged_by_the_answers_of_its_folds(tmp_path):
    folder = write_run(tmp_path / "one", right=0.8, rows=40)
    (folder / "predictions" / "test.jsonl").rename(folder / "predictions" / "cross_validation.jsonl")
    content = json.loads((folder / "result.json").read_text())
    content["metrics"] = {"cross_validation": content["metrics"]["test"]}
    (folder / "result.json").write_text(json.dumps(content))
    study = study_of(tmp_path)
    (run,) = study.runs
    assert run.score() == run.predictions.score("accuracy") == pytest.approx(0.8)
    assert run.test_set == content["data"]["fingerprint"]["train"]
    assert study.cautions == []
    (standings,) = study.standings
    assert standings.rows[0].interval is not None
