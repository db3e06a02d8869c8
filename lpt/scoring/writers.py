"""Answered rows in a file, appended a few at a time; it can be cut back to any length that was noted."""

import csv
import io
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any

from lpt.data.readers import file_kind
from lpt.errors import LptError
from lpt.scoring.records import KINDS


class Writer:
    """JSON lines.

    Args:
        file: where they are written, as bytes.
        columns: of every row, in order; None where rows may differ.
    """

    def __init__(self, file: IO[bytes], columns: Sequence[str] | None = None):
        self.file, self.columns = file, columns

    def write(self, rows: Sequence[dict[str, Any]]) -> None:
        """Append rows, whole."""
        lines = "".join(json.dumps(row, ensure_ascii=False, default=str) + "\n" for row in rows)
        self.file.write(lines.encode("utf-8", "surrogateescape"))
        self.file.flush()

    def finish(self, path: Path) -> None:
        """Have the finished file be what its extension says."""


class TableWriter(Writer):
    """CSV or TSV, with a header; a TSV has no quotes, as this project reads it."""

    def __init__(self, file: IO[bytes], columns: Sequence[str] | None, kind: str):
        super().__init__(file, columns)
        self.kind = kind

    def write(self, rows: Sequence[dict[str, Any]]) -> None:
        """Append rows; the header first, where nothing was written yet."""
        assert self.columns is not None
        out = io.StringIO(newline="")
        lines: list[Sequence[Any]] = [[_cell(row.get(name)) for name in self.columns] for row in rows]
        if not self.file.tell():
            lines.insert(0, self.columns)
        if self.kind == ".csv":
            csv.writer(out, lineterminator="\n").writerows(lines)
        else:
            out.writelines("\t".join(_without_tabs(cell) for cell in line) + "\n" for line in lines)
        self.file.write(out.getvalue().encode("utf-8", "surrogateescape"))
        self.file.flush()


class ParquetWriter(Writer):
    """Parquet, whose end says where everything is: until all is there, pieces in Arrow's stream format.

    Args:
        schema: Arrow's, of the columns that come from a Parquet file; None where they come from elsewhere.
    """

    def __init__(self, file: IO[bytes], schema: Any):
        super().__init__(file)
        self.schema = schema

    def write(self, rows: Sequence[dict[str, Any]]) -> None:
        """Append a piece."""
        import pyarrow

        try:
            if self.schema is None:
                table = pyarrow.Table.from_pylist(list(rows))
            else:
                table = pyarrow.Table.from_pylist(list(rows), schema=self.schema)
                for name in rows[0].keys() - set(self.schema.names):
                    table = table.append_column(name, pyarrow.array([row[name] for row in rows]))
                table = table.select(list(rows[0]))
        except (pyarrow.ArrowException, OverflowError) as error:
            raise LptError(f"these rows cannot be columns of a Parquet file ({error}); write .jsonl") from None
        with pyarrow.ipc.new_stream(self.file, table.schema) as stream:
            stream.write_table(table)
        self.file.flush()

    def finish(self, path: Path) -> None:
        """Put the pieces together, one after the other."""
        import pyarrow
        import pyarrow.parquet

        try:
            schema = pyarrow.unify_schemas(
                [piece.schema for piece in _pieces(path)] or [pyarrow.schema([])], promote_options="permissive"
            )
        except pyarrow.ArrowException as error:
            raise LptError(f"a column has values of different kinds ({error}); write .jsonl") from None
        done = path.with_name(f"{path.name}.joined")
        with pyarrow.parquet.ParquetWriter(done, schema) as parquet:
            for piece in _pieces(path):
                absent = [name for name in schema.names if name not in piece.schema.names]
                for name in absent:
                    piece = piece.append_column(name, pyarrow.nulls(len(piece)))
                parquet.write_table(piece.select(schema.names).cast(schema))
        os.replace(done, path)


def writer_of(file: IO[bytes], kind: str, columns: Sequence[str] | None, schema: Any) -> Writer:
    """The writer of files with this extension."""
    if kind in (".csv", ".tsv"):
        return TableWriter(file, columns, kind)
    return ParquetWriter(file, schema) if kind == ".parquet" else Writer(file)


def output_kind(path: Path) -> str:
    """The extension of an output.

    Raises:
        LptError: it is none of those that can be written.
    """
    kind = file_kind(path)
    if kind not in KINDS or path.suffix == ".bz2":
        raise LptError(f"--output {path}: name a file that ends in .csv, .tsv, .jsonl or .parquet")
    return kind


def _pieces(path: Path) -> Iterator[Any]:
    import pyarrow

    with pyarrow.OSFile(str(path)) as file:
        while file.tell() < file.size():
            yield pyarrow.ipc.open_stream(file).read_all()


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


def _without_tabs(cell: str) -> str:
    return " ".join(cell.split("\t")).replace("\n", " ").replace("\r", " ")
