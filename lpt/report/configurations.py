"""Runs that differ in their seed alone are one configuration; configurations scored on the same rows are a board."""

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from lpt.report.runs import Run
from lpt.sweep.ledger import Status
from lpt.training.result import CompletedRun

# What makes no difference to what is learned or what it costs; the seed is averaged over.
IGNORED = ("seed", "fewshot.seed", "resume", "recipe", "experiment", "task.name", "backbone.name", "trainer.progress")
IGNORED_GROUPS = ("logger.", "bench.", "hydra.")
# These name a configuration, in this order and in these words; other options only where they must.
NAMED = {
    "backbone.name": "{}",
    "method.name": "{}",
    "generator.name": "{}",
    "lpt.layer": "layer {}",
    "lpt.read_only": "{}",
    "lpt.prompt_length": "P={}",
    "method.prompt_length": "P={}",
    "fewshot.protocol": "{}",
    "fewshot.k": "k={}",
    "head.name": "{} head",
    "method.targets": "{}",
    "method.rank": "r={}",
    "lpt.bottleneck": "m={}",
    "method.bottleneck": "m={}",
    "optim.lr": "lr {}",
}
WORDS = {("lpt.read_only", True): "read-only", ("lpt.read_only", False): "not read-only"}
# What a reader asks for first is named wherever it varies; of the others, only values that are not the usual one.
ALWAYS_NAMED = ("method.name", "generator.name", "fewshot.protocol", "fewshot.k", "head.name")


@dataclass
class Configuration:
    """Runs that differ in their seed alone.

    Attributes:
        values: what tells it from the others: option -> value, in the order of its name.
        label: its name in tables and figures.
        usual: what the label leaves out, as most configurations of its method have it, in words.
        runs: the completed ones, one per seed, by seed.
        others: failed, pruned and unfinished runs, and those that a newer run of the same seed replaces.
    """

    values: dict[str, Any]
    label: str
    usual: list[str] = field(default_factory=list)
    runs: list[Run] = field(default_factory=list)
    others: list[Run] = field(default_factory=list)

    @property
    def seeds(self) -> list[Any]:
        """Seeds of the completed runs."""
        return [run.seed for run in self.runs]

    @property
    def results(self) -> list[CompletedRun]:
        """Results of the completed runs."""
        return [run.result for run in self.runs if run.result is not None]

    def mean(self, value: Callable[[CompletedRun], float | None]) -> float | None:
        """Average a number in the results over the runs; None where a run has none, or there is no run."""
        found = [value(result) for result in self.results]
        numbers = [number for number in found if number is not None]
        return sum(numbers) / len(numbers) if numbers and len(numbers) == len(found) else None


@dataclass
class Board:
    """Configurations that were scored on the same test rows, and so can be compared.

    Attributes:
        backbone: None where backbones are what is compared.
        test_set: fingerprint of the test rows; None where no run got that far.
    """

    task: str
    backbone: str | None
    test_set: str | None
    configurations: list[Configuration]

    @property
    def title(self) -> str:
        """Task and, where it is one for all, backbone."""
        return self.task if self.backbone is None else f"{self.task}, {self.backbone}"

    @property
    def metric(self) -> str:
        """Name of the primary metric."""
        return next((run.metric for c in self.configurations for run in c.runs), "accuracy")

    @property
    def varying(self) -> list[str]:
        """Options that tell its configurations apart."""
        keys = dict.fromkeys(key for c in self.configurations for key in c.values)
        return [key for key in keys if len({str(c.values.get(key)) for c in self.configurations}) > 1]


def make_boards(runs: Sequence[Run]) -> list[Board]:
    """Group runs by task, backbone and test rows, then by everything but the seed.

    Runs without a result do not know their test rows; they go where most runs of their task and backbone are.
    """
    completed = [run for run in runs if run.status == Status.COMPLETED]
    groups: dict[tuple[str, str, str | None], list[Run]] = defaultdict(list)
    for run in completed:
        groups[run.task, run.backbone, run.test_set].append(run)
    for run in runs:
        if run.status != Status.COMPLETED:
            places = [key for key in groups if key[:2] == (run.task, run.backbone)]
            place = max(places, key=lambda key: len(groups[key]), default=(run.task, run.backbone, None))
            groups[place].append(run)
    options = distinguishing_options(runs)
    boards = [Board(*key, _configurations(group, options, runs)) for key, group in groups.items()]
    return sorted(_across_backbones(boards), key=lambda board: (board.task, board.backbone or "", board.test_set or ""))


