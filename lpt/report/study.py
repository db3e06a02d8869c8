"""What the runs of a folder say together: standings per task, what is missing, and what to be careful with."""

import statistics
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lpt.errors import LptError
from lpt.report.comparison import RESAMPLES, Difference, bootstrap, compare
from lpt.report.configurations import Board, Configuration, make_boards
from lpt.report.ledger import points_without_run
from lpt.report.runs import Predictions, Run, collect_runs
from lpt.report.scores import SCORES, score

SHORT_NAMES = ("task", "backbone", "method", "generator", "head")  # a group stands for its name, as on a command line


@dataclass
class Standing:
    """A configuration's place among those of its board.

    Attributes:
        scores: of its completed runs on the test rows, by seed.
        interval: 95% of their mean over test rows; None without predictions.
        difference: from the board's reference; None for the reference itself and where nothing can be paired.
        tied: the best one, or not shown to be worse than it.
    """

    configuration: Configuration
    scores: list[float]
    interval: tuple[float, float] | None = None
    difference: Difference | None = None
    tied: bool = False

    @property
    def label(self) -> str:
        return self.configuration.label

    @property
    def mean(self) -> float | None:
        return statistics.fmean(self.scores) if self.scores else None

    @property
    def sd(self) -> float | None:
        return statistics.stdev(self.scores) if len(self.scores) > 1 else None


@dataclass
class Standings:
    """A board's configurations in order, and every comparison between them.

    Attributes:
        rows: those with a score, then the others.
        best: the highest mean; None where no run was completed.
        reference: whom `difference` of each row compares with.
        baseline: whether the reference was asked for; its differences are corrected for themselves alone.
        pairs: (reference label, other label) -> difference, corrected for all pairs.
    """

    board: Board
    rows: list[Standing]
    best: Standing | None
    reference: Standing | None
    baseline: bool
    pairs: dict[tuple[str, str], Difference]

    @property
    def title(self) -> str:
        return self.board.task if self.board.backbone is None else f"{self.board.task}, {self.board.backbone}"

    @property
    def metric(self) -> str:
        return self.board.metric

    @property
    def scored(self) -> list[Standing]:
        return [row for row in self.rows if row.scores]


@dataclass(frozen=True)
class Gap:
    """A run that is not among the results."""

    task: str
    backbone: str
    label: str
    seed: str
    what: str
    error: str | None = None


@dataclass
class Study:
    """Everything a report shows."""

    folder: Path
    runs: list[Run]
    standings: list[Standings]
    gaps: list[Gap]
    cautions: list[str] = field(default_factory=list)

    @property
    def completed(self) -> list[Run]:
        return [run for run in self.runs if run.status == "completed"]


def study_of(folder: Path, baseline: Sequence[str] = ()) -> Study:
    """Read, group and compare the runs under `folder`.

    Args:
        baseline: `option=value` that one configuration of each board has; without it, the best one is the reference.

    Raises:
        LptError: no runs, or a baseline that names no configuration, or several of a board.
    """
    runs = collect_runs(folder)
    boards = make_boards(runs)
    study = Study(folder, runs, [], _gaps(folder, runs, boards))
    study.cautions += _mixtures(runs)
    references = _references(boards, baseline)
    for board in boards:
        reference = references.get(id(board))
        if baseline and reference is None:
            study.cautions.append(
                f"{_title(board)} has no run with {' '.join(baseline)}: compared with its best instead."
            )
        study.standings.append(_standings(board, reference, study.cautions))
    return study


def _standings(board: Board, baseline: Configuration | None, cautions: list[str]) -> Standings:
    rows = [Standing(c, [s for run in c.runs if (s := run.score()) is not None]) for c in board.configurations]
    rows.sort(key=lambda row: (not row.scores, -(row.mean or 0), row.label))
    best = rows[0] if rows and rows[0].scores else None
    if best is not None:
        best.tied = True
    reference = next((row for row in rows if row.configuration is baseline and row.scores), best)
    standings = Standings(board, rows, best, reference, baseline is not None, {})
    paired = _paired(board, rows, cautions)
    if best is not None and paired:
        _compare(standings, paired)
    varying = board.varying
    if len(varying) == 1 and all(isinstance(c.values[varying[0]], int | float) for c in board.configurations):
        rows.sort(key=lambda row: (not row.scores, row.configuration.values[varying[0]]))
    return standings


