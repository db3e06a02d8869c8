"""Files of text or of columns, read into `Columns`: CSV, TSV, JSONL and Parquet."""

import bz2
import csv
import io
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from lpt.data.reading import Reading, TextFormat
from lpt.data.text import text_problem
from lpt.errors import LptError, did_you_mean

DEFAULT_FORMAT = TextFormat()
KINDS = (".csv", ".tsv", ".jsonl", ".json", ".parquet")
DELIMITERS = {";": "semicolons", "\t": "tabs", ",": "commas", "|": "bars"}


class Columns:
    """Raw cells under column names, which can say where each row came from.

    Args:
        names: column names; one that is there twice cannot be read.
        rows: the cells of each row.
        origin: file or split, for error messages.
        lines: the line of the text file in which each row begins, from 1, for error messages; None for a file
            without lines.
        index: the number of each row in its source, from 0; None where no row of the source is missing.
        dropped: reason -> how many rows of the source are missing for it.
    """

    def __init__(
        self,
        names: Sequence[str],
        rows: Sequence[Sequence[Any]],
        origin: str,
        lines: Sequence[int] | None = None,
        index: Sequence[int] | None = None,
        dropped: Mapping[str, int] | None = None,
    ):
        self.names, self.rows, self.origin, self.lines = list(names), rows, origin, lines
        self.index = list(range(len(rows))) if index is None else list(index)
        self.dropped = dict(dropped or {})

    def locate(self, row: int) -> str:
        """Describe where a row came from: `<file>, line <number>`, or `<file>, row <number>`; both count from 1."""
        return f"{self.origin}, " + (f"row {self.index[row] + 1}" if self.lines is None else f"line {self.lines[row]}")

    def without_short_rows(self) -> "Columns":
        """Return only the rows that have a cell in every column."""
        kept = [i for i, row in enumerate(self.rows) if len(row) >= len(self.names)]
        short = len(self.rows) - len(kept)
        lines = None if self.lines is None else [self.lines[i] for i in kept]
        dropped = self.dropped | ({"lacking a column": short} if short else {})
        index = [self.index[i] for i in kept]
        return Columns(self.names, [self.rows[i] for i in kept], self.origin, lines, index, dropped)

    def texts(self, option: str, name: str) -> list[str]:
        """Return a column of texts.

        Args:
            option: the option that names the column, for error messages.
            name: the column's name.

        Raises:
            LptError: as `cells`; or a cell is not a text (`text_problem`).
        """
        found = self._column(option, name)
        for i, value in enumerate(found):
            problem = text_problem(value)
            if problem is not None:
                raise LptError(f"{self.locate(i)}: column {name!r} {problem}")
        return found

    def cells(self, option: str, name: str) -> list[str]:
        """Return a column of labels as stripped strings; a missing one is an empty string.

        Args:
            option: the option that names the column, for error messages.
            name: the column's name.

        Raises:
            LptError: no such column (the message lists those there are), two of the name, or a row too short to have
                it.
        """
        return ["" if value is None else str(value).strip() for value in self._column(option, name)]

    def _column(self, option: str, name: str) -> list[Any]:
        if name not in self.names:
            raise LptError(
                f"{option}={name!r}: {self.origin} has no such column; it has {', '.join(map(repr, self.names))}"
                + (self._other_delimiter(option) or did_you_mean(name, self.names))
            )
        position = self.names.index(name)
        if name in self.names[position + 1 :]:
            both = f"{position + 1} and {self.names.index(name, position + 1) + 1}"
            raise LptError(f"{option}={name!r}: columns {both} of {self.origin} have this name; rename one of them")
        for i, row in enumerate(self.rows):
            if position >= len(row):
                raise LptError(
                    f"{self.locate(i)} has {len(row)} column{'s' * (len(row) != 1)}, but {option}={name!r} is column "
                    f"{position + 1}; correct or remove the row"
                )
        return [row[position] for row in self.rows]

    def _other_delimiter(self, option: str) -> str:
        """A hint, where the only column's name looks like several."""
        found = [text for text in DELIMITERS if len(self.names) == 1 and text in self.names[0]]
        prefix = option.rpartition(".")[0] + "." if "." in option else "--"
        return "".join(f'; if {DELIMITERS[text]} separate its cells: "{prefix}delimiter={text!r}"' for text in found)


def read_file(path: Path, text_format: TextFormat = DEFAULT_FORMAT) -> Columns:
    """Read a CSV, TSV, JSONL or Parquet file, possibly compressed as `.bz2`.

    Args:
        path: the file; its extension says what it is.
        text_format: how a CSV or TSV file is divided into cells.

    Raises:
        LptError: another kind of file; broken encoding, quoting or JSON (with file and line); a row longer than the
            header; an unreadable Parquet or bzip2 file.
    """
    data, kind = path.read_bytes(), file_kind(path)
    if path.suffix == ".bz2":
        try:
            data = bz2.decompress(data)
        except (OSError, ValueError) as error:
            raise LptError(
                f"{path} is not a complete bzip2 file ({first_line(error)}); compress or download it again"
            ) from None
    if kind == ".parquet":
        return _read_parquet(data, path)
    if kind in (".jsonl", ".json"):
        return _read_jsonl(decode(data, path), path)
    if kind not in (".csv", ".tsv"):
        raise LptError(f"{path}: files of this kind cannot be read; use .csv, .tsv, .jsonl or .parquet")
    return read_text(data, path, text_format)


