"""Where a run writes, and how one is resumed."""

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from lpt import ranks
from lpt.config.explain import describe
from lpt.config.flags import assignment, parse, read_arguments
from lpt.config.resolve import schema_of, take_unknown
from lpt.errors import ConfigError
from lpt.latest import follow
from lpt.sweep.ledger import FILE as LEDGER

MAY_CHANGE = ("resume", "trainer", "logger", "cache")  # of a run, when it is resumed
FOLDERS = ("resume", "hydra.run.dir", "hydra.sweep.dir")
CONFIG = Path(".hydra") / "config.yaml"


def has_run(folder: Path) -> bool:
    """Whether a run was started in this folder."""
    return (folder / CONFIG).is_file()


def restore(folder: Path, overrides: Iterable[str]) -> DictConfig:
    """The configuration of the run in this folder, with these overrides on top.

    Raises:
        ConfigError: the file is damaged, or the overrides change what the run's checkpoints depend on.
    """
    try:
        config = OmegaConf.load(folder / CONFIG)
        assert isinstance(config, DictConfig)
    except (YAMLError, OmegaConfBaseException) as error:
        raise ConfigError([f"resume={folder}: {describe(error)}"]) from None
    _check_options(folder, config)
    overrides = list(overrides)
    complaints = _plugin_problems(folder, config, overrides)
    for text in overrides:
        override = parse(text)
        key, value = override.key_or_group, override.value()
        part, _, option = key.partition(".")
        if key == "plugins":
            config.plugins = value
        elif key == "backbone.path":
            complaints += _move_backbone(folder, config, value)
        elif part not in MAY_CHANGE or not (option or part == "resume" or isinstance(value, dict)):
            complaints.append(
                f"{override.input_line} cannot be given with resume={folder}: a run keeps what it was started with, "
                "except for trainer.*, logger.*, cache.* and the backbone.path of the same weights"
            )
        else:
            OmegaConf.update(config, key, value, force_add=True)
    if complaints:
        raise ConfigError(complaints)
    return config


def _move_backbone(folder: Path, config: DictConfig, path: Any) -> list[str]:
    """Have the run find its backbone elsewhere; its checkpoints know the weights that they belong to."""
    config.backbone.path, config.backbone.revision = path, None  # the revision was that of the other place
    if any((folder / "checkpoints").glob("*.ckpt")):
        return []
    return [f"backbone.path={path}: the run in {folder} has no checkpoint to compare the weights with; start it again"]


def _plugin_problems(folder: Path, config: DictConfig, overrides: list[str]) -> list[str]:
    """Code is run only if the person at the keyboard names it: a run folder may come from elsewhere."""
    saved = [str(file) for file in config.get("plugins") or ()]
    typed = any(text.startswith("plugins=") for text in overrides)
    if saved and not typed:
        wanted = f"plugins=[{','.join(saved)}]"
        return [
            f"resume={folder}: this run uses Python files of its own, which are run only if you name them: {wanted}"
        ]
    if typed and not saved:
        return [f"resume={folder}: this run uses no Python files of its own; remove plugins="]
    return []


def _check_options(folder: Path, config: DictConfig) -> None:
    """Raises ConfigError where the run's options are not those of this version."""
    plain = OmegaConf.to_container(config)
    assert isinstance(plain, dict)
    unknown = sorted(name for name, _ in take_unknown(plain, schema_of(plain)))
    if unknown:
        raise ConfigError(
            [
                f"resume={folder}: the run was started by another version of lpt, whose options {', '.join(unknown)} "
                "do not exist here; start it again (CHANGELOG.md lists the new names), or resume it with that version"
            ]
        )


def saved_config(cfg: DictConfig) -> DictConfig:
    """The configuration of the run that `resume` names, with this command's own values on top.

    Raises:
        ConfigError: as `restore`.
    """
    return restore(Path(cfg.resume), HydraConfig.get().overrides.task)


