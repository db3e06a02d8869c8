import json
import shlex
from functools import cache

import places
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hydra import compose, initialize_config_dir
from layouts import HUB, TSV, is_pair, rows_of, write_file, write_hub_folder, write_tsv_folder
from omegaconf import OmegaConf
from places import GLUE, SHARED
from task_files import FILES, REAL_DATA, load_task
from transformers import AutoTokenizer

from lpt.config.resolve import resolve
from lpt.config.schema import CONF_DIR
from lpt.data.rows import LabeledRows
from lpt.data.sources import load_rows
from lpt.data.splits import sample_splits
from lpt.data.task_checks import describe_problems
from lpt.data.tasks import IGNORE, SOURCES, FilesSource, Task
from lpt.data.templates import Template, label_word_ids, template_fields
from lpt.errors import LptError
from lpt.glue import GLUE as GLUE_TASKS

COMPLETE = sorted(FILES.keys() - {"custom"})
GOLDEN = json.loads((places.GOLDEN / "kshot_total.json").read_text())

# name: rows of train, dev and test; None where test has no labels
REAL_ROWS = {
    "sst2": (67349, 872, None),
    "rte": (2490, 277, None),
    "mrpc": (3668, 408, None),
    "cola": (8551, 1043, None),
    "mr": (7795, 867, 2000),
    "subj": (7200, 800, 2000),
    "trec": (4906, 546, 500),
}


@cache
def real_tables(name: str):
    return load_rows(load_task(name, source="tsv", data_dir=str(GLUE)))


@cache
def real_tokenizer(name: str):
    folder = SHARED / "tokenizers" / name
    if not folder.is_dir():
        pytest.skip(f"needs the {name} tokenizer in ../shared/tokenizers")
    return AutoTokenizer.from_pretrained(folder)


# The files of conf/task


@pytest.mark.parametrize("name", COMPLETE)
def test_a_task_file_is_complete_for_every_source_that_it_describes(name):
    described = [source for source in SOURCES if source in OmegaConf.load(FILES[name])]
    assert load_task(name).source in described
    for source in described:
        assert describe_problems(load_task(name, source=source, data_dir="somewhere")) == []


@pytest.mark.parametrize("name", FILES)
def test_a_task_is_called_as_its_file(name):
    assert load_task(name).name == name


@pytest.mark.parametrize("name", COMPLETE)
def test_every_class_has_a_word_of_its_own(name):
    task = load_task(name)
    assert sorted(task.label_words) == sorted(task.labels)
    assert len(set(task.label_words.values())) == len(task.labels)


@pytest.mark.parametrize("name", COMPLETE)
def test_the_values_of_a_source_lead_to_every_class(name):
    task = load_task(name)
    for source in SOURCES:
        values = getattr(task, source).values
        assert not values or set(values.values()) - {IGNORE} == set(task.labels)


@pytest.mark.parametrize("name", FILES)
def test_both_templates_of_a_task_have_the_fields_that_backbones_need(name):
    task = load_task(name)
    sentences = ["a"] if getattr(task, task.source).b is None else ["a", "b"]
    assert sorted(template_fields(task.template.encoder)) == [*sentences, "mask"]
    assert sorted(template_fields(task.template.decoder)) == sentences
    assert template_fields(task.template.answer) == ["word"]


def test_custom_lacks_only_what_the_user_must_say():
    assert describe_problems(load_task("custom")) == [
        "task.labels=[] is too short: name at least two classes, as in [negative,positive]",
        "task.files.train is not set; name the training split or file",
    ]


def test_the_command_at_the_top_of_custom_works_as_typed(tmp_path):
    lines = [line.removeprefix("#") for line in FILES["custom"].read_text().splitlines() if line.startswith("#   ")]
    program, script, *overrides = shlex.split("".join(line.rstrip("\\") for line in lines))
    assert (program, script) == ("python", "train.py")
    (tmp_path / "reviews.csv").write_text("review,stars\n" + "".join(f"film {i},{(1, 5)[i % 2]}\n" for i in range(10)))
    with initialize_config_dir(version_base="1.3", config_dir=str(CONF_DIR)):
        task = resolve(compose("config", [*overrides, f"task.data_dir='{tmp_path}'"])).task
    assert task.label_words == {"bad": "terrible", "good": "great"}
    tables = load_rows(task)
    assert tables["train"].sizes_per_class(task.labels) == {"bad": 4, "good": 4}
    assert tables["test"].sizes_per_class(task.labels) == {"bad": 1, "good": 1}


