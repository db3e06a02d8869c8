import re
from dataclasses import replace

import pytest
import torch
from layouts import TSV, is_pair, rows_of, write_file, write_tsv_folder
from places import GLUE as REAL_FOLDER
from task_files import REAL_DATA, load_task
from tiny import tiny_adapter

from lpt import LatePromptClassifier
from lpt.backbones.pretrained import find_pretrained
from lpt.cli import main
from lpt.data.reading import Reading
from lpt.errors import LptError
from lpt.glue import GLUE, read_test_sets


@pytest.fixture(scope="module")
def make_adapter(tmp_path_factory):
    """An untrained adapter of a GLUE task over a tiny backbone; options change its configuration."""
    folder = tmp_path_factory.mktemp("glue")
    reviews = tiny_adapter(folder, "llama")

    def make(name, **changes):
        task = load_task(name)
        config = replace(
            reviews,
            task=name,
            head="linear",  # any number of labels, and no words for them
            labels=task.labels,
            label_words={},
            template=task.template.decoder,
            answer=task.template.answer,
            value_range=task.value_range,
            reading=Reading.of(replace(task, source="tsv", data_dir="any")),
        )
        config = replace(config, **changes)
        torch.manual_seed(1)
        classifier = LatePromptClassifier(config, find_pretrained(config.backbone), torch.float32)
        classifier.save_pretrained(folder / config.task)
        return str(folder / config.task)

    return make


@pytest.fixture
def small(monkeypatch):
    """As many rows as the small files of `layouts` have, in place of GLUE's."""
    for name, task in GLUE.items():
        rows = 2 * len(TSV[name].values)
        test_sets = tuple((file, rows, submission) for file, _, submission in task.test_sets)
        monkeypatch.setitem(GLUE, name, replace(task, test_sets=test_sets))


def submit(adapter, glue, output):
    main(
        ["predict", adapter, "--precision", "32", "--accelerator", "cpu", "--glue", str(glue), "--output", str(output)]
    )


SUBMISSIONS = {
    "cola": ({"CoLA.tsv"}, "0|1"),
    "sst2": ({"SST-2.tsv"}, "0|1"),
    "mrpc": ({"MRPC.tsv"}, "0|1"),
    "stsb": ({"STS-B.tsv"}, r"[0-5]\.\d\d\d"),
    "qqp": ({"QQP.tsv"}, "0|1"),
    "mnli": ({"MNLI-m.tsv", "MNLI-mm.tsv"}, "entailment|neutral|contradiction"),
    "qnli": ({"QNLI.tsv"}, "entailment|not_entailment"),
    "rte": ({"RTE.tsv"}, "entailment|not_entailment"),
    "wnli": ({"WNLI.tsv"}, "0|1"),
}


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("name", SUBMISSIONS)
def test_a_submission_has_glues_name_columns_and_answers(name, make_adapter, tmp_path, capsys):
    write_tsv_folder(tmp_path / "glue", name)
    adapter = make_adapter(name)
    submit(adapter, tmp_path / "glue", tmp_path / "submission")
    files, allowed = SUBMISSIONS[name]
    assert {path.name for path in (tmp_path / "submission").iterdir()} == files
    layout = TSV[name]
    texts = [sentences for sentences, _ in rows_of("test", layout.values, is_pair(layout.train))]
    classifier = LatePromptClassifier.from_pretrained(adapter, accelerator="cpu", precision="32")
    found = classifier.predict([text if len(text) == 2 else text[0] for text in texts])
    answers = [f"{p.value:.3f}" if name == "stsb" else p.label for p in found]
    if allowed == "0|1":
        answers = [str(load_task(name).labels.index(label)) for label in answers]
    for file in files:
        header, *lines = (tmp_path / "submission" / file).read_text().splitlines()
        assert header == "index\tprediction"
        assert lines == [f"{i}\t{answer}" for i, answer in enumerate(answers)]
        assert all(re.fullmatch(allowed, line.split("\t")[1]) for line in lines)
        assert f"{len(texts)} rows in {tmp_path / 'submission' / file}\n" in capsys.readouterr().out or len(files) > 1


@pytest.mark.parametrize("name", GLUE)
def test_glues_answers_are_for_the_labels_of_our_tasks(name):
    task = load_task(name)
    answers = GLUE[name].answers
    assert (list(answers) == task.labels) if answers else (task.value_range == [0, 5])
    assert GLUE[name].folder == task.tsv.folder


