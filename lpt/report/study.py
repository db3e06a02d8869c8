"""What the runs of a folder say together: standings per task, what is missing, and what to be careful with."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lpt.errors import LptError
from lpt.report.cautions import caution_outdated, find_cautions
from lpt.report.configurations import make_boards
from lpt.report.gaps import Gap, find_gaps
from lpt.report.listing import OUTDATED
from lpt.report.runs import Run, collect_runs
from lpt.report.standings import Standings, baseline_options, fits, standings_of
from lpt.sweep.ledger import Status


@dataclass
class Study:
    """Everything that a report shows.

    Attributes:
        runs: every run that can be read, completed or not.
        standings: one per board, by task and backbone.
        gaps: what was tried or is to be expected, and is not among the results.
        cautions: sentences.
    """

    folder: Path
    runs: list[Run]
    standings: list[Standings]
    gaps: list[Gap]
    cautions: list[str]

    @property
    def completed(self) -> list[Run]:
        """Runs that were completed."""
        return [run for run in self.runs if run.status == Status.COMPLETED]


def study_of(folder: Path, baseline: Sequence[str] = ()) -> Study:
    """Read, group and compare the runs under `folder`.

    Args:
        baseline: see `standings_of`.

    Raises:
        LptError: no runs, or none of this format, or a baseline that fits no configuration, or several equally well.
    """
    found = collect_runs(folder)
    runs = [run for run in found if run.status != OUTDATED]
    cautions = caution_outdated(found)
    if not runs:
        raise LptError(f"{folder}: {' '.join(cautions)}")
    boards = make_boards(runs)
    configurations = [c for board in boards for c in board.configurations]
    wanted = baseline_options(baseline)
    if wanted and not any(fits(c, wanted) for c in configurations):
        labels = "; ".join(sorted({c.label for c in configurations}))
        raise LptError(f"--baseline {' '.join(baseline)} fits no completed configuration; there are {labels}")
    cautions += find_cautions(runs)
    standings = [standings_of(board, baseline, cautions) for board in boards]
    return Study(folder, runs, standings, find_gaps(folder, found, boards), cautions)
