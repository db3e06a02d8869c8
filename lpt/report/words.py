"""What a report says in sentences."""

import time
from collections import Counter

from lpt.report.comparison import LEVEL
from lpt.report.runs import Run
from lpt.report.standings import Standings
from lpt.report.study import Study
from lpt.training.result import CROSS_VALIDATION


def title(study: Study) -> str:
    """Return the name of the folder that the report is about."""
    return study.folder.absolute().name


def single_run(study: Study) -> Run | None:
    """Return the only run, if it was completed: its page shows more of it."""
    return study.runs[0] if len(study.runs) == 1 and study.completed else None


def rows_of(split: str) -> str:
    """Name the rows that a run is judged by."""
    return "every row by a fold that had not seen it" if split == CROSS_VALIDATION else "on the test rows"


def headline(study: Study) -> str:
    """Say how many runs there are, of what, and when they ended."""
    rows = [row for standings in study.standings for row in standings.rows]
    tasks = dict.fromkeys(run.task for run in study.runs)
    backbones = dict.fromkeys(run.backbone for run in study.runs)
    counts = Counter(run.status for run in study.runs)
    parts = [
        _count(len(study.completed), "completed run"),
        *(f"{counts[status]} {status}" for status in ("failed", "pruned", "unfinished") if counts[status]),
        _count(len({row.label for row in rows}), "configuration"),
        f"{'task' if len(tasks) == 1 else 'tasks'} {', '.join(tasks)}",
        f"{'backbone' if len(backbones) == 1 else 'backbones'} {', '.join(backbones)}",
    ]
    times = sorted(run.finished for run in study.runs)
    days = dict.fromkeys(time.strftime("%Y-%m-%d", time.localtime(moment)) for moment in (times[0], times[-1]))
    return " · ".join([*parts, " to ".join(days)])


def findings(study: Study) -> list[str]:
    """Write a sentence per board that has something to compare: which is best, and which may be as good."""
    return [_finding(standings) for standings in study.standings if len(standings.scored) > 1]


def _finding(standings: Standings) -> str:
    best = standings.best
    assert best is not None
    text = f"{standings.title}: {best.label} has the highest {standings.metric}, {best.mean:.3f}"
    if best.interval is not None:
        text += " (95% interval {:.3f} to {:.3f})".format(*best.interval)
    if not standings.pairs:
        return f"{text}."
    tied = [row.label for row in standings.scored if row.tied and row is not best]
    if not tied:
        return f"{text}, more than chance ahead of all others."
    if len(tied) == len(standings.scored) - 1:
        return f"{text}; no other is shown to be worse."
    return f"{text}; not shown to be worse: {', '.join(tied)}."


def legend(standings: Standings) -> str:
    """Explain how to read a board's table."""
    text = ""
    usual = dict.fromkeys(words for row in standings.rows for words in row.configuration.usual)
    if usual:
        text = f"Names leave out what most configurations of a method have: {', '.join(usual)}. "
    text += "Mean and standard deviation over seeds."
    if any(row.interval for row in standings.rows):
        text += " The interval is for other test rows of the same kind and these trained models, averaged over seeds."
    if not standings.pairs:
        return text
    tests = dict.fromkeys(difference.test for difference in standings.pairs.values())
    corrected = _count(len(standings.pairs), "comparison")
    if standings.baseline:
        corrected += f" (those to the baseline, {' '.join(standings.baseline)}, for"
        corrected += f" {sum(row.difference is not None for row in standings.rows)})"
    return (
        f"{text} Differences are in points (hundredths), paired by test row; p by {' and '.join(tests)}, corrected by "
        f"Holm for {corrected}. Bold: the best; ≈: not shown to differ from it (p of {LEVEL} or more)."
    )


def _count(number: int, name: str) -> str:
    return f"{number:,} {name}{'' if number == 1 else 's'}"
