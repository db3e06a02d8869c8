"""The command line that trains: all complaints before anything is written, `--help`, and `resume=`.

Besides `lpt.config.main`, the only place that knows how Hydra runs.
"""

import dataclasses
import inspect
import re
import sys
import textwrap
from argparse import Namespace
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any, get_type_hints

from hydra import compose, version
from hydra._internal.hydra import Hydra
from hydra._internal.utils import create_config_search_path, get_args_parser
from hydra.core.config_loader import ConfigLoader
from hydra.core.config_search_path import SearchPathQuery
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import IntervalSweep, Override
from hydra.errors import HydraException, MissingConfigException
from hydra.types import RunMode
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from lpt import ranks
from lpt.config.schema import (
    CONF_DIR,
    Config,
    LocalQueueConfig,
    OptunaConfig,
    SubmititSlurmConfig,
    TrainerConfig,
    describe,
    hint_of,
    resolve,
)
from lpt.data.tasks import SOURCES
from lpt.errors import ConfigError, LptError, did_you_mean
from lpt.sweep.ledger import FILE as LEDGER

MAY_CHANGE = ("resume", "trainer", "logger", "cache")  # of a run, when it is resumed
UNREADABLE = (HydraException, OmegaConfBaseException, YAMLError, ValueError)  # what composing can fail with


def check_command_line(argv: Sequence[str], conf_dir: Path = CONF_DIR) -> None:
    """Complain about everything that is wrong with a command line, at once, before anything is written.

    Hydra stops at the first bad override, and knows neither ranges nor the other points of a sweep.

    Raises:
        ConfigError: with one complaint per bad flag, override or value.
    """
    arguments = _read_flags(argv)
    if arguments.help or arguments.hydra_help or arguments.shell_completion:
        return
    with _hydra(arguments, conf_dir) as loader:
        complaints = dict.fromkeys(_complaints(arguments, loader))  # in order, each once
    if complaints:
        raise ConfigError(complaints)


def compose_config(overrides: Sequence[str]) -> DictConfig:
    """What `train.py` would run with these overrides, for other commands.

    Raises:
        ConfigError: as `check_command_line`; or flags, which are train.py's alone.
    """
    complaints, plain = [], []
    for text in overrides:
        key, _, values = text.partition("=")
        if text.startswith("-"):
            complaints.append(f"{text}: only options, <name>=<value>, go here")
        elif _sweeps(text):
            complaints.append(
                f"{text}: one value goes here; to measure several: bench.vary={key} bench.values=[{values}]"
            )
        else:
            plain.append(text)
    try:
        check_command_line(plain)
    except ConfigError as error:
        complaints += error.complaints
    if complaints:
        raise ConfigError(complaints)
    (cfg,) = compose_points([overrides])
    return cfg


def compose_points(points: Iterable[Sequence[str]], flags: Sequence[str] = ()) -> list[DictConfig]:
    """What `train.py <flags>` would run with each of these lists of overrides.

    Raises:
        ConfigError: one of them cannot be composed.
    """
    arguments = _read_flags(flags)
    with _hydra(arguments, CONF_DIR) as loader:
        composed = [_compose_good(list(overrides), arguments, loader) for overrides in points]
    complaints = dict.fromkeys(text for _, texts in composed for text in texts)
    if complaints:
        raise ConfigError(complaints)
    return [plain_config(cfg) for cfg, _ in composed if cfg is not None]


def _sweeps(text: str) -> bool:
    try:
        return _parse(text).is_sweep_override()
    except HydraException:
        return False


def _read_flags(argv: Sequence[str]) -> Namespace:
    parser = get_args_parser()
    arguments, unknown = parser.parse_known_args(argv)
    complaints = []
    for text in unknown:
        if text.startswith("-"):
            flags = [action.option_strings[0] for action in parser._actions if action.option_strings]
            complaints.append(f"{text}: there is no such flag; --hydra-help lists them{did_you_mean(text, flags)}")
        else:
            complaints.append(f"{text}: flags such as -m go before the first or after the last option, not between")
    commands = ("run", "multirun", "cfg", "info")
    given = [f"--{command}" for command in commands if getattr(arguments, command)]
    if len(given) > 1:
        complaints.append(f"{' '.join(given)}: these flags exclude each other; keep one")
    if arguments.resolve and not arguments.cfg:
        complaints.append("--resolve goes with --cfg or --help")
    if arguments.config_dir and not Path(arguments.config_dir).is_dir():
        complaints.append(f"--config-dir {arguments.config_dir}: there is no such folder")
    if complaints:
        raise ConfigError(complaints)
    return arguments


