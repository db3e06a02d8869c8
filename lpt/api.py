"""Train from Python: `fit` on texts and labels, `train` with the options of the command line."""

import json
import math
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lpt.config.flags import assignment
from lpt.config.from_python import compose_run
from lpt.config.own_data import OwnData, describe
from lpt.console import say
from lpt.data.text import text_problem
from lpt.errors import LptError
from lpt.files import write_text
from lpt.training.complete import completed

if TYPE_CHECKING:
    from lpt.classifier import LatePromptClassifier
    from lpt.training.result import CompletedRun

Text = str | tuple[str, str]
MISSING = ("NAType", "NaTType")  # types with which pandas marks what is missing, besides NaN


@dataclass(frozen=True)
class Trained:
    """A run that is completed.

    Attributes:
        folder: the run folder.
        result: what its `result.json` holds.
    """

    folder: Path
    result: "CompletedRun"

    @property
    def metrics(self) -> dict[str, dict[str, float]]:
        """Split -> metric -> value, of the step that was kept."""
        return self.result.metrics

    @cached_property
    def classifier(self) -> "LatePromptClassifier":
        """What was trained, loaded from the run folder.

        Raises:
            LptError: nothing was trained.
        """
        from lpt.classifier import LatePromptClassifier

        return LatePromptClassifier.from_pretrained(self.folder / "adapter")


def train(*overrides: str) -> Trained:
    """Train and test once, as `lpt train` does with these options: `train("task=trec", "fewshot.k=200")`.

    `train("resume=<run folder>")` of a run that is completed gives what it has left.

    Args:
        overrides: options, as typed on the command line, without a shell's quotes.

    Raises:
        LptError: bad input; all that is wrong with the options at once.
        KeyboardInterrupt: the run was interrupted; `train("resume=<run folder>")` resumes it.
    """
    config, folder = compose_run(overrides)
    done = None if config.resume is None else completed(folder, config, overrides)
    if done is not None:
        return Trained(folder, done)
    from lpt.training.run import run
    from lpt.training.stop import Interrupted

    try:
        return Trained(folder, run(config, folder))
    except Interrupted as interruption:
        raise KeyboardInterrupt(f"interrupted; its progress is in {folder}") from interruption


def fit(
    texts: Iterable[Text],
    labels: Iterable[str | float],
    *overrides: str,
    validation: tuple[Iterable[Text], Iterable[str | float]] | None = None,
    test: tuple[Iterable[Text], Iterable[str | float]] | None = None,
    folds: int | None = None,
    regression: bool = False,
    folder: str | Path | None = None,
    **options: Any,
) -> "LatePromptClassifier":
    """Train a classifier on texts and their labels, as `lpt train <file>` does, and return it.

    `fit(texts, labels, backbone="smollm2-135m", seed=21)` and `fit(texts, labels, "optim.lr=1e-3")` set options. The
    scores are in the classifier's `metrics`: split -> metric -> value.

    Args:
        texts: texts, or pairs of texts.
        labels: one for each text; numbers for a regression.
        overrides: options with a dot in their name, as typed on the command line.
        validation: texts and labels that choose the best step.
        test: texts and labels that are tested.
        folds: how many for cross-validation; 0: none; None: 5 where there are few rows, and no others to test.
        regression: whether the labels are numbers.
        folder: the run folder to make; None: a temporary one. `save_pretrained` keeps the classifier.
        options: options without a dot in their name: `backbone`, `recipe`, `seed`, `method`, ...

    Raises:
        LptError: bad input, with the number of the text from 0; all that is wrong with the options at once.
    """
    given = [*overrides, *(assignment(name, str(value)) for name, value in options.items())]
    splits = {"train": (texts, labels), "validation": validation, "test": test}
    rows = {name: _rows(name, *split, regression) for name, split in splits.items() if split is not None}
    if not regression and len({row["label"] for row in rows["train"]}) < 2:
        raise LptError(f"labels: all are {rows['train'][0]['label']!r}; give at least two classes")
    with tempfile.TemporaryDirectory(prefix="lpt-") as temporary:
        run_folder = Path(temporary if folder is None else folder).expanduser().absolute()
        files = {name: run_folder / "data" / f"{name}.jsonl" for name in rows}
        if (run_folder / ".hydra").exists():
            raise LptError(f"folder={str(run_folder)!r} already holds a run; choose another folder")
        for name, lines in rows.items():
            write_text(files[name], "".join(json.dumps(line) + "\n" for line in lines))
        own = OwnData(
            files["train"],
            pair="text_2" if "text_2" in rows["train"][0] else None,
            validation=files.get("validation"),
            test=files.get("test"),
            folds=folds,
            regression=regression,
        )
        chosen, told = describe(own, given)
        say(told[0])
        trained = train(*chosen, "task.name=texts", *given, assignment("hydra.run.dir", run_folder))
        classifier = trained.classifier
    classifier.metrics = trained.metrics
    return classifier


def _rows(name: str, texts: Iterable[Text], labels: Iterable[Any], regression: bool) -> list[dict[str, Any]]:
    """The rows of a file for these texts and labels."""
    given, gold = _listed(f"{name} texts", texts), _listed(f"{name} labels", labels)
    if len(given) != len(gold):
        raise LptError(f"{name}: {len(given)} texts and {len(gold)} labels; give one label for each text")
    if not given:
        raise LptError(f"{name}: no texts; give at least one of each class")
    pairs = isinstance(given[0], list | tuple)
    rows = []
    for i, (text, label) in enumerate(zip(given, gold, strict=True)):
        parts = list(text) if isinstance(text, list | tuple) else [text]
        if len(parts) != 1 + pairs:
            raise LptError(
                f"{name} texts[{i}] is {text!r}; give {'a pair of texts' if pairs else 'one text'}, as in [0]"
            )
        for part in parts:
            problem = text_problem(part)
            if problem is not None:
                raise LptError(f"{name} texts[{i}] {problem}")
        rows.append(dict(zip(("text", "text_2"), parts, strict=False)) | {"label": _label(name, i, label, regression)})
    return rows


def _label(name: str, i: int, label: Any, regression: bool) -> str | float:
    if hasattr(label, "item"):  # a number of NumPy or PyTorch
        label = label.item()
    if label is None or type(label).__name__ in MISSING or (isinstance(label, float) and math.isnan(label)):
        raise LptError(f"{name} labels[{i}] is missing; give each text a label, or remove it")
    if regression:
        try:
            return float(label)
        except (TypeError, ValueError):
            raise LptError(f"{name} labels[{i}] is {label!r}, which is not a number; correct it") from None
    if not isinstance(label, str | int | float):
        raise LptError(f"{name} labels[{i}] is {label!r}, of type {type(label).__name__}; give a text or a number")
    return str(label)


def _listed(name: str, values: Iterable[Any]) -> Sequence[Any]:
    if isinstance(values, str | bytes | dict) or not isinstance(values, Iterable):
        raise LptError(f"{name} is {type(values).__name__}; give a list, a column of pandas, or a column of a data set")
    return list(values)
