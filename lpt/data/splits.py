"""Which rows train, which choose the best step, which are the test set: the few-shot protocols on a task's splits."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from lpt.data.audit import Audit, audit
from lpt.data.rows import LabeledRows
from lpt.data.sources import load_rows
from lpt.data.tasks import SPLITS, Task
from lpt.errors import LptError, did_you_mean
from lpt.fewshot import fingerprint, sample_per_class, sample_total, stratified

PROTOCOLS = ("full", "total", "per_class")
LARGEST_SHARE = 5  # with all rows, at most one in five becomes a validation row


@dataclass(frozen=True)
class Splits:
    """The rows of an experiment.

    Attributes:
        train: training rows.
        validation: rows that choose the best step; None where the last one is kept.
        test: rows of the main test set; None where nothing is tested.
        test_split: the source's split that `test` is: "test", or "dev" where its test split has no labels.
        extra_tests: further test sets, by name.
        audit: what is odd about them, and what was left out.
        cautions: what a person should know of how the source was read.
    """

    train: LabeledRows
    validation: LabeledRows | None
    test: LabeledRows | None
    test_split: str
    extra_tests: dict[str, LabeledRows]
    audit: Audit
    cautions: list[str]

    def tests(self) -> dict[str, LabeledRows]:
        """Return all test sets by name, `test` first."""
        return _present({"test": self.test}) | self.extra_tests

    def by_name(self) -> dict[str, LabeledRows]:
        """Return all splits by name: `train`, `validation`, `test`, extra test sets; those that there are."""
        return _present({"train": self.train, "validation": self.validation}) | self.tests()

    def describe(self, classes: Sequence[str] | None) -> dict[str, Any]:
        """Return sizes in all and per class, a fingerprint of the text and label of every row, and the audit."""
        return {
            "sizes": {name: len(rows) for name, rows in self.by_name().items()},
            "sizes_per_class": {name: rows.sizes_per_class(classes) for name, rows in self.by_name().items()},
            "fingerprint": {name: _fingerprint(rows, classes) for name, rows in self.by_name().items()},
            "test_split": self.test_split,
            "audit": self.audit,
        }


class Sampling(Protocol):
    """How the rows of an experiment are chosen: the configuration's `fewshot`."""

    protocol: str
    k: int | None
    k_dev: int
    folds: int | None
    seed: int


def read_rows(task: Task, sampling: Sampling) -> Splits:
    """Read a task's data and choose the rows of an experiment.

    Raises:
        LptError: data that cannot be read, or that does not have the rows asked for.
    """
    few = sampling
    k_dev = few.k_dev if few.folds is None else 0  # the same steps in every fold, and all rows
    return sample_splits(load_rows(task), task.classes, protocol=few.protocol, k=few.k, k_dev=k_dev, seed=few.seed)


def sample_splits(
    source: dict[str, LabeledRows], classes: Sequence[str] | None, protocol: str, k: int | None, k_dev: int, seed: int
) -> Splits:
    """Choose the rows of an experiment.

    The test set is the labeled test split, or dev where there is none. Validation rows are the dev split where it
    is free and the protocol is `full`; otherwise they come from train, disjoint from the training rows.

    Args:
        source: splits by name: `train`, `dev` and `test`, the last two if there are any; others are extra test sets.
        classes: class names in class order; None for a regression, whose rows are all alike to the sampling.
        protocol: `full` (all of train), `total` (k rows in all) or `per_class` (k rows of each class).
        k: training rows, in all or of each class; `full` ignores it.
        k_dev: validation rows taken from train, in all or of each class; `full` takes at most one row in five. 0: no
            validation rows, also where there is a dev split.
        seed: seed of the sampling, from 0 to 2**32 - 1.

    Raises:
        LptError: an unknown protocol, `per_class` without classes, more rows asked for than there are, a class
            without a training row.
    """
    if protocol not in PROTOCOLS:
        hint = did_you_mean(protocol, PROTOCOLS)
        raise LptError(f"fewshot={protocol!r} is not known; choose one of {', '.join(PROTOCOLS)}{hint}")
    test_split = "dev" if "dev" in source and "test" not in source else "test"
    train: LabeledRows
    validation: LabeledRows | None
    if protocol == "full" and k_dev and test_split == "test" and "dev" in source:
        train, validation = source["train"], source["dev"]
    else:
        train, validation = _take_validation(source["train"], classes, protocol, k, k_dev, seed)
    for name, size in train.sizes_per_class(classes).items():
        if not size:
            raise LptError(f"class {name!r} has no training row; add some to the data or remove it from task.labels")
    extra_tests = {name: rows for name, rows in source.items() if name not in SPLITS}
    test = source.get(test_split)
    present = _present({"train": train, "validation": validation, "test": test})
    found = audit(present | extra_tests, source)
    cautions = [caution for rows in source.values() for caution in rows.cautions]
    return Splits(train, validation, test, test_split, extra_tests, found, cautions)


def _present(splits: dict[str, LabeledRows | None]) -> dict[str, LabeledRows]:
    return {name: rows for name, rows in splits.items() if rows is not None}


def _take_validation(
    rows: LabeledRows, classes: Sequence[str] | None, protocol: str, k: int | None, k_dev: int, seed: int
) -> tuple[LabeledRows, LabeledRows | None]:
    """Training and validation rows, both out of `rows`, disjoint; no validation rows where `k_dev` is 0."""
    # Names instead of indices, so that errors name the class.
    labels = [""] * len(rows) if classes is None else rows.label_names(classes)
    if protocol == "full":
        if k_dev == 0:
            return rows, None
        dev = stratified(labels, min(k_dev, len(rows) // LARGEST_SHARE), seed).tolist()
        if not dev:
            raise LptError(f"{len(rows)} training rows are too few to take validation rows from; name a dev split")
        return rows.take(np.delete(np.arange(len(rows)), dev)), rows.take(dev)
    if k is None:
        raise LptError(f"fewshot={protocol} needs fewshot.k=<number of training rows>")
    if protocol == "per_class" and classes is None:
        raise LptError(
            "fewshot=per_class samples rows of each class, and a regression has no classes; use fewshot=total or full"
        )
    sample = sample_total if protocol == "total" else sample_per_class
    train, dev = sample(labels, k, k_dev, seed)
    return rows.take(train), rows.take(dev) if dev else None


def _fingerprint(rows: LabeledRows, classes: Sequence[str] | None) -> str:
    pairs = zip(rows.sentences, rows.label_names(classes), strict=True)
    return fingerprint(part for sentences, label in pairs for part in (*sentences, label))
