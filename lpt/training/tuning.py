"""A learning rate that is chosen by trying: each candidate is a run of its own in `candidates/`."""

import math
from dataclasses import dataclass, replace
from pathlib import Path

from lpt.config.schema import Config
from lpt.console import part
from lpt.data.splits import Splits
from lpt.errors import LptError
from lpt.training.cross_validation import Train, cross_validate, part_of
from lpt.training.first_process import say
from lpt.training.predictions import SplitPredictions
from lpt.training.result import CompletedRun, read_result

FOLDER = "candidates"


@dataclass(frozen=True)
class Tuned:
    """What came of the candidates.

    Attributes:
        config: of the run, with the learning rate that did best.
        scores: learning rate -> primary metric on the validation rows, or cross-validated.
        folds: the cross-validated answers of the best one; None where validation rows have chosen it.
    """

    config: Config
    scores: dict[str, float]
    folds: SplitPredictions | None


def tune(config: Config, rows: Splits, run_dir: Path, train: Train) -> Tuned:
    """Try each of `optim.lr_candidates`, and take the one that does best; of equals, the first.

    They see no test rows. A candidate that is completed is not run again.

    Args:
        config: of the run.
        rows: of the run.
        run_dir: the run folder.
        train: runs one candidate in a folder of its own.

    Raises:
        LptError: as of a run; or no candidate has a score that is a number.
    """
    metric, few = config.task.metrics[0], config.fewshot
    scores: dict[str, float] = {}
    answers: dict[str, SplitPredictions] = {}
    for lr in config.optim.lr_candidates:
        name = f"{lr:g}"
        candidate = replace(config, optim=replace(config.optim, lr=lr, lr_candidates=[]))
        folder = run_dir / FOLDER / name
        if few.folds is not None:
            with part(f"optim.lr={name}"):
                answers[name] = cross_validate(candidate, rows, folder, train)
            scores[name] = answers[name].metrics([metric])[metric]
        else:
            done = read_result(folder)
            if not isinstance(done, CompletedRun):
                folder.mkdir(parents=True, exist_ok=True)
                with part(f"optim.lr={name}"):
                    done = train(part_of(candidate, folder), folder, replace(rows, test=None, extra_tests={}))
            scores[name] = done.objective
        how = "validation" if few.folds is None else "cross-validated"
        say(f"optim.lr={name}  {how} {metric} {scores[name]:.3f}")
    known = {name: score for name, score in scores.items() if math.isfinite(score)}
    if not known:
        raise LptError(f"optim.lr_candidates: none of {', '.join(scores)} has a {metric} that is a number")
    best = max(known, key=known.__getitem__)
    chosen = replace(config, optim=replace(config.optim, lr=float(best), lr_candidates=[]))
    return Tuned(chosen, scores, answers.get(best))