@contextmanager
def _hydra(arguments: Namespace, conf_dir: Path) -> Iterator[ConfigLoader]:
    """Hydra as `train.py` is going to start it, to compose with."""
    version.setbase("1.3")
    if arguments.config_path:
        conf_dir = conf_dir.parent / arguments.config_path
    search_path = create_config_search_path(str(conf_dir))
    if arguments.config_dir:
        folder = f"file://{Path(arguments.config_dir).absolute()}"
        search_path.prepend("command-line", folder, anchor=SearchPathQuery(provider="schema"))
    GlobalHydra.instance().clear()
    try:
        yield Hydra.create_main_hydra2("train", search_path).config_loader
    finally:
        GlobalHydra.instance().clear()


def _complaints(arguments: Namespace, loader: ConfigLoader) -> Iterator[str]:
    overrides, complaints = _read_overrides(arguments, loader)
    yield from complaints
    points = [_points(override) for override in overrides]
    cfg, complaints = _compose_good([values[0] for values in points], arguments, loader)
    yield from complaints
    if cfg is None:
        return
    sweeps = arguments.multirun or cfg.hydra.mode == RunMode.MULTIRUN
    for override in overrides:
        if override.is_sweep_override() and not sweeps:
            yield (
                f"{override.input_line}: several values need the flag -m, which runs one after the other; "
                "a list goes in brackets, a text with a comma in quotes within quotes"
            )
        elif override.is_interval_sweep() and cfg.hydra.sweeper._target_.endswith(".BasicSweeper"):
            yield f"{override.input_line}: hydra/sweeper=basic runs values one by one; list them, or use range(...)"
    if arguments.cfg or arguments.info:
        return
    yield from _misfits(cfg, sweeps)
    if sweeps and (params := cfg.hydra.sweeper.get("params")):  # an experiment file's own sweep
        given = {override.key_or_group for override in overrides}
        own = [_points(_parse(f"{key}={value}", loader)) for key, value in params.items() if key not in given]
        points = [[values[0], *values] for values in own] + points
    for i, values in enumerate(points):
        for value in values[1:]:
            point = [others[0] for others in points]
            point[i] = value
            cfg, complaints = _compose_good(point, arguments, loader)
            yield from complaints
            if cfg is not None:
                yield from _misfits(cfg, sweeps)


def _read_overrides(arguments: Namespace, loader: ConfigLoader) -> tuple[list[Override], list[str]]:
    """The overrides that can be made sense of, and a complaint for each of the others."""
    overrides, complaints = [], []
    for text in arguments.overrides:
        try:
            override = _parse(text, loader)
        except HydraException:
            complaints.append(f"{text}: {_how_to_write(text)}")
            continue
        key = override.key_or_group
        if not key:
            complaints.append(f"{text}: {_how_to_write('option')}")
        elif override.is_delete() and hint_of(key) not in (None, Any):
            complaints.append(f"{text}: an option cannot be taken away; give it another value")
        elif isinstance(override.value(), list) and _is_group(text, loader):
            complaints.append(
                f"{text}: choose one {key}; to run one after the other, leave out the brackets and add the flag -m"
            )
        elif not _points(override):
            complaints.append(f"{text}: stands for no value at all")
        else:
            overrides.append(override)
    return overrides, complaints


def _parse(text: str, loader: ConfigLoader | None = None) -> Override:
    (override,) = OverridesParser.create(loader).parse_overrides([text])
    return override


def _how_to_write(text: str) -> str:
    key, equals, value = text.partition("=")
    if not equals:
        return f"an option is written {text}=<value>"
    if value.startswith("~"):
        return "write $HOME instead of ~"
    quoted = value.replace('"', '\\"')
    return f"this value needs quotes within quotes: '{key}=\"{quoted}\"'"


def _points(override: Override) -> list[str]:
    """The override itself, or one per value where it sweeps."""
    text = str(override.input_line)
    if not override.is_sweep_override():
        return [text]
    prefix, value = text.partition("=")[0], override.value()
    if isinstance(value, IntervalSweep):
        return [f"{prefix}={value.start}", f"{prefix}={value.end}"]  # for sweepers that sample
    return [f"{prefix}={value}" for value in override.sweep_string_iterator()]


def _compose(overrides: list[str], arguments: Namespace) -> DictConfig:
    return compose(arguments.config_name or "config", overrides=overrides, return_hydra_config=True)


