"""Rows of a file or of stdin, one at a time: CSV, TSV, JSONL, Parquet, or plain lines."""

import io
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from lpt.data.readers import DELIMITERS, file_kind, first_line, split_quoted
from lpt.data.reading import TextFormat
from lpt.data.text import read_lines
from lpt.errors import LptError

STDIN = Path("-")
TABLES = (".csv", ".tsv")
KINDS = (*TABLES, ".jsonl", ".parquet")
TEXT = "text"  # the column of plain lines
PIECE = 1024  # rows of a Parquet file in memory at a time


@dataclass(frozen=True)
class Record:
    """A row: its values by column, and where it stands, for messages."""

    values: dict[str, Any]
    place: str


class Records:
    """The rows of one input, in their order; can be gone through again if it is a file.

    Args:
        path: the file; `-` is stdin.
        kind: `.csv`, `.tsv`, `.jsonl`, `.parquet`; or empty for plain lines, which are in the column `text`.
        text_format: how a CSV or TSV file is divided into cells.

    Raises:
        LptError: a kind of file that cannot be read.
    """

    def __init__(self, path: Path, kind: str, text_format: TextFormat):
        if kind == ".json":
            kind = ".jsonl"
        if kind and kind not in KINDS:
            raise LptError(f"--input {path}: files of this kind cannot be read; use .csv, .tsv, .jsonl or .parquet")
        if path == STDIN and kind == ".parquet":
            raise LptError("--input - reads lines, CSV, TSV or JSONL; a Parquet file is named")
        self.path, self.kind, self.text_format = path, kind, text_format
        self.name = "stdin" if path == STDIN else str(path)

    @classmethod
    def of(cls, path: Path, text_format: TextFormat) -> "Records":
        """The rows of a file of the kind that its extension says."""
        return cls(path, file_kind(path), text_format)

    def columns(self) -> list[str] | None:
        """The columns, without reading more than the beginning; None for what cannot be read twice.

        Raises:
            LptError: the beginning cannot be read.
        """
        if self.path == STDIN:
            return None if self.kind else [TEXT]
        if self.kind == ".parquet":
            with self._parquet() as file:
                return list(file.schema_arrow.names)
        if self.kind in TABLES and self.text_format.header is not False:
            with self._text() as file:
                return next(self._cells(file), (0, []))[1]
        return list(next(iter(self), Record({}, "")).values)

    def count(self) -> int | None:
        """How many rows there are; None for what cannot be read twice."""
        if self.path == STDIN:
            return None
        if self.kind == ".parquet":
            with self._parquet() as file:
                return int(file.metadata.num_rows)
        if self.kind == ".jsonl":
            with self.path.open("rb") as lines:
                return sum(1 for line in lines if line.strip())
        with self._text() as file:
            return sum(1 for _ in self._cells(file)) - (self.text_format.header is not False)

    def schema(self) -> Any:
        """Arrow's schema of a Parquet file; None of any other kind."""
        if self.kind != ".parquet":
            return None
        with self._parquet() as file:
            return file.schema_arrow

    def __iter__(self) -> Iterator[Record]:
        if self.kind == ".parquet":
            yield from self._parquet_rows()
            return
        if not self.kind:
            yield from (
                Record({TEXT: line}, f"{self.name}, line {number}")
                for number, line in enumerate(read_lines(self._bytes(), self.name), start=1)
            )
            return
        with self._text() as file:
            yield from self._json_rows(file) if self.kind == ".jsonl" else self._table_rows(file)

    def _bytes(self) -> IO[bytes]:
        return sys.stdin.buffer if self.path == STDIN else self.path.open("rb")

    @contextmanager
    def _text(self) -> Iterator[IO[str]]:
        # What is not UTF-8 becomes half characters, which are told where a text has them and else kept as they are.
        handle = self._bytes()
        file = io.TextIOWrapper(handle, encoding="utf-8-sig", errors="surrogateescape", newline="")
        try:
            yield file
        finally:
            if self.path != STDIN:
                file.close()

    @contextmanager
    def _parquet(self) -> Iterator[Any]:
        import pyarrow
        import pyarrow.parquet

        try:
            with pyarrow.parquet.ParquetFile(self.path) as file:
                yield file
        except (pyarrow.ArrowException, OSError, ValueError) as error:
            raise LptError(
                f"{self.name} is not a readable Parquet file ({first_line(error)}); write or download it again"
            ) from error

    def _parquet_rows(self) -> Iterator[Record]:
        with self._parquet() as file:
            number = 0
            for batch in file.iter_batches(PIECE):
                for values in batch.to_pylist():
                    number += 1
                    yield Record(values, f"{self.name}, row {number}")

    def _json_rows(self, file: IO[str]) -> Iterator[Record]:
        for number, line in enumerate(_lines(file), start=1):
            if not line.strip():
                continue
            place = f"{self.name}, line {number}"
            try:
                values = json.loads(line)
            except (ValueError, RecursionError):
                raise LptError(f"{place} is not JSON; write one object per line") from None
            if not isinstance(values, dict):
                raise LptError(f"{place} is not a JSON object; write one object per line")
            yield Record(values, place)

    def _table_rows(self, file: IO[str]) -> Iterator[Record]:
        names: list[str] | None = None
        for line, cells in self._cells(file):
            if names is None:
                headed = self.text_format.header is not False
                names = cells if headed else [str(i + 1) for i in range(len(cells))]
                twice = next((name for name in names if names.count(name) > 1), None)
                if twice is not None:
                    raise LptError(f"{self.name}: two columns are named {twice!r}; rename one of them")
                if headed:
                    continue
            place = f"{self.name}, line {line}"
            if len(cells) != len(names):
                hint = "put a cell with the delimiter in quotes" if len(cells) > len(names) else "complete the row"
                others = [text for text in DELIMITERS if len(names) == 1 and text in names[0]]
                hint = f"if {DELIMITERS[others[0]]} separate its cells, give --delimiter" if others else hint
                raise LptError(f"{place} has {len(cells)} cells, and there are {len(names)} columns; {hint}")
            yield Record(dict(zip(names, cells, strict=True)), place)

    def _cells(self, file: IO[str]) -> Iterator[tuple[int, list[str]]]:
        """The line on which each row begins, and its cells."""
        form, quoting = self.text_format, self.kind == ".csv"
        delimiter = form.delimiter or ("," if self.kind == ".csv" else "\t")
        if form.quoting is not None:
            quoting = form.quoting
        if not quoting:
            for number, text in enumerate(_lines(file), start=1):
                if text:
                    yield number, text.split(delimiter)
            return
        yield from split_quoted(file, self.name, delimiter)


class Given(Records):
    """Texts that are there already."""

    def __init__(self, texts: list[str]):
        super().__init__(STDIN, "", TextFormat())
        self.texts = texts

    def __iter__(self) -> Iterator[Record]:
        yield from (Record({TEXT: text}, f"text {number}") for number, text in enumerate(self.texts, start=1))


def _lines(file: IO[str]) -> Iterator[str]:
    """Lines that end in a line feed alone: JSON strings and cells may contain other separators."""
    rest = ""
    for piece in file:  # ends at a carriage return too, since newline=""
        rest += piece
        if rest.endswith("\n"):
            yield rest.removesuffix("\n").removesuffix("\r")
            rest = ""
    if rest:
        yield rest.removesuffix("\r")
