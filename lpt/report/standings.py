"""The configurations of a board in order, each with its interval, and compared with each other or with a baseline."""

import statistics
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from lpt.errors import LptError
from lpt.report.comparison import RESAMPLES, Difference, compare, score_resamples
from lpt.report.configurations import Board, Configuration
from lpt.report.predictions import SavedPredictions

SHORT_NAMES = ("task", "backbone", "method", "generator", "head")  # a group stands for its name, as on a command line


@dataclass
class Standing:
    """A configuration's place among those of its board.

    Attributes:
        scores: those of its completed runs on the test rows, by seed.
        interval: 95% of their mean over test rows; None without predictions.
        difference: from the best, or from its baseline; None for these themselves and where nothing can be paired.
        tied: the best one, or not shown to be worse than it.
    """

    configuration: Configuration
    scores: list[float]
    interval: tuple[float, float] | None = None
    difference: Difference | None = None
    tied: bool = False

    @property
    def label(self) -> str:
        """Name of the configuration in tables and figures."""
        return self.configuration.label

    @property
    def mean(self) -> float | None:
        """Mean score over seeds; None without scores."""
        return statistics.fmean(self.scores) if self.scores else None

    @property
    def sd(self) -> float | None:
        """Standard deviation of the score over seeds; None with fewer than two scores."""
        return statistics.stdev(self.scores) if len(self.scores) > 1 else None

    @property
    def without_score(self) -> str:
        """What became of a configuration without a score."""
        return next((run.status for run in self.configuration.others), "no score")


@dataclass
class Standings:
    """A board's configurations in order, and every comparison between them.

    Attributes:
        rows: those with a score, by score or by the one number that varies, then the others.
        best: the highest mean; None where no run was completed.
        baseline: what was asked for, as `option=value`; differences from it are corrected for themselves alone.
        pairs: (reference label, other label) -> difference, corrected for all pairs.
    """

    board: Board
    rows: list[Standing]
    best: Standing | None
    baseline: Sequence[str]
    pairs: dict[tuple[str, str], Difference]

    @property
    def title(self) -> str:
        """Title of the board."""
        return self.board.title

    @property
    def metric(self) -> str:
        """Name of the primary metric."""
        return self.board.metric

    @property
    def scored(self) -> list[Standing]:
        """Rows with a score, in order."""
        return [row for row in self.rows if row.scores]


def standings_of(board: Board, baseline: Sequence[str], cautions: list[str]) -> Standings:
    """Score and compare a board's configurations.

    Args:
        baseline: `option=value` of the configuration to compare with; empty for the best. Of several that fit, each
            configuration is compared with the one it has most in common with, such as that of the same `fewshot.k`.
        cautions: gets a sentence for whatever cannot be compared.

    Raises:
        LptError: several baselines have equally much in common with a configuration.
    """
    rows = [Standing(c, [s for run in c.runs if (s := run.score()) is not None]) for c in board.configurations]
    rows.sort(key=lambda row: (not row.scores, -(row.mean or 0), row.label))
    best = rows[0] if rows and rows[0].scores else None
    wanted = baseline_options(baseline)
    matching = [c for c in board.configurations if wanted and fits(c, wanted)]
    references = _baselines(board, baseline, matching)
    if wanted and not matching:
        cautions.append(f"{board.title} has no run with {' '.join(baseline)}: compared with its best instead.")
    standings = Standings(board, rows, best, baseline if matching else (), {})
    paired = _paired(board, rows, cautions)
    if best is not None:
        best.tied = True
        if paired:
            _compare(standings, best, paired, references)
    varying = board.varying
    if len(varying) == 1 and all(isinstance(c.values[varying[0]], int | float) for c in board.configurations):
        rows.sort(key=lambda row: (not row.scores, row.configuration.values[varying[0]]))
    return standings