def resumed_if_requeued(argv: Sequence[str]) -> list[str]:
    """The command line, or, in a job that Slurm has started again, the one that resumes the run it has begun.

    The run is found by its folder, so `hydra.run.dir` must have been given.
    """
    given = [text for text in argv if text.startswith("hydra.run.dir=")]
    if not ranks.requeued() or not given:
        return list(argv)
    folder = Path(str(parse(given[-1]).value()))
    if not has_run(folder):
        return list(argv)
    return [assignment("resume", folder), *(text for text in argv if text.startswith("plugins="))]


def complete_arguments(argv: Sequence[str]) -> list[str]:
    """The command line with what is left unsaid.

    `resume=<folder>` also means: write into that folder, and leave the configuration saved there as it is. A
    `backbone.path` without a name is named by its last part, not by the backbone that it replaces. Files of `plugins`
    are found from anywhere. `runs/latest` is the run that it leads to now.
    """
    arguments = [_absolute_plugins(text) if text.startswith("plugins=") else _followed(text) for text in argv]
    keys = {}
    for text in read_arguments(arguments).overrides:
        override = parse(text)
        keys[override.key_or_group] = override
    resumed, path = keys.get("resume"), keys.get("backbone.path")
    if resumed is not None and resumed.value() is not None:
        arguments += [assignment("hydra.run.dir", str(resumed.value())), "hydra.output_subdir=null"]
    elif path is not None and not {"backbone", "backbone.name"} & keys.keys():
        swept = path.is_sweep_override()
        name = "'${path_name:${backbone.path}}'" if swept else path_name(str(path.value()))
        arguments.append(f"backbone.name={name}")
    return arguments


def _followed(text: str) -> str:
    option, _, _ = text.partition("=")
    if option not in FOLDERS:
        return text
    folder = Path(str(parse(text).value()))
    return assignment(option, follow(folder)) if folder.is_symlink() else text


def _absolute_plugins(text: str) -> str:
    files = ",".join(f"'{Path(file).expanduser().absolute()}'" for file in read_arguments([text]).plugins)
    return f"plugins=[{files}]"


def path_name(path: str) -> str:
    """What to call a backbone of which only the path is known: the last part of it."""
    last = path.partition("?")[0].rstrip("/").rpartition("/")[2].removesuffix(".gguf")
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", last).strip("-.") or "unnamed"
    return f"random-{name}" if path.startswith("random://") else name


def run_dir() -> Path:
    """The run folder that Hydra has made for this job."""
    return Path(HydraConfig.get().runtime.output_dir)


def sweep_name() -> str | None:
    """The sweep folder's name, where this job is part of one."""
    hydra = HydraConfig.get()
    if hydra.mode == RunMode.MULTIRUN:
        return Path(hydra.sweep.dir).name
    return run_dir().parent.name if (run_dir().parent / LEDGER).exists() else None


def point_name(argv: Sequence[str]) -> str | None:
    """Which point this job is of a sweep within one process, for messages; None, where it has a process of its own."""
    hydra = HydraConfig.get()
    if hydra.mode != RunMode.MULTIRUN:
        return None
    swept = swept_options(argv, hydra.sweeper.get("params"))
    values = [text for text in hydra.overrides.task if text.lstrip("+").partition("=")[0] in swept]
    return f"point {hydra.job.num} ({' '.join(values)}): "


def swept_options(argv: Sequence[str], params: Mapping[str, Any] | None) -> list[str]:
    """What varies in the sweep that `argv` starts, `params` being the sweeper's own."""
    swept = dict.fromkeys(params or {})
    for text in read_arguments(argv).overrides:
        override = parse(text)
        if override.is_sweep_override():
            swept[override.key_or_group] = None
    return list(swept)


def config_folder() -> str | None:
    """Where Hydra saves the configuration, within the run folder: one process of a run does."""
    return ".hydra" if ranks.is_first() else None


def register_resolvers() -> None:
    """Have configurations know `${config_folder:}`, `${common_name:...}` and `${path_name:...}`."""
    OmegaConf.register_new_resolver("config_folder", config_folder, replace=True)
    OmegaConf.register_new_resolver("common_name", ranks.common_name, replace=True)
    OmegaConf.register_new_resolver("path_name", path_name, replace=True)
