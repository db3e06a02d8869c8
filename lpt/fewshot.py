"""Few-shot sampling: which rows of a training set are trained on, and which choose the best checkpoint.

Two protocols, both reproducible row for row from a label column and a seed:

- `sample_total`: the Late Prompt Tuning experiments. `k` is the total, split over the classes in proportion.
- `sample_per_class`: LM-BFF (Gao et al., ACL 2021, arXiv 2012.15723). `k` rows of each class.

Both shuffle all rows with NumPy's legacy generator, whose stream NumPy has promised not to change (NEP 19),
freshly seeded for every call: a sample depends on the arguments alone, and the global generator is not touched.
Rows are numbered from 0 in file order, a header not counted.
"""

import hashlib
from collections.abc import Hashable, Iterable, Sequence

import numpy as np

from lpt.errors import LptError


def sample_total(labels: Sequence[Hashable], k: int, k_dev: int, seed: int) -> tuple[list[int], list[int]]:
    """Sample `k` training and `k_dev` dev rows in total, each class with its share of the data.

    Exactly the sampling of the paper's experiments: shuffle; collect the rows by class, the classes in order of first
    appearance; take the first `round(k * rows of the class / all rows)` of every class but the last, and
    what is missing to `k` from the last class; then sample `k_dev` rows from what is left in the same way,
    the classes in the same order. So the dev shares are shares of the remaining rows: on TREC that matters.

    Args:
        labels: the class of every row, in file order.
        k: number of training rows, of all classes together.
        k_dev: number of dev rows, of all classes together; 0 for none.
        seed: 0 .. 2**32 - 1.

    Returns:
        Row numbers for training and for dev, disjoint, class by class.

    Raises:
        LptError: sizes out of range, more rows asked for than there are, a class left without a training row.
    """
    _check_sizes(k, k_dev)
    if k + k_dev > len(labels):
        raise LptError(
            f"fewshot.k={k} and fewshot.k_dev={k_dev} ask for {k + k_dev} rows, "
            f"but the training data has {len(labels)}; lower one of them"
        )
    rows_by_class = _shuffled_by_class(labels, seed)
    train_sizes = _shares(k, rows_by_class)
    absent = [label for label, size in zip(rows_by_class, train_sizes, strict=True) if size < 1]
    if absent:
        raise LptError(
            f"fewshot.k={k}, split in proportion over {len(labels)} rows, leaves no training row for "
            f"{_describe(absent, rows_by_class)}; raise fewshot.k or use fewshot=per_class"
        )
    train, rest = _take(rows_by_class, train_sizes, f"fewshot.k={k}")
    dev, _ = _take(rest, _shares(k_dev, rest), f"fewshot.k_dev={k_dev}")
    return train, dev


def sample_per_class(labels: Sequence[Hashable], k: int, k_dev: int, seed: int) -> tuple[list[int], list[int]]:
    """Sample `k` training and `k_dev` dev rows of each class.

    The sampling of LM-BFF's `tools/generate_k_shot_data.py`: shuffle; collect the rows by class, the classes in
    order of first appearance; the first `k` rows of a class train, the next `k_dev` are dev. LM-BFF uses
    `k_dev = k` (its mode `k-shot`) or `k_dev = 10 * k` (`k-shot-10x`), and silently takes fewer rows where a
    class runs out; here that is an error.

    Args:
        labels: the class of every row, in file order.
        k: number of training rows of each class.
        k_dev: number of dev rows of each class; 0 for none.
        seed: 0 .. 2**32 - 1.

    Returns:
        Row numbers for training and for dev, disjoint, class by class.

    Raises:
        LptError: sizes out of range, no rows at all, a class with fewer than `k + k_dev` rows.
    """
    _check_sizes(k, k_dev)
    if len(labels) == 0:
        raise LptError(f"fewshot.k={k} asks for {k} rows of each class, but the training data has 0 rows")
    rows_by_class = _shuffled_by_class(labels, seed)
    short = [label for label, rows in rows_by_class.items() if len(rows) < k + k_dev]
    if short:
        raise LptError(
            f"fewshot.k={k} and fewshot.k_dev={k_dev} ask for {k + k_dev} rows of each class, "
            f"but the training data has fewer of {_describe(short, rows_by_class)}; lower one of them"
        )
    train = [row for rows in rows_by_class.values() for row in rows[:k].tolist()]
    dev = [row for rows in rows_by_class.values() for row in rows[k : k + k_dev].tolist()]
    return train, dev


