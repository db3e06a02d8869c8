import bz2
import io
import json
import os
import re
import subprocess
import sys

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lpt.data.rows import LabeledRows
from lpt.data.sources import load_rows
from lpt.data.tasks import FilesSource, HubSource, Task, Templates, TsvSource, WheelSource
from lpt.errors import LptError

LABELS = ["bad", "good"]
PAIR = Templates(encoder="{a} ? {mask} , {b}", decoder="{a} {b} They are")
TEN = [("a dull film", "bad"), ("a fine film", "good")] + [(f"film {i}", LABELS[i % 2]) for i in range(8)]


def read(folder, **files):
    """The tables of a task whose source is these `files` options, below `folder`."""
    source = FilesSource(**files)
    return load_rows(Task(labels=LABELS, source="files", data_dir=str(folder), files=source))


def write(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def complaint(*arguments, **options) -> str:
    with pytest.raises(LptError) as error:
        read(*arguments, **options)
    return str(error.value)


def parquet(table) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(table, buffer)
    return buffer.getvalue()


def read_one(folder, name, content, **files):
    """The rows of one file, as it stands."""
    write(folder / name, content)
    return read(folder, train=name, test=name, **files)["train"]


def complaint_about(folder, name, content, **files) -> str:
    with pytest.raises(LptError) as error:
        read_one(folder, name, content, **files)
    return str(error.value).replace(f"{folder}{os.sep}", "")


# Files: what is read


def test_csv_cells_may_hold_quotes_commas_and_several_lines(tmp_path):
    content = 'id,text,label\r\n1,"dull, long\r\nand ""loud""",bad\r\n2, fine ,good\r\n'
    table = read_one(tmp_path, "train.csv", content)
    assert table == LabeledRows([('dull, long\r\nand "loud"',), (" fine ",)], [0, 1], [0, 1])


def test_tsv_quotes_are_ordinary_characters(tmp_path):
    content = 'text\tlabel\n"dull\tbad\n"fine" film\tgood\n'
    assert read_one(tmp_path, "train.tsv", content).sentences == [('"dull',), ('"fine" film',)]


def test_jsonl_text_may_hold_any_line_separator_of_unicode(tmp_path):
    texts = ["one\u2028two", "one\u0085two", "one\x0btwo", "tabs\tand\nlines", "Ünïcode 😀"]
    content = "\r\n".join(json.dumps({"text": t, "label": "good"}, ensure_ascii=False) for t in texts)
    assert read_one(tmp_path, "train.jsonl", content).sentences == [(text,) for text in texts]


def test_parquet_is_read_with_its_own_types(tmp_path):
    columns = pa.table({"text": ["dull", ""], "label": pa.array([0, 1]), "votes": [[1, 2], []]})
    assert read_one(tmp_path, "train.parquet", parquet(columns)) == LabeledRows([("dull",), ("",)], [0, 1], [0, 1])


@pytest.mark.parametrize("extension", ["csv", "tsv", "jsonl", "JSONL", "json"])
def test_a_byte_order_mark_is_not_part_of_the_first_column(tmp_path, extension):
    content = {"csv": "text,label\nfine,good\n", "tsv": "text\tlabel\nfine\tgood\n"}.get(
        extension, '{"text": "fine", "label": "good"}\n'
    )
    table = read_one(tmp_path, f"train.{extension}", b"\xef\xbb\xbf" + content.encode())
    assert table == LabeledRows([("fine",)], [1], [0])


def test_a_file_may_be_packed_with_bzip2(tmp_path):
    files = {
        "train.csv.bz2": b"text,label\nfine,good\n",
        "train.jsonl.bz2": b'{"text": "fine", "label": "good"}',
        "train.parquet.bz2": parquet(pa.table({"text": ["fine"], "label": ["good"]})),
    }
    for name, content in files.items():
        assert read_one(tmp_path, name, bz2.compress(content)) == LabeledRows([("fine",)], [1], [0])


@pytest.mark.parametrize("ending", ["\n", "\r\n", "\r"])
def test_csv_lines_may_end_as_on_any_system(tmp_path, ending):
    content = ending.join(["text,label", "dull,bad", "fine,good", ""])
    assert read_one(tmp_path, "train.csv", content) == LabeledRows([("dull",), ("fine",)], [0, 1], [0, 1])


def test_blank_lines_are_not_rows(tmp_path):
    for name, separator in (("train.csv", ","), ("train.tsv", "\t")):
        content = f"\ntext{separator}label\n\r\n\ndull{separator}bad\n\n"
        assert read_one(tmp_path, name, content) == LabeledRows([("dull",)], [0], [0])


def test_a_csv_row_may_end_in_empty_cells_without_a_name(tmp_path):
    assert read_one(tmp_path, "train.csv", "text,label\ndull,bad,,\n") == LabeledRows([("dull",)], [0], [0])


def test_columns_and_values_are_mapped_to_the_tasks(tmp_path):
    content = "stars,title,review\n1,Dull,a dull film\n5,Fine,a fine film\n3,Fair,so so\n"
    values = {1: "bad", 5: "good", 3: "ignore"}
    write(tmp_path / "reviews.csv", content)
    source = FilesSource(train="reviews.csv", test="reviews.csv", a="title", b="review", label="stars", values=values)
    task = Task(labels=LABELS, source="files", data_dir=str(tmp_path), files=source, template=PAIR)
    expected = LabeledRows([("Dull", "a dull film"), ("Fine", "a fine film")], [0, 1], [0, 1])
    assert load_rows(task) == {"train": expected, "test": expected}


def test_an_ignored_row_keeps_its_place_in_the_count(tmp_path):
    content = "text,label\nplot,plot\ndull,bad\nplot,plot\nfine,good\n"
    table = read_one(tmp_path, "train.csv", content, values={"plot": "ignore", "bad": "bad", "good": "good"})
    assert table.index == [1, 3]
    assert table.dropped == {"label ignored by task.files.values": 2}


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("train.csv", "text,label\ndull, 0\nfine,1 \n"),
        ("train.jsonl", '{"text": "dull", "label": 0}\n{"label": 1, "text": "fine"}\n'),
        ("train.jsonl", '{"text": "dull", "label": "bad"}\n{"text": "fine", "label": " good "}\n'),
    ],
)
def test_without_values_labels_are_names_or_places_from_0(tmp_path, name, content):
    assert read_one(tmp_path, name, content).labels == [0, 1]


