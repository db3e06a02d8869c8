"""`lpt train tickets.csv --text body --label intent`: a file of one's own, as the options that train on it.

Short for options that could be typed as well: they are printed, and nothing but them decides what is run.
"""

import argparse
import math
import re
import shlex
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lpt.config.flags import assignment, assignment_of_list
from lpt.console import say
from lpt.data.readers import KINDS, Columns, file_kind, read_file
from lpt.data.reading import TextFormat
from lpt.data.tasks import IGNORE
from lpt.errors import ConfigError, LptError, did_you_mean

FOLDS = 5
LARGE = 20e6  # bytes; a smaller file is read before anyone wonders
FEW_ROWS = 1000  # of fewer rows, every one is worth training on: the score is cross-validated
BACKBONE = "minilm-l6"  # needs no model hub, and trains within seconds
MANY_CLASSES = 20  # more, if every other row has one of its own, are hardly classes
EXAMPLE = "lpt train tickets.csv --text body --label intent"


@dataclass(frozen=True)
class OwnData:
    """Files of one's own, and which of their columns to read.

    Attributes:
        train: file of the labeled rows.
        text: column of the text.
        label: column of the label.
        pair: column of the second text, for tasks with two.
        validation: file of the rows that choose the best step.
        test: file of the rows that are tested.
        folds: how many for cross-validation; 0: none; None: by the number of rows.
        regression: whether the label is a number.
        delimiter: what separates the cells of CSV and TSV files; None: commas, and tabs.
    """

    train: Path
    text: str = "text"
    label: str = "label"
    pair: str | None = None
    validation: Path | None = None
    test: Path | None = None
    folds: int | None = None
    regression: bool = False
    delimiter: str | None = None


def from_own_data(argv: Sequence[str]) -> tuple[list[str], list[str]]:
    """The command line in options alone, and what to tell of it; unchanged where it does not begin with a file.

    Raises:
        ConfigError: everything that is wrong with the file and its options.
    """
    if not argv or "=" in argv[0] or argv[0].startswith("-") or not _looks_like_a_file(argv[0]):
        return list(argv), []
    own, others = _parse(argv)
    overrides, told = describe(own, others)
    return [*overrides, *others], told


def describe(own: OwnData, others: Sequence[str] = ()) -> tuple[list[str], list[str]]:
    """The options that train on these files, and what to tell of them.

    Args:
        own: the files.
        others: further options, which have the last word.

    Raises:
        ConfigError: everything that is wrong with the files.
    """
    columns, complaints = _read(own)
    if complaints:
        raise ConfigError(complaints)
    name = re.sub(r"[^\w-]+", "_", own.train.name.partition(".")[0]).strip("_") or "custom"
    options = ["task=custom", assignment("task.name", name)]
    files = {"train": own.train, "dev": own.validation, "test": own.test}
    options += [assignment(f"task.files.{key}", path.absolute()) for key, path in files.items() if path is not None]
    options += [assignment("task.files.a", own.text), assignment("task.files.label", own.label)]
    if own.delimiter is not None:
        options.append(assignment("task.files.delimiter", own.delimiter))
    if own.pair is not None:
        options += [assignment("task.files.b", own.pair), *PAIR_TEMPLATES]
    labels = [column.cells("--label", own.label) for column in columns]
    if own.regression:
        options += _regression([float(value) for values in labels for value in values])
        told = f"{len(labels[0])} rows; {own.label!r} is a number"
    else:
        counts = Counter(labels[0])
        classes = sorted(counts, key=_natural)
        options.append(assignment_of_list("task.labels", classes))
        sizes = ", ".join(f"{counts[value]} {value}" for value in classes)
        told = f"{len(labels[0])} rows; {own.label!r} has {len(classes)} classes: {sizes}"
    options += _protocol(own, len(columns[0].rows))
    given = {text.lstrip("+").partition("=")[0] for text in others}
    if not given & {"backbone", "backbone.path"}:
        options.append(f"backbone={BACKBONE}")
    if not given & {"recipe"}:
        options.append("recipe=default")
    return options, [told, f"the same as: {shlex.join(['lpt', 'train', *options, *others])}"]


PAIR_TEMPLATES = ["task.template.encoder='{a} {mask} {b}'", "task.template.decoder='{a} {b}'"]


def _protocol(own: OwnData, rows: int) -> list[str]:
    folds = own.folds
    if folds is None:
        folds = FOLDS if rows < FEW_ROWS and own.validation is None and own.test is None else 0
    options = ["fewshot=full"]
    if folds:
        options.append(f"fewshot.folds={folds}")
        if own.test is None:
            options.append("task.files.test_rows=0")
    return options


def _regression(values: list[float]) -> list[str]:
    low, high = math.floor(min(values)), math.ceil(max(values))
    return [f"task.value_range=[{low},{high}]", "task.labels=[low,high]", "task.metrics=[pearson,spearman]"]


# The command line


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> None:  # type: ignore[override]
        raise ConfigError([f"{message}; an example: {EXAMPLE}"])


