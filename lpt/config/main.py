"""The command that trains: `python train.py`, `lpt train` and `python -m lpt.training`."""

import math
import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from lpt import IMPORTED, ranks
from lpt.config.command_line import check_command_line, report
from lpt.config.flags import assignment, read_arguments
from lpt.config.help import show_help
from lpt.config.own_data import from_own_data
from lpt.config.place import CONF_DIR, typed_program
from lpt.config.resolve import resolve
from lpt.config.resume import (
    complete_arguments,
    point_name,
    resumed_if_requeued,
    run_dir,
    saved_config,
    sweep_name,
)
from lpt.config.schema import Config
from lpt.data.folds import folds
from lpt.data.splits import Splits, read_rows
from lpt.errors import LptError
from lpt.latest import point_latest
from lpt.training.complete import completed, describe
from lpt.training.result import write_failure
from lpt.training.stop import Interrupted

INTERRUPTED = 130  # exit status, as shells have it: 128 + SIGINT


class Training:
    """What Hydra calls for each run of a command line, and hands to the launcher of a sweep.

    Args:
        started: `time.perf_counter()` when the process began.

    Attributes:
        exit_status: 0 until a run of a sweep has failed, whether in this process or in one of its own.
    """

    def __init__(self, started: float | None = None) -> None:
        self.exit_status = 0
        self._started = started

    def note_failure(self, exit_status: int) -> None:
        """A run has failed; the sweep continues with the others."""
        self.exit_status = max(self.exit_status, exit_status)

    def __call__(self, cfg: DictConfig) -> float:
        """Train and test once.

        Returns:
            The primary metric on the validation rows, for sweepers to maximize; NaN for a run of a sweep that failed.

        Raises:
            SystemExit: the only run has failed, or an interruption.
        """
        folder, started, self._started = run_dir(), self._started, None  # of a process with several runs, the first's
        try:
            config = resolve(saved_config(cfg) if cfg.resume else cfg)
            done = completed(folder, config, HydraConfig.get().overrides.task) if cfg.resume else None
            if done is not None:
                if ranks.is_first():
                    print(describe(done, folder, config, _resume_command(folder)))
                return done.objective
            if ranks.is_first() and sweep_name() is None:
                point_latest(folder)
            # Before torch is imported, so that what is wrong with the user's own files is told within a second.
            rows = _read_own_rows(config, folder)
            _say_what_is_loaded(config)
            return self._run(config, folder, rows, started)
        except LptError as error:
            point = point_name(sys.argv[1:])
            if point is None:
                raise SystemExit(report(error)) from None
            self.note_failure(report(error, point))
            return math.nan

    def _run(self, config: Config, folder: Path, rows: Splits | None, started: float | None) -> float:
        try:
            from lpt.training.run import run  # here, so that --help and bad options do not wait for torch

            return run(config, folder, sweep_name(), rows, started).objective
        except Interrupted as interruption:
            if not _requeue(interruption.number):
                _say_how_to_resume(folder)
            raise SystemExit(interruption.exit_status) from None
        except (KeyboardInterrupt, SystemExit):  # the second is how Lightning ends after Ctrl-C
            _say_how_to_resume(folder)
            raise SystemExit(INTERRUPTED) from None


def main() -> None:
    """Check the command line in `sys.argv`, and train.

    Raises:
        SystemExit: always, unless all went well: 2 for a bad configuration, 1 where a run failed, 130 if interrupted.
    """
    try:
        sys.argv[1:], told = from_own_data(sys.argv[1:])
        if read_arguments([text for text in sys.argv[1:] if text != "all"])["help"]:
            print(show_help(sys.argv[1:], " ".join(typed_program())), end="")
            return
        sys.argv[1:] = resumed_if_requeued(sys.argv[1:])
        check_command_line(sys.argv[1:])
    except LptError as error:
        raise SystemExit(report(error)) from None
    if told and ranks.is_first():
        print("\n".join(told), flush=True)
    arguments = complete_arguments(sys.argv[1:])
    # Once more with absolute paths, for what starts again elsewhere: of a flag given twice the last counts.
    sys.argv[1:] = [*arguments, *read_arguments(arguments).location_flags]
    training = Training(IMPORTED)
    hydra.main(version_base="1.3", config_path=str(CONF_DIR), config_name="config")(training)()
    if training.exit_status:
        raise SystemExit(training.exit_status)


def _say_what_is_loaded(config: Config) -> None:
    """Tell at once, since loading PyTorch and the weights takes seconds."""
    if ranks.is_first():
        what = f"task={config.task.name} backbone={config.backbone.name} method={config.method.name}"
        print(f"loading {what}{'' if config.resume is None else ', to resume it'} ...", flush=True)


def _read_own_rows(config: Config, folder: Path) -> Splits | None:
    """The rows of the user's own files; None where they come from elsewhere."""
    if config.task.source not in ("tsv", "files"):
        return None
    try:
        rows = read_rows(config.task, config.fewshot)
        if config.fewshot.folds is not None:
            list(folds(rows, config.fewshot.folds, config.task.classes, config.fewshot.seed))  # whether there are any
        return rows
    except LptError as error:
        if ranks.is_first():
            write_failure(folder, config, error)
        raise


def _requeue(number: int) -> bool:
    """Ask Slurm to start this job again, where SIGUSR1 has announced its end; says so. Returns whether it will."""
    job = os.environ.get("SLURM_JOB_ID")
    if number != signal.SIGUSR1 or job is None:
        return False
    if not ranks.is_first():
        return True
    try:
        subprocess.run(["scontrol", "requeue", job], check=True, capture_output=True, timeout=20)
    except (OSError, subprocess.SubprocessError):
        return False
    print(f"\ninterrupted; Slurm starts job {job} again, which resumes the run", file=sys.stderr)
    return True


def _say_how_to_resume(folder: Path) -> None:
    if ranks.is_first():
        print(f"\ninterrupted; resume with: {_resume_command(folder)}", file=sys.stderr)


def _resume_command(folder: Path) -> str:
    plugins = [text for text in sys.argv[1:] if text.startswith("plugins=")][:1]
    return shlex.join([*typed_program(), assignment("resume", folder), *plugins])
