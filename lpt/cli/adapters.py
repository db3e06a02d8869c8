"""What `lpt predict` and `lpt evaluate` have in common: the adapter, the rows to read, and how to compute."""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from lpt.adapter import AdapterConfig, adapter_folder, load_adapter_config
from lpt.backbones.names import ACCELERATORS, AUTO, PRECISIONS, QUANTIZATIONS
from lpt.cli.arguments import positive
from lpt.data.reading import Reading
from lpt.errors import LptError

if TYPE_CHECKING:
    from lpt.classifier import LatePromptClassifier
    from lpt.data.readers import Columns


def adapter_options(several: bool = False) -> argparse.ArgumentParser:
    """The options of both commands, as a parent parser.

    Args:
        several: whether several adapters may be given.
    """
    options = argparse.ArgumentParser(add_help=False)
    what = "a run folder, an adapter/ folder, or a hub id"
    if several:
        options.add_argument(
            "adapters", nargs="+", metavar="adapter", help=f"{what}; several, each perhaps as name=<one>: all answer"
        )
    else:
        options.add_argument("adapter", help=what)
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
    group.add_argument(
        "--input", type=Path, metavar="FILE", help="CSV, TSV, JSONL or Parquet (default: one text per line of stdin)"
    )
    group.add_argument("--a", metavar="COLUMN", help="column of the text")
    group.add_argument("--b", metavar="COLUMN", help="column of the second text, for tasks with two")
    flag = argparse.BooleanOptionalAction
    group.add_argument("--header", action=flag, help="whether its first line names the columns, else 1, 2, ...")
    group.add_argument("--delimiter", metavar="TEXT", help="what separates the cells of a CSV or TSV file")
    group.add_argument("--quoting", action=flag, help="whether cells of a CSV or TSV file may be in double quotes")


def named_adapters(given: Sequence[str]) -> dict[str, tuple[Path, AdapterConfig]]:
    """Name -> folder and configuration of adapters that are given as `<folder>` or `<name>=<folder>`.

    Raises:
        LptError: no adapter there, or two of one name.
    """
    found: dict[str, tuple[Path, AdapterConfig]] = {}
    for text in given:
        name, equals, place = text.partition("=")
        if not equals or Path(text).exists():
            name, place = "", text
        folder = adapter_folder(place)
        config = load_adapter_config(folder)
        name = name or config.task
        if name in found:
            raise LptError(f"two adapters are named {name!r}; name them, as in one={found[name][0]} other={folder}")
        found[name] = folder, config
    return found


def check_input(arguments: argparse.Namespace) -> None:
    """Raises LptError for an `--input` that does not exist; `-` is stdin."""
    path = arguments.input
    if path is not None and str(path) != "-" and not path.is_file():
        raise LptError(f"--input: {path} does not exist")


def load_classifier(arguments: argparse.Namespace) -> "LatePromptClassifier":
    """The classifier that the options of `lpt evaluate` name.

    Raises:
        LptError: `--input` does not exist, a plugin or the adapter cannot be loaded, or this machine cannot compute it.
    """
    check_input(arguments)
    folder = adapter_folder(arguments.adapter)
    load_adapter_config(folder)  # so that a wrong one is told at once
    return load_adapter(folder, arguments)


def load_adapter(folder: Path, arguments: argparse.Namespace) -> "LatePromptClassifier":
    """The classifier of a folder, computed as the options say."""
    add_plugins(arguments)
    from lpt.classifier import LatePromptClassifier  # here, so that --help does not wait for torch

    return LatePromptClassifier.from_pretrained(
        folder,
        arguments.accelerator,
        arguments.precision,
        quantization=arguments.quantization,
        backbone=arguments.backbone,
    )


def add_plugins(arguments: argparse.Namespace) -> None:
    """Run the Python files that `--plugin` names."""
    if arguments.plugin:
        from lpt.registry import load_plugins

        load_plugins(arguments.plugin)


def given_reading(arguments: argparse.Namespace, trained_on: Reading) -> Reading:
    """How the rows are written: as those that the adapter was trained on, but for what the options say."""
    given = {name: value for name in ("a", "b", "label") if (value := getattr(arguments, name, None)) is not None}
    text_format = {
        name: value for name in ("header", "delimiter", "quoting") if (value := getattr(arguments, name)) is not None
    }
    return replace(trained_on, **given, format=replace(trained_on.format, **text_format))


def read_columns(path: Path, reading: Reading) -> "Columns":
    """The columns of the file that `--input` names.

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