def stratified(labels: Sequence[Hashable], n: int, seed: int) -> np.ndarray:
    """Sample `n` rows, each class with its share of the data, in file order.

    For rows set aside from all of the data, where no protocol of the literature has to be met.
    """
    shuffled = np.random.RandomState(seed).permutation(len(labels))
    codes = np.unique(np.asarray(labels), return_inverse=True)[1]
    by_class = shuffled[np.argsort(codes[shuffled], kind="stable")]
    # Every len/n-th row of the shuffle, sorted by class: shares that are exact in sum and fair in each part.
    places = (np.arange(n) + 0.5) * len(labels) / n
    return np.sort(by_class[places.astype(int)])


def fingerprint(parts: Iterable[str]) -> str:
    """Return 16 hex digits that identify a sequence of strings, such as the text and label of every row.

    Each string is hashed after its own length, so that moving a character from one string to the next changes
    the result; so does the order. Stable across processes, platforms and Python versions.
    """
    digest = hashlib.sha256()
    for part in parts:
        encoded = part.encode("utf-8", "surrogatepass")
        digest.update(len(encoded).to_bytes(8, "little"))
        digest.update(encoded)
    return digest.hexdigest()[:16]


def _check_sizes(k: int, k_dev: int) -> None:
    if k < 1:
        raise LptError(f"fewshot.k={k}: at least one training row is needed; give fewshot.k >= 1")
    if k_dev < 0:
        raise LptError(f"fewshot.k_dev={k_dev}: a number of rows is never negative; give fewshot.k_dev >= 0")


def _shuffled_by_class(labels: Sequence[Hashable], seed: int) -> dict[Hashable, np.ndarray]:
    """The row numbers of each class in shuffled order, the classes in order of first appearance there."""
    if not 0 <= seed < 2**32:
        raise LptError(f"fewshot.seed={seed}: NumPy takes seeds from 0 to {2**32 - 1}")
    # A tensor's elements hash by identity, so that every row would be a class of its own; its list's do not.
    values = labels.tolist() if hasattr(labels, "tolist") else labels
    codes: dict[Hashable, int] = {}
    code_N = np.fromiter((codes.setdefault(v, len(codes)) for v in values), dtype=np.int64, count=len(labels))

    order_N = np.random.RandomState(seed).permutation(len(labels))
    code_N = code_N[order_N]
    first_C = np.unique(code_N, return_index=True)[1]
    groups = np.split(order_N[np.argsort(code_N, kind="stable")], np.cumsum(np.bincount(code_N))[:-1])
    names = list(codes)
    return {names[code]: groups[code] for code in np.argsort(first_C)}


def _shares(total: int, rows_by_class: dict[Hashable, np.ndarray]) -> list[int]:
    """`total` in proportion to the sizes of the classes, rounded; the last class gets the remainder.

    Halves round to even, Python's way; no published sample shows whether the reference does too.
    """
    if total == 0:
        return [0] * len(rows_by_class)
    sizes = [len(rows) for rows in rows_by_class.values()]
    shares = [round(total * size / sum(sizes)) for size in sizes[:-1]]
    return [*shares, total - sum(shares)]


def _take(
    rows_by_class: dict[Hashable, np.ndarray], sizes: Sequence[int], option: str
) -> tuple[list[int], dict[Hashable, np.ndarray]]:
    """The first `sizes[c]` rows of each class `c`, class by class, and all the others."""
    label, rows = list(rows_by_class.items())[-1]
    # Only the remainder can miss: a rounded share never exceeds its class.
    if not 0 <= sizes[-1] <= len(rows):
        raise LptError(
            f"{option} cannot be split in proportion over {len(sizes)} classes: rounding leaves {sizes[-1]} "
            f"rows to class {label!r}, which has {len(rows)}; change it a little or use fewshot=per_class"
        )
    taken: list[int] = []
    rest: dict[Hashable, np.ndarray] = {}
    for (label, rows), size in zip(rows_by_class.items(), sizes, strict=True):
        taken += rows[:size].tolist()
        rest[label] = rows[size:]
    return taken, rest


def _describe(labels: Sequence[Hashable], rows_by_class: dict[Hashable, np.ndarray]) -> str:
    """`class 'a' (3 rows), class 'b' (1 row)`, at most five of them."""
    counts = [(label, len(rows_by_class[label])) for label in labels]
    named = [f"class {label!r} ({count} row{'s' * (count != 1)})" for label, count in counts[:5]]
    return ", ".join(named) + (f" and {len(counts) - 5} more" if len(counts) > 5 else "")
