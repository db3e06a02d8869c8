"""From raw columns to labeled rows: texts, and class indices or the values of a regression."""

import math
from collections import Counter
from collections.abc import Sequence

from lpt.data.readers import Columns
from lpt.data.reading import Reading
from lpt.data.rows import LabeledRows
from lpt.data.tasks import IGNORE
from lpt.errors import LptError


def label_rows(
    columns: Columns, reading: Reading, labels: Sequence[str], value_range: Sequence[float] | None, prefix: str
) -> LabeledRows | None:
    """Take texts and labels out of raw columns, without the rows whose label stands for `IGNORE`.

    Args:
        columns: what a file or split has.
        reading: which columns, and what is written for each label.
        labels: class names, in class order.
        value_range: lowest and highest value of a regression; None for classes.
        prefix: what stands before the names of `reading` in the options that set them, for error messages.

    Returns:
        The rows; None where no row has a gold label, that is, every label is -1.

    Raises:
        LptError: a missing column, a cell that is not a text, an unknown label, a number out of range.
    """
    rows = texts(columns, reading, prefix)
    raw = columns.cells(f"{prefix}label", reading.label)
    # The hub marks rows without a gold label with -1.
    if set(raw) <= {"-1", "-1.0"} and reading.values.get("-1", IGNORE) == IGNORE:
        return None
    if value_range is not None:
        return LabeledRows(rows, numbers(columns, raw, value_range), columns.index, columns.dropped)
    kept, classes = [], []
    for i, value in enumerate(raw):
        name = reading.values.get(value)
        if name is None:
            raise LptError(
                f"{columns.locate(i)}: label {value!r} is not one of the task's "
                f"({', '.join(map(repr, reading.values))}); add it to {prefix}values or correct the data"
            )
        if name != IGNORE:
            kept.append(i)
            classes.append(labels.index(name))
    dropped = Counter(columns.dropped)
    if len(kept) < len(raw):
        dropped[f"label ignored by {prefix}values"] += len(raw) - len(kept)
    return LabeledRows([rows[i] for i in kept], classes, [columns.index[i] for i in kept], dict(dropped))


def texts(columns: Columns, reading: Reading, prefix: str) -> list[tuple[str, ...]]:
    """The one or two texts of each row.

    Raises:
        LptError: a missing column, or a cell that is not a text.
    """
    sentences = [columns.texts(f"{prefix}a", reading.a)]
    if reading.b is not None:
        sentences.append(columns.texts(f"{prefix}b", reading.b))
    return list(zip(*sentences, strict=True))


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
                f"{columns.locate(i)}: label {label!r} is not a number from {low:g} to {high:g}, the task's "
                "task.value_range; correct one of the two"
            )
        values.append(value)
    return values
