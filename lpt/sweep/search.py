"""`hydra/sweeper=optuna`: points that Optuna proposes, given the results of earlier ones.

Every trial is a point like any other: named by content, in the ledger, resumed after an interruption. The study is kept
beside the ledger, so that the same command into the same folder resumes the search. A trial that at some step is worse
than half of the earlier ones were is stopped there.
"""

import math
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.core.plugins import Plugins
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

from lpt.config.command_line import report
from lpt.config.flags import read_arguments
from lpt.config.place import typed_program
from lpt.console import say
from lpt.errors import LptError
from lpt.sweep.launcher import QueueLauncher
from lpt.sweep.ledger import patiently
from lpt.sweep.so_far import evaluations

STUDY = "optuna.db"


class Search(Sweeper):
    """Asks a study for points, has them worked on, and gives it their results.

    Args:
        trials: number of trials of the whole study, including those of earlier launches.
        parallel_trials: number of trials proposed together, before any of their results is known.
        startup_trials: number of trials drawn at random, and not pruned, to begin with.
        prune: stop trials early that are worse than the median.
        seed: seed of the proposals.
        params: option -> values, as on the command line, for experiment files.
    """

    def __init__(
        self,
        trials: int,
        parallel_trials: int,
        startup_trials: int,
        prune: bool,
        seed: int,
        params: Mapping[str, Any] | None = None,
    ):
        self._trials = trials
        self._parallel_trials = parallel_trials
        self._startup_trials = startup_trials
        self._prune = prune
        self._seed = seed
        self._params = dict(params or {})

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Take what Hydra hands to every sweeper."""
        launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )
        assert isinstance(launcher, QueueLauncher)  # as the command line has checked
        self._launcher = launcher
        self._config = config

    def sweep(self, arguments: list[str]) -> float:
        """Run the study to its end, print the options of the best trial, and return its value.

        Raises:
            SystemExit: interrupted, or no trial was completed.
        """
        import optuna

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        parser = OverridesParser.create()
        typed = parser.parse_overrides(arguments)
        keys = {override.key_or_group for override in typed}
        own = [f"{option}={values}" for option, values in self._params.items() if option not in keys]
        overrides = [*parser.parse_overrides(own), *typed]
        fixed = [str(override.input_line) for override in overrides if not override.is_sweep_override()]
        space = {o.get_key_element(): _distribution(o) for o in overrides if o.is_sweep_override()}
        folder = Path(self._config.hydra.sweep.dir)
        folder.mkdir(parents=True, exist_ok=True)
        study = _patiently(folder, self._study, folder)
        try:
            check_space(space, study.trials, folder)
        except LptError as error:
            raise SystemExit(report(error)) from None
        tell = partial(_patiently, folder, study.tell)
        while (done := len(_finished(study))) < self._trials:
            last = min(done + self._parallel_trials, self._trials)
            trials = [_patiently(folder, study.ask, space) for _ in range(last - done)]
            say(
                f"trial {done + 1} of {self._trials}"
                if last == done + 1
                else f"trials {done + 1} to {last} of {self._trials}"
            )
            watch = Watch(trials, self._config.task.metrics[0], folder) if self._prune else None
            points = [[*fixed, *_options(trial)] for trial in trials]
            returns = self._launcher.launch(points, done, watch, _command(folder), self._trials)
            for trial, result in zip(trials, returns, strict=True):
                if watch and trial.number in watch.pruned:
                    tell(trial, state=optuna.trial.TrialState.PRUNED)
                elif math.isnan(result.return_value):
                    tell(trial, state=optuna.trial.TrialState.FAIL)
                else:
                    tell(trial, result.return_value)
        if not any(trial.state == optuna.trial.TrialState.COMPLETE for trial in study.trials):
            status = f"lpt sweep status {shlex.quote(str(folder))}"
            raise SystemExit(report(LptError(f"no trial of the search was completed; to see why: {status}")))
        best = study.best_trial
        say(f"best of {len(_finished(study))} trials: {best.value:.4f} with {' '.join(_options(best))}")
        say(f"to run it again: {_run_command([*fixed, *_options(best)])}")
        return float(best.value)

    def _study(self, folder: Path) -> Any:
        import optuna

        storage = f"sqlite:///{(folder / STUDY).absolute()}"
        known = {summary.study_name for summary in optuna.get_all_study_summaries(storage)}
        begun = len(optuna.load_study(study_name=STUDY, storage=storage).trials) if STUDY in known else 0
        study = optuna.create_study(
            study_name=STUDY,
            storage=storage,
            load_if_exists=True,
            direction="maximize",
            # Another seed than before, lest the same proposals come again.
            sampler=optuna.samplers.TPESampler(seed=self._seed + begun, n_startup_trials=self._startup_trials),
            pruner=optuna.pruners.MedianPruner(n_startup_trials=self._startup_trials),
        )
        for trial in study.trials:
            if trial.state == optuna.trial.TrialState.RUNNING:  # interrupted: propose it again, to resume its point
                study.tell(trial.number, state=optuna.trial.TrialState.FAIL)
                study.enqueue_trial(trial.params, user_attrs={"instead_of": trial.number})
        return study


class Watch:
    """Reports the evaluations of running trials to their study, and says which to stop.

    Args:
        trials: the trials, in the order of their points.
        metric: the metric to compare by, on the validation rows.
        folder: the sweep folder.
    """

    def __init__(self, trials: Sequence[Any], metric: str, folder: Path):
        self._trials, self._folder = trials, folder
        self._column = f"validation/{metric}"
        self._seen: dict[int, int] = {}
        self.pruned: set[int] = set()

    def __call__(self, index: int, folder: Path) -> bool:
        """Whether to stop the point with this index, which runs in `folder`."""
        trial = self._trials[index]
        for step, value in evaluations(folder, self._column):
            if step > self._seen.get(trial.number, -1):
                self._seen[trial.number] = step
                _patiently(self._folder, trial.report, value, step)
                if _patiently(self._folder, trial.should_prune):
                    self.pruned.add(trial.number)
        return trial.number in self.pruned


def check_space(space: Mapping[str, Any], trials: Sequence[Any], folder: Path) -> None:
    """Raises LptError where an option was searched over other values before, which Optuna cannot mix."""
    before = {option: found for trial in trials for option, found in trial.distributions.items()}
    complaints = [
        f"{option} was searched over {_values(before[option])}, and now over {_values(wanted)}"
        for option, wanted in space.items()
        if option in before and not _compatible(before[option], wanted)
    ]
    if complaints:
        raise LptError(
            f"hydra.sweep.dir={folder} holds a search over other values: {'; '.join(complaints)}. Give the same "
            "values, or choose another folder"
        )


def _compatible(old: Any, new: Any) -> bool:
    from optuna.distributions import check_distribution_compatibility

    try:
        check_distribution_compatibility(old, new)
    except ValueError:
        return False
    return True


def _values(distribution: Any) -> str:
    choices = getattr(distribution, "choices", None)
    return f"{distribution.low}..{distribution.high}" if choices is None else ", ".join(map(str, choices))


def _patiently(folder: Path, call: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
    """As `patiently`, of something that Optuna does with its database."""
    from optuna.exceptions import StorageInternalError
    from sqlalchemy.exc import OperationalError

    return patiently(lambda: call(*arguments, **options), folder / STUDY, (StorageInternalError, OperationalError))


def _options(trial: Any) -> list[str]:
    """What a trial varies, as it is typed: values drawn from a list still are as they were written there."""
    return [f"{option}={value}" for option, value in trial.params.items()]


def _run_command(options: list[str]) -> str:
    """The command that runs a single point."""
    once = ["hydra.mode=RUN"] if any(text.startswith("experiment=") for text in options) else []  # its own may be -m
    flags = read_arguments(sys.argv[1:]).location_flags
    return shlex.join([*typed_program(), *flags, *options, *once])


def _command(folder: Path) -> str:
    """The command that was typed, with the folder, whose default name is the time."""
    where = f"hydra.sweep.dir={folder}"
    return shlex.join([*typed_program(), *sys.argv[1:], *([] if where in sys.argv else [where])])


def _finished(study: Any) -> list[Any]:
    """The trials that count: without interrupted ones, as others have taken their place."""
    replaced = {trial.user_attrs.get("instead_of") for trial in study.trials}
    return [trial for trial in study.trials if trial.state.is_finished() and trial.number not in replaced]


def _distribution(override: Override) -> Any:
    """The distribution for Optuna to draw from, for each of Hydra's ways to write several values."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    value: Any = override.value()
    if override.is_interval_sweep():
        whole = isinstance(value.start, int) and isinstance(value.end, int)
        return (IntDistribution if whole else FloatDistribution)(value.start, value.end, log="log" in value.tags)
    if override.is_range_sweep() and all(isinstance(x, int) for x in (value.start, value.stop, value.step)):
        numbers = range(value.start, value.stop, value.step)
        return IntDistribution(min(numbers), max(numbers), step=abs(value.step))
    return CategoricalDistribution(list(override.sweep_string_iterator()))
