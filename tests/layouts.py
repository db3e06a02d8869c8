"""Small files in the layouts in which the tasks' data are published: what the files of conf/task must fit.

A layout is a row of columns, `name=role`: A and B are the sentences, L the label; of a column without role nothing is
read. Values of the label are in class order.
"""

from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

Rows = list[tuple[tuple[str, ...], str]]  # sentences, the label as the data have it

NLI = "sentence1_binary_parse, sentence2_binary_parse, sentence1_parse, sentence2_parse, sentence1=A, sentence2=B"
FIVE = "label1, label2, label3, label4, label5"
STSB = "index, genre, filename, year, old_index, source1, source2, sentence1=A, sentence2=B"


@dataclass(frozen=True)
class Tsv:
    """GLUE's or LM-BFF's files of a task."""

    folder: str
    values: tuple[str, ...]
    train: str
    dev: str | None = None
    # null: as train.
    test: str | None = None
    # Of the unlabeled test file. null: it is labeled and as train.
    header: bool = True
    files: tuple[str, ...] = ("train.tsv", "dev.tsv", "test.tsv")
    extra: dict[str, tuple[str, str]] = field(default_factory=dict)
    # Further test set: its dev and its test file.


def _label_first(folder: str, classes: int, kind: str) -> Tsv:
    names = tuple(f"{split}.{kind}" for split in ("train", "dev", "test"))
    return Tsv(folder, tuple(map(str, range(classes))), "1=L, 2=A", header=False, files=names)


TSV = {
    "cola": Tsv("CoLA", ("0", "1"), "1, 2=L, 3, 4=A", test="index, sentence=A", header=False),
    "sst2": Tsv("SST-2", ("0", "1"), "sentence=A, label=L", test="index, sentence=A"),
    "mrpc": Tsv(
        "MRPC",
        ("0", "1"),
        "Quality=L, #1 ID, #2 ID, #1 String=A, #2 String=B",
        test="index, #1 ID, #2 ID, #1 String=A, #2 String=B",
    ),
    "stsb": Tsv("STS-B", ("0.000", "5.000", "3.800"), f"{STSB}, score=L", test=STSB),
    "qqp": Tsv(
        "QQP",
        ("0", "1"),
        "id, qid1, qid2, question1=A, question2=B, is_duplicate=L",
        test="id, question1=A, question2=B",
    ),
    "mnli": Tsv(
        "MNLI",
        ("entailment", "neutral", "contradiction"),
        f"index, promptID, pairID, genre, {NLI}, label1, gold_label=L",
        dev=f"index, promptID, pairID, genre, {NLI}, {FIVE}, gold_label=L",
        test=f"index, promptID, pairID, genre, {NLI}",
        files=("train.tsv", "dev_matched.tsv", "test_matched.tsv"),
        extra={"test_mismatched": ("dev_mismatched.tsv", "test_mismatched.tsv")},
    ),
    "qnli": Tsv(
        "QNLI",
        ("entailment", "not_entailment"),
        "index, question=A, sentence=B, label=L",
        test="index, question=A, sentence=B",
    ),
    "rte": Tsv(
        "RTE",
        ("entailment", "not_entailment"),
        "index, sentence1=A, sentence2=B, label=L",
        test="index, sentence1=A, sentence2=B",
    ),
    "wnli": Tsv("WNLI", ("0", "1"), "index, sentence1=A, sentence2=B, label=L", test="index, sentence1=A, sentence2=B"),
    "snli": Tsv(
        "SNLI",
        ("entailment", "neutral", "contradiction"),
        f"index, captionID, pairID, {NLI}, label1, gold_label=L",
        dev=f"index, captionID, pairID, {NLI}, {FIVE}, gold_label=L",
    ),
    "mr": _label_first("mr", 2, "tsv"),
    "subj": _label_first("subj", 2, "tsv"),
    "trec": _label_first("trec", 6, "tsv"),
    "cr": _label_first("cr", 2, "csv"),
    "mpqa": _label_first("mpqa", 2, "csv"),
    "sst5": _label_first("sst-5", 5, "csv"),
    "ag_news": _label_first("ag_news", 4, "csv"),
}


@dataclass(frozen=True)
class Hub:
    """A data set of the hub."""

    columns: str
    values: tuple[float, ...]
    splits: tuple[str, ...] = ("train", "validation", "test")
    unlabeled: tuple[str, ...] = ()
    config: str | None = None


def _glue(config: str, columns: str, values: tuple[float, ...] = (0, 1), hidden: bool = True) -> Hub:
    return Hub(f"{columns}, label=L, idx", values, unlabeled=("test",) if hidden else (), config=config)