def test_labels_that_are_numbers_are_names_and_nothing_else(tmp_path):
    write(tmp_path / "train.csv", "text,label\n" + "".join(f"film {i},{1 + i % 3}\n" for i in range(30)))
    task = Task(labels=["1", "2", "3"], source="files", data_dir=str(tmp_path), files=FilesSource(train="train.csv"))
    tables = load_rows(task)
    assert tables["train"].sizes_per_class(task.labels) == {"1": 8, "2": 8, "3": 8}
    write(tmp_path / "train.csv", "text,label\nawful,0\n")
    with pytest.raises(LptError, match=r"line 2: label '0' is not one of the task's \('1', '2', '3'\); "):
        load_rows(task)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("train.csv", "text,label\nfine,TRUE\ndull,FALSE\n"),
        ("train.csv", "text,label\nfine,true\ndull,false\n"),
        ("train.jsonl", '{"text": "fine", "label": true}\n{"text": "dull", "label": false}\n'),
    ],
)
def test_labels_may_be_truth_values(tmp_path, name, content):
    assert read_one(tmp_path, name, content, values={True: "good", False: "bad"}).labels == [1, 0]


def test_minus_one_can_be_a_label_like_any_other(tmp_path):
    table = read_one(tmp_path, "train.csv", "text,label\ndull,-1\n", values={-1: "bad", "good": "good"})
    assert table.labels == [0]


# Files: what is refused, and how


def test_a_byte_that_is_not_utf8_is_told_with_its_line(tmp_path):
    content = "text,label\nfine,good\nétude,good\n".encode("latin-1")
    for name in ("train.csv", "train.tsv", "train.jsonl"):
        assert complaint_about(tmp_path, name, content) == (
            f"{name}, line 3: byte 0xe9 is not UTF-8; save the file as UTF-8"
        )


def test_a_missing_column_is_told_with_those_there_are(tmp_path):
    assert complaint_about(tmp_path, "train.csv", "Text,label\nfine,good\n") == (
        "task.files.a='text': train.csv has no such column; it has 'Text', 'label'; did you mean 'Text'?"
    )
    assert complaint_about(tmp_path, "train.csv", "text;label\nfine;good\n", a="text;label") == (
        "task.files.label='label': train.csv has no such column; it has 'text;label'; if semicolons separate "
        "its cells: \"task.files.delimiter=';'\""
    )
    assert complaint_about(tmp_path, "train.csv", "text,label\nfine,good\n", b="question") == (
        "task.files.b='question': train.csv has no such column; it has 'text', 'label'"
    )


