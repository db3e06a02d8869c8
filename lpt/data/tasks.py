"""What a task is: labels, label words, template, metric, and where each source keeps its rows.

A task is one file of `conf/task/`; these dataclasses are its schema, and the comment beneath a field is its meaning in
`--help`. `lpt.data.task_checks` finds what is wrong with a task.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Annotated, Any

from lpt.ranges import at_least

SOURCES = ("hub", "tsv", "files", "wheel")
SPLITS = ("train", "dev", "test")
IGNORE = "ignore"  # as a label name in `values`: rows that are not part of the task


@dataclass
class Templates:
    """The text around the sentences: `{a}` the first, `{b}` the second, `{mask}` the answer slot."""

    encoder: str = "{a} It was {mask} ."
    # Template for encoders, with {a}, for pairs {b}, and {mask} where the label word is predicted.
    decoder: str = "{a} It was"
    # Template for decoders, with {a} and for pairs {b}; the label word is predicted after its end.
    answer: str = "{word} ."
    # Complete answer for head=continuation; {word} stands for the label's word or words.
    space: bool = True
    # Whether a label word or answer follows after a space; false in Chinese, Japanese, Thai.


# Mappings in these schemas are typed Any because Hydra cannot set a typed mapping's keys from the command line;
# `task_checks.describe_problems` checks them.


@dataclass
class Source:
    """What all sources share: which columns to read, and how labels are written there."""

    a: str = "text"
    # Column of the first or only sentence; in files without a header, its number from 1.
    b: str | None = None
    # Column of the second sentence of a pair; null for single sentences.
    label: str = "label"
    # Column of the label.
    values: Any = None
    # Label names by value in the data, as in {0: bad, 1: good}; `ignore` leaves rows out. null: the data has the
    # names themselves, or their index from 0.
    train: str | None = "train"
    # Split or file of the training rows.
    dev: str | None = None
    # Split or file of the development rows. If it and `test` are null, test rows are set aside from `train`.
    test: str | None = None
    # Split or file of the test rows. If a public one (hub, tsv) has no labels, `dev` is the test set and validation
    # rows come from `train`, as in the paper.
    extra_tests: Any = None
    # Further test sets, as in {test_other: other.tsv}; of several places, [first, second], the first with labels.
    test_rows: Annotated[int, at_least(0)] = 1000
    # Number of test rows set aside if there are no others, at most a fifth of all; always the same ones. 0: none, all
    # rows train.
    balance: bool = False
    # Whether to keep equally many rows of each class if test rows are set aside.

    def __post_init__(self) -> None:
        """Read what YAML has as numbers and booleans as text."""
        self.values = as_text(self.values, every_spelling=True)
        if isinstance(self.extra_tests, dict):
            lists = {name: p if isinstance(p, list) else [p] for name, p in self.extra_tests.items() if p is not None}
            self.extra_tests = {str(name): [str(place) for place in places] for name, places in lists.items()}

    def splits(self) -> Iterator[tuple[str, str]]:
        """Yield every split with its name or file in the source; an extra test set once for each of its places."""
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
    # Hub id, as in nyu-mll/glue, or local folder.
    config: str | None = None
    # Configuration (subset) of the data set, as in rte.
    revision: str | None = None
    # Branch, tag or commit of the data set; null for its main branch.


@dataclass
class TsvSource(Source):
    """A folder of `task.data_dir` in GLUE / LM-BFF layout: tab-separated, UTF-8, no quoting.

    Where `train.tsv`, for instance, is missing but `train.csv` is there, the CSV file is read, with quoting.
    """

    folder: str | None = None
    # Name of the task's folder, regardless of case, - and _; null for the task's name.
    header: bool = True
    # Whether the first line of each file has the column names; otherwise columns are numbered from 1.
    skip_short: bool = False
    # Whether to leave out rows that lack a column, of which GLUE's QQP has a few; otherwise they are an error.
    delimiter: str | None = None
    # What separates cells; null: a tab, or a comma in .csv files.
    quoting: bool | None = None
    # Whether cells may be in double quotes; null: in .csv files alone.
    train: str | None = "train.tsv"
    # File of the training rows.
    dev: str | None = "dev.tsv"
    # File of the development rows.
    test: str | None = "test.tsv"
    # File of the test rows. If it has no labels, the development rows are the test set and validation rows come
    # from `train`, as in the paper.


@dataclass
class FilesSource(Source):
    """The user's own CSV, TSV, JSONL or Parquet files."""

    train: str | None = None
    # File of the training rows: .csv, .tsv, .jsonl or .parquet, also compressed as .bz2.
    delimiter: str | None = None
    # What separates cells; null: a comma in .csv files, a tab in .tsv files.
    quoting: bool | None = None
    # Whether cells may be in double quotes; null: in .csv files, not in .tsv files. pandas quotes in both.


@dataclass
class WheelSource(Source):
    """A file inside a published wheel (`lpt.assets.wheels`)."""

    train: str | None = None
    # Address of the training rows: wheel://<package>==<version>/<path inside>.


@dataclass
class Task:
    """A text classification task, answered with one word."""

    name: str = "custom"
    # Name of the task in results.
    labels: list[str] = field(default_factory=list)
    # Class names, in class order.
    value_range: list[float] | None = None
    # Lowest and highest gold value of a regression, as in [0,5]; null for classes. The first of two labels stands
    # for the lowest value, the second for the highest, and their probabilities weigh the two.
    label_words: Any = None
    # The word that stands for each label, as in {bad: terrible, good: great}; one token each, without its leading
    # space.
    template: Templates = field(default_factory=Templates)
    metrics: list[str] = field(default_factory=lambda: ["accuracy"])
    # Metrics to report: accuracy, f1, matthews; for a regression pearson, spearman. The first selects the best step.
    max_length: Annotated[int, at_least(1)] = 256
    # Maximum number of tokens per row, template included. Only the text is truncated, never the template.
    source: str = "hub"
    # Where the rows are from: hub, tsv, files or wheel.
    data_dir: str | None = None
    # Parent folder of the tsv source's folders; for the files source, where relative file names start.
    hub: HubSource = field(default_factory=HubSource)
    tsv: TsvSource = field(default_factory=TsvSource)
    files: FilesSource = field(default_factory=FilesSource)
    wheel: WheelSource = field(default_factory=WheelSource)

    def __post_init__(self) -> None:
        """Read what YAML has as numbers and booleans as text."""
        self.label_words = as_text(self.label_words)

    @property
    def classes(self) -> list[str] | None:
        """Class names, which gold labels index; None for a regression, whose gold values are numbers."""
        return self.labels if self.value_range is None else None


def as_text(mapping: Any, every_spelling: bool = False) -> Any:
    """Turn the keys and values of a mapping into strings, without the keys whose value is null.

    YAML and Hydra read some labels as numbers and booleans.

    Args:
        mapping: what the configuration has; anything but a mapping is returned unchanged, for
            `task_checks.describe_problems` to report.
        every_spelling: let a key `true` also stand for `True` and `TRUE`, whichever a data file has.
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
