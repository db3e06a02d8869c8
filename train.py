"""Train and test a late prompt: `python train.py [group=choice] [option=value] ...`; `--help` shows them all."""

import sys

import hydra
from omegaconf import DictConfig

from lpt.config import (
    check_command_line,
    exit_with,
    resolve,
    resume_arguments,
    run_dir,
    saved_config,
    sweep_name,
)
from lpt.errors import LptError


@hydra.main(version_base="1.3", config_path="conf", config_name="config")
def main(cfg: DictConfig) -> float:
    """One run; returns the primary metric on the validation rows, for sweepers to maximise."""
    from lpt.runner import run  # here, so that --help and bad options do not wait for torch

    try:
        config = resolve(saved_config(cfg) if cfg.resume else cfg)
        result = run(config, run_dir(), sweep_name())
    except LptError as error:
        if sweep_name() is None:
            exit_with(error)
        raise  # the sweep goes on with its other points and fails at its end
    return result["metrics"]["validation"][result["primary_metric"]]


if __name__ == "__main__":
    try:
        check_command_line(sys.argv[1:])
    except LptError as error:
        exit_with(error)
    sys.argv[1:] = resume_arguments(sys.argv[1:])
    main()