@pytest.mark.parametrize(
    ("name", "content", "place"),
    [
        ("train.csv", "text,label\ndull,bad\nfine,goood\n", "line 3"),
        ("train.csv", '\n\ntext,label\n"dull\nand long",bad\n\nfine,goood\n', "line 7"),
        ("train.tsv", "text\tlabel\n\ndull\tbad\nfine\tgoood\n", "line 4"),
        (
            "train.jsonl",
            '\n{"text": "dull", "label": "bad"}\n\n{"text": "fine", "label": "goood"}\n',
            "line 4",
        ),
    ],
)
def test_an_unknown_label_is_told_with_row_and_line(tmp_path, name, content, place):
    assert complaint_about(tmp_path, name, content) == (
        f"{name}, {place}: label 'goood' is not one of the task's ('0', '1', 'bad', 'good'); "
        "add it to task.files.values or correct the data"
    )


def test_an_unknown_label_of_a_file_without_lines_is_told_with_its_row(tmp_path):
    content = parquet(pa.table({"text": ["dull", "fine"], "label": [0, 2]}))
    assert complaint_about(tmp_path, "train.parquet", content).startswith("train.parquet, row 2: label '2' is not one")


def test_values_must_lead_to_classes(tmp_path):
    assert complaint_about(tmp_path, "train.csv", "text,label\nfine,5\n", values={1: "bad", 5: "grand"}) == (
        "task.files.values maps '5' to 'grand'; allowed: 'bad', 'good', or 'ignore' for rows to leave out"
    )


@pytest.mark.parametrize(
    ("name", "content", "place"),
    [
        ("train.csv", "text,label\ndull,bad\n\nfine\n", "line 4"),
        ("train.tsv", "text\tlabel\ndull\tbad\nfine\n", "line 3"),
    ],
)
def test_a_row_that_is_too_short_is_told_with_its_place(tmp_path, name, content, place):
    assert complaint_about(tmp_path, name, content) == (
        f"{name}, {place} has 1 column, but task.files.label='label' is column 2; correct or remove the row"
    )


@pytest.mark.parametrize(
    ("name", "content", "remedy"),
    [
        ("train.csv", "label,text\nbad,dull\ngood,fine, I think\n", "put a cell with ',' in quotes"),
        ("train.tsv", "label\ttext\nbad\tdull\ngood\tfine\tI think\n", r"remove '\t' from the text"),
    ],
)
def test_a_text_that_a_separator_cuts_in_two_is_not_read_by_half(tmp_path, name, content, remedy):
    assert complaint_about(tmp_path, name, content) == (f"{name}, line 3 has 3 columns, the header has 2; {remedy}")


def test_an_open_quote_does_not_swallow_the_rest_of_a_csv(tmp_path):
    content = 'label,text\nbad,dull\n\ngood,"fine\nbad,dull\nbad,dull\n'
    assert complaint_about(tmp_path, "train.csv", content) == (
        "train.csv, line 4: the row that begins here has a misplaced or unclosed quote (unexpected end of data); "
        'write a quote inside a cell as ""'
    )


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("fine,good", "is not JSON (Expecting value); write one object per line"),
        ('["fine", "good"]', "is not a JSON object; write one object per line"),
        ('{"text": "dull", "text": "fine", "label": "good"}', "the key 'text' is there twice; correct the line"),
        ("[" * 100_000, "it is nested too deeply, or has too long a number; correct the line"),
    ],
)
def test_a_bad_json_line_is_told_with_its_number(tmp_path, line, message):
    content = '{"text": "dull \\ud83d\\ude00", "label": "bad"}\n\n' + line
    assert re.fullmatch(
        rf"train\.jsonl, line 3:? {re.escape(message)}", complaint_about(tmp_path, "train.jsonl", content)
    )


TEXTS = [
    ('"fine \\ud83d"', "has half of a character (lone surrogate U+D83D) at place 6; correct or remove it"),
    ("null", "is missing; give it a text, or remove the row"),
    ("007.5", None),  # not JSON
    ("7", "is 7, of type int; write it as a text, in quotes"),
    ('["fine"]', "is ['fine'], of type list; write it as a text, in quotes"),
]


@pytest.mark.parametrize(("cell", "problem"), TEXTS, ids=[cell for cell, _ in TEXTS])
def test_what_is_not_a_text_is_told_with_its_place_and_never_made_one(tmp_path, cell, problem):
    content = f'{{"text": "dull", "label": "bad"}}\n{{"text": {cell}, "label": "good"}}\n'
    found = complaint_about(tmp_path, "train.jsonl", content)
    assert (
        found.startswith("train.jsonl, line 2 is not JSON")
        if problem is None
        else (found == f"train.jsonl, line 2: column 'text' {problem}")
    )


