"""What a task is: labels, label words, template, metric, and where each source keeps its rows.

A task is one file of `conf/task/`; these dataclasses are its schema and its documentation.
"""

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from lpt.data.templates import template_fields
from lpt.errors import LptError
from lpt.metrics import CLASS_METRICS, METRICS, NUMBER_METRICS

SOURCES = ("hub", "tsv", "files", "wheel")
SPLITS = ("train", "dev", "test")
IGNORE = "ignore"  # as a label name in `values`: rows that are not part of the task


@dataclass
class Templates:
    """The text around the sentences: `{a}` the first, `{b}` the second, `{mask}` the answer slot."""

    encoder: str = "{a} It was {mask} ."
    decoder: str = "{a} It was"
    # A decoder answers with what follows, so its template ends where the answer begins.
    answer: str = "{word} ."
    # head=continuation: the whole answer, `{word}` standing for the label words (one or several).


@dataclass
class Source:
    """What all sources share: which columns to read, and how labels are written there."""

    a: str = "text"
    # Column of the first (or only) sentence; a number from 1 in files without header.
    b: str | None = None
    # Column of the second sentence of a pair.
    label: str = "label"
    # Column of the label.
    values: Any = None
    # {value in the data: label name}. null: the data has the names themselves, or their index from 0.
    train: str | None = "train"
    dev: str | None = None
    test: str | None = None
    # Split name (hub) or file (others). No dev and no test: test rows are set aside from train.
    # A public test split (hub, tsv) without labels: the paper's protocol, dev is the test set and dev rows come from
    # train.
    extra_tests: Any = None
    # Further test sets, {name in the results: split or file}; of several, [first, second], the first with labels.
    test_rows: int = 1000
    # How many rows are set aside then (at most a fifth of them), always the same ones.
    balance: bool = False
    # Keep equally many rows of each class then.

    def __post_init__(self) -> None:
        self.values = as_text(self.values, every_spelling=True)
        if isinstance(self.extra_tests, dict):
            lists = {name: p if isinstance(p, list) else [p] for name, p in self.extra_tests.items() if p is not None}
            self.extra_tests = {str(name): [str(place) for place in places] for name, places in lists.items()}

    def splits(self) -> Iterator[tuple[str, str]]:
        """Every split and its name or file here; a further test set once for each place where it may be."""
        for split in SPLITS:
            if getattr(self, split) is not None:
                yield split, getattr(self, split)
        for split, places in (self.extra_tests or {}).items():
            for place in places:
                yield split, place


@dataclass
class HubSource(Source):
    """A data set of the Hugging Face hub, or a local folder in hub layout."""

    path: str | None = None
    config: str | None = None
    revision: str | None = None


@dataclass
class TsvSource(Source):
    """A folder of `task.data_dir` in GLUE / LM-BFF layout: tab-separated, UTF-8, no quoting.

    Where train.tsv, say, is missing and train.csv is there, that one is read, with quoting.
    """

    folder: str | None = None
    # Matched without regard to case, `-` and `_`; null is the task's name.
    header: bool = True
    skip_short: bool = False
    # Leave out rows that lack a column, of which GLUE's QQP has a few. Otherwise they are an error.
    train: str | None = "train.tsv"
    dev: str | None = "dev.tsv"
    test: str | None = "test.tsv"


@dataclass
class FilesSource(Source):
    """The user's own CSV, TSV, JSONL or Parquet files."""

    train: str | None = None


@dataclass
class WheelSource(Source):
    """A file inside a published wheel (`lpt.assets.wheels`)."""

    train: str | None = None


@dataclass
class Task:
    """A text classification task, answered with one word."""

    name: str = "custom"
    labels: list[str] = field(default_factory=list)
    # Class names, in class order.
    value_range: list[float] | None = None
    # [lowest,highest]: a regression. Gold values are numbers between; the first of two labels stands for the lowest,
    # the second for the highest, and their probabilities weigh the two.
    label_words: Any = None
    # {label name: the word that stands for it}; one token, without its leading space. (These two mappings are typed
    # Any because Hydra cannot set a typed mapping's keys from the command line; `describe_problems` checks them.)
    template: Templates = field(default_factory=Templates)
    metrics: list[str] = field(default_factory=lambda: ["accuracy"])
    # accuracy, f1, matthews; for a regression pearson, spearman. The first one selects the best step.
    max_length: int = 256
    # Longer texts are cut: the text, never the template or the answer slot.
    source: str = "hub"
    # hub, tsv, files or wheel.
    data_dir: str | None = None
    # Parent folder of the tsv source; relative file names of the files source start here.
    hub: HubSource = field(default_factory=HubSource)
    tsv: TsvSource = field(default_factory=TsvSource)
    files: FilesSource = field(default_factory=FilesSource)
    wheel: WheelSource = field(default_factory=WheelSource)

    def __post_init__(self) -> None:
        self.label_words = as_text(self.label_words)

    @property
    def classes(self) -> list[str] | None:
        """What gold labels index; None where gold values are numbers."""
        return self.labels if self.value_range is None else None