def distinguishing_options(runs: Sequence[Run]) -> list[str]:
    """Return the options that tell runs of a task and a backbone apart, but for their seed, those of `NAMED` first.

    What follows from the method, as a learning rate may, is not among them. Nor is an option without a place in `NAMED`
    that follows from those before it, as `fewshot.k_dev` from `fewshot.k`.
    """
    ranks = {name: rank for rank, name in enumerate(NAMED)}
    names = sorted({n for run in runs for n in run.options if not _ignored(n)}, key=lambda n: (ranks.get(n, 99), n))
    chosen: list[str] = []
    for name in names:
        if _varies(name, runs, given=["method.name"] if name in NAMED and name != "method.name" else chosen):
            chosen.append(name)
    return chosen


def _varies(name: str, runs: Sequence[Run], given: Sequence[str]) -> bool:
    """Whether runs that are alike in task, backbone and the `given` options differ in this one."""
    values = defaultdict(set)
    for run in runs:
        values[_key(run, given)].add(str(run.options.get(name)))
    return any(len(found) > 1 for found in values.values())


def _ignored(name: str) -> bool:
    return name in IGNORED or name.startswith(IGNORED_GROUPS)


def _key(run: Run, options: Sequence[str]) -> tuple[str, ...]:
    return (run.task, run.backbone, *(str(run.options.get(name)) for name in options))


def _configurations(group: Sequence[Run], options: Sequence[str], everywhere: Sequence[Run]) -> list[Configuration]:
    alike: dict[tuple[str, ...], list[Run]] = defaultdict(list)
    for run in group:
        alike[_key(run, options)].append(run)
    found = []
    for runs in alike.values():
        values = {name: runs[0].options.get(name) for name in options}
        configuration = Configuration(values, *_label(runs[0], options, everywhere))
        newest: dict[Any, Run] = {}
        for run in sorted(runs, key=lambda run: run.finished):
            if run.status != Status.COMPLETED:
                configuration.others.append(run)
                continue
            if run.seed in newest:
                configuration.others.append(newest[run.seed])
            newest[run.seed] = run
        configuration.runs = sorted(newest.values(), key=lambda run: str(run.seed).zfill(20))
        found.append(configuration)
    return found


def _label(run: Run, options: Sequence[str], everywhere: Sequence[Run]) -> tuple[str, list[str]]:
    """Name a configuration by its method, if there are several, and what varies within it; and what that leaves out."""
    same_method = [other for other in everywhere if other.method == run.method]
    varied = [name for name in options if name == "method.name" or _varies(name, same_method, given=[])]
    usual = [name for name in varied if name not in ALWAYS_NAMED and _is_usual(run, name, same_method, options)]
    named = {name: run.options.get(name) for name in varied if name not in usual}
    return _words(named) or run.method, [_words({name: run.options.get(name)}) for name in usual]


def _is_usual(run: Run, name: str, runs: Sequence[Run], options: Sequence[str]) -> bool:
    """Whether more than half of the configurations among `runs` have the run's value of this option."""
    values = [other.options.get(name) for other in {_key(other, options): other for other in runs}.values()]
    if None in values:  # which is never named, and so must be the only value that is not
        return False
    return 2 * values.count(run.options.get(name)) > len(values)


def _words(values: dict[str, Any]) -> str:
    return " · ".join(
        NAMED.get(name, f"{name}={{}}").format(WORDS.get((name, value), value))
        for name, value in values.items()
        if value is not None
    )


def name_of(configuration: Configuration, without: Sequence[str]) -> str:
    """Return its label without the words for some options."""
    words = {_words({name: configuration.values.get(name)}) for name in without}
    return " · ".join(word for word in configuration.label.split(" · ") if word not in words) or configuration.label


def _across_backbones(boards: list[Board]) -> list[Board]:
    """Where a task has one configuration per backbone, the backbones are what is compared."""
    by_rows: dict[tuple[str, str | None], list[Board]] = defaultdict(list)
    for board in boards:
        by_rows[board.task, board.test_set].append(board)
    merged = []
    for (task, test_set), group in by_rows.items():
        if len(group) == 1 or any(len(board.configurations) > 1 for board in group):
            merged += group
            continue
        configurations = []
        for board in group:
            (only,) = board.configurations
            only.values = {"backbone.name": board.backbone, **only.values}
            only.label = str(board.backbone)
            configurations.append(only)
        merged.append(Board(task, None, test_set, configurations))
    return merged