def test_of_two_columns_with_the_wanted_name_none_is_chosen(tmp_path):
    message = "task.files.a='text': columns 1 and 3 of {} have this name; rename one of them"
    content = "text,label,text\ndull,bad,fine\n"
    assert complaint_about(tmp_path, "train.csv", content) == message.format("train.csv")
    tabs = content.replace(",", "\t")
    assert complaint_about(tmp_path, "train.tsv", tabs) == message.format("train.tsv")
    arrays = [pa.array([text]) for text in ("dull", "bad", "fine")]
    table = parquet(pa.table(arrays, names=["text", "label", "text"]))
    assert complaint_about(tmp_path, "train.parquet", table) == message.format("train.parquet")
    other = "id,id,text,label\n1,2,dull,bad\n"  # names that nobody asks for may be anything
    assert read_one(tmp_path, "train.csv", other).sentences == [("dull",)]


def test_a_csv_may_be_separated_by_semicolons_and_a_tsv_quoted(tmp_path):
    semicolons = 'text;label\n"dull; long";bad\nfine, really;good\n'
    expected = LabeledRows([("dull; long",), ("fine, really",)], [0, 1], [0, 1])
    assert read_one(tmp_path, "train.csv", semicolons, delimiter=";") == expected
    quoted = 'text\tlabel\n"a ""loud""\tfilm"\tbad\nplain\tgood\n'
    expected = LabeledRows([('a "loud"\tfilm',), ("plain",)], [0, 1], [0, 1])
    assert read_one(tmp_path, "train.tsv", quoted, quoting=True) == expected


def test_a_tsv_that_pandas_wrote_gets_a_caution_until_it_is_said_what_its_quotes_are(tmp_path):
    content = 'text\tlabel\n"a ""loud"" film"\tbad\n"dull"\tgood\n'
    rows = read_one(tmp_path, "train.tsv", content)
    assert rows.sentences == [('"a ""loud"" film"',), ('"dull"',)]
    assert rows.cautions == [
        f"{tmp_path / 'train.tsv'}: 1 texts are in quotes, with doubled quotes inside, as pandas and Excel write them; "
        "these quotes are read as part of the text. Say what they are: task.files.quoting=true or false"
    ]
    for quoting in (True, False):
        assert read_one(tmp_path, "train.tsv", content, quoting=quoting).cautions == []


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("train.csv", "", "train.csv is empty; give a file with at least one row"),
        ("train.tsv", "\n\n", "train.tsv is empty; give a file with at least one row"),
        ("train.csv", "text,label\n", "train.csv: the train split is empty; give it rows or name another"),
        ("train.jsonl", "\n", "train.jsonl: the train split is empty; give it rows or name another"),
        (
            "train.csv",
            "text,label\nplot,plot\n",
            "train.csv: the train split is empty, because task.files.values leaves out all its rows",
        ),
        (
            "train.csv",
            "text,label\nfine,-1\n",
            "train.csv: the train split has no labels, all are -1; give it labels or name another",
        ),
        ("train.xlsx", "x", "train.xlsx: files of this kind cannot be read; use .csv, .tsv, .jsonl or .parquet"),
        ("csv", "x", "csv: files of this kind cannot be read; use .csv, .tsv, .jsonl or .parquet"),
    ],
)
def test_a_file_without_rows_or_of_another_kind_is_refused(tmp_path, name, content, message):
    values = {"plot": "ignore", "good": "good", "bad": "bad"}
    assert complaint_about(tmp_path, name, content, values=values) == message


@pytest.mark.parametrize("name", ["train.parquet", "train.csv.bz2"])
@pytest.mark.parametrize("cut", [3, 20, -5])
def test_a_binary_file_that_is_cut_short_is_refused_by_name(tmp_path, name, cut):
    whole = {
        "train.parquet": parquet(pa.table({"text": ["fine"] * 50, "label": [1] * 50})),
        "train.csv.bz2": bz2.compress(b"text,label\nfine,good\n"),
    }
    kind = {"train.parquet": "a readable Parquet", "train.csv.bz2": "a complete bzip2"}
    assert len(read_one(tmp_path, name, whole[name])) > 0
    assert complaint_about(tmp_path, name, whole[name][:cut]).startswith(f"{name} is not {kind[name]} file (")


def test_a_missing_file_is_told_with_its_path(tmp_path):
    assert complaint(tmp_path, train="train.csv") == (
        f"task.files.train='train.csv': {tmp_path / 'train.csv'} does not exist"
    )
    write(tmp_path / "train.csv", "text,label\nfine,good\n")
    assert complaint(tmp_path, train="train.csv", dev="dev.csv") == (
        f"task.files.dev='dev.csv': {tmp_path / 'dev.csv'} does not exist"
    )


