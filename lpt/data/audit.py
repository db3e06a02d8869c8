"""What an experiment's rows went through: dropped, repeated, contradictory, shared between splits."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import combinations

from lpt.data.rows import LabeledRows, Sentences, text_key

FEW_ROWS = 8  # of a class
UNBALANCED = 10  # times the rows of the smallest class


@dataclass(frozen=True)
class Audit:
    """Counts of rows; only what there is of. Case and white space of a text do not matter."""

    dropped: dict[str, dict[str, int]] = field(default_factory=dict)
    # Split of the source -> reason -> rows that were left out for it.
    without_text: dict[str, int] = field(default_factory=dict)
    # Split -> rows whose text is empty.
    repeated: dict[str, int] = field(default_factory=dict)
    # Split -> rows whose text an earlier row of the split has too.
    contradictory: dict[str, int] = field(default_factory=dict)
    # Split -> rows whose text another row of the split has with another label.
    shared: dict[str, int] = field(default_factory=dict)
    # `test and train`, such a pair of splits -> rows of the first whose text is in the second too.

    def messages(self) -> Iterator[str]:
        """Yield a sentence for each count."""
        for split, reasons in self.dropped.items():
            left_out = ", ".join(f"{count} ({reason})" for reason, count in reasons.items())
            yield f"rows left out of {split}: {left_out}"
        for split, count in self.without_text.items():
            yield f"warning: {_rows(count)} of {split} {_have(count)} no text"
        for split, count in self.repeated.items():
            yield f"{_rows(count)} of {split} {_have(count)} the text of an earlier row"
        for split, count in self.contradictory.items():
            yield f"warning: {_rows(count)} of {split} {_have(count)} the text of a row with another label"
        for pair, count in self.shared.items():
            first, second = pair.split(" and ")
            warning = "" if first == "validation" else "warning: "
            yield f"{warning}{_rows(count)} of {first} {_have(count)} the text of a row of {second}"


def audit(splits: dict[str, LabeledRows], source: dict[str, LabeledRows]) -> Audit:
    """Count what is odd about the rows of an experiment.

    Args:
        splits: its splits: `train`, `validation`, `test` and further test sets.
        source: the splits of its source, out of which these were sampled.
    """
    labels = {name: _labels_by_text(rows) for name, rows in splits.items()}
    keys = {name: [text_key(sentences) for sentences in rows.sentences] for name, rows in splits.items()}
    later_first = combinations(reversed(list(splits)), 2)
    return Audit(
        dropped={name: dict(rows.dropped) for name, rows in source.items() if rows.dropped},
        without_text=_some({name: sum(not any(key) for key in found) for name, found in keys.items()}),
        repeated=_some({name: len(found) - len(set(found)) for name, found in keys.items()}),
        contradictory=_some({name: sum(len(labels[name][key]) > 1 for key in found) for name, found in keys.items()}),
        shared=_some({f"{a} and {b}": sum(key in labels[b] for key in keys[a]) for a, b in later_first}),
    )


def class_cautions(sizes: Mapping[str, int]) -> Iterator[str]:
    """Yield what is to be said of training rows by class: too few to learn from, or far more of one than of another."""
    few = [f"{name} ({size})" for name, size in sizes.items() if size < FEW_ROWS]
    if few and len(few) < len(sizes):
        yield f"fewer than {FEW_ROWS} training rows of {', '.join(few)}; such classes are hardly learned"
    largest, smallest = max(sizes, key=sizes.__getitem__, default=""), min(sizes, key=sizes.__getitem__, default="")
    if sizes and sizes[largest] >= UNBALANCED * sizes[smallest]:
        yield (
            f"{sizes[largest]} training rows of {largest}, {sizes[smallest]} of {smallest}: accuracy says little of "
            "small classes; task.metrics=[matthews,accuracy] chooses the best step by all of them"
        )


def _labels_by_text(rows: LabeledRows) -> dict[Sentences, set[float]]:
    labels: dict[Sentences, set[float]] = {}
    for sentences, label in zip(rows.sentences, rows.labels, strict=True):
        labels.setdefault(text_key(sentences), set()).add(label)
    return labels


def _some(counts: dict[str, int]) -> dict[str, int]:
    return {name: count for name, count in counts.items() if count}


def _rows(count: int) -> str:
    return f"{count} row{'s' * (count != 1)}"


def _have(count: int) -> str:
    return "has" if count == 1 else "have"
