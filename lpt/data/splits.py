"""Which rows train, which choose the best step, which are the test set: the few-shot protocols on a task's splits."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lpt.data.sources import Table, sizes_per_class
from lpt.data.tasks import SPLITS
from lpt.errors import LptError, did_you_mean
from lpt.fewshot import fingerprint, sample_per_class, sample_total, stratified

PROTOCOLS = ("full", "total", "per_class")


@dataclass(frozen=True)
class Draw:
    """The rows of an experiment."""

    train: Table
    validation: Table
    test: Table
    test_split: str
    # Which split of the source is the test set: "test", or "dev" where the test split has no labels.
    extra_tests: dict[str, Table]
    # Further test sets, by name.

    def tests(self) -> dict[str, Table]:
        return {"test": self.test, **self.extra_tests}

    def splits(self) -> dict[str, Table]:
        return {"train": self.train, "validation": self.validation, **self.tests()}

    def describe(self, classes: Sequence[str] | None) -> dict[str, Any]:
        """Sizes in all and per class, and a fingerprint of text and label of every row, per split."""
        return {
            "sizes": {name: len(table) for name, table in self.splits().items()},
            "sizes_per_class": {n: sizes_per_class(table, classes) for n, table in self.splits().items()},
            "fingerprint": {name: _fingerprint(table, classes) for name, table in self.splits().items()},
            "test_split": self.test_split,
        }


def draw(
    tables: dict[str, Table], classes: Sequence[str] | None, protocol: str, k: int | None, k_dev: int, seed: int
) -> Draw:
    """Choose the rows of an experiment.

    The test set is the labeled test split, or dev where there is none. Validation rows are the dev split when it
    is free and the protocol is `full`; otherwise they come from train, disjoint from the training rows.

    Args:
        tables: `train` and `dev` and / or `test`; any others are further test sets.
        classes: class names in class order; None where gold values are numbers, and every row is as good as another.
        protocol: `full` (all of train), `total` (k rows in all) or `per_class` (k of each class).
        k: training rows, in all or of each class; `full` ignores it.
        k_dev: validation rows taken from train, in all or of each class; `full` takes at most a fifth of train.
        seed: of the draw.

    Raises:
        LptError: unknown protocol, `per_class` without classes, more rows asked for than there are, a class without a
            training row.
    """
    if protocol not in PROTOCOLS:
        hint = did_you_mean(protocol, PROTOCOLS)
        raise LptError(f"fewshot={protocol!r} is not known; choose one of {', '.join(PROTOCOLS)}{hint}")
    if protocol == "per_class" and classes is None:
        raise LptError("fewshot=per_class draws rows of each class, and numbers have none; use fewshot=total or full")
    train = tables["train"]
    test_split = "test" if "test" in tables else "dev"
    # Names, so that complaints name the class.
    names = [""] * len(train) if classes is None else train.gold(classes)
    if protocol == "full" and test_split == "test" and "dev" in tables:
        validation = tables["dev"]
    elif k_dev < 1:
        raise LptError(f"fewshot.k_dev={k_dev}: at least one row is needed to choose the best step")
    elif protocol == "full":
        dev_rows = stratified(names, min(k_dev, len(train) // 5), seed).tolist()
        if not dev_rows:
            raise LptError(f"{len(train)} training rows are too few to take validation rows from; name a dev split")
        validation, train = train.take(dev_rows), train.take(np.delete(np.arange(len(train)), dev_rows))
    else:
        if k is None:
            raise LptError(f"fewshot={protocol} needs fewshot.k=<number of training rows>")
        sample = sample_total if protocol == "total" else sample_per_class
        rows, dev_rows = sample(names, k, k_dev, seed)
        validation, train = train.take(dev_rows), train.take(rows)
    for name, size in sizes_per_class(train, classes).items():
        if not size:
            raise LptError(f"class {name!r} has no training example; give it some or take it out of task.labels")
    extra_tests = {name: table for name, table in tables.items() if name not in SPLITS}
    return Draw(train, validation, tables[test_split], test_split, extra_tests)


def _fingerprint(table: Table, classes: Sequence[str] | None) -> str:
    rows = zip(table.sentences, table.gold(classes), strict=True)
    return fingerprint(part for sentences, gold in rows for part in (*sentences, gold))
