"""Test rows for a source that has none: set aside from its training rows, the same for every run."""

from collections import Counter
from dataclasses import replace

import numpy as np

from lpt.data.rows import LabeledRows, Sentences, text_key
from lpt.errors import LptError
from lpt.fewshot import stratified

SEED = 0  # fixed: the test rows are the same for everyone, whatever the run's seeds
LARGEST_SHARE = 5  # at most one row in five is set aside


def hold_out_test(rows: LabeledRows, test_rows: int, balance: bool) -> dict[str, LabeledRows]:
    """Split rows into `train` and `test`: seeded, each class with its share, no text in both.

    Rows without text are dropped, and of rows with the same text (`text_key`) only the first is kept, so that no test
    text is trained on; `train` says how many.

    Args:
        rows: all rows of the source.
        test_rows: number of test rows, limited to one row in `LARGEST_SHARE`.
        balance: reduce every class to the size of the smallest first.

    Raises:
        LptError: too few rows to set any aside.
    """
    distinct, dropped = _distinct(rows)
    kept_N = np.asarray(distinct, dtype=int)
    if balance and len(kept_N):
        kept_N = _balanced(kept_N, np.asarray(rows.labels)[kept_N])
        dropped["surplus of the larger classes"] = len(distinct) - len(kept_N)
    labels = np.asarray(rows.labels)[kept_N].tolist()
    test = stratified(labels, min(test_rows, len(kept_N) // LARGEST_SHARE), SEED)
    if not len(test):
        raise LptError(
            f"{len(kept_N)} rows (without empty and repeated texts) are too few to set test rows aside; name a test "
            "split or file"
        )
    train = replace(rows.take(np.delete(kept_N, test)), dropped=dict(Counter(rows.dropped) + dropped))
    return {"train": replace(train, cautions=rows.cautions), "test": rows.take(kept_N[test])}


def _distinct(rows: LabeledRows) -> tuple[list[int], Counter[str]]:
    """Positions of the rows with text, the first of each; and how many are left out for which reason."""
    first: dict[Sentences, int] = {}
    dropped: Counter[str] = Counter()
    for i, sentences in enumerate(rows.sentences):
        key = text_key(sentences)
        if not any(key):
            dropped["without text"] += 1
        elif key not in first:
            first[key] = i
        elif rows.labels[i] == rows.labels[first[key]]:
            dropped["text of an earlier row"] += 1
        else:
            dropped["text of an earlier row with another label"] += 1
    return list(first.values()), dropped


def _balanced(rows_N: np.ndarray, labels_N: np.ndarray) -> np.ndarray:
    """As many random rows of every class as the smallest class has, in file order."""
    classes, sizes = np.unique(labels_N, return_counts=True)
    order = np.random.RandomState(SEED).permutation(len(rows_N))
    kept = np.concatenate([order[labels_N[order] == c][: sizes.min()] for c in classes])
    balanced: np.ndarray = rows_N[np.sort(kept)]
    return balanced