def test_a_test_file_of_the_users_own_is_not_passed_over_for_want_of_labels(tmp_path):
    write(tmp_path / "train.csv", "text,label\nfine,good\n")
    write(tmp_path / "test.csv", "text,Label\nfine,good\n")
    assert complaint(tmp_path, train="train.csv", test="test.csv") == (
        f"task.files.label='label': {tmp_path / 'test.csv'} has no such column; it has 'text', 'Label'; "
        "did you mean 'Label'?"
    )
    write(tmp_path / "test.csv", "text,label\nfine,-1\n")
    assert complaint(tmp_path, train="train.csv", test="test.csv") == (
        f"{tmp_path / 'test.csv'}: the test split has no labels, all are -1; give it labels or name another"
    )


# tsv: GLUE and LM-BFF folders


def tsv_task(data_dir, name="sst2", b=None, **source):
    source = {"a": "sentence", "b": b} | source
    template = PAIR if b else Templates()
    return Task(
        name=name, labels=LABELS, source="tsv", data_dir=str(data_dir), tsv=TsvSource(**source), template=template
    )


def write_tsv(path, *rows):
    return write(path, "".join("\t".join(row) + "\n" for row in rows))


def test_tsv_rows_are_read_as_they_stand(tmp_path):
    content = "\ufeffsentence\tlabel\r\n\"quoted\tgood\r\n\r\n a 'dull' \u2028 film \t0\r\n"
    write(tmp_path / "SST-2" / "train.tsv", content)
    write_tsv(tmp_path / "SST-2" / "dev.tsv", ("label", "sentence"), ("1", "fine"))
    tables = load_rows(tsv_task(tmp_path))
    assert tables == {
        "train": LabeledRows([('"quoted',), (" a 'dull' \u2028 film ",)], [1, 0], [0, 1]),
        "dev": LabeledRows([("fine",)], [1], [0]),
    }


@pytest.mark.parametrize(
    "test_rows",
    [
        [("index", "sentence"), ("0", "what is it")],
        [("index", "sentence", "label"), ("0", "what is it", "-1"), ("1", "and this", "-1")],
    ],
)
def test_an_unlabelled_test_split_is_left_out(tmp_path, test_rows):
    for split in ("train", "dev"):
        write_tsv(tmp_path / f"{split}.tsv", ("sentence", "label"), ("fine", "1"))
    write_tsv(tmp_path / "test.tsv", *test_rows)
    assert list(load_rows(tsv_task(tmp_path))) == ["train", "dev"]


def test_with_neither_dev_nor_test_labels_test_rows_are_set_aside(tmp_path):
    write_tsv(tmp_path / "train.tsv", ("sentence", "label"), *((f"film {i}", str(i % 2)) for i in range(20)))
    write_tsv(tmp_path / "test.tsv", ("index", "sentence"), ("0", "what is it"))
    assert {split: len(table) for split, table in load_rows(tsv_task(tmp_path)).items()} == {"train": 16, "test": 4}


def test_a_train_or_dev_split_without_labels_is_refused(tmp_path):
    write_tsv(tmp_path / "train.tsv", ("sentence", "label"), ("fine", "1"))
    write_tsv(tmp_path / "dev.tsv", ("sentence", "label"), ("fine", "-1"))
    with pytest.raises(LptError) as error:
        load_rows(tsv_task(tmp_path))
    assert (
        str(error.value)
        == f"{tmp_path / 'dev.tsv'}: the dev split has no labels, all are -1; give it labels or name another"
    )


def extra_tests_task(folder, *places):
    return tsv_task(folder, extra_tests={"test_other": list(places)})


@pytest.fixture
def glue_folder(tmp_path):
    for split in ("train", "dev"):
        write_tsv(tmp_path / f"{split}.tsv", ("sentence", "label"), ("fine", "1"), ("dull", "0"))
    write_tsv(tmp_path / "hidden.tsv", ("index", "sentence"), ("0", "what is it"))
    write_tsv(tmp_path / "minus.tsv", ("sentence", "label"), ("what is it", "-1"))
    write_tsv(tmp_path / "other.tsv", ("sentence", "label"), ("fair", "1"))
    write_tsv(tmp_path / "later.tsv", ("sentence", "label"), ("poor", "0"))
    return tmp_path


def test_a_further_test_set_is_the_first_of_its_places_that_has_labels(glue_folder):
    places = ("absent.tsv", "hidden.tsv", "minus.tsv", "other.tsv", "later.tsv")
    tables = load_rows(extra_tests_task(glue_folder, *places))
    assert list(tables) == ["train", "dev", "test_other"]
    assert tables["test_other"] == LabeledRows([("fair",)], [1], [0])


def test_a_further_test_set_without_labels_anywhere_is_refused(glue_folder):
    with pytest.raises(LptError) as error:
        load_rows(extra_tests_task(glue_folder, "absent.tsv", "hidden.tsv"))
    assert str(error.value) == (
        "task.tsv.extra_tests: test_other has labels in none of absent.tsv, hidden.tsv; "
        "name another place, or do without: task.tsv.extra_tests=null"
    )


