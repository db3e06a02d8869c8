"""All that is wrong with a command line, at once, before anything is written and before torch is imported.

Hydra stops at the first bad override, and knows neither ranges nor the other points of a sweep.
"""

import shlex
import sys
from collections.abc import Iterable, Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

from hydra.core.override_parser.types import IntervalSweep, Override
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from lpt import ranks
from lpt.config.compose import Composer, compose_points, composer, plain_config
from lpt.config.explain import describe
from lpt.config.fields import Schema, fields_of, values_problems
from lpt.config.flags import Arguments, assignment, parse, read_arguments
from lpt.config.resolve import resolve
from lpt.config.resume import has_run, restore
from lpt.config.schema import PLUGIN_SCHEMAS, TrainerConfig
from lpt.errors import ConfigError, LptError
from lpt.sweep.ledger import FILE as LEDGER
from lpt.training.result import is_taken

ONE_VALUE = (
    "several values need the flag -m, which runs one after the other; a list goes in brackets, a text with a comma in "
    "quotes within quotes"
)


def check_command_line(argv: Sequence[str]) -> None:
    """Complain about everything that is wrong with a command line.

    Raises:
        ConfigError: with one complaint per bad flag, override or value.
    """
    arguments = read_arguments(argv)
    if arguments["help"] or arguments["hydra_help"] or arguments["shell_completion"] or arguments["version"]:
        return
    with composer(arguments) as hydra:
        complaints = dict.fromkeys(_Check(arguments, hydra).complaints())  # in order, each once
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


def _sweeps(text: str) -> bool:
    try:
        return parse(text).is_sweep_override()
    except HydraException:
        return False


def values_of(override: Override) -> list[str]:
    """The override itself, or one per value where it sweeps."""
    text = str(override.input_line)
    if not override.is_sweep_override():
        return [text]
    prefix, value = text.partition("=")[0], override.value()
    if isinstance(value, IntervalSweep):
        return [f"{prefix}={value.start}", f"{prefix}={value.end}"]  # for sweepers that sample
    return [f"{prefix}={value}" for value in override.sweep_string_iterator()]


class _Check:
    """One command line under examination."""

    def __init__(self, arguments: Arguments, hydra: Composer):
        self._arguments, self._hydra = arguments, hydra

    def complaints(self) -> Iterator[str]:
        """Everything that is wrong."""
        overrides, complaints = self._read_overrides()
        yield from complaints
        values = [values_of(override) for override in overrides]
        cfg, complaints = self._hydra.compose_good([several[0] for several in values])
        yield from complaints
        if cfg is None:
            return
        sweeps = bool(self._arguments["multirun"]) or cfg.hydra.mode == RunMode.MULTIRUN
        for override in overrides:
            if override.is_sweep_override() and not sweeps:
                yield f"{override.input_line}: {ONE_VALUE}"
            elif override.is_interval_sweep() and cfg.hydra.sweeper._target_.endswith(".BasicSweeper"):
                yield f"{override.input_line}: hydra/sweeper=basic runs values one by one; list them, or use range(...)"
        if self._arguments["cfg"] or self._arguments["info"]:
            return
        yield from _misfits(cfg, sweeps)
        if sweeps and (params := cfg.hydra.sweeper.get("params")):  # an experiment file's own sweep
            given = {override.key_or_group for override in overrides}
            own = [parse(f"{key}={value}", self._hydra.loader) for key, value in params.items() if key not in given]
            values = [[several[0], *several] for several in map(values_of, own)] + values
        composed = [cfg]
        for point in _one_changed(values):
            other, complaints = self._hydra.compose_good(point)
            yield from complaints
            if other is not None:
                composed.append(other)
                yield from _misfits(other, sweeps)
        yield from _unused([str(override.key_or_group) for override in overrides], composed)

    def _read_overrides(self) -> tuple[list[Override], list[str]]:
        """The overrides that can be made sense of, and a complaint for each of the others."""
        overrides, complaints = [], []
        for text in self._arguments.overrides:
            try:
                override = parse(text, self._hydra.loader)
            except HydraException:
                complaints.append(f"{text}: {_how_to_write(text)}")
                continue
            complaint = self._complaint_about(text, override)
            if complaint is None:
                overrides.append(override)
            else:
                complaints.append(complaint)
        return overrides, complaints

    def _complaint_about(self, text: str, override: Override) -> str | None:
        key = override.key_or_group
        if not key:
            return f"{text}: {_how_to_write('option')}"
        field = self._hydra.schema([]).find(key)
        if override.is_delete() and field is not None and field.type is not Any:
            return f"{text}: an option cannot be taken away; give it another value"
        if isinstance(override.value(), list) and self._hydra.is_group(text):
            return f"{text}: choose one {key}; to run one after the other, leave out the brackets and add the flag -m"
        if not values_of(override):
            return f"{text}: stands for no value at all"
        return None


