"""What `lpt predict` and `lpt evaluate` have in common: the adapter, the rows to read, and how to compute."""

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lpt.backbones.names import ACCELERATORS, AUTO, PRECISIONS, QUANTIZATIONS
from lpt.cli.arguments import positive
from lpt.errors import LptError

if TYPE_CHECKING:
    from lpt.classifier import LatePromptClassifier


def adapter_options() -> argparse.ArgumentParser:
    """The options of both commands, as a parent parser."""
    options = argparse.ArgumentParser(add_help=False)
    options.add_argument("adapter", help="the adapter/ folder of a run, or a hub id")
    options.add_argument(
        "--file", type=Path, help="the texts: CSV, TSV, JSONL or Parquet (default: one text per line of stdin)"
    )
    options.add_argument("--a", default="text", metavar="COLUMN", help="column of the text (default: text)")
    options.add_argument("--b", metavar="COLUMN", help="column of the second text, for tasks with two")
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


def load_classifier(arguments: argparse.Namespace) -> "LatePromptClassifier":
    """The classifier that the options name.

    Raises:
        LptError: a plugin or the adapter cannot be loaded, or this machine cannot compute it.
    """
    if arguments.plugin:
        from lpt.registry import load_plugins

        load_plugins(arguments.plugin)
    from lpt.classifier import LatePromptClassifier  # here, so that --help does not wait for torch

    return LatePromptClassifier.from_pretrained(
        arguments.adapter, arguments.accelerator, arguments.precision, quantization=arguments.quantization
    )


def read_rows(arguments: argparse.Namespace) -> Iterator[tuple[str, ...]]:
    """Yield the texts of each row: one, or two with `--b`.

    Raises:
        LptError: `--file` does not exist, or lacks a column.
    """
    if arguments.file is None:
        yield from ((line.rstrip("\n"),) for line in sys.stdin)
        return
    columns = read_columns(arguments.file)
    sentences = [columns.column("--a", arguments.a)]
    if arguments.b is not None:
        sentences.append(columns.column("--b", arguments.b))
    yield from zip(*sentences, strict=True)


def read_columns(path: Path) -> Any:
    """The columns of the file that `--file` names.

    Raises:
        LptError: it does not exist, or cannot be read.
    """
    from lpt.data.readers import read_file

    if not path.is_file():
        raise LptError(f"--file: {path} does not exist")
    return read_file(path)