def _compose_good(
    overrides: list[str], arguments: Namespace, loader: ConfigLoader
) -> tuple[DictConfig | None, list[str]]:
    """The composition of what is right in `overrides`, and a complaint for each of the others."""
    try:
        return _compose(overrides, arguments), []
    except UNREADABLE as error:
        failure = error
    complaints: dict[str, str] = {}  # by override
    groups = [override for override in overrides if _is_group(override, loader)]
    for override in sorted(overrides, key=lambda override: override not in groups):
        # Groups first: the others' options depend on them.
        chosen = [] if override in groups else [group for group in groups if group not in complaints]
        try:
            _compose([*chosen, override], arguments)
        except UNREADABLE as error:
            complaints[override] = _explain(override, error, loader)
    if not complaints:
        return None, [_explain("", failure, loader)]
    cfg, more = _compose_good([override for override in overrides if override not in complaints], arguments, loader)
    return cfg, [*(complaints[override] for override in overrides if override in complaints), *more]


def _misfits(cfg: DictConfig, sweeps: bool) -> list[str]:
    """What is wrong with a composition: values, and the folder where it would write."""
    hydra, complaints = cfg.hydra, []
    try:
        complaints += _value_problems(cfg, sweeps)
        option = "resume" if cfg.get("resume") is not None else "hydra.sweep.dir" if sweeps else "hydra.run.dir"
        folder = Path(OmegaConf.select(cfg, option))
    except OmegaConfBaseException as error:
        return [*complaints, describe(error)]
    writes_config = hydra.output_subdir is not None  # not when resuming, nor in the other processes of a run
    new = writes_config and option != "resume" and not (sweeps and (folder / LEDGER).exists())
    return [*complaints, *_folder_problems(option, folder, new)]


def _value_problems(cfg: DictConfig, sweeps: bool) -> list[str]:
    """What is wrong with the values of a composition, or with how it was started."""
    hydra, resumed, complaints = cfg.hydra, cfg.get("resume"), []
    try:
        if resumed is None:
            config = resolve(plain_config(cfg))
        elif sweeps:
            complaints.append(f"resume={resumed} cannot be combined with -m; go on with one run at a time")
        elif (Path(resumed) / ".hydra" / "config.yaml").is_file():
            config = resolve(_saved(Path(resumed), hydra.overrides.task))
        else:
            complaints.append(f"resume={resumed}: there is no run in that folder (.hydra/config.yaml is missing)")
        if sweeps:
            complaints += _launcher_problems(hydra.launcher, hydra.sweeper)
        if not complaints:
            trainer = config.trainer
            complaints += (
                _start_problems(trainer, hydra.launcher) if sweeps else ranks.problems(trainer.nodes, trainer.devices)
            )
    except ConfigError as error:
        complaints += error.complaints
    return complaints


def _is_ours(plugin: DictConfig) -> bool:
    return plugin._target_.startswith("hydra_plugins.lpt.")


def _launcher_problems(launcher: DictConfig, sweeper: DictConfig) -> Iterator[str]:
    if _is_ours(sweeper):
        if not _is_ours(launcher):
            yield "hydra/sweeper=optuna needs hydra/launcher=local_queue"
        if find_spec("optuna") is None:
            yield "hydra/sweeper=optuna needs the package optuna: pip install 'lpt[optuna]'"
        yield from _too_small("hydra.sweeper", sweeper, {"trials": 1, "parallel_trials": 1, "startup_trials": 1})
    if _is_ours(launcher):
        if "cluster" in launcher and find_spec("submitit") is None:
            yield "hydra/launcher=submitit_slurm needs the package submitit: pip install 'lpt[slurm]'"
        yield from _too_small("hydra.launcher", launcher, {"workers": 1, "retries": 0, "grace_period": 0})


def _too_small(prefix: str, options: DictConfig, bounds: Mapping[str, int]) -> Iterator[str]:
    for name, lowest in bounds.items():
        value = options.get(name)
        if value is not None and not value >= lowest:
            yield f"{prefix}.{name}={value} must be at least {lowest}"


def _start_problems(trainer: TrainerConfig, launcher: DictConfig) -> Iterator[str]:
    """Why the processes of a point cannot be started by this launcher, or the launcher as it was."""
    if ranks.started_together(nodes=1):
        yield "-m starts the processes of each point itself; run it as one process, outside srun and torchrun"
    if trainer.nodes > 1 and launcher.get("cluster") != "slurm":
        yield (
            f"trainer.nodes={trainer.nodes} with -m needs a cluster, hydra/launcher=submitit_slurm: this launcher "
            "works on one machine"
        )
    elif trainer.devices > 1 and not _is_ours(launcher):
        yield (
            f"trainer.devices={trainer.devices} needs hydra/launcher=local_queue with -m: under another "
            "launcher each device's process would start the whole sweep again"
        )


