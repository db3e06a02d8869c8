"""From what the data has as labels to class indices, or to the values of a regression."""

import math
from collections.abc import Mapping, Sequence

from lpt.data.readers import Columns
from lpt.data.rows import LabeledRows
from lpt.data.tasks import IGNORE, Source, Task
from lpt.errors import LptError


def label_rows(columns: Columns, task: Task, source: Source) -> LabeledRows | None:
    """Take sentences and labels out of raw columns, without the rows whose label is mapped to `IGNORE`.

    Returns:
        The rows; None where no row has a gold label, that is, every label is -1.

    Raises:
        LptError: a missing column, an unknown label, a number out of range, a bad mapping of labels.
    """
    option = f"task.{task.source}"
    sentences = [columns.column(f"{option}.a", source.a)]
    if source.b is not None:
        sentences.append(columns.column(f"{option}.b", source.b))
    raw = [value.strip() for value in columns.column(f"{option}.label", source.label)]
    rows = list(zip(*sentences, strict=True))
    names = {} if task.value_range else label_values(task, source)
    # The hub marks rows without a gold label with -1.
    if set(raw) <= {"-1", "-1.0"} and names.get("-1", IGNORE) == IGNORE:
        return None
    if task.value_range:
        return LabeledRows(rows, numbers(columns, raw, task.value_range), columns.index)
    kept, labels = [], []
    for i, value in enumerate(raw):
        if value not in names:
            raise LptError(
                f"{columns.locate(i)}: label {value!r} is not one of the task's ({', '.join(map(repr, names))}); "
                f"add it to {option}.values or correct the data"
            )
        if names[value] != IGNORE:
            kept.append(i)
            labels.append(task.labels.index(names[value]))
    return LabeledRows([rows[i] for i in kept], labels, [columns.index[i] for i in kept])


def numbers(columns: Columns, labels: Sequence[str], value_range: Sequence[float]) -> list[float]:
    """Parse the values of a regression.

    Args:
        columns: where the labels are from, for error messages.
        labels: one text per row of `columns`.
        value_range: lowest and highest value allowed.

    Raises:
        LptError: a label that is not a number, or is out of range.
    """
    values, (low, high) = [], value_range
    for i, label in enumerate(labels):
        try:
            value = round(float(label), 6)  # the hub stores 3.8 in 32 bits: 3.799999952316284
        except ValueError:
            value = math.nan
        if not low <= value <= high:
            raise LptError(
                f"{columns.locate(i)}: label {label!r} is not a number from {low:g} to {high:g}; correct the data or "
                "set task.value_range=[lowest,highest]"
            )
        values.append(value)
    return values


def label_values(task: Task, source: Source) -> Mapping[str, str]:
    """Map each value in the data to a label name, or to `IGNORE` for rows that are not part of the task.

    Raises:
        LptError: a value mapped to a name that is not one of the task's labels.
    """
    if not source.values:
        return default_values(task.labels)
    values: dict[str, str] = source.values
    for value, name in values.items():
        if name != IGNORE and name not in task.labels:
            raise LptError(
                f"task.{task.source}.values maps {value!r} to {name!r}; allowed: "
                f"{', '.join(map(repr, task.labels))}, or {IGNORE!r} for rows to leave out"
            )
    return values


def default_values(labels: Sequence[str]) -> dict[str, str]:
    """Map values in the data to label names where the task does not: the names themselves, or their index from 0."""
    by_name = {name: name for name in labels}
    # Stars 1 to 5 are names: a 0 there is a mistake, not the first class.
    by_index = {} if any(map(str.isdigit, by_name)) else {str(i): name for i, name in enumerate(labels)}
    return by_index | by_name