HUB = {
    "cola": _glue("cola", "sentence=A"),
    "sst2": _glue("sst2", "sentence=A"),
    "mrpc": _glue("mrpc", "sentence1=A, sentence2=B", hidden=False),
    "stsb": _glue("stsb", "sentence1=A, sentence2=B", (0.0, 5.0, 3.8)),
    "qqp": _glue("qqp", "question1=A, question2=B"),
    "mnli": Hub(
        "premise=A, hypothesis=B, label=L, idx",
        (0, 1, 2),
        ("train", "validation_matched", "validation_mismatched", "test_matched", "test_mismatched"),
        ("test_matched", "test_mismatched"),
        "mnli",
    ),
    "qnli": _glue("qnli", "question=A, sentence=B"),
    "rte": _glue("rte", "sentence1=A, sentence2=B"),
    "wnli": _glue("wnli", "sentence1=A, sentence2=B"),
    "snli": Hub("premise=A, hypothesis=B, label=L", (0, 1, 2)),
    "mr": Hub("text=A, label=L", (0, 1)),
    "subj": Hub("text=A, label=L, label_text", (1, 0), ("train", "test")),
    "trec": Hub("text=A, coarse_label=L, fine_label", (2, 1, 0, 3, 4, 5), ("train", "test")),
    "cr": Hub("text=A, label=L, label_text", (0, 1), ("train", "test")),
    "mpqa": Hub("sentence=A, label=L", (0, 1), ("train", "test")),
    "sst5": Hub("text=A, label=L, label_text", (0, 1, 2, 3, 4)),
    "ag_news": Hub("text=A, label=L", (0, 1, 2, 3), ("train", "test")),
}


def _columns(layout: str) -> list[tuple[str, str]]:
    return [(name, role) for name, _, role in (column.partition("=") for column in layout.split(", "))]


def is_pair(layout: str) -> bool:
    return "=B" in layout


def rows_of(split: str, values: tuple, pair: bool) -> Rows:
    """Two rows of each value, whose sentences say what they are."""
    both = ("first", "second")[: 1 + pair]
    return [(tuple(f"{split} {which} {i} {v}" for which in both), v) for i in range(2) for v in values]


def write_tsv_folder(parent: Path, name: str) -> None:
    """The files of a task, for `task.data_dir=<parent>`."""
    layout = TSV[name]
    folder = parent / layout.folder
    folder.mkdir(parents=True)
    train, dev, test = layout.files
    write_file(folder / train, layout.train, layout.header, rows_of("train", layout.values, is_pair(layout.train)))
    devs = {"dev": (dev, test)} | layout.extra
    for split, (dev_file, test_file) in devs.items():
        labeled = layout.dev or layout.train
        write_file(folder / dev_file, labeled, layout.header, rows_of(split, layout.values, is_pair(labeled)))
        hidden = rows_of("test", layout.values, is_pair(layout.train))
        write_file(folder / test_file, layout.test or layout.train, layout.header or bool(layout.test), hidden)


def write_file(path: Path, layout: str, header: bool, rows: Rows) -> None:
    columns = _columns(layout)
    lines = [[name for name, _ in columns]] if header else []
    for sentences, label in rows:
        cells = dict(zip("AB", sentences, strict=False)) | {"L": label}
        lines.append([cells.get(role, "x") for _, role in columns])
    separator = "," if path.suffix == ".csv" else "\t"
    path.write_text("".join(separator.join(line) + "\n" for line in lines))


def write_hub_folder(folder: Path, name: str) -> None:
    """A copy of the task's hub repository."""
    layout = HUB[name]
    places = {split: f"{layout.config or 'data'}/{split}-00000-of-00001.parquet" for split in layout.splits}
    for split, place in places.items():
        unlabeled = {"L": [-1] * (2 * len(layout.values))} if split in layout.unlabeled else {}
        rows = rows_of(split, layout.values, is_pair(layout.columns))
        cells = dict(zip("AB", zip(*(sentences for sentences, _ in rows), strict=True), strict=False))
        cells |= {"L": [label for _, label in rows]} | unlabeled
        labels = pa.array(cells["L"], pa.float32() if isinstance(layout.values[0], float) else pa.int64())
        cells |= {"L": labels}
        table = pa.table({name: cells.get(role, ["x"] * len(rows)) for name, role in _columns(layout.columns)})
        (folder / place).parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(table, folder / place)
    if layout.config:
        data_files = "".join(f"  - split: {split}\n    path: {place}\n" for split, place in places.items())
        (folder / "README.md").write_text(
            f"---\nconfigs:\n- config_name: ax\n  data_files: {places[layout.splits[0]]}\n"
            f"- config_name: {layout.config}\n  data_files:\n{data_files}---\n"
        )