def plain_config(cfg: DictConfig) -> DictConfig:
    """A composition without what Hydra has it for."""
    cfg = cfg.copy()
    OmegaConf.set_struct(cfg, False)
    del cfg["hydra"]
    return cfg


def _folder_problems(option: str, folder: Path, new: bool) -> Iterator[str]:
    """Why a folder cannot be made or written to, or, if it must be `new`, what would be lost."""
    existing = folder.absolute()
    while not existing.exists() and existing != existing.parent:
        existing = existing.parent
    try:
        with TemporaryFile(dir=existing):
            pass
    except OSError as error:
        yield f"{option}={folder}: cannot write in {existing} ({error.strerror}); choose another folder"
        return
    if new and ((folder / ".hydra").exists() or any(folder.glob("*/.hydra"))):
        remedy = f", or go on with it by resume={folder}" if option == "hydra.run.dir" else ""
        yield f"{option}={folder} already holds a run; choose another folder{remedy}"


# Hydra's errors in the user's terms


def _explain(override: str, error: Exception, loader: ConfigLoader) -> str:
    """What is wrong with an override (or, if it is empty, with a file), and the nearest that would be right."""
    group, _, name = override.lstrip("+").partition("=")
    if isinstance(error, MissingConfigException) and error.options is not None:  # maybe one that a file chooses
        group, _, name = str(error.missing_cfg_file).partition("/")
        if group == "hydra":
            group, _, name = str(error.missing_cfg_file).rpartition("/")
    elif not _is_group(override, loader):
        return describe(error, override)
    known = _choices(group, loader)
    if name in known:
        if override.startswith("+"):
            return f"{override}: write {group}={name}; + is for what is not there yet"
        return describe(error, override)
    if not known:
        return f"{override}: there is no {group} {name!r} and no other either; add one as conf/{group}/{name}.yaml"
    return f"{override}: there is no {group} {name!r}; choose one of {', '.join(known)}{did_you_mean(name, known)}"


def _is_group(override: str, loader: ConfigLoader) -> bool:
    """Whether it chooses a file; `optim={lr: 1e-4}` sets options."""
    key, _, value = override.lstrip("+").partition("=")
    return bool(key) and not value.startswith("{") and (key == "experiment" or bool(_choices(key, loader)))


def _choices(group: str, loader: ConfigLoader) -> list[str]:
    """What a group offers, folders within it included."""
    names = loader.get_group_options(group)
    for folder in loader.list_groups(group):
        names += [f"{folder}/{name}" for name in _choices(f"{group}/{folder}", loader)]
    return names


# What `--help` shows


def describe_options(*, _root_: DictConfig) -> str:
    """Every option as it stands, with its meaning: the comment beneath it in the schema."""
    lines = [*_option_lines(Config, _root_, "")]
    for part, chosen in (("launcher", HydraConfig.get().launcher), ("sweeper", HydraConfig.get().sweeper)):
        for schema in (LocalQueueConfig, SubmititSlurmConfig, OptunaConfig):
            if chosen._target_ == schema._target_:
                lines += [f"\n{schema.__doc__}", *_option_lines(schema, chosen, f"hydra.{part}.")]
    return "\n".join(lines).replace("$", "$$")  # Hydra fills in $names


def _option_lines(schema: type, values: Any, prefix: str) -> Iterator[str]:
    meanings = _meanings(schema)
    for name, hint in get_type_hints(schema).items():
        if dataclasses.is_dataclass(hint):
            if prefix == "":
                yield f"\n{hint.__doc__}"
            if name in SOURCES and name != values.source:
                continue  # of four sources one is read
            yield from _option_lines(hint, values[name], f"{prefix}{name}.")  # type: ignore[arg-type]
        elif name not in ("experiment", "_target_"):
            option = f"  {prefix}{name}={_as_typed(values[name])}"
            if prefix == "" and name == "seed":
                yield ""
            yield from _beside(option, meanings.get(name, ""))


