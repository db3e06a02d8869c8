"""How the rows of a task are written in its files. An adapter keeps it, so that it reads other files the same way."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from lpt.data.tasks import IGNORE, FilesSource, Task, TsvSource
from lpt.errors import LptError


@dataclass(frozen=True)
class TextFormat:
    """How a text file is divided into cells; null: as the file's extension says."""

    header: bool | None = True
    # Whether the first line has the column names; otherwise columns are numbered from 1. None: it has them if one of
    # its cells is `sentence`.
    delimiter: str | None = None
    # What separates cells. None: a comma in .csv, a tab in .tsv.
    quoting: bool | None = None
    # Whether cells may be in double quotes. None: in .csv, not in .tsv.


@dataclass(frozen=True)
class Reading:
    """Which columns have texts and label, and what is written for each label."""

    a: str = "text"
    # Column of the first or only text.
    b: str | None = None
    # Column of the second text of a pair.
    label: str = "label"
    # Column of the label.
    values: dict[str, str] = field(default_factory=dict)
    # What is written -> name of the label, or `ignore`; empty for a regression.
    format: TextFormat = TextFormat()
    skip_short: bool = False
    # Whether to leave out rows that lack a column; otherwise they are an error.

    @classmethod
    def of(cls, task: Task) -> "Reading":
        """How this task's source is written.

        Raises:
            LptError: a value mapped to a name that is not one of the task's labels.
        """
        source = getattr(task, task.source)
        header = source.header if isinstance(source, TsvSource) else True
        own = isinstance(source, FilesSource | TsvSource)
        text_format = TextFormat(header, source.delimiter, source.quoting) if own else TextFormat()
        values = {} if task.value_range else label_values(task, source.values, f"task.{task.source}.values")
        skip_short = isinstance(source, TsvSource) and source.skip_short
        return cls(source.a, source.b, source.label, values, text_format, skip_short)


def label_values(task: Task, values: Mapping[str, str] | None, option: str) -> dict[str, str]:
    """Map each value in the data to a label name, or to `IGNORE` for rows that are not part of the task.

    Args:
        task: whose labels are mapped to.
        values: the mapping that was given; without one, `default_values`.
        option: the option that gives it, for error messages.

    Raises:
        LptError: a value mapped to a name that is not one of the task's labels.
    """
    if not values:
        return default_values(task.labels)
    for value, name in values.items():
        check_label(name, task.labels, f"{option} maps {value!r} to {name!r}")
    return dict(values)


def check_label(name: str, labels: list[str], complaint: str) -> None:
    """Raises LptError, beginning with `complaint`, unless `name` is a label or `ignore`."""
    if name != IGNORE and name not in labels:
        raise LptError(f"{complaint}; allowed: {', '.join(map(repr, labels))}, or {IGNORE!r} for rows to leave out")


def default_values(labels: list[str]) -> dict[str, str]:
    """Map values in the data to label names where the task does not: the names themselves, or their index from 0."""
    by_name = {name: name for name in labels}
    # Stars 1 to 5 are names: a 0 there is a mistake, not the first class.
    by_index = {} if any(map(str.isdigit, by_name)) else {str(i): name for i, name in enumerate(labels)}
    return by_index | by_name