def as_text(mapping: Any, every_spelling: bool = False) -> Any:
    """A mapping with strings for what YAML and Hydra read as numbers and truth values, without what is null.

    With `every_spelling`, a key `true` also stands for `True` and `TRUE`, whichever a data file has. What is no
    mapping stays as it is, for `describe_problems` to complain about.
    """
    if not isinstance(mapping, dict):
        return mapping  # None too: Hydra could not add keys to an empty mapping from the command line
    text: dict[str, str] = {}
    for key, value in mapping.items():
        name = str(key)
        spellings = (name, name.lower(), name.upper()) if every_spelling and isinstance(key, bool) else (name,)
        if value is not None:
            text |= dict.fromkeys(spellings, str(value))
    return text


def describe_problems(task: Task) -> list[str]:
    """Everything wrong with a task's definition, one complaint each."""
    problems = []
    if len(task.labels) < 2:
        problems.append(f"task.labels={task.labels} is too short: name at least two classes, as in [negative,positive]")
    if len(set(task.labels)) < len(task.labels):
        problems.append(f"task.labels={task.labels} names a class twice")
    mappings = [("task.label_words", task.label_words)]
    mappings += [(f"task.{source}.values", getattr(task, source).values) for source in SOURCES]
    for option, mapping in mappings:
        if mapping is not None and not isinstance(mapping, dict):
            problems.append(f"{option}={mapping} must be a mapping, as in {{a: b, c: d}}")
    for name in task.label_words if isinstance(task.label_words, dict) else ():
        if name not in task.labels:
            problems.append(f"task.label_words has {name!r}, which is not one of task.labels={task.labels}")
    fitting = list(CLASS_METRICS if task.value_range is None else NUMBER_METRICS)
    for name in task.metrics:
        if name not in METRICS:
            problems.append(f"task.metrics has {name!r}; known metrics: {', '.join(fitting)}")
        elif name not in fitting:
            kind = "classes" if task.value_range is None else f"numbers, by task.value_range={task.value_range}"
            problems.append(f"task.metrics has {name!r}, but the task is of {kind}; choose from {', '.join(fitting)}")
    if not task.metrics:
        problems.append(f"task.metrics is empty; choose from {', '.join(fitting)}")
    if "f1" in task.metrics and task.value_range is None and len(task.labels) != 2:
        problems.append(f"task.metrics has 'f1', which needs two classes; task.labels has {len(task.labels)}")
    if task.source not in SOURCES:
        problems.append(f"task.source={task.source!r} is not known; choose one of {', '.join(SOURCES)}")
    else:
        problems += _source_problems(task, getattr(task, task.source))
    if task.source == "hub" and task.hub.path is None:
        problems.append(f"task.hub.path is not set: task {task.name} has no hub source; use another task.source")
    if task.source == "tsv" and task.data_dir is None:
        problems.append("task.source=tsv needs task.data_dir=<folder with one folder per task>")
    if task.max_length < 1:
        problems.append(f"task.max_length={task.max_length} must be at least 1")
    if task.value_range is not None:
        problems += _regression_problems(task, task.value_range)
    return problems


def _regression_problems(task: Task, value_range: list[float]) -> Iterator[str]:
    if len(value_range) != 2 or not all(map(math.isfinite, value_range)) or value_range[0] >= value_range[-1]:
        yield f"task.value_range={value_range} must be two numbers, the lower one first, as in [0,5]"
    if len(task.labels) > 2:
        yield f"task.value_range={value_range} takes two labels, one for each end; task.labels has {len(task.labels)}"
    source: Source | None = getattr(task, task.source) if task.source in SOURCES else None
    if source and source.values:
        yield f"task.{task.source}.values is for classes; with task.value_range={value_range} the data has numbers"
    if source and source.balance:
        yield (
            f"task.{task.source}.balance=true is for classes; with task.value_range={value_range} the data has numbers"
        )


def _source_problems(task: Task, source: Source) -> list[str]:
    """Among others: the source must bring the sentences that the templates show, and bring none in vain."""
    problems = []
    if source.train is None:
        problems.append(f"task.{task.source}.train is not set; name the training split or file")
    if source.test_rows < 1:
        problems.append(f"task.{task.source}.test_rows={source.test_rows} must be at least 1")
    problems += _extra_test_problems(f"task.{task.source}.extra_tests", source.extra_tests)
    pairs = []
    for option, template in (("encoder", task.template.encoder), ("decoder", task.template.decoder)):
        try:
            pairs.append("b" in template_fields(template))
        except LptError as error:
            problems.append(str(error))
            continue
        if pairs[-1] and source.b is None:
            problems.append(
                f"task.template.{option}={template!r} has {{b}}, but task.{task.source}.b names no column for it"
            )
    if pairs and source.b is not None and not any(pairs):
        problems.append(
            f"task.{task.source}.b={source.b!r} is read in vain: task.template.encoder and task.template.decoder have "
            "no {b}"
        )
    return problems


def _extra_test_problems(option: str, extra_tests: Any) -> Iterator[str]:
    if extra_tests is not None and not isinstance(extra_tests, dict):
        yield f"{option}={extra_tests} must be a mapping, as in {{test_other: other.tsv}}"
        return
    taken = (*SPLITS, "validation")
    for name in extra_tests or ():
        if name in taken or not re.fullmatch(r"[\w-]+", name):
            yield f"{option} has {name!r}; a name is of letters, digits, _ and -, and none of {', '.join(taken)}"