def test_a_further_test_set_does_not_stand_in_for_a_test_set(tmp_path):
    for name in ("train.csv", "other.csv"):
        write(tmp_path / name, "text,label\n" + "".join(f"{text},{label}\n" for text, label in TEN))
    tables = read(tmp_path, train="train.csv", extra_tests={"test_other": "other.csv"})
    assert {split: len(table) for split, table in tables.items()} == {"train": 8, "test": 2, "test_other": 10}
    assert complaint(tmp_path, train="train.csv", extra_tests={"test_other": "absent.csv"}) == (
        f"task.files.extra_tests.test_other='absent.csv': {tmp_path / 'absent.csv'} does not exist"
    )


def test_of_a_task_whose_folder_has_csv_files_those_are_read_with_quoting(tmp_path):
    for split in ("train", "test"):
        write(tmp_path / "cr" / f"{split}.csv", f'1,"so, so ""{split}"""\n0,dull\n')
    task = tsv_task(tmp_path, "cr", header=False, a="2", label="1")
    assert load_rows(task)["test"].sentences == [('so, so "test"',), ("dull",)]
    write_tsv(tmp_path / "cr" / "train.tsv", ("1", "a tsv"), ("0", "goes first"))
    assert load_rows(task)["train"].sentences == [("a tsv",), ("goes first",)]


# Numbers


def numbers_task(folder, **files):
    source = FilesSource(**({"train": "train.csv", "test": "train.csv"} | files))
    return Task(labels=LABELS, value_range=[0, 5], source="files", data_dir=str(folder), files=source)


def test_the_labels_of_a_regression_are_numbers(tmp_path):
    write(tmp_path / "train.csv", "text,label\ndull,0\nfair, 2.50 \nfine,5.000\nthirty-two bits,3.799999952316284\n")
    assert load_rows(numbers_task(tmp_path))["train"].labels == [0.0, 2.5, 5.0, 3.8]


@pytest.mark.parametrize("label", ["good", "5.1", "-0.5", "nan", ""])
def test_a_label_that_is_no_number_of_the_range_is_told_with_its_place(tmp_path, label):
    write(tmp_path / "train.csv", f"text,label\ndull,0\nfine,{label}\n")
    with pytest.raises(LptError) as error:
        load_rows(numbers_task(tmp_path))
    assert str(error.value) == (
        f"{tmp_path / 'train.csv'}, line 3: label {label!r} is not a number from 0 to 5, the task's "
        "task.value_range; correct one of the two"
    )


def test_test_rows_set_aside_from_numbers_are_of_all_sizes(tmp_path):
    write(tmp_path / "train.csv", "text,label\n" + "".join(f"film {i},{i / 20}\n" for i in range(100)))
    tables = load_rows(numbers_task(tmp_path, test=None))
    assert len(tables["train"]) == 80
    fifths = sorted(int(value) for value in tables["test"].labels)
    assert fifths == [0] * 4 + [1] * 4 + [2] * 4 + [3] * 4 + [4] * 4


def test_colas_unlabelled_test_file_has_a_header_though_the_others_have_none(tmp_path):
    for split in ("train", "dev"):
        write_tsv(tmp_path / "CoLA" / f"{split}.tsv", ("gj04", "1", "", "One more."), ("gj04", "0", "*", "One mores."))
    write_tsv(tmp_path / "CoLA" / "test.tsv", ("index", "sentence"), ("0", "Bill whistled."))
    tables = load_rows(tsv_task(tmp_path, "cola", header=False, a="4", label="2"))
    expected = LabeledRows([("One more.",), ("One mores.",)], [1, 0], [0, 1])
    assert tables == {"train": expected, "dev": expected}


HEADERS = {
    "SST-2": (("sentence", "label"), {"a": "sentence"}),
    "QQP": (
        ("id", "qid1", "qid2", "question1", "question2", "is_duplicate"),
        {"a": "question1", "b": "question2", "label": "is_duplicate"},
    ),
    "CoLA": (None, {"header": False, "a": "4", "label": "2"}),
    "mr": (None, {"header": False, "a": "2", "label": "1"}),
}


def example_row(task, text, label):
    """A row in the layout of a task's train.tsv, and the sentences in it."""
    if task == "QQP":
        return ("7", "1", "2", text, f"{text}?", label), (text, f"{text}?")
    return {"SST-2": (text, label), "CoLA": ("gj04", label, "", text), "mr": (label, text)}[task], (text,)