@pytest.mark.parametrize("name", COMPLETE)
def test_a_task_composes_into_a_configuration_without_complaint(name):
    with initialize_config_dir(version_base="1.3", config_dir=str(CONF_DIR)):
        assert resolve(compose("config", [f"task={name}"])).task == load_task(name)


def test_the_tasks_of_the_paper_are_there():
    glue = {"cola", "sst2", "mrpc", "stsb", "qqp", "mnli", "qnli", "rte", "wnli"}
    assert glue | {"snli", "mr", "cr", "mpqa", "subj", "trec", "sst5", "ag_news"} <= FILES.keys()


# docs/tasks.md


def documented(heading: str) -> dict[str, list[str]]:
    """The rows of the table with this heading: task -> the other cells."""
    text = (CONF_DIR.parent / "docs" / "tasks.md").read_text(encoding="utf-8")
    (rows,) = (part.partition("\n\n")[0].splitlines()[1:] for part in text.split(f"\n{heading}\n")[1:])
    cells = [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]
    return {first.strip("`"): others for first, *others in cells}


def test_the_documentation_says_where_the_tasks_are_and_how_they_are_scored():
    table = documented("| task | asks | rows: train / dev / test | metrics | hub | tsv folder |")
    assert table.keys() == set(COMPLETE)
    for name, (asks, rows, metrics, hub, folder) in table.items():
        task = load_task(name)
        assert asks
        assert metrics == ", ".join(task.metrics)
        place = f"`{task.hub.path}` {task.hub.config or ''}".strip()
        assert hub == ("-" if task.hub.path is None else place)
        assert folder == ("-" if task.tsv.folder is None else f"`{task.tsv.folder}`")
        if name in GLUE_TASKS:
            hidden = ", ".join(f"{size:,}" for _, size, _ in GLUE_TASKS[name].test_sets)
            assert rows.endswith(f"/ ({hidden})")
            if name in REAL_ROWS:
                train, dev, _ = REAL_ROWS[name]
                assert rows == f"{train:,} / {dev:,} / ({hidden})"


def test_the_documentation_has_the_templates_and_label_words_of_the_tasks():
    table = documented("| task | encoder | decoder | label words |")
    assert table.keys() == set(COMPLETE)
    for name, cells in table.items():
        task = load_task(name)
        words = ", ".join(f"{task.label_words[label]} ({label})" for label in task.labels)
        assert cells == [f"`{task.template.encoder}`", f"`{task.template.decoder}`", words]


# In the layouts in which their data are published


def expected_table(split, values, pair) -> LabeledRows:
    """What `layouts` has written; of a regression the values, of classes their places."""
    rows = rows_of(split, values, pair)
    gold = [float(value) if "." in str(value) else values.index(value) for _, value in rows]
    return LabeledRows([sentences for sentences, _ in rows], gold, list(range(len(rows))))


def test_every_task_of_ours_has_its_published_layouts():
    assert TSV.keys() == HUB.keys() == set(COMPLETE) - {"film_reviews"}


@pytest.mark.parametrize("name", TSV)
def test_a_tasks_files_are_read_as_they_are_published(name, tmp_path):
    write_tsv_folder(tmp_path, name)
    layout = TSV[name]
    labeled = ["train", "dev", *layout.extra] if layout.test else ["train", "dev", "test"]
    expected = {split: expected_table(split, layout.values, is_pair(layout.train)) for split in labeled}
    assert load_rows(load_task(name, source="tsv", data_dir=str(tmp_path))) == expected


@pytest.mark.usefixtures("datasets_cache")
@pytest.mark.parametrize("name", HUB)
def test_a_tasks_hub_repository_is_read_as_it_is_published(name, tmp_path):
    write_hub_folder(tmp_path / "hub", name)
    task, layout = load_task(name, hub={"path": str(tmp_path / "hub"), "revision": None}), HUB[name]
    # Not MRPC's test split, which has labels here alone: the paper's protocol takes dev.
    named = {split: place for split, place in task.hub.splits() if place not in layout.unlabeled}
    pair = is_pair(layout.columns)
    assert load_rows(task) == {split: expected_table(place, layout.values, pair) for split, place in named.items()}