def read_text(data: bytes, path: Path, text_format: TextFormat = DEFAULT_FORMAT) -> Columns:
    """Parse the bytes of a CSV file, or of any other text file as TSV.

    Args:
        data: the file's content, UTF-8.
        path: names the file in error messages; its extension chooses between CSV and TSV.
        text_format: how it is divided into cells.

    Raises:
        LptError: broken encoding or quoting, an empty file, a row longer than the header (with file and line).
    """
    text, is_csv, header = decode(data, path), file_kind(path) == ".csv", text_format.header
    delimiter = text_format.delimiter or ("," if is_csv else "\t")
    quoting = is_csv if text_format.quoting is None else text_format.quoting
    records = list(
        split_quoted(io.StringIO(text, newline=""), str(path), delimiter)
        if quoting
        else _split_unquoted(text, delimiter)
    )
    if not records:
        raise LptError(f"{path} is empty; give a file with at least one row")
    if header is None:
        header = "sentence" in records[0][1]
    names = records[0][1] if header else [str(i + 1) for i in range(max(len(row) for _, row in records))]
    lines, rows = [line for line, _ in records[header:]], [row for _, row in records[header:]]
    columns = Columns(names, rows, str(path), lines)
    for i, row in enumerate(rows):
        if any(row[len(names) :]):
            others = [text for text in DELIMITERS if len(names) == 1 and text in names[0]]
            remedy = f"put a cell with {delimiter!r} in quotes" if quoting else f"remove {delimiter!r} from the text"
            remedy = f"if {DELIMITERS[others[0]]} separate its cells, name them as its delimiter" if others else remedy
            raise LptError(f"{columns.locate(i)} has {len(row)} columns, the header has {len(names)}; {remedy}")
    return columns


def quoted_by_others(columns: Columns, reading: Reading, option: str) -> str | None:
    """Return a caution where texts of a file without quoting look as if pandas or Excel had quoted them.

    Such a text is in double quotes, and those within it are doubled.

    Args:
        columns: of the file.
        reading: how it was read.
        option: what decides about quoting, for the caution.
    """
    if reading.format.quoting is not None or not columns.origin.removesuffix(".bz2").lower().endswith(".tsv"):
        return None
    texts = [cell for name in (reading.a, reading.b) if name in columns.names for cell in columns.texts(name, name)]
    quoted = [text for text in texts if len(text) > 1 and text[0] == text[-1] == '"' and '""' in text[1:-1]]
    quoted = [text for text in quoted if '"' not in text[1:-1].replace('""', "")]
    if not quoted:
        return None
    return (
        f"{columns.origin}: {len(quoted)} texts are in quotes, with doubled quotes inside, as pandas and Excel write "
        f"them; these quotes are read as part of the text. Say what they are: {option}"
    )


def decode(data: bytes, path: Path) -> str:
    """Decode UTF-8 text, with or without a byte order mark.

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


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message, or its type where it has none."""
    return str(error).strip().partition("\n")[0] or type(error).__name__


def file_kind(path: Path) -> str:
    """Return a file's extension in lower case, without that of the compression."""
    return Path(path.name.removesuffix(".bz2")).suffix.lower()


def _split_unquoted(text: str, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    for number, line in enumerate(text.split("\n"), start=1):
        line = line.rstrip("\r")
        if line:
            yield number, line.split(delimiter)


def split_quoted(lines: Iterable[str], name: str, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """Yield the line on which each row begins, from 1, and its cells, which may be in double quotes.

    Args:
        lines: as a file opened with `newline=""` gives them.
        name: of the file, for error messages.
        delimiter: what separates cells.

    Raises:
        LptError: a misplaced or unclosed quote.
    """
    csv.field_size_limit(2**31 - 1)
    # Strict: otherwise an open quote swallows the rest of the file.
    reader = csv.reader(lines, strict=True, delimiter=delimiter)
    line = 1
    try:
        for row in reader:
            if row:
                yield line, row
            line = reader.line_num + 1
    except csv.Error as error:
        raise LptError(
            f"{name}, line {line}: the row that begins here has a misplaced or unclosed quote ({error}); "
            'write a quote inside a cell as ""'
        ) from None


def _read_parquet(data: bytes, path: Path) -> Columns:
    import pyarrow
    import pyarrow.parquet

    try:
        table = pyarrow.parquet.ParquetFile(io.BytesIO(data)).read()
        rows = list(zip(*(column.to_pylist() for column in table.columns), strict=True))
    except (pyarrow.ArrowException, OSError, ValueError, OverflowError) as error:
        raise LptError(
            f"{path} is not a readable Parquet file ({first_line(error)}); write or download it again"
        ) from error
    return Columns(table.column_names, rows, str(path))


def _each_key_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    record = dict(pairs)
    if len(record) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise KeyError(f"the key {twice!r} is there twice")
    return record


def _read_jsonl(text: str, path: Path) -> Columns:
    records: list[dict[str, Any]] = []
    names: dict[str, None] = {}
    lines = []
    # Not splitlines(): JSON strings may contain other line separators, such as U+2028, unescaped.
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            record = json.loads(line, object_pairs_hook=_each_key_once)
        except json.JSONDecodeError as error:
            raise LptError(f"{path}, line {number} is not JSON ({error.msg}); write one object per line") from None
        except (KeyError, RecursionError, ValueError) as error:
            what = error.args[0] if isinstance(error, KeyError) else "it is nested too deeply, or has too long a number"
            raise LptError(f"{path}, line {number}: {what}; correct the line") from None
        if not isinstance(record, dict):
            raise LptError(f"{path}, line {number} is not a JSON object; write one object per line")
        names |= dict.fromkeys(record)
        records.append(record)
        lines.append(number)
    return Columns(list(names), [[record.get(name) for name in names] for record in records], str(path), lines)
