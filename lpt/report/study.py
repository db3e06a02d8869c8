"""What the runs of a folder say together: standings per task, what is missing, and what to be careful with."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lpt.errors import LptError
from lpt.report.configurations import make_boards
from lpt.report.gaps import Gap, find_gaps
from lpt.report.mixtures import find_mixtures
from lpt.report.runs import Run, collect_runs
from lpt.report.standings import Standings, baseline_options, fits, standings_of


@dataclass
class Study:
    """Everything a report shows."""

    folder: Path
    runs: list[Run]
    standings: list[Standings]
    gaps: list[Gap]
    cautions: list[str]

    @property
    def completed(self) -> list[Run]:
        return [run for run in self.runs if run.status == "completed"]


def study_of(folder: Path, baseline: Sequence[str] = ()) -> Study:
    """Read, group and compare the runs under `folder`.

    Args:
        baseline: see `standings_of`.

    Raises:
        LptError: no runs, or a baseline that fits no configuration, or several equally well.
    """
    runs = collect_runs(folder)
    boards = make_boards(runs)
    configurations = [c for board in boards for c in board.configurations]
    wanted = baseline_options(baseline)
    if wanted and not any(fits(c, wanted) for c in configurations):
        labels = "; ".join(sorted({c.label for c in configurations}))
        raise LptError(f"--baseline {' '.join(baseline)} fits no completed configuration; there are {labels}")
    cautions = find_mixtures(runs)
    standings = [standings_of(board, baseline, cautions) for board in boards]
    return Study(folder, runs, standings, find_gaps(folder, runs, boards), cautions)