def _compare(standings: Standings, paired: dict[str, list[Predictions]]) -> None:
    """Fill in intervals, differences and ties."""
    labels, found, metric = list(paired), list(paired.values()), standings.metric
    pairs = [(i, j) for i in range(len(labels)) for j in range(len(labels)) if i < j]
    # Enough of them that the smallest p survives the correction.
    scored = bootstrap(metric, found, max(RESAMPLES, 100 * len(pairs)))
    differences = compare(metric, found, scored, pairs)
    standings.pairs = {(labels[i], labels[j]): difference for (i, j), difference in differences.items()}
    assert standings.best is not None
    assert standings.reference is not None
    reference = standings.reference.label
    to_reference = {}
    if reference in paired:
        to = labels.index(reference)
        if standings.baseline:
            others = [(to, j) for j in range(len(labels)) if j != to]
            to_reference = {labels[j]: d for (_, j), d in compare(metric, found, scored, others).items()}
        else:
            to_reference = {label: d for label in labels if (d := difference_between(standings, reference, label))}
    for row in standings.rows:
        if row.label in paired:
            row.interval = scored.interval(labels.index(row.label))
            row.difference = to_reference.get(row.label)
            to_best = difference_between(standings, standings.best.label, row.label)
            row.tied = row.tied or (to_best is not None and not to_best.sure)


def difference_between(standings: Standings, reference: str, other: str) -> Difference | None:
    """Of `other` from `reference`, whichever way round it was computed."""
    if (reference, other) in standings.pairs:
        return standings.pairs[reference, other]
    d = standings.pairs.get((other, reference))
    return d and Difference(-d.value, -d.high, -d.low, d.p, d.adjusted, d.test)


def _paired(board: Board, rows: Sequence[Standing], cautions: list[str]) -> dict[str, list[Predictions]]:
    """label -> predictions of its seeds; all of the same test rows, and such that give the recorded scores."""
    if board.metric not in SCORES:
        cautions.append(f"{_title(board)}: no intervals and tests, as {board.metric} is not known here.")
        return {}
    test_rows = Counter(
        _test_rows(found) for row in rows for run in row.configuration.runs if (found := run.test_predictions)
    )
    paired: dict[str, list[Predictions]] = {}
    for row in rows:
        kept = []
        for run in row.configuration.runs:
            found, recorded = run.test_predictions, run.score()
            if found is None:
                problem = "has no readable predictions/test.jsonl"
            elif _test_rows(found) != test_rows.most_common(1)[0][0]:
                problem = "predicted other test rows than most, so it cannot be paired"
            elif recorded is None or abs(score(board.metric, found) - recorded) > 1e-4:
                problem = (
                    f"recorded {board.metric} {recorded}, but its predictions give {score(board.metric, found):.4f}"
                )
            else:
                kept.append(found)
                continue
            cautions.append(f"{run.name} {problem}: {row.label} has no interval and no tests.")
        if kept and len(kept) == len(row.configuration.runs):
            paired[row.label] = kept
    return paired


def _test_rows(found: Predictions) -> tuple[bytes, bytes]:
    return found.index.tobytes(), found.gold.tobytes()


def _references(boards: Sequence[Board], baseline: Sequence[str]) -> dict[int, Configuration]:
    wanted = {}
    for text in baseline:
        key, equals, value = text.partition("=")
        if not equals:
            raise LptError(f"--baseline {text} must be option=value, as in --baseline method=lora")
        wanted[f"{key}.name" if key in SHORT_NAMES else key] = value
    references = {}
    for board in boards:
        matching = [c for c in board.configurations if c.runs and _has(c.runs[0], wanted)]
        if len(matching) > 1 and wanted:
            raise LptError(
                f"--baseline {' '.join(baseline)} fits {len(matching)} configurations of {_title(board)} "
                f"({'; '.join(c.label for c in matching)}): add option=value until it fits one"
            )
        if wanted and matching:
            references[id(board)] = matching[0]
    if wanted and not references:
        labels = sorted({c.label for board in boards for c in board.configurations})
        raise LptError(
            f"--baseline {' '.join(baseline)} fits no completed configuration; there are {'; '.join(labels)}"
        )
    return references


def _has(run: Run, wanted: dict[str, str]) -> bool:
    given = {option: run.options.get(option) for option in wanted}
    return all(("null" if given[option] is None else str(given[option])) == value for option, value in wanted.items())