def _meanings(schema: type) -> dict[str, str]:
    """What the comments of a dataclass say beneath its fields."""
    meanings: dict[str, str] = {}
    for cls in schema.__mro__[-2::-1]:
        name = ""
        for line in inspect.getsource(cls).splitlines():
            if found := re.match(r"    (\w+): ", line):
                name = found[1]
                meanings.pop(name, None)  # of a class above
            elif name and line.startswith("    # "):
                meanings[name] = f"{meanings.get(name, '')} {line[6:]}".strip()
            else:
                name = ""
    return meanings


def _as_typed(value: Any) -> str:
    """A value as the command line takes it, but for quotes."""
    if isinstance(value, ListConfig):
        return f"[{','.join(map(_as_typed, value))}]"
    if isinstance(value, DictConfig):
        return "{" + ", ".join(f"{key!s}: {_as_typed(item)}" for key, item in value.items()) + "}"
    return {"None": "null", "True": "true", "False": "false"}.get(str(value), str(value))


def _beside(option: str, meaning: str, column: int = 36, width: int = 118) -> list[str]:
    lines = textwrap.wrap(meaning, width - column)
    if len(option) < column:
        first, *lines = lines or [""]
        return [f"{option:<{column}}{first}".rstrip(), *(" " * column + line for line in lines)]
    return [option, *(" " * column + line for line in lines)]


OmegaConf.register_new_resolver("options", describe_options, replace=True)


# Where a run writes, and going on with one


def config_folder() -> str | None:
    """Where Hydra saves the configuration, within the run folder: one process of a run does."""
    return ".hydra" if ranks.is_first() else None


OmegaConf.register_new_resolver("config_folder", config_folder, replace=True)
OmegaConf.register_new_resolver("common_name", ranks.common_name, replace=True)


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
    for override in OverridesParser.create().parse_overrides(_read_flags(argv).overrides):
        if override.is_sweep_override():
            swept[override.key_or_group] = None
    return list(swept)


def point_flags(argv: Sequence[str]) -> list[str]:
    """The flags that each point of the sweep that `argv` starts needs too: where its configuration lies."""
    arguments = _read_flags(argv)
    flags = []
    for name in ("config_path", "config_name", "config_dir"):
        value = getattr(arguments, name)
        if name == "config_dir" and value is not None:
            value = str(Path(value).absolute())  # sweeps are resumed from anywhere
        elif name == "config_path" and value is not None:
            value = str(CONF_DIR.parent / value)
        if value is not None:
            flags += [f"--{name.replace('_', '-')}", value]
    return flags


def resume_arguments(argv: Sequence[str]) -> list[str]:
    """`resume=<folder>` also means: write into that folder, and leave the configuration saved there as it is."""
    arguments = list(argv)
    for override in OverridesParser.create().parse_overrides(_read_flags(argv).overrides):
        if override.key_or_group == "resume" and override.value() is not None:
            folder = str(override.value()).replace("'", "\\'")
            arguments += [f"hydra.run.dir='{folder}'", "hydra.output_subdir=null"]
    return arguments


def saved_config(cfg: DictConfig) -> DictConfig:
    """The configuration of the run that `resume` names, with this command's own values on top.

    Raises:
        ConfigError: the command also changes what its checkpoints depend on.
    """
    return _saved(Path(cfg.resume), HydraConfig.get().overrides.task)


def _saved(folder: Path, overrides: Iterable[str]) -> DictConfig:
    try:
        config = OmegaConf.load(folder / ".hydra" / "config.yaml")
    except YAMLError as error:
        raise ConfigError([f"resume={folder}: {describe(error)}"]) from None
    assert isinstance(config, DictConfig)
    complaints = []
    for override in OverridesParser.create().parse_overrides(list(overrides)):
        key, value = override.key_or_group, override.value()
        part, _, option = key.partition(".")
        if part not in MAY_CHANGE or not (option or part == "resume" or isinstance(value, dict)):
            complaints.append(
                f"{override.input_line} cannot be given with resume={folder}: a run keeps what it was started with, "
                "but for trainer.*, logger.* and cache.*"
            )
        else:
            OmegaConf.update(config, key, value, force_add=True)
    if complaints:
        raise ConfigError(complaints)
    return config


def report(error: LptError, where: str = "") -> int:
    """Print the message alone; returns the exit status: 2 for a bad configuration, 1 for the rest.

    A bad configuration is bad for every process of a run; the rest may be so on one node alone.
    """
    bad_configuration = isinstance(error, ConfigError)
    if ranks.speaks() or not bad_configuration:
        print(f"error: {ranks.whose()}{where}{error}", file=sys.stderr, flush=True)
    return 2 if bad_configuration else 1
