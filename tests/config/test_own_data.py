import csv
import subprocess
import sys

import pytest
from places import REPOSITORY

from lpt.config.compose import compose_points
from lpt.config.own_data import OwnData, describe, from_own_data
from lpt.config.resolve import resolve
from lpt.errors import ConfigError

INTENTS = ("billing, refund", "log in", "it's broken")


def write(path, rows, header=("body", "intent"), **options):
    with path.open("w", newline="", encoding=options.pop("encoding", "utf-8")) as file:
        csv.writer(file, **options).writerows([header, *rows])
    return path


def tickets(number=60):
    return [(f"ticket {i}", INTENTS[i % 3]) for i in range(number)]


def resolved(options):
    (cfg,) = compose_points([options])
    return resolve(cfg)


@pytest.fixture
def file(tmp_path):
    return write(tmp_path / "my tickets.csv", tickets())


def test_a_file_becomes_options_with_its_classes_whatever_their_names(file):
    options, told = from_own_data([str(file), "--text", "body", "--label=intent", "seed=21"])
    task = resolved(options).task
    assert task.labels == sorted(INTENTS)
    assert (task.name, task.source, task.files.a, task.files.label) == ("my_tickets", "files", "body", "intent")
    assert task.files.train == str(file)
    assert told[0] == "60 rows; 'intent' has 3 classes: 20 billing, refund, 20 it's broken, 20 log in"
    assert told[1].startswith("the same as: lpt train task=custom")
    assert told[1].endswith("seed=21")


def test_every_row_of_few_is_trained_on_and_tested(file):
    options, _ = from_own_data([str(file), "--text", "body", "--label", "intent"])
    config = resolved(options)
    assert (config.fewshot.protocol, config.fewshot.folds, config.task.files.test_rows) == ("full", 5, 0)
    assert (config.backbone.name, config.head.name) == ("minilm-l6", "linear")


def test_many_rows_or_a_file_to_test_on_need_no_folds(tmp_path, file):
    many = write(tmp_path / "many.csv", tickets(1200))
    own = OwnData(many, "body", "intent")
    assert resolved(describe(own)[0]).fewshot.folds is None
    own = OwnData(file, "body", "intent", test=many)
    config = resolved(describe(own)[0])
    assert (config.fewshot.folds, config.task.files.test) == (None, str(many))
    assert describe(own)[1][0].startswith("60 rows; ")  # those that are trained on
    own = OwnData(file, "body", "intent", test=many, folds=3)
    assert resolved(describe(own)[0]).fewshot.folds == 3


def test_pairs_and_numbers(tmp_path):
    path = write(tmp_path / "pairs.csv", [("a", "b", i / 2) for i in range(11)], ("one", "two", "score"))
    config = resolved(describe(OwnData(path, "one", "score", pair="two", regression=True, folds=0))[0])
    assert (config.task.files.a, config.task.files.b) == ("one", "two")
    assert (config.task.value_range, config.task.metrics) == ([0.0, 5.0], ["pearson", "spearman"])


def test_another_delimiter(tmp_path):
    path = write(tmp_path / "tickets.csv", tickets(), delimiter=";")
    task = resolved(from_own_data([str(path), "--text", "body", "--label", "intent", "--delimiter", ";"])[0]).task
    assert (task.files.delimiter, task.labels) == (";", sorted(INTENTS))


def test_options_have_the_last_word(file):
    options, _ = from_own_data(
        [str(file), "--text", "body", "--label", "intent", "backbone=smollm2-135m", "recipe=quick", "method=lora"]
    )
    config = resolved(options)
    assert (config.backbone.name, config.method.name) == ("smollm2-135m", "lora")


def test_a_command_line_without_a_file_is_left_alone():
    for argv in ([], ["task=rte"], ["-m", "seed=1,2"], ["--help"], ["nonsense"]):
        assert from_own_data(argv) == (argv, [])


# Broken in all ways that were seen

BROKEN = {
    "no such file": (None, ["--text", "body"], ["tickets.csv does not exist; did you mean 'tickets_.csv'?"]),
    "no such columns": (
        lambda path: write(path, tickets()),
        ["--text", "bdy", "--label", "intnt"],
        ["--text='bdy': ", "has no such column; it has 'body', 'intent'; did you mean 'body'?", "--label='intnt': "],
    ),
    "semicolons": (
        lambda path: write(path, tickets(), delimiter=";"),
        ["--text", "body", "--label", "intent"],
        ["if semicolons separate its cells, name them as its delimiter"],
    ),
    "not UTF-8": (
        lambda path: write(path, [("café", "a"), ("x", "b")], encoding="latin-1"),
        ["--text", "body", "--label", "intent"],
        ["line 2: byte 0xe9 is not UTF-8; save the file as UTF-8"],
    ),
    "an open quote": (
        lambda path: path.write_text('body,intent\n"never closed,a\nx,b\n'),
        ["--text", "body", "--label", "intent"],
        ["line 2: the row that begins here has a misplaced or unclosed quote"],
    ),
    "no label": (
        lambda path: write(path, [("a", "x"), ("b", ""), ("c", "y"), ("d", " ")]),
        ["--text", "body", "--label", "intent"],
        ["line 3 has no label, as have 1 others"],
    ),
    "one class": (
        lambda path: write(path, [("a", "x"), ("b", "x")]),
        ["--text", "body", "--label", "intent"],
        ["all rows of", "have the label 'x'; give at least two classes"],
    ),
    "numbers": (
        lambda path: write(path, [("a", i / 7) for i in range(60)]),
        ["--text", "body", "--label", "intent"],
        ["60 different values in 60 rows are hardly classes; they are numbers: add --regression"],
    ),
    "a class called ignore": (
        lambda path: write(path, [("a", "ignore"), ("b", "x")]),
        ["--text", "body", "--label", "intent"],
        ["'ignore' cannot be the name of a class"],
    ),
    "one fold": (
        lambda path: write(path, tickets()),
        ["--text", "body", "--label", "intent", "--folds", "1"],
        ["--folds 1"],
    ),
}


@pytest.mark.parametrize("broken", BROKEN)
def test_what_is_wrong_with_a_file_is_told_at_once(tmp_path, broken):
    make, arguments, expected = BROKEN[broken]
    path = tmp_path / "tickets.csv"
    (tmp_path / "tickets_.csv").touch()
    if make is not None:
        make(path)
    with pytest.raises(ConfigError) as caught:
        from_own_data([str(path), *arguments])
    for text in expected:
        assert text in str(caught.value)
    assert len(caught.value.complaints) == (2 if broken == "no such columns" else 1)


def test_a_test_file_must_have_the_same_classes(tmp_path, file):
    test = write(tmp_path / "test.csv", [("a", "log in"), ("b", "log on")])
    with pytest.raises(ConfigError, match=r"test\.csv, line 3: label 'log on' is in no row of .*did you mean 'log in'"):
        describe(OwnData(file, "body", "intent", test=test))


def test_complaints_do_not_wait_for_torch(tmp_path):
    write(tmp_path / "tickets.csv", tickets())
    code = (
        "import sys, lpt.config.main\n"
        f"sys.argv[1:] = [{str(tmp_path / 'tickets.csv')!r}, '--text', 'bdy', '--label', 'intent']\n"
        "try: lpt.config.main.main()\n"
        "except SystemExit as end: assert end.code == 2\n"
        "assert not {'torch', 'transformers', 'pytorch_lightning'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=REPOSITORY)
    assert done.returncode == 0, done.stderr
    assert "--text='bdy'" in done.stderr
