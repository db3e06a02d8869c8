"""What a task is: labels, label words, template, metric, and where each source keeps its rows.

A task is one file of `conf/task/`; these dataclasses are its schema and its documentation.
"""

from dataclasses import dataclass, field
from typing import Any

from lpt.errors import LptError
from lpt.templates import template_fields

SOURCES = ("hub", "tsv", "files", "wheel")


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
    test_rows: int = 1000
    # How many rows are set aside then (at most a fifth of them), always the same ones.
    balance: bool = False
    # Keep equally many rows of each class then.

    def __post_init__(self) -> None:
        self.values = as_text(self.values, every_spelling=True)


@dataclass
class HubSource(Source):
    """A data set of the Hugging Face hub, or a local folder in hub layout."""

    path: str | None = None
    config: str | None = None
    revision: str | None = None


@dataclass
class TsvSource(Source):
    """A folder of `task.data_dir` in GLUE / LM-BFF layout: tab-separated, UTF-8, no quoting."""

    folder: str | None = None
    # Matched without regard to case, `-` and `_`; null is the task's name.
    header: bool = True
    train: str | None = "train.tsv"
    dev: str | None = "dev.tsv"
    test: str | None = "test.tsv"


@dataclass
class FilesSource(Source):
    """The user's own CSV, TSV, JSONL or Parquet files."""

    train: str | None = None


@dataclass
class WheelSource(Source):
    """A file inside a published wheel (`lpt.assets`)."""

    train: str | None = None


@dataclass
class Task:
    """A text classification task, answered with one word."""

    name: str = "custom"
    labels: list[str] = field(default_factory=list)
    # Class names, in class order.
    label_words: Any = None
    # {label name: the word that stands for it}; one token, without its leading space. (These two mappings are typed
    # Any because Hydra cannot set a typed mapping's keys from the command line; `describe_problems` checks them.)
    template: Templates = field(default_factory=Templates)
    metrics: list[str] = field(default_factory=lambda: ["accuracy"])
    # accuracy, f1, matthews; the first one selects the best step.
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


def describe_problems(task: Task, metrics: list[str]) -> list[str]:
    """Everything wrong with a task's definition, one complaint each; `metrics` are the known ones."""
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
    for name in task.metrics:
        if name not in metrics:
            problems.append(f"task.metrics has {name!r}; known metrics: {', '.join(metrics)}")
    if not task.metrics:
        problems.append(f"task.metrics is empty; choose from {', '.join(metrics)}")
    if "f1" in task.metrics and len(task.labels) != 2:
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
    return problems


def _source_problems(task: Task, source: Source) -> list[str]:
    """Among others: the source must bring the sentences that the templates show, and bring none in vain."""
    problems = []
    if source.train is None:
        problems.append(f"task.{task.source}.train is not set; name the training split or file")
    if source.test_rows < 1:
        problems.append(f"task.{task.source}.test_rows={source.test_rows} must be at least 1")
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