def _compare(
    standings: Standings, best: Standing, paired: dict[str, list[SavedPredictions]], references: dict[str, str]
) -> None:
    """Fill in intervals, differences and ties.

    Args:
        paired: label -> predictions of its seeds.
        references: label -> label of its baseline.
    """
    labels, found, metric = list(paired), list(paired.values()), standings.metric
    pairs = [(i, j) for i in range(len(labels)) for j in range(len(labels)) if i < j]
    # Enough of them that the smallest p survives the correction.
    scored = score_resamples(metric, found, max(RESAMPLES, 100 * len(pairs)))
    differences = compare(metric, found, scored, pairs)
    standings.pairs = {(labels[i], labels[j]): difference for (i, j), difference in differences.items()}
    asked = [
        (labels.index(reference), labels.index(label))
        for label, reference in references.items()
        if label in paired and reference in paired
    ]
    from_baseline = {labels[j]: d for (_, j), d in compare(metric, found, scored, asked).items()}
    for row in standings.rows:
        if row.label in paired:
            row.interval = scored.interval(labels.index(row.label))
            from_best = difference_between(standings, best.label, row.label)
            row.difference = from_baseline.get(row.label) if standings.baseline else from_best
            row.tied = row.tied or (from_best is not None and not from_best.sure)


def difference_between(standings: Standings, reference: str, other: str) -> Difference | None:
    """Return how far `other` is from `reference`, whichever way round it was computed."""
    if (reference, other) in standings.pairs:
        return standings.pairs[reference, other]
    d = standings.pairs.get((other, reference))
    return d and Difference(-d.value, -d.high, -d.low, d.p, d.adjusted, d.test)


def _paired(board: Board, rows: Sequence[Standing], cautions: list[str]) -> dict[str, list[SavedPredictions]]:
    """Return label -> predictions of its seeds, all of the same test rows and such that give the recorded scores."""
    test_rows = Counter(
        _test_rows(found) for row in rows for run in row.configuration.runs if (found := run.predictions)
    )
    paired: dict[str, list[SavedPredictions]] = {}
    for row in rows:
        kept = []
        for run in row.configuration.runs:
            found, recorded = run.predictions, run.score()
            if found is None:
                problem = f"has no readable predictions/{run.judged_on}.jsonl"
            elif _test_rows(found) != test_rows.most_common(1)[0][0]:
                problem = "predicted other test rows than most, so it cannot be paired"
            elif not found.scored_by(board.metric):
                problem = f"has predictions that {board.metric} does not score"
            elif recorded is None or abs(found.score(board.metric) - recorded) > 1e-4:
                problem = (
                    f"recorded {board.metric} {recorded}, but its predictions give {found.score(board.metric):.4f}"
                )
            else:
                kept.append(found)
                continue
            cautions.append(f"{run.name} {problem}: {row.label} has no interval and no tests.")
        if kept and len(kept) == len(row.configuration.runs):
            paired[row.label] = kept
    return paired


def _test_rows(found: SavedPredictions) -> tuple[bytes, bytes]:
    return found.index.tobytes(), found.gold.tobytes()


def _baselines(board: Board, baseline: Sequence[str], matching: list[Configuration]) -> dict[str, str]:
    """Return label -> label of the configuration that it is to be compared with."""
    references = {}
    for c in board.configurations:
        if c in matching or not matching:
            continue
        alike = [sum(m.values[name] == value for name, value in c.values.items()) for m in matching]
        if alike.count(max(alike)) > 1:
            raise LptError(
                f"--baseline {' '.join(baseline)} fits {len(matching)} configurations of {board.title} "
                f"({'; '.join(m.label for m in matching)}), several of them equally well for {c.label}: "
                "add option=value until it is one"
            )
        references[c.label] = matching[alike.index(max(alike))].label
    return references


def baseline_options(baseline: Sequence[str]) -> dict[str, str]:
    """Parse `--baseline` into option -> value.

    Raises:
        LptError: a text that is not `option=value`.
    """
    wanted = {}
    for text in baseline:
        key, equals, value = text.partition("=")
        if not equals:
            raise LptError(f"--baseline {text} must be option=value, as in --baseline method=lora")
        wanted[f"{key}.name" if key in SHORT_NAMES else key] = value
    return wanted


def fits(configuration: Configuration, wanted: dict[str, str]) -> bool:
    """Whether a configuration was completed and has all these values."""
    if not configuration.runs:
        return False
    given = {option: configuration.runs[0].options.get(option) for option in wanted}
    return all(("null" if given[option] is None else str(given[option])) == value for option, value in wanted.items())