def _title(board: Board) -> str:
    return board.task if board.backbone is None else f"{board.task}, {board.backbone}"


def _gaps(folder: Path, runs: Sequence[Run], boards: Sequence[Board]) -> list[Gap]:
    """Failed, unfinished, replaced and missing runs, and points that were never started."""
    gaps = []
    for board in boards:
        seeds = dict.fromkeys(seed for c in board.configurations for seed in c.seeds)
        for c in board.configurations:
            backbone = board.backbone or str(c.values["backbone.name"])
            for run in c.others:
                replaced = "a newer run of this seed counts"
                what = replaced if run.status == "completed" else run.status
                if run.status == "failed" and run.seed in c.seeds:
                    what = "failed, then completed by another run"
                gaps.append(Gap(board.task, backbone, c.label, str(run.seed), what, run.error))
            known = {*c.seeds, *(run.seed for run in c.others)}
            missing = [str(seed) for seed in seeds if seed not in known]
            if missing:
                gaps.append(
                    Gap(board.task, backbone, c.label, ", ".join(missing), "no run, though others have this seed")
                )
    gaps += _absent(boards)
    for point in points_without_run(folder, {run.folder.name for run in runs}):
        gaps.append(Gap("", "", " ".join(point.overrides) or point.name, "", point.status, point.error))
    return gaps


def _absent(boards: Sequence[Board]) -> list[Gap]:
    """Configurations that were run on another task with the same backbone."""
    labels: dict[str, dict[str, None]] = defaultdict(dict)
    present: dict[tuple[str, str], set[str]] = defaultdict(set)
    for board in boards:
        if board.backbone is not None:
            labels[board.backbone] |= dict.fromkeys(c.label for c in board.configurations)
            present[board.task, board.backbone] |= {c.label for c in board.configurations}
    return [
        Gap(task, backbone, label, "", "no run, though another task has it")
        for (task, backbone), found in present.items()
        for label in labels[backbone]
        if label not in found
    ]


def _mixtures(runs: Sequence[Run]) -> list[str]:
    """What differs between the completed runs and should not."""
    completed = [run for run in runs if run.status == "completed"]
    found = []
    test_sets: dict[str, set[str]] = defaultdict(set)
    training: dict[tuple[Any, ...], set[str]] = defaultdict(set)
    for run in completed:
        fingerprint = run.result.get("data", {}).get("fingerprint", {})
        test_sets[run.task].add(str(fingerprint.get("test")))
        few = (run.options.get(f"fewshot.{name}") for name in ("protocol", "k", "k_dev", "seed"))
        training[run.task, *few].add(str(fingerprint.get("train")))
    for task, sets in test_sets.items():
        if len(sets) > 1:
            found.append(
                f"The runs of {task} were tested on {len(sets)} different sets of rows ({', '.join(sorted(sets))}); "
                "runs of different sets are not compared."
            )
    for (task, protocol, _, _, seed), sets in training.items():
        if len(sets) > 1:
            found.append(
                f"{task}: the same draw (fewshot={protocol}, seed {seed}) gave different training rows in different "
                f"runs ({', '.join(sorted(sets))}); did the data change?"
            )
    versions: dict[str, set[str]] = defaultdict(set)
    for run in completed:
        for package, version in run.result.get("versions", {}).items():
            versions[package].add(version)
    for package, several in versions.items():
        if len(several) > 1:
            found.append(f"Runs of different versions of {package}: {', '.join(sorted(several))}.")
    commits = {commit_of(run) for run in completed}
    if len(commits) > 1:
        found.append(f"Runs of different states of the code: {', '.join(sorted(commits))}.")
    elif any("changed" in commit for commit in commits):
        found.append(f"The code had uncommitted changes ({', '.join(commits)}).")
    precisions = {str(run.result.get("precision")) for run in completed}
    if len(precisions) > 1 and len({str(run.options.get("trainer.precision")) for run in completed}) == 1:
        found.append(f"Runs in different number formats ({', '.join(sorted(precisions))}): do not compare their costs.")
    return found


def commit_of(run: Run) -> str:
    """Of the code, shortened."""
    git = run.result.get("git")
    if not git:
        return "not a git checkout"
    return git["commit"][:10] + (", changed" if git.get("changed") else "")