@REAL_DATA
@pytest.mark.parametrize(
    ("name", "first"),
    [
        ("cola", ("Bill whistled past the house.",)),
        ("sst2", ("uneasy mishmash of styles and genres .",)),
        (
            "rte",
            (
                "Mangla was summoned after Madhumita's sister Nidhi Shukla, who was the first witness in the case.",
                "Shukla is related to Mangla.",
            ),
        ),
        ("mrpc", None),
    ],
)
def test_real_test_sets_are_read_whole(name, first):
    task = GLUE[name]
    ((submission, sentences),) = read_test_sets(task, str(REAL_FOLDER), own_columns(task))
    assert (submission, len(sentences)) == (f"{task.folder}.tsv", task.test_sets[0][1])
    assert all(len(row) == len(task.columns) for row in sentences)
    assert first in (None, sentences[0])


def own_columns(task):
    """As an adapter reads that was trained on the columns of GLUE's test files."""
    return Reading(**{option: names[0] for option, names in zip("ab", task.columns, strict=False)})


def complaint(task, folder) -> str:
    with pytest.raises(LptError) as error:
        list(read_test_sets(task, folder, own_columns(task)))
    return str(error.value)


@pytest.mark.usefixtures("small")
def test_test_rows_are_read_in_the_order_of_the_adapters_texts(tmp_path):
    write_tsv_folder(tmp_path, "mnli")
    (_, plain), _ = read_test_sets(GLUE["mnli"], str(tmp_path), Reading(a="premise", b="hypothesis"))
    (_, swapped), _ = read_test_sets(GLUE["mnli"], str(tmp_path), Reading(a="sentence2", b="sentence1"))
    assert swapped == [(b, a) for a, b in plain]
    with pytest.raises(LptError) as error:
        list(read_test_sets(GLUE["mnli"], str(tmp_path), Reading(a="text", b="sentence1")))
    assert str(error.value) == (
        "--glue: the adapter was trained on the columns 'text', 'sentence1', and GLUE's test files of MNLI have "
        "'sentence1', 'sentence2'; say which is its first text and which its second, as in --a='sentence1' "
        "--b='sentence2'"
    )


@pytest.mark.usefixtures("small")
def test_a_test_set_that_is_not_glues_is_refused(tmp_path):
    write_tsv_folder(tmp_path, "rte")
    path, task = tmp_path / "RTE" / "test.tsv", GLUE["rte"]
    assert (
        len(next(read_test_sets(task, str(tmp_path / "RTE"), own_columns(task)))[1]) == 4
    )  # the task's own folder does too
    whole = path.read_text()
    path.write_text(whole[: whole.rstrip().rindex("\n") + 1])
    assert (
        complaint(task, str(tmp_path))
        == f"{path} has 3 rows, not GLUE's 4; its server accepts complete test sets only; download it again"
    )
    write_file(path, TSV["qnli"].test, True, rows_of("test", ("0", "1"), True))
    assert complaint(task, str(tmp_path)) == (
        f"{path} is not GLUE's test file: it has the columns 'index', 'question', 'sentence' and lacks 'sentence1', "
        "'sentence2'"
    )
    assert complaint(GLUE["cola"], str(tmp_path)) == (
        f"--glue='{tmp_path}' has neither test.tsv nor a folder 'CoLA'; it has RTE"
    )
    write_tsv_folder(tmp_path, "mnli")
    (tmp_path / "MNLI" / "test_mismatched.tsv").unlink()
    assert complaint(GLUE["mnli"], str(tmp_path)) == f"--glue: {tmp_path / 'MNLI'}/test_mismatched.tsv does not exist"


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        (
            "rte",
            {"task": "reviews"},
            "--glue: the adapter's task 'reviews' is not one of GLUE's (cola, sst2, mrpc, stsb, qqp, mnli, qnli, rte, "
            "wnli)",
        ),
        (
            "rte",
            {"labels": ["yes", "no"]},
            "--glue: GLUE's rte has the labels entailment, not_entailment; the adapter has yes, no",
        ),
        (
            "stsb",
            {"value_range": [1, 5]},
            "--glue: GLUE's stsb has numbers from 0 to 5; the adapter's task has others",
        ),
    ],
)
def test_an_adapter_that_cannot_answer_glue_is_refused(name, changes, message, make_adapter, tmp_path, capsys):
    with pytest.raises(SystemExit):
        submit(make_adapter(name, **changes), tmp_path, tmp_path / "submission")
    assert capsys.readouterr().err == f"error: {message}\n"
    assert not (tmp_path / "submission").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ["--output", "x", "--text", "a"],
            "lpt predict --glue labels GLUE's test set with one adapter; remove --text, --input and others",
        ),
        ([], "lpt predict --glue needs --output=<folder for the submission files>"),
    ],
)
def test_options_that_do_not_go_with_glue_are_refused(options, message, capsys):
    with pytest.raises(SystemExit):
        main(["predict", "./adapter", "--glue", "glue", *options])
    assert capsys.readouterr().err == f"error: {message}\n"
