"""Read the configuration that a run has left in its folder, under `.hydra/`."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

from omegaconf import MISSING, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from lpt.config.schema import Config


def read_saved_config(folder: Path) -> dict[str, Any]:
    """Return a run's options, nested by group, with references such as `fewshot.seed: ${seed}` resolved.

    Empty where the folder has no configuration that can be read.
    """
    return _read(folder / ".hydra" / "config.yaml") or {}


def read_saved_overrides(folder: Path) -> list[str]:
    """Return what a run's command line said, as `option=value`; nothing where that cannot be read."""
    return [str(override) for override in _read(folder / ".hydra" / "overrides.yaml") or []]


def default_config() -> dict[str, Any]:
    """Return the default of every option that has one, nested by group."""
    return _without_missing(asdict(Config()))


def _read(path: Path) -> Any:
    try:
        return OmegaConf.to_container(OmegaConf.load(path), resolve=True)
    except (OSError, YAMLError, OmegaConfBaseException):
        return None


def _without_missing(options: dict[str, Any]) -> dict[str, Any]:
    return {
        name: _without_missing(value) if isinstance(value, dict) else value
        for name, value in options.items()
        if value != MISSING
    }
