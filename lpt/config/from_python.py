"""A run that Python starts instead of a command line: checked, composed, and put down in its folder like any other."""

from collections.abc import Sequence
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from lpt.config.command_line import check_command_line
from lpt.config.compose import composer, plain_config
from lpt.config.flags import read_arguments
from lpt.config.resolve import resolve
from lpt.config.resume import CONFIG, complete_arguments, restore
from lpt.config.schema import Config
from lpt.errors import ConfigError
from lpt.files import write_text


def compose_run(overrides: Sequence[str]) -> tuple[Config, Path]:
    """The configuration and the folder of a run, which is made, with the configuration in it.

    Raises:
        ConfigError: whatever is wrong with the overrides; flags, or several processes, which only a command can have.
    """
    flags = [text for text in overrides if text.startswith("-")]
    if flags:
        raise ConfigError(
            [f"{text}: flags are for the command line; from Python, call train once for each run" for text in flags]
        )
    check_command_line(overrides)
    completed = complete_arguments(overrides)
    with composer(read_arguments(completed)) as hydra:
        cfg = hydra.compose(completed)
    folder = Path(OmegaConf.select(cfg, "hydra.run.dir"))
    plain = plain_config(cfg) if cfg.resume is None else restore(Path(cfg.resume), overrides)
    config = resolve(plain)
    if config.trainer.processes > 1:
        raise ConfigError(
            [f"trainer.devices={config.trainer.devices}: from Python a run has one process; use the command lpt train"]
        )
    folder.mkdir(parents=True, exist_ok=True)
    if cfg.resume is None:
        _put_down(folder, plain, overrides)
    return config, folder


def _put_down(folder: Path, cfg: DictConfig, overrides: Sequence[str]) -> None:
    write_text(folder / CONFIG, OmegaConf.to_yaml(cfg))
    write_text(folder / CONFIG.parent / "overrides.yaml", OmegaConf.to_yaml(list(overrides)))
