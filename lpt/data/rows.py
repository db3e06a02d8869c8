"""The labeled rows of one split, before tokenization."""

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

Sentences = tuple[str, ...]  # (a,) or (a, b)


@dataclass(frozen=True)
class LabeledRows:
    """Rows of one split, N of them.

    Attributes:
        sentences: N tuples, `(a,)` or `(a, b)`.
        labels: N class indices, or N values of a regression.
        index: N row numbers in the source, from 0, the header not counted.
        dropped: reason -> how many rows of the source were left out for it.
        cautions: what a person should know of how they were read.
    """

    sentences: list[Sentences]
    labels: list[int] | list[float]
    index: list[int]
    dropped: dict[str, int] = field(default_factory=dict, compare=False)
    cautions: list[str] = field(default_factory=list, compare=False)

    def __len__(self) -> int:
        return len(self.sentences)

    def take(self, rows: Collection[int]) -> "LabeledRows":
        """Return the rows at these positions, in this order; what was dropped before is not counted again."""
        return LabeledRows(
            [self.sentences[i] for i in rows], [self.labels[i] for i in rows], [self.index[i] for i in rows]
        )

    def label_names(self, classes: Sequence[str] | None) -> list[str]:
        """Return each row's label as text: its class name, or its value where `classes` is None."""
        return [str(label) if classes is None else classes[int(label)] for label in self.labels]

    def sizes_per_class(self, classes: Sequence[str] | None) -> dict[str, int]:
        """Count the rows of each class, in class order; empty where `classes` is None."""
        counts = Counter(self.labels)
        return {name: counts[i] for i, name in enumerate(classes or ())}


def text_key(sentences: Sentences) -> Sentences:
    """Return what two rows with the same text have in common, whatever their case and white space."""
    return tuple(" ".join(sentence.casefold().split()) for sentence in sentences)
