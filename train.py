"""Train and test a late prompt: `python train.py [group=choice] [option=value] ...`; `--help` shows them all."""

import math
import sys

import hydra
from omegaconf import DictConfig

from lpt import ranks
from lpt.config.command_line import check_command_line, report
from lpt.config.resolve import resolve
from lpt.config.resume import complete_arguments, point_name, run_dir, saved_config, sweep_name
from lpt.errors import LptError
from lpt.sweep import launcher

failures: list[int] = []  # exit status of each point that has failed under another launcher than ours


@hydra.main(version_base="1.3", config_path="conf", config_name="config")
def main(cfg: DictConfig) -> float:
    """One run; returns the primary metric on the validation rows, for sweepers to maximize."""
    from lpt.training.run import run  # here, so that --help and bad options do not wait for torch

    try:
        config = resolve(saved_config(cfg) if cfg.resume else cfg)
        result = run(config, run_dir(), sweep_name())
    except LptError as error:
        point = point_name(sys.argv[1:])
        if point is None:
            raise SystemExit(report(error)) from None
        failures.append(report(error, point))
        return math.nan  # the sweep goes on with its other points
    except (KeyboardInterrupt, SystemExit):  # the second is how Lightning ends after Ctrl-C
        if ranks.is_first():
            print(f"\ninterrupted; go on with: python train.py resume='{run_dir()}'", file=sys.stderr)
        raise SystemExit(130) from None
    return result.objective


if __name__ == "__main__":
    try:
        check_command_line(sys.argv[1:])
    except LptError as error:
        raise SystemExit(report(error)) from None
    sys.argv[1:] = complete_arguments(sys.argv[1:])
    main()
    sys.exit(max(failures, default=1 if launcher.failures else 0))
