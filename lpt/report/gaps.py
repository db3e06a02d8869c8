"""What is not among the results, though it was tried or though others have it."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lpt.report.configurations import Board, Configuration
from lpt.report.runs import Run
from lpt.report.sweep_points import points_under
from lpt.sweep.ledger import Status


@dataclass(frozen=True)
class Gap:
    """A run that is not among the results."""

    task: str
    backbone: str
    label: str
    seed: str
    what: str
    error: str | None = None


def find_gaps(folder: Path, runs: Sequence[Run], boards: Sequence[Board]) -> list[Gap]:
    """List failed, unfinished, replaced and missing runs, and points that never ran, but for what a search pruned."""
    gaps = []
    for board in boards:
        seeds = dict.fromkeys(seed for c in board.configurations for seed in c.seeds)
        for c in board.configurations:
            backbone = board.backbone or str(c.values["backbone.name"])
            for run in c.others:
                if run.status == Status.PRUNED:
                    continue
                replaced = "a newer run of this seed counts"
                what = replaced if run.status == Status.COMPLETED else run.status
                if run.status == Status.FAILED and run.seed in c.seeds:
                    what = "failed, then completed by another run"
                gaps.append(Gap(board.task, backbone, c.label, str(run.seed), what, run.error))
            known = {*c.seeds, *(run.seed for run in c.others)}
            missing = [str(seed) for seed in seeds if seed not in known]
            if missing and not _same_with_every_seed(c):
                gaps.append(
                    Gap(board.task, backbone, c.label, ", ".join(missing), "no run, though others have this seed")
                )
    gaps += _absent(boards)
    folders = {run.folder for run in runs}
    for point in points_under(folder):
        if point.folder not in folders and point.status != Status.PRUNED:
            gaps.append(Gap("", "", " ".join(point.overrides) or point.folder.name, "", point.status, point.error))
    return gaps


def _same_with_every_seed(c: Configuration) -> bool:
    """Whether it trains nothing, and takes nothing from training rows."""
    return c.mean(lambda result: result.trainable_parameters) == 0 and not c.runs[0].options.get("head.calibrate")


def _absent(boards: Sequence[Board]) -> list[Gap]:
    """List configurations that were run on another task with the same backbone, and not on this one."""
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
