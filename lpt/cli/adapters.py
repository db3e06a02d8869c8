"""What `lpt predict` and `lpt evaluate` have in common: the adapter, the rows to read, and how to compute."""

import argparse
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from lpt.adapter import adapter_folder, load_adapter_config
from lpt.backbones.names import ACCELERATORS, AUTO, PRECISIONS, QUANTIZATIONS
from lpt.cli.arguments import positive
from lpt.data.reading import Reading
from lpt.errors import LptError

if TYPE_CHECKING:
    from lpt.classifier import LatePromptClassifier
    from lpt.data.readers import Columns


def adapter_options() -> argparse.ArgumentParser:
    """The options of both commands, as a parent parser."""
    options = argparse.ArgumentParser(add_help=False)
    options.add_argument("adapter", help="a run folder, an adapter/ folder, or a hub id")
    options.add_argument(
        "--backbone",
        metavar="PATH",
        help="where the backbone is, if not where the adapter was trained on it: a folder or hub id",
    )
    _add_file_options(options.add_argument_group("the file, by default read as the run read its own"))
    options.add_argument("--batch-size", type=positive, default=32, help="rows at a time (default: 32)")
    options.add_argument(
        "--accelerator", choices=(AUTO, *ACCELERATORS), default=AUTO, help="where to compute (default: a GPU if any)"
    )
    options.add_argument(
        "--precision",
        choices=(AUTO, *PRECISIONS),
        default=AUTO,
        help="number format of the backbone (default: bf16 where it is fast, else 32)",
    )
    options.add_argument(
        "--quantization", choices=QUANTIZATIONS, help="quantize the layers of the backbone (default: no quantization)"
    )
    options.add_argument(
        "--plugin",
        action="append",
        default=[],
        metavar="FILE",
        help="a Python file of your own with the method, generator or head of the adapter; may be given several times",
    )
    return options


def _add_file_options(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--file", type=Path, help="CSV, TSV, JSONL or Parquet (default: one text per line of stdin)")
    group.add_argument("--a", metavar="COLUMN", help="column of the text")
    group.add_argument("--b", metavar="COLUMN", help="column of the second text, for tasks with two")
    flag = argparse.BooleanOptionalAction
    group.add_argument("--header", action=flag, help="whether its first line names the columns, else 1, 2, ...")
    group.add_argument("--delimiter", metavar="TEXT", help="what separates the cells of a CSV or TSV file")
    group.add_argument("--quoting", action=flag, help="whether cells of a CSV or TSV file may be in double quotes")


def load_classifier(arguments: argparse.Namespace) -> "LatePromptClassifier":
    """The classifier that the options name.

    Raises:
        LptError: `--file` does not exist, a plugin or the adapter cannot be loaded, or this machine cannot compute it.
    """
    if arguments.file is not None and not arguments.file.is_file():
        raise LptError(f"--file: {arguments.file} does not exist")
    folder = adapter_folder(arguments.adapter)
    load_adapter_config(folder)  # so that a wrong one is told at once
    if arguments.plugin:
        from lpt.registry import load_plugins

        load_plugins(arguments.plugin)
    from lpt.classifier import LatePromptClassifier  # here, so that --help does not wait for torch

    return LatePromptClassifier.from_pretrained(
        folder,
        arguments.accelerator,
        arguments.precision,
        quantization=arguments.quantization,
        backbone=arguments.backbone,
    )


def given_reading(arguments: argparse.Namespace, trained_on: Reading) -> Reading:
    """How the rows are written: as those that the adapter was trained on, but for what the options say."""
    given = {name: value for name in ("a", "b", "label") if (value := getattr(arguments, name, None)) is not None}
    text_format = {
        name: value for name in ("header", "delimiter", "quoting") if (value := getattr(arguments, name)) is not None
    }
    return replace(trained_on, **given, format=replace(trained_on.format, **text_format))


def read_texts(arguments: argparse.Namespace, reading: Reading) -> Iterator[tuple[str, ...]]:
    """Yield the texts of each row of `--file`, or of each line of stdin.

    Raises:
        LptError: `--file` lacks a column; something there is not a text.
    """
    from lpt.data.labels import texts
    from lpt.data.text import read_lines

    if arguments.file is None:
        yield from ((line,) for line in read_lines(sys.stdin.buffer, "stdin"))
        return
    yield from texts(read_columns(arguments.file, reading), reading, "--")


def read_columns(path: Path, reading: Reading) -> "Columns":
    """The columns of the file that `--file` names.

    Raises:
        LptError: it cannot be read.
    """
    from lpt.data.readers import quoted_by_others, read_file

    columns = read_file(path, reading.format)
    if reading.skip_short:
        columns = columns.without_short_rows()
    caution = quoted_by_others(columns, reading, "--quoting or --no-quoting")
    if caution is not None:
        print(f"warning: {caution}", file=sys.stderr)
    return columns