def _one_changed(values: Sequence[Sequence[str]]) -> Iterator[list[str]]:
    """Lists of overrides in which one has another of its values, and all others their first."""
    first = [several[0] for several in values]
    for i, several in enumerate(values):
        for value in several[1:]:
            yield [*first[:i], value, *first[i + 1 :]]


def _how_to_write(text: str) -> str:
    key, equals, value = text.partition("=")
    if not equals:
        return f"an option is written {text}=<value>"
    if value.startswith("~"):
        return "write $HOME instead of ~"
    quoted = value.replace('"', '\\"')
    return f"this value needs quotes within quotes: '{key}=\"{quoted}\"'"


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
    hydra, resumed = cfg.hydra, cfg.get("resume")
    complaints: list[str] = []
    try:
        if resumed is None:
            config = resolve(plain_config(cfg))
        elif sweeps:
            complaints.append(f"resume={resumed} cannot be combined with -m; resume one run at a time")
        elif has_run(Path(resumed)):
            config = resolve(restore(Path(resumed), hydra.overrides.task))
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
    return bool(plugin._target_.startswith("hydra_plugins.lpt."))


def _launcher_problems(launcher: DictConfig, sweeper: DictConfig) -> Iterator[str]:
    if _is_ours(sweeper):
        if not _is_ours(launcher):
            yield "hydra/sweeper=optuna needs hydra/launcher=local_queue"
        if find_spec("optuna") is None:
            yield "hydra/sweeper=optuna needs the package optuna: pip install 'lpt[optuna]'"
    if "cluster" in launcher and _is_ours(launcher) and find_spec("submitit") is None:
        yield "hydra/launcher=submitit_slurm needs the package submitit: pip install 'lpt[slurm]'"
    for part, plugin in (("launcher", launcher), ("sweeper", sweeper)):
        for cls in PLUGIN_SCHEMAS:
            if plugin._target_ == cls._target_:
                yield from values_problems(
                    {f"hydra.{part}.{field.name}": (field, plugin.get(field.name)) for field in fields_of(cls)}
                )


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
    if new and (is_taken(folder) or any(folder.glob("*/.hydra"))):
        resume = shlex.quote(assignment("resume", folder))
        remedy = f", or resume it by {resume}" if option == "hydra.run.dir" else ""
        yield f"{option}={folder} already holds a run; choose another folder{remedy}"


# Options that nothing reads

# Options that any method may read, and what its constructor calls them.
PARAMETERS = {
    "lpt.read_only": "read_only",
    "lpt.dropout": "backbone_dropout",
    "lpt.trunk_dropout": "trunk_dropout",
}


def _unused(typed: Iterable[str], composed: Sequence[DictConfig]) -> Iterator[str]:
    """A complaint for each option that was typed and that no point of the command reads."""
    for key in dict.fromkeys(typed):
        reasons = [_why_unused(key, cfg) for cfg in composed]
        if all(reasons):
            yield str(reasons[0])


def _why_unused(key: str, cfg: DictConfig) -> str | None:
    group, _, option = key.partition(".")
    if group not in ("lpt", "generator") or cfg.get("resume") is not None or key == "lpt.layer":
        return None
    try:
        schema = Schema({"method": cfg.method.name}, tuple(cfg.plugins))
    except OmegaConfBaseException:  # complained about already
        return None
    if group == "lpt" and option and schema.find(key) is None:  # complained about already
        return None
    method = schema.declarations["method"].get(cfg.method.name)
    parameter = PARAMETERS.get(key, option)
    prompt = method is not None and method.has_late_prompt
    if method is None or (prompt and (group == "generator" or not option)):
        return None
    if parameter in method.parameters and (prompt or key in PARAMETERS):
        return None
    if key == "generator.init" and method.traits.get("starts_from"):
        return None
    own = f"; its own is method.{option}" if option in [own.name for own in method.options] else ""
    value = OmegaConf.select(cfg, key) if option else cfg[group].get("name")
    if isinstance(value, bool):
        value = str(value).lower()  # as it is typed
    return f"{key}={value}: method={method.name} does not read it{own}; remove it, or use method=lpt or lpt_lora"


def report(error: LptError, where: str = "") -> int:
    """Print the message alone; returns the exit status: 2 for a bad configuration, 1 for the rest.

    A bad configuration is bad for every process of a run; the rest may be so on one node alone.
    """
    bad_configuration = isinstance(error, ConfigError)
    if ranks.speaks() or not bad_configuration:
        print(f"error: {ranks.whose()}{where}{error}", file=sys.stderr, flush=True)
    return 2 if bad_configuration else 1