@pytest.mark.parametrize("name", sorted(name for name, layout in TSV.items() if layout.test and layout.header))
def test_a_few_shot_folder_of_lm_bff_has_labelled_test_files(name, tmp_path):
    layout = TSV[name]
    pair = is_pair(layout.train)
    files = dict(zip(("train", "dev", "test"), layout.files, strict=True))
    files |= {split: test_file for split, (_, test_file) in layout.extra.items()}
    for split, file in files.items():
        write_file(tmp_path / file, layout.train, layout.header, rows_of(split, layout.values, pair))
    expected = {split: expected_table(split, layout.values, pair) for split in files}
    assert load_rows(load_task(name, source="tsv", data_dir=str(tmp_path))) == expected


@pytest.mark.parametrize("kind", ["tsv", "hub"])
@pytest.mark.usefixtures("datasets_cache")
def test_pairs_on_which_snlis_annotators_disagree_are_left_out(kind, tmp_path):
    rows = rows_of("train", ("neutral", "-", "entailment"), pair=True)
    if kind == "tsv":
        path = tmp_path / "SNLI" / "train.tsv"
        path.parent.mkdir()
        write_file(path, TSV["snli"].train, True, rows)
        write_file(path.with_name("dev.tsv"), TSV["snli"].dev, True, rows)
    else:
        numbers = {"neutral": 1, "-": -1, "entailment": 0}
        sentences = list(zip(*(sentences for sentences, _ in rows), strict=True))
        table = {"premise": sentences[0], "hypothesis": sentences[1], "label": [numbers[value] for _, value in rows]}
        for split in ("train", "validation", "test"):
            pq.write_table(pa.table(table), tmp_path / f"{split}.parquet")
    task = load_task("snli", source=kind, data_dir=str(tmp_path), hub={"path": str(tmp_path)})
    for table in load_rows(task).values():
        assert (table.labels, table.index) == ([1, 0, 1, 0], [0, 2, 3, 5])
        assert table.sentences[1] == ("train first 0 entailment", "train second 0 entailment")


def test_the_damaged_rows_of_qqps_files_are_left_out_and_the_others_keep_their_place(tmp_path):
    write_tsv_folder(tmp_path, "qqp")
    path = tmp_path / "QQP" / "train.tsv"
    lines = path.read_text().splitlines()
    path.write_text("\n".join([*lines[:2], "7\t1\t2\tOne question", "and its other half\t1", *lines[2:], ""]))
    task = load_task("qqp", source="tsv", data_dir=str(tmp_path))
    train = load_rows(task)["train"]
    assert (train.index, train.labels) == ([0, 3, 4, 5], [0, 1, 0, 1])
    path.write_text(path.read_text().replace("train second 1 1\t1", "train second 1 1\t2"))
    with pytest.raises(LptError, match=r"train\.tsv, line 7: label '2' is not one"):
        load_rows(task)
    task.tsv.skip_short = False
    with pytest.raises(LptError, match=r"line 4 has 2 columns, but task\.tsv\.a='question1' is column 4;"):
        load_rows(task)


# With the real tokenizers


@pytest.mark.parametrize("backbone", ["roberta", "gpt2"])
def test_label_words_are_single_tokens_of_the_papers_backbones(backbone):
    tokenizer = real_tokenizer(backbone)
    for name in COMPLETE:
        task = load_task(name)
        ids = label_word_ids(tokenizer, task.label_words, task.labels)
        assert [tokenizer.decode(i) for i in ids] == [f" {task.label_words[label]}" for label in task.labels]


@pytest.mark.parametrize("name", FILES)
def test_the_answer_is_read_where_the_template_asks_for_it(name):
    task = load_task(name)
    roberta, gpt2 = real_tokenizer("roberta"), real_tokenizer("gpt2")
    template = Template(roberta, task.template.encoder, causal=False, max_length=64)
    sentences = ("A man sleeps.", "A man rests.") if template.pair else ("A man sleeps.",)
    (row,) = template.encode([sentences])
    assert row.input_ids.count(roberta.mask_token_id) == 1
    assert row.input_ids[row.readout_position] == roberta.mask_token_id
    (row,) = Template(gpt2, task.template.decoder, causal=True, max_length=64).encode([sentences])
    written = task.template.decoder.format(a="A man sleeps.", b="A man rests.")
    assert gpt2.decode(row.input_ids) == written
    assert row.readout_position == len(row.input_ids) - 1


