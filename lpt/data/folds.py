"""Cross-validation: every row is tested once, by a model that was trained on the rows of the other folds."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from lpt.data.rows import LabeledRows, Sentences, text_key
from lpt.data.splits import Splits
from lpt.errors import LptError
from lpt.fewshot import stratified


def folds(rows: Splits, num_folds: int, classes: Sequence[str] | None, seed: int) -> Iterator[tuple[list[int], Splits]]:
    """Divide the training rows into folds of equal size, each class with its share.

    Rows with the same text (`text_key`) are in the same fold, so that no tested text was trained on.

    Args:
        rows: of the experiment.
        num_folds: 2 or more.
        classes: class names in class order; None for a regression.
        seed: of the division.

    Yields:
        The places of a fold's rows in `rows.train`, and the experiment that tests them, without validation rows.

    Raises:
        LptError: fewer texts than folds, or a class that has too few of them to be in two.
    """
    train = rows.train
    fold_N = _fold_of_each_row(train, num_folds, seed)
    for i in range(num_folds):
        inside = np.flatnonzero(fold_N == i).tolist()
        others = train.take(np.flatnonzero(fold_N != i).tolist())
        for name, size in others.sizes_per_class(classes).items():
            if not size:
                raise LptError(
                    f"fewshot.folds={num_folds}: all texts of class {name!r} are in one fold, so that none is left to "
                    "train on; give the class more rows, or do without: fewshot.folds=null"
                )
        yield inside, replace(rows, train=others, validation=None, test=train.take(inside), extra_tests={})


def _fold_of_each_row(rows: LabeledRows, num_folds: int, seed: int) -> np.ndarray:
    """`[N]` int, 0 .. num_folds - 1."""
    first: dict[Sentences, int] = {}
    for i, sentences in enumerate(rows.sentences):
        first.setdefault(text_key(sentences), i)
    if len(first) < num_folds:
        raise LptError(
            f"fewshot.folds={num_folds}: the training rows have {len(first)} different texts, which is too few; lower "
            "it, or add rows"
        )
    left = list(first.values())
    fold_of: dict[int, int] = {}
    for i in range(num_folds):  # a stratified share of what is left, so that the last fold is as the others
        labels = [rows.labels[place] for place in left]
        chosen = set(stratified(labels, len(left) // (num_folds - i), seed).tolist())
        fold_of |= {left[place]: i for place in chosen}
        left = [place for n, place in enumerate(left) if n not in chosen]
    return np.array([fold_of[first[text_key(sentences)]] for sentences in rows.sentences])
