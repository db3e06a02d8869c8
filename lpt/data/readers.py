"""Files of text or of columns, read into `Columns`: CSV, TSV, JSONL and Parquet."""

import bz2
import csv
import io
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from lpt.errors import LptError, did_you_mean

Records = list[tuple[int, list[str]]]  # the line in which a row begins, from 1, and its cells


class Columns:
    """Raw cells under column names, which can say where each row came from.

    Args:
        names: column names.
        rows: the cells of each row.
        origin: file or split, for error messages.
        lines: the line of the text file in which each row begins, from 1, for error messages; None for a file
            without lines.
        index: the number of each row in its source, from 0; None where no row of the source is missing.
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
        self.index = list(range(len(rows))) if index is None else list(index)

    def locate(self, row: int) -> str:
        """Describe where a row came from: `<file>, row <number>, line <number>`."""
        line = "" if self.lines is None else f", line {self.lines[row]}"
        return f"{self.origin}, row {self.index[row]}{line}"

    def without_short_rows(self) -> "Columns":
        """Return only the rows that have a cell in every column."""
        kept = [i for i, row in enumerate(self.rows) if len(row) >= len(self.names)]
        lines = None if self.lines is None else [self.lines[i] for i in kept]
        return Columns(self.names, [self.rows[i] for i in kept], self.origin, lines, [self.index[i] for i in kept])

    def column(self, option: str, name: str) -> list[str]:
        """Return one column as strings; empty cells are empty strings.

        Args:
            option: the option that names the column, for error messages.
            name: the column's name.

        Raises:
            LptError: no such column (the message lists those there are), or a row too short to have it.
        """
        if name not in self.names:
            raise LptError(
                f"{option}={name!r}: {self.origin} has no such column; it has {', '.join(map(repr, self.names))}"
                + did_you_mean(name, self.names)
            )
        position = self.names.index(name)
        cells = []
        for i, row in enumerate(self.rows):
            if position >= len(row):
                raise LptError(
                    f"{self.locate(i)} has {len(row)} column{'s' * (len(row) != 1)}, but {option}={name!r} is column "
                    f"{position + 1}; correct or remove the row"
                )
            cells.append("" if row[position] is None else str(row[position]))
        return cells


def read_file(path: Path) -> Columns:
    """Read a CSV, TSV (without quoting), JSONL or Parquet file, possibly compressed as `.bz2`.

    Raises:
        LptError: another kind of file; broken encoding, quoting or JSON (with file and line); a row longer than the
            header; an unreadable Parquet or bzip2 file.
    """
    data, kind = path.read_bytes(), _kind(path)
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
    return read_text(data, path)


def read_text(data: bytes, path: Path, header: bool | None = True) -> Columns:
    """Parse the bytes of a CSV file, or of any other text file as TSV without quoting.

    Args:
        data: the file's content, UTF-8.
        path: names the file in error messages; its extension chooses between CSV and TSV.
        header: whether the first line has the column names; otherwise columns are named 1, 2, ... None: it has them
            if one of its cells is `sentence`.

    Raises:
        LptError: broken encoding or quoting, an empty file, a row longer than the header (with file and line).
    """
    text = decode(data, path)
    records = list(_split_csv(text, path) if _kind(path) == ".csv" else _split_tsv(text))
    if not records:
        raise LptError(f"{path} is empty; give a file with at least one row")
    if header is None:
        header = "sentence" in records[0][1]
    names = records[0][1] if header else [str(i + 1) for i in range(max(len(row) for _, row in records))]
    lines, rows = [line for line, _ in records[header:]], [row for _, row in records[header:]]
    columns = Columns(names, rows, str(path), lines)
    for i, row in enumerate(rows):
        if any(row[len(names) :]):
            raise LptError(
                f"{columns.locate(i)} has {len(row)} columns, the header has {len(names)}; quote a cell that contains "
                "a comma (.csv), remove a tab from a text (.tsv)"
            )
    return columns


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


def _kind(path: Path) -> str:
    """The extension in lower case, without that of the compression."""
    return Path(path.name.removesuffix(".bz2")).suffix.lower()


def _split_tsv(text: str) -> Iterator[tuple[int, list[str]]]:
    for number, line in enumerate(text.split("\n"), start=1):
        line = line.rstrip("\r")
        if line:
            yield number, line.split("\t")


def _split_csv(text: str, path: Path) -> Iterator[tuple[int, list[str]]]:
    csv.field_size_limit(2**31 - 1)
    # Strict: otherwise an open quote swallows the rest of the file.
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    line = 1
    try:
        for row in reader:
            if row:
                yield line, row
            line = reader.line_num + 1
    except csv.Error as error:
        raise LptError(
            f"{path}, line {line}: the row that begins here has a misplaced or unclosed quote ({error}); "
            'write a quote inside a cell as ""'
        ) from None


def _read_parquet(data: bytes, path: Path) -> Columns:
    import pyarrow
    import pyarrow.parquet

    try:
        table = pyarrow.parquet.read_table(io.BytesIO(data))
    except (pyarrow.ArrowException, OSError) as error:
        raise LptError(
            f"{path} is not a readable Parquet file ({first_line(error)}); write or download it again"
        ) from error
    rows = list(zip(*(column.to_pylist() for column in table.columns), strict=True))
    return Columns(table.column_names, rows, str(path))


def _read_jsonl(text: str, path: Path) -> Columns:
    records: list[dict[str, Any]] = []
    names: dict[str, None] = {}
    lines = []
    # Not splitlines(): JSON strings may contain other line separators, such as U+2028, unescaped.
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
            json.dumps(record, ensure_ascii=False).encode()
        except json.JSONDecodeError as error:
            raise LptError(f"{path}, line {number} is not JSON ({error.msg}); write one object per line") from None
        except UnicodeEncodeError:
            raise LptError(
                f"{path}, line {number} has a lone surrogate (half of a character, \\ud800 to \\udfff); "
                "correct the escape or remove it"
            ) from None
        if not isinstance(record, dict):
            raise LptError(f"{path}, line {number} is not a JSON object; write one object per line")
        names |= dict.fromkeys(record)
        records.append(record)
        lines.append(number)
    return Columns(list(names), [[record.get(name) for name in names] for record in records], str(path), lines)
