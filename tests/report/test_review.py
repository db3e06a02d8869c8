import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
from made_runs import write_run
from read_page import Page

from lpt.cli import main
from lpt.console import console
from lpt.report.review import review_of


def write_predictions(folder, split, rows):
    """A file of predictions: (gold, predicted, probabilities, text) of each row."""
    path = folder / "predictions" / f"{split}.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    names = ("gold", "predicted", "probabilities", "text")
    lines = [json.dumps({"index": 10 + i, **dict(zip(names, row, strict=True))}) for i, row in enumerate(rows)]
    path.write_text("\n".join([*lines, ""]))


def sure(label, confidence):
    other = "bad" if label == "good" else "good"
    found = {label: confidence, other: round(1 - confidence, 3)}
    return {name: found[name] for name in ("bad", "good")}


ROWS = [
    ("good", "good", sure("good", 0.99), "what a film"),
    ("good", "bad", sure("bad", 0.95), "not [bold]bad[/bold] <i>at all</i>"),
    ("bad", "good", sure("good", 0.6), "so so"),
    ("bad", "bad", sure("bad", 0.7), "dull"),
]


@pytest.fixture
def run(tmp_path):
    folder = write_run(
        tmp_path / "run",
        result={
            "calibration": {
                "temperature": 1.5,
                "ece_before": {"test": 0.4},
                "ece": {"test": 0.3},
            }
        },
    )
    write_predictions(folder, "test", ROWS)
    return folder


def shown(capsys, *arguments, width=100):
    before, console.width = console.width, width
    try:
        main(["review", *map(str, arguments)])
    finally:
        console.width = before
    return [line.rstrip() for line in capsys.readouterr().out.splitlines()]


def test_the_terminal_shows_classes_confusions_the_surest_mistakes_with_their_texts_and_coverage(run, capsys):
    lines = shown(capsys, run)
    assert lines[:4] == [
        "reviews, lpt over tiny, test",
        "2 of 4 rows right (50.0%)",
        "2 of 4 rows below 0.9: 50.0% right, the rest 50.0% right",
        "expected calibration error 0.460 (0.400 before temperature 1.50)",
    ]
    words = [line.split() for line in lines]
    assert words[5] == ["class", "precision", "recall", "F1", "rows"]
    assert ["good", "0.500", "0.500", "0.500", "2"] in words
    assert ["good", "1", "1", "0.500"] in words
    mistakes = lines[lines.index("mistakes, the surest first") + 3 :]
    assert [" ".join(line.split()) for line in mistakes] == [
        "11 good bad 0.950 not [bold]bad[/bold] <i>at all</i>",
        "12 bad good 0.600 so so",
    ]
    assert shown(capsys, run, "--confidence", "0.65", "--mistakes", "1")[2].startswith("1 of 4 rows below 0.65: 0.0%")


def test_the_page_needs_nothing_else_and_shows_texts_as_they_are(run, capsys):
    page = run / "review.html"
    assert shown(capsys, run, "--output", page)[-1] == f"in {page}"
    found = Page(page.read_text())
    assert found.tags.count("svg") == 2  # confusions and reliability
    assert len(found.ids) == len(set(found.ids))
    assert all(link.startswith("#") for link in found.links)
    assert "not [bold]bad[/bold] <i>at all</i>" in found.text
    assert "script" not in found.tags


def test_the_test_rows_are_shown_unless_there_are_none_or_others_are_asked_for(run, capsys):
    for split in ("cross_validation", "validation", "test_other"):
        shutil.copy(run / "predictions" / "test.jsonl", run / "predictions" / f"{split}.jsonl")
    assert review_of(run).split == "test"
    assert review_of(run, "validation").split == "validation"
    for gone, left in (("test", "cross_validation"), ("cross_validation", "validation"), ("validation", "test_other")):
        (run / "predictions" / f"{gone}.jsonl").unlink()
        assert review_of(run).split == left


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["--split", "tset"], "no such predictions; did you mean 'test'? (there are: test)"),
        (["--confidence", "90"], "'90' must be a number from 0 to 1"),
    ],
)
def test_what_there_is_not_is_told(run, capsys, arguments, problem):
    with pytest.raises(SystemExit):
        main(["review", str(run), *arguments])
    assert problem in capsys.readouterr().err


def test_a_folder_without_predictions_and_a_damaged_file_are_told(run, tmp_path, capsys):
    (run / "predictions" / "test.jsonl").write_text("{")
    for folder, problem in ((tmp_path, "has no predictions/*.jsonl to review"), (run, "is empty or damaged")):
        with pytest.raises(SystemExit):
            main(["review", str(folder)])
        assert problem in capsys.readouterr().err


@pytest.mark.parametrize(("width", "heads"), [(400, "class_of_a_long_name_11"), (100, "12"), (80, "of the gold class")])
def test_twelve_classes_are_readable_in_100_columns(tmp_path, capsys, width, heads):
    labels = [f"class_of_a_long_name_{i}" for i in range(12)]
    random = np.random.default_rng(0)
    rows = [(labels[i % 12], labels[random.integers(12)], dict.fromkeys(labels, 1 / 12), "t") for i in range(2000)]
    write_predictions(tmp_path, "test", rows)
    lines = shown(capsys, tmp_path, "--mistakes", "0", width=width)
    heading = next(line for line in lines if line.startswith("gold"))
    assert heads in heading
    table = lines[lines.index(heading) :]
    assert all(len(line) <= width for line in table)
    assert len(table) == 2 + (12 if "recall" in heading else 20)  # no line is wrapped


def test_of_a_regression_the_largest_errors_are_shown(tmp_path, capsys):
    rows = [(1.0, 1.5, {"low": 0.7, "high": 0.3}, ["a", "b"]), (5.0, 2.0, {"low": 0.6, "high": 0.4}, ["c", "d"])]
    write_predictions(tmp_path, "validation", rows)
    lines = shown(capsys, tmp_path, "--output", tmp_path / "page.html")
    assert lines[1] == "2 rows, off by 1.750 on average, by 3.000 at most"
    assert [" ".join(line.split()) for line in lines[-4:-2]] == ["11 5.00 2.00 c / d", "10 1.00 1.50 a / b"]
    assert Page((tmp_path / "page.html").read_text()).tags.count("svg") == 1


def test_a_run_without_texts_is_shown_and_torch_is_not_waited_for(tmp_path):
    folder = write_run(tmp_path / "run")
    code = (
        f"import sys, lpt.cli; lpt.cli.main(['review', {str(folder)!r}, '--output', {str(tmp_path / 'page.html')!r}])\n"
        "assert 'torch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "the run has not kept its texts (trainer.keep_text)" in done.stdout