# With the real data


@REAL_DATA
@pytest.mark.parametrize("name", REAL_ROWS)
def test_real_data_are_read_whole(name):
    tables = real_tables(name)
    assert (
        tuple(len(tables[split]) if split in tables else None for split in ("train", "dev", "test"))
        == (REAL_ROWS[name])
    )
    for table in tables.values():
        assert table.index == list(range(len(table)))
        assert all(table.sizes_per_class(load_task(name).labels).values())


@REAL_DATA
@pytest.mark.parametrize(
    ("name", "split", "row", "sentences", "label"),
    [
        ("sst2", "train", 1, ("contains no wit , only labored gags ",), "negative"),
        (
            "rte",
            "train",
            0,
            ("No Weapons of Mass Destruction Found in Iraq Yet.", "Weapons of Mass Destruction Found in Iraq."),
            "not_entailment",
        ),
        (
            "mrpc",
            "dev",
            0,
            (
                "He said the foodservice pie business doesn 't fit the company 's long-term growth strategy .",
                '" The foodservice pie business does not fit our long-term growth strategy .',
            ),
            "equivalent",
        ),
        ("cola", "dev", 0, ("The sailors rode the breeze clear of the rocks.",), "acceptable"),
        ("mr", "train", 1, ('" it\'s all about the image . "',), "positive"),
        (
            "subj",
            "test",
            0,
            ("smart and alert , thirteen conversations about one thing is a small gem .",),
            "subjective",
        ),
        ("trec", "test", 0, ("How far is it from Denver to Aspen ?",), "number"),
        ("trec", "train", 3, ("What is the abbreviation for Original Equipment Manufacturer ?",), "expression"),
    ],
)
def test_real_columns_and_classes_are_not_mixed_up(name, split, row, sentences, label):
    table = real_tables(name)[split]
    assert table.sentences[row] == sentences
    assert load_task(name).labels[table.labels[row]] == label


@REAL_DATA
@pytest.mark.parametrize(("name", "rows"), [("sst2", 1821), ("mrpc", 1725)])
def test_the_gold_labels_of_a_public_test_split_can_be_named(name, rows):
    task = load_task(name, source="tsv", data_dir=str(GLUE), tsv={"test": "test_labeled.tsv"})
    assert len(load_rows(task)["test"]) == rows


@REAL_DATA
@pytest.mark.parametrize("entry", GOLDEN, ids=[f"{e['task']}-{e['k']}-seed{e['seed']}" for e in GOLDEN])
def test_a_total_draw_of_a_task_has_the_rows_that_the_reference_wrote(entry):
    name = entry["task"].lower().replace("-", "")
    tables = real_tables(name)
    rows = sample_splits(tables, load_task(name).labels, "total", entry["k"], entry["k_for_dev"], entry["seed"])
    assert rows.train.index == entry["train_rows"]
    assert rows.validation.index == entry["dev_rows"]
    assert rows.test is tables["dev" if REAL_ROWS[name][2] is None else "test"]


# The schema


def test_a_further_test_set_may_be_in_one_of_several_places():
    source = FilesSource(train="a", extra_tests={"x": "b", 1: ["c", "d"], "gone": None})
    assert list(source.splits()) == [("train", "a"), ("x", "b"), ("1", "c"), ("1", "d")]


def test_numbers_and_truth_values_of_yaml_are_text_as_in_the_data():
    assert FilesSource(values={1: "bad", -1: 0, 0.5: True}).values == {"1": "bad", "-1": "0", "0.5": "True"}
    assert Task(label_words={0: "No", 1: None}).label_words == {"0": "No"}
    assert Task().label_words is None


def test_a_true_of_yaml_stands_for_every_spelling_in_the_data():
    yes, no = ("True", "true", "TRUE"), ("False", "false", "FALSE")
    values = FilesSource(values={True: "good", False: "bad"}).values
    assert values == dict.fromkeys(yes, "good") | dict.fromkeys(no, "bad")
    assert FilesSource(values={"true": "yes"}).values == {"true": "yes"}
