"""What is said of a row, as columns: the label, its probability, and the probability of each class."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

from lpt.adapter import AdapterConfig

if TYPE_CHECKING:  # so that wrong files are told before torch is imported
    from lpt.classifier import Prediction, Text

Answer: TypeAlias = "Callable[[list[Text]], dict[str, list[Prediction]]]"  # texts -> task -> predictions
DIGITS = 6  # of probabilities and values


class Columns:
    """The columns that the answers of some tasks are written in.

    Args:
        tasks: name -> what its adapter is.
        prefix: stands before each name; with several tasks the task's own name does too.
        flat: whether each class has a column, as tables need it, or all are in one object.
    """

    def __init__(self, tasks: dict[str, AdapterConfig], prefix: str, flat: bool):
        self.tasks, self.flat = tasks, flat
        self.prefixes = {name: f"{prefix}{name}." if len(tasks) > 1 else prefix for name in tasks}

    @property
    def names(self) -> list[str]:
        """All of them, in order."""
        return [column for name in self.tasks for column in self._of(name)]

    def _of(self, name: str) -> list[str]:
        config, prefix = self.tasks[name], self.prefixes[name]
        if config.value_range is not None:
            return [f"{prefix}value"]
        probabilities = [f"p({label})" for label in config.labels] if self.flat else ["probabilities"]
        return [prefix + column for column in ("label", "confidence", *probabilities)]

    def row(self, found: "dict[str, Prediction] | None") -> dict[str, Any]:
        """Column -> value of one row; None in all of them where there is no answer."""
        if found is None:
            return dict.fromkeys(self.names)
        values: list[Any] = []
        for prediction in found.values():
            if prediction.value is not None:
                values.append(round(prediction.value, DIGITS))
                continue
            rounded = {label: round(p, DIGITS) for label, p in prediction.probabilities.items()}
            values += [prediction.label, rounded[prediction.label], *(rounded.values() if self.flat else [rounded])]
        return dict(zip(self.names, values, strict=True))


def confidence(found: "dict[str, Prediction]") -> float:
    """The probability of the label that is least sure; 1 where there are only values."""
    sure = [prediction.probabilities[prediction.label] for prediction in found.values() if prediction.value is None]
    return min(sure, default=1.0)


def by_row(found: "dict[str, list[Prediction]]", rows: int) -> "Sequence[dict[str, Prediction]]":
    """The same predictions, by row."""
    return [{task: predictions[i] for task, predictions in found.items()} for i in range(rows)]