@pytest.mark.parametrize("task", HEADERS)
def test_few_shot_folders_of_the_references_script_are_read_with_their_labelled_test_file(tmp_path, task):
    header, source = HEADERS[task]
    splits = {"train": [("a", "0"), ("b", "1")], "dev": [("c", "1")], "test": [("d", "0"), ("e", "1"), ("f", "1")]}
    for split, rows in splits.items():
        lines = [example_row(task, text, label)[0] for text, label in rows]
        # The script writes the labeled dev file, in the layout of train and dev, as test.tsv.
        write_tsv(tmp_path / task / "100-13" / f"{split}.tsv", *([header] if header else []), *lines)
    tables = load_rows(tsv_task(tmp_path / task / "100-13", task, **source))
    assert tables == {
        split: LabeledRows(
            [example_row(task, text, label)[1] for text, label in rows],
            [int(label) for _, label in rows],
            list(range(len(rows))),
        )
        for split, rows in splits.items()
    }


def test_a_missing_file_of_the_layout_is_told_unless_it_may_be_lacking(tmp_path):
    folder = tmp_path / "SST-2"
    folder.mkdir()
    for source, split, name in (
        ({}, "train", "train.tsv"),
        ({"dev": "dev_matched.tsv"}, "dev", "dev_matched.tsv"),
        ({"test": "test_labeled.tsv"}, "test", "test_labeled.tsv"),
    ):
        with pytest.raises(LptError) as error:
            load_rows(tsv_task(tmp_path, **source))
        assert str(error.value) == f"task.tsv.{split}='{name}': {folder / name} does not exist"
        write_tsv(folder / "train.tsv", ("sentence", "label"), *((f"film {i}", "1") for i in range(5)))
    # With train alone, test rows are set aside.
    assert {split: len(table) for split, table in load_rows(tsv_task(tmp_path)).items()} == {"train": 4, "test": 1}


def test_a_headerless_file_counts_its_lines_from_the_first(tmp_path):
    write_tsv(tmp_path / "train.tsv", ("0", "dull"), ("2", "fine"))
    with pytest.raises(LptError, match=r"train\.tsv, line 2: label '2' is not one of the task's"):
        load_rows(tsv_task(tmp_path, "mr", header=False, a="2", label="1"))


# hub


def hub_task(path, **source):
    return Task(labels=LABELS, source="hub", hub=HubSource(path=str(path), **source))


@pytest.mark.usefixtures("datasets_cache")
@pytest.mark.parametrize("kind", ["parquet", "jsonl", "csv"])
def test_a_local_folder_in_hub_layout_is_a_hub_data_set(tmp_path, kind):
    folder = tmp_path / "my reviews"
    folder.mkdir()
    rows = {"train": [("dull", 0), ("fine", 1)], "validation": [("so so", 1)], "test": [("what", -1), ("ever", -1)]}
    for split, pairs in rows.items():
        texts, labels = zip(*pairs, strict=True)
        table = pa.table({"sentence": texts, "label": labels})
        if kind == "parquet":
            pq.write_table(table, folder / f"{split}-00000-of-00001.parquet")
        elif kind == "jsonl":
            write(folder / f"{split}.jsonl", "".join(json.dumps(row) + "\n" for row in table.to_pylist()))
        else:
            write(folder / f"{split}.csv", "sentence,label\n" + "".join(f"{text},{label}\n" for text, label in pairs))
    tables = load_rows(hub_task(folder, a="sentence", dev="validation", test="test"))
    assert tables == {  # labels of -1 are no labels
        "train": LabeledRows([("dull",), ("fine",)], [0, 1], [0, 1]),
        "dev": LabeledRows([("so so",)], [1], [0]),
    }
    with pytest.raises(LptError) as error:
        load_rows(hub_task(folder, a="sentence", dev="dev"))
    assert str(error.value) == f"task.hub.dev='dev': {folder} has the splits train, validation, test"
    with pytest.raises(LptError) as error:
        load_rows(hub_task(folder))
    assert str(error.value) == (
        f"task.hub.a='text': {folder}, split train has no such column; it has 'sentence', 'label'"
    )


@pytest.mark.usefixtures("datasets_cache")
def test_a_csv_file_has_the_same_rows_whichever_source_reads_it(tmp_path):
    texts = ["null", "None", "NA", "nan", "n/a", "", "NULL", "1e3", "-inf", "fine"]
    write(
        tmp_path / "data" / "train.csv", "text,label\n" + "".join(f"{text},{i % 2}\n" for i, text in enumerate(texts))
    )
    by_files = read(tmp_path / "data", train="train.csv", test="train.csv")["train"]
    assert [text for (text,) in by_files.sentences] == texts
    assert load_rows(hub_task(tmp_path / "data", test="train"))["train"] == by_files
    write(tmp_path / "data" / "train.csv", "text,label\n007,0\n1,1\n")  # here pandas has made numbers of them
    with pytest.raises(LptError, match="row 1: column 'text' is 7, of type int; write it as a text"):
        load_rows(hub_task(tmp_path / "data", test="train"))