def parser() -> argparse.ArgumentParser:
    """The parser of a command line that begins with a file."""
    parser = _Parser(
        prog="lpt train",
        usage="lpt train FILE [--text COLUMN] [--label COLUMN] [option=value ...]",
        description="Train on a labeled file of your own: CSV, TSV, JSONL or Parquet. Options may follow.",
        allow_abbrev=False,
    )
    parser.add_argument("file", type=Path, help="the labeled rows")
    parser.add_argument("--text", metavar="COLUMN", default="text", help="column of the text (default: text)")
    parser.add_argument("--label", metavar="COLUMN", default="label", help="column of the label (default: label)")
    parser.add_argument("--pair", metavar="COLUMN", help="column of the second text, for tasks with two")
    parser.add_argument("--test", metavar="FILE", type=Path, help="labeled rows to test on")
    parser.add_argument("--validation", metavar="FILE", type=Path, help="labeled rows that choose the best step")
    parser.add_argument(
        "--folds",
        metavar="N",
        type=int,
        help=f"cross-validate: test every row once, by a model trained on the other folds, then train on all rows; 0: "
        f"set test rows aside instead (default: {FOLDS} with fewer than {FEW_ROWS} rows and no other file)",
    )
    parser.add_argument("--delimiter", metavar="TEXT", help="what separates cells (default: , in .csv, a tab in .tsv)")
    parser.add_argument("--regression", action="store_true", help="the label is a number")
    return parser


def _parse(argv: Sequence[str]) -> tuple[OwnData, list[str]]:
    found, others = parser().parse_known_args(argv)
    files = {"train": found.file, "validation": found.validation, "test": found.test}
    columns = {name: getattr(found, name) for name in ("text", "label", "pair")}
    own = OwnData(**files, **columns, folds=found.folds, regression=found.regression, delimiter=found.delimiter)
    return own, others


def _looks_like_a_file(text: str) -> bool:
    path = Path(text)
    return file_kind(path) in KINDS or path.is_file()


# What is wrong with the files


def _read(own: OwnData) -> tuple[list[Columns], list[str]]:
    """The columns of each file, and all complaints about them."""
    complaints: list[str] = []
    if own.folds is not None and (own.folds < 0 or own.folds == 1):
        complaints.append(f"--folds {own.folds}: give 2 or more, or 0 for none")
    if own.folds and own.validation is not None:
        complaints.append("--folds uses no validation rows; remove --validation, or --folds")
    found = []
    for option, path in (("the file", own.train), ("--validation", own.validation), ("--test", own.test)):
        if path is None:
            continue
        try:
            if not path.is_file():
                raise LptError(f"{option} {path} does not exist{_similar(path)}")
            if path.stat().st_size > LARGE:
                say(f"reading {path} ({path.stat().st_size / 1e6:,.0f} MB) ...")
            columns = read_file(path, TextFormat(delimiter=own.delimiter))
            if not columns.rows:
                raise LptError(f"{path} has no rows; give it some")
        except LptError as error:
            complaints.append(str(error))
        else:
            found.append(columns)
            complaints += _column_problems(columns, own)
    if not complaints:
        complaints += _label_problems(found, own)
    return found, complaints


def _similar(path: Path) -> str:
    names = [other.name for other in path.parent.iterdir()] if path.parent.is_dir() else []
    return did_you_mean(path.name, names)


def _column_problems(columns: Columns, own: OwnData) -> list[str]:
    problems = []
    for option, name in (("--text", own.text), ("--pair", own.pair)):
        if name is not None:
            try:
                columns.texts(option, name)
            except LptError as error:
                problems.append(str(error))
    try:
        cells = columns.cells("--label", own.label)
    except LptError as error:
        return [*problems, str(error)]
    empty = [i for i, cell in enumerate(cells) if not cell]
    if empty:
        others = f", as have {len(empty) - 1} others" if len(empty) > 1 else ""
        problems.append(
            f"{columns.locate(empty[0])} has no label{others}; give each row a label in column {own.label!r}, "
            "or remove it"
        )
    return problems


def _label_problems(found: list[Columns], own: OwnData) -> list[str]:
    cells = [columns.cells("--label", own.label) for columns in found]
    if own.regression:
        return [
            f"{columns.locate(i)}: label {value!r} is not a number; correct it, or remove --regression"
            for columns, values in zip(found, cells, strict=True)
            for i, value in enumerate(values)
            if not _is_number(value)
        ][:1]
    known = set(cells[0])
    if len(known) < 2:
        return [
            f"--label {own.label!r}: all rows of {own.train} have the label {cells[0][0]!r}; give at least two classes"
        ]
    if IGNORE in known:
        return [f"--label {own.label!r}: {IGNORE!r} cannot be the name of a class; give it another in {own.train}"]
    if len(known) > MANY_CLASSES and 2 * len(known) > len(cells[0]):
        numbers = all(map(_is_number, known))
        hint = "they are numbers: add --regression" if numbers else "name the column of the class"
        return [
            f"--label {own.label!r}: {len(known)} different values in {len(cells[0])} rows are hardly classes; {hint}"
        ]
    return [
        f"{columns.locate(i)}: label {value!r} is in no row of {own.train}{did_you_mean(value, known)}; correct it, or "
        "add rows of this class to train on"
        for columns, values in zip(found[1:], cells[1:], strict=True)
        for i, value in enumerate(values)
        if value not in known
    ][:1]


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


def _natural(text: str) -> tuple[bool, float, str]:
    """Sorts 2 before 10, and both before words."""
    return (False, float(text), text) if _is_number(text) else (True, 0.0, text.casefold())