@pytest.mark.usefixtures("datasets_cache")
def test_a_single_rows_missing_label_is_told_with_its_row(tmp_path):
    folder = tmp_path / "data"
    folder.mkdir()
    pq.write_table(pa.table({"text": ["dull", "?"], "label": [0, -1]}), folder / "train.parquet")
    with pytest.raises(LptError) as error:
        load_rows(hub_task(folder))
    assert str(error.value) == (
        f"{folder}, split train, row 2: label '-1' is not one of the task's ('0', '1', 'bad', 'good'); "
        "add it to task.hub.values or correct the data"
    )
    ignoring = hub_task(folder, values={0: "bad", -1: "ignore"}, test="train")
    assert load_rows(ignoring)["train"].labels == [0]


@pytest.mark.usefixtures("datasets_cache")
@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("train.parquet", b"junk", "Parquet"),
        ("train.csv", b"text,label\n\xff,1\n", "'utf-8' codec can't decode byte 0xff"),
        ("readme.txt.bak", b"", ""),
    ],
)
def test_an_unreadable_local_folder_is_told_with_its_reason(tmp_path, name, content, reason):
    write(tmp_path / "data" / name, content)
    with pytest.raises(LptError) as error:
        load_rows(hub_task(tmp_path / "data"))
    message = str(error.value)
    assert message.startswith(f"task.hub.path='{tmp_path / 'data'}': {tmp_path / 'data'} could not be loaded (")
    assert reason in message
    assert "Without a network" not in message
    assert "\n" not in message


@pytest.mark.parametrize("variable", ["HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE"])
def test_a_hub_id_offline_ends_in_one_clear_error(tmp_path, variable):
    code = (
        "from lpt.errors import LptError\n"
        "from lpt.data.sources import load_rows\n"
        "from lpt.data.tasks import HubSource, Task\n"
        "hub = HubSource(path='nyu-mll/glue', config='rte')\n"
        "try:\n"
        "    load_rows(Task(labels=['yes', 'no'], source='hub', hub=hub))\n"
        "except LptError as error:\n"
        "    print(error)\n"
    )
    environment = {key: value for key, value in os.environ.items() if key != "HF_HUB_OFFLINE"}
    environment |= {variable: "1", "HF_HOME": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr) == (
        "task.hub.path='nyu-mll/glue': nyu-mll/glue (rte) could not be loaded (Couldn't reach 'nyu-mll/glue' on the "
        "Hub (OfflineModeIsEnabled)). Without a network, use a local copy: task.source=tsv task.data_dir=<folder>, or "
        "task.hub.path=<local folder>\n",
        "",
    )


# wheel


def test_a_file_inside_a_wheel_is_read_like_any_other(tmp_path, monkeypatch):
    rows = [(f'"film {i},\nfine"', ("fresh", "rotten", "plot")[i % 3]) for i in range(90)]
    content = "category,text\n" + "".join(f"{label},{text}\n" for text, label in rows)
    file = write(tmp_path / "reviews.csv.bz2", bz2.compress(content.encode()))
    uri = "wheel://reviews==1.0/reviews/reviews.csv.bz2"
    monkeypatch.setattr("lpt.assets.wheels.fetch", {uri: file}.__getitem__)
    source = WheelSource(train=uri, label="category", values={"fresh": "good", "rotten": "bad", "plot": "ignore"})
    tables = load_rows(Task(labels=LABELS, source="wheel", wheel=source))
    assert {split: table.sizes_per_class(LABELS) for split, table in tables.items()} == {
        "train": {"bad": 24, "good": 24},
        "test": {"bad": 6, "good": 6},
    }
    source.label = "verdict"
    with pytest.raises(LptError) as error:
        load_rows(Task(labels=LABELS, source="wheel", wheel=source))
    assert str(error.value) == (f"task.wheel.label='verdict': {uri} has no such column; it has 'category', 'text'")


# Without a test split


def test_a_file_without_dev_and_test_gives_a_fifth_of_its_rows_for_testing(tmp_path):
    write(tmp_path / "reviews.csv", "text,label\n" + "".join(f"{text},{label}\n" for text, label in TEN))
    tables = read(tmp_path, train="reviews.csv")
    assert {split: table.sizes_per_class(LABELS) for split, table in tables.items()} == {
        "train": {"bad": 4, "good": 4},
        "test": {"bad": 1, "good": 1},
    }
    # The same rows for everyone, for ever.
    assert tables["test"].index == [4, 7]
    limited = read(tmp_path, train="reviews.csv", test_rows=1)
    assert {split: len(table) for split, table in limited.items()} == {"train": 9, "test": 1}
