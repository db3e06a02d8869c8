"""The configuration: its schema, and `resolve()`, which turns Hydra's composition into a checked `Config`.

Besides train.py, the only place that knows Hydra.
"""

import dataclasses
import sys
from argparse import Namespace
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any, get_type_hints

from hydra import compose, initialize_config_dir
from hydra._internal.utils import get_args_parser
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import MISSING, DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from lpt.errors import ConfigError, LptError, did_you_mean
from lpt.tasks import Task, describe_problems

CONF_DIR = Path(__file__).parent.parent / "conf"
METRICS = ("accuracy", "f1", "matthews")
UNREADABLE = (HydraException, OmegaConfBaseException, YAMLError)  # what composing can fail with
PRECISIONS = ("auto", "32", "bf16", "16")


@dataclass
class BackboneConfig:
    """The frozen language model."""

    name: str = MISSING
    # How results call it.
    path: str = MISSING
    # Hub id, local folder, or wheel://<package>==<version>/<path inside>.
    revision: str | None = None
    # Branch, tag or commit of a hub id.
    attention: str = "auto"
    # eager, sdpa, or auto: eager on CPU, where it is faster for short texts, sdpa on GPUs.


@dataclass
class FewshotConfig:
    """Which rows are trained on."""

    protocol: str = "full"
    # full, total (k rows in all, as the paper draws them) or per_class (k of each class, LM-BFF).
    k: int | None = None
    # Training rows, in all or of each class.
    k_dev: int = 1000
    # Validation rows taken from train, in all or of each class.
    seed: int = 13
    # Of the draw.


@dataclass
class MethodConfig:
    """What is trained."""

    name: str = "lpt"
    # lpt, or zero_shot: the backbone as it is.


@dataclass
class LptConfig:
    """The late prompt."""

    layer: int | None = None
    # k, 1..L: the first layer that sees the prompt. null: L // 2 + 1. 1 is an input prompt.
    prompt_length: int = 5
    # P, rows of the prompt.
    bottleneck: int = 128
    # m, inner size of the generator.
    trunk_dropout: bool = False
    # Dropout below layer k too, as the paper's code has it.


@dataclass
class GeneratorConfig:
    """The network that writes the prompt."""

    name: str = MISSING
    # npg, appg, mppg or none.
    dropout: float | None = None
    # On its output. null: the backbone's hidden dropout.
    init: str = "default"
    # default, or vocabulary (generator=none only): start from random rows of the vocabulary embeddings.


@dataclass
class HeadConfig:
    """How the read-out state becomes class scores."""

    name: str = MISSING
    # label_words, vocabulary or linear.


@dataclass
class OptimConfig:
    """AdamW with linear warm-up and linear decay."""

    lr: float = 1e-3
    weight_decay: float = 0.1
    warmup: float = 0.06
    # Share of all steps.
    batch_size: int = 16
    # Rows per step, over all devices and micro-batches.
    accumulate: int = 1
    # Micro-batches per step: same result, less memory.
    clip: float = 1.0
    # Largest gradient norm.


@dataclass
class TrainerConfig:
    """How long, where, how precisely."""

    max_epochs: int = 6
    max_steps: int | None = None
    # Ends training instead of max_epochs. 0: evaluate the untrained model.
    eval_every: int | None = None
    # Steps between evaluations. null: an epoch.
    eval_batch_size: int = 32
    # Rows per device.
    accelerator: str = "auto"
    # auto, cpu or gpu.
    devices: int = 1
    precision: str = "auto"
    # 32, bf16, 16, or auto: bf16 where the hardware computes it fast. The generator stays float32.
    log_every: int = 10
    # Steps between lines of metrics.csv.
    progress: bool = True
    # A live bar on a terminal; otherwise a line per evaluation.


@dataclass
class LoggerConfig:
    """Where metrics go."""

    name: str = "csv"
    # csv (metrics.csv in the run folder), wandb or tensorboard (besides metrics.csv), none.
    project: str = "late-prompt-tuning"
    group: str | None = None
    offline: bool = False
    # wandb: write to the run folder alone, to be synced later.


@dataclass
class Config:
    """Everything about one run."""

    backbone: BackboneConfig = field(default_factory=BackboneConfig)
    task: Task = field(default_factory=Task)
    fewshot: FewshotConfig = field(default_factory=FewshotConfig)
    method: MethodConfig = field(default_factory=MethodConfig)
    lpt: LptConfig = field(default_factory=LptConfig)
    generator: GeneratorConfig = field(default_factory=GeneratorConfig)
    head: HeadConfig = field(default_factory=HeadConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    trainer: TrainerConfig = field(default_factory=TrainerConfig)
    logger: LoggerConfig = field(default_factory=LoggerConfig)
    seed: int = 13
    # Of the generator's initial values, the order of rows, and dropout.
    resume: str | None = None
    # Run folder to go on with.
    experiment: Any = None


ConfigStore.instance().store(name="schema", node=Config)


def resolve(cfg: DictConfig) -> Config:
    """A checked `Config` from Hydra's composition.

    Raises:
        ConfigError: all complaints at once: missing and unknown keys (also those forced in with `++`), wrong types,
            values out of range.
    """
    missing = OmegaConf.missing_keys(cfg)
    complaints = [f"{key} is not set; give {key}=<value>" for key in sorted(missing)]
    try:
        plain = OmegaConf.to_container(cfg, resolve=True)
    except OmegaConfBaseException as error:
        raise ConfigError([*complaints, _first_line(error)]) from None
    assert isinstance(plain, dict)
    complaints += _take_unknown_keys(plain, Config)
    if missing:
        raise ConfigError(complaints)
    try:
        config = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(Config), plain))
    except OmegaConfBaseException as error:
        raise ConfigError([*complaints, _first_line(error)]) from None
    assert isinstance(config, Config)
    complaints += _out_of_range(config)
    if complaints:
        raise ConfigError(complaints)
    return config


def _take_unknown_keys(plain: dict[Any, Any], schema: type, prefix: str = "") -> list[str]:
    """Remove what the schema does not have, with a complaint for each."""
    hints = get_type_hints(schema)
    complaints = []
    for key, value in list(plain.items()):
        if key not in hints:
            complaints.append(f"{prefix}{key}={value}: there is no option {prefix}{key}{_suggest(prefix, key, hints)}")
            del plain[key]
        elif dataclasses.is_dataclass(hints[key]) and isinstance(value, dict):
            complaints += _take_unknown_keys(value, hints[key], f"{prefix}{key}.")
    return complaints


def _suggest(prefix: str, key: str, known: Any) -> str:
    hint = did_you_mean(key, known)
    if hint:
        return hint.replace("'", f"'{prefix}", 1)
    here = f"under {prefix.rstrip('.')} there are" if prefix else "there are"
    return f"; {here} {', '.join(known)}"


def _out_of_range(config: Config) -> Iterator[str]:
    """A complaint per value that no run can have. What depends on backbone or data is checked when they are there."""
    lpt, optim, trainer, fewshot = config.lpt, config.optim, config.trainer, config.fewshot
    at_least: list[tuple[str, float | None, float]] = [
        ("lpt.layer", lpt.layer, 1),
        ("lpt.prompt_length", lpt.prompt_length, 1),
        ("lpt.bottleneck", lpt.bottleneck, 1),
        ("optim.batch_size", optim.batch_size, 1),
        ("optim.accumulate", optim.accumulate, 1),
        ("optim.weight_decay", optim.weight_decay, 0),
        ("trainer.max_epochs", trainer.max_epochs, 1),
        ("trainer.max_steps", trainer.max_steps, 0),
        ("trainer.eval_every", trainer.eval_every, 1),
        ("trainer.eval_batch_size", trainer.eval_batch_size, 1),
        ("trainer.devices", trainer.devices, 1),
        ("trainer.log_every", trainer.log_every, 1),
        ("fewshot.k", fewshot.k, 1),
        ("fewshot.k_dev", fewshot.k_dev, 1),
    ]
    for option, value, lowest in at_least:
        if value is not None and value < lowest:
            also = " (layers are numbered 1..L)" if option == "lpt.layer" else ""
            yield f"{option}={value} is too small; it must be at least {lowest}{also}"
    for option, value in (("optim.lr", optim.lr), ("optim.clip", optim.clip)):
        if value <= 0:
            yield f"{option}={value} must be greater than 0"
    if not 0 <= optim.warmup < 1:
        yield f"optim.warmup={optim.warmup} must be a share of the steps, 0 <= warmup < 1"
    for option, seed in (("seed", config.seed), ("fewshot.seed", fewshot.seed)):
        if not 0 <= seed < 2**32:
            yield f"{option}={seed} must be in 0..{2**32 - 1}"
    rate = config.generator.dropout
    if rate is not None and not 0 <= rate < 1:
        yield f"generator.dropout={rate} must be a probability, 0 <= dropout < 1"
    one_of: list[tuple[str, str, Sequence[str]]] = [
        ("backbone.attention", config.backbone.attention, ("auto", "eager", "sdpa")),
        ("fewshot.protocol", fewshot.protocol, ("full", "total", "per_class")),
        ("method.name", config.method.name, ("lpt", "zero_shot")),
        ("generator.name", config.generator.name, ("npg", "appg", "mppg", "none")),
        ("generator.init", config.generator.init, ("default", "vocabulary")),
        ("head.name", config.head.name, ("label_words", "vocabulary", "linear")),
        ("trainer.accelerator", trainer.accelerator, ("auto", "cpu", "gpu")),
        ("trainer.precision", trainer.precision, PRECISIONS),
        ("logger.name", config.logger.name, ("csv", "wandb", "tensorboard", "none")),
    ]
    for option, given, allowed in one_of:
        if given not in allowed:
            yield f"{option}={given} is not known; choose one of {', '.join(allowed)}{did_you_mean(given, allowed)}"
    if config.generator.init == "vocabulary" and config.generator.name != "none":
        yield f"generator.init=vocabulary goes with generator=none, not {config.generator.name}"
    if config.method.name == "zero_shot" and config.head.name == "linear":
        yield "method=zero_shot cannot use head=linear, which would stay untrained; use head=label_words"
    if fewshot.protocol != "full" and fewshot.k is None:
        yield f"fewshot={fewshot.protocol} needs fewshot.k=<number of training rows>"
    if optim.accumulate * trainer.devices > optim.batch_size:
        yield (
            f"optim.batch_size={optim.batch_size} cannot be shared by trainer.devices={trainer.devices} x "
            f"optim.accumulate={optim.accumulate} micro-batches; raise it or lower them"
        )
    yield from describe_problems(config.task, list(METRICS))


# The command line, before Hydra acts on it


def check_command_line(argv: Sequence[str], conf_dir: Path = CONF_DIR) -> None:
    """Complain about everything that is wrong with a command line, at once.

    Hydra stops at the first bad override; here each is tried by itself, so that all of them are shown, together
    with what `resolve` finds in the rest.

    Raises:
        ConfigError: with one complaint per bad override or value.
    """
    arguments = get_args_parser().parse_args(argv)
    if arguments.help or arguments.hydra_help or arguments.shell_completion:
        return
    complaints: dict[str, None] = {}  # in order, each once
    good: list[list[str]] = []
    chosen: list[str] = []  # groups, which decide what other options there are
    parsed = _parse(arguments.overrides, complaints)
    for override in sorted(parsed, key=lambda override: not _is_group(override, conf_dir)):
        points = [
            point
            for point in _points(override)
            if not _note(complaints, _complaint_about, point, chosen, arguments, conf_dir)
        ]
        if points:
            good.append(points)
            if _is_group(override, conf_dir):
                chosen.append(points[0])
    first = [points[0] for points in good]
    for i, points in enumerate(good):
        for point in points if i == 0 else points[1:]:
            _note(complaints, _complaints_of, [*first[:i], point, *first[i + 1 :]], arguments, conf_dir)
    if not good:
        _note(complaints, _complaints_of, [], arguments, conf_dir)
    if complaints:
        raise ConfigError(complaints)


def _note(complaints: dict[str, None], find: Any, *args: Any) -> bool:
    found = find(*args)
    complaints.update(dict.fromkeys(found))
    return bool(found)


def _parse(overrides: list[str], complaints: dict[str, None]) -> list[Override]:
    parsed = []
    for text in overrides:
        try:
            parsed += OverridesParser.create().parse_overrides([text])
        except HydraException:
            complaints[f"{text}: cannot be read; write option=value, and put special characters in quotes"] = None
    return parsed


def _is_group(override: Override, conf_dir: Path) -> bool:
    return (conf_dir / override.key_or_group).is_dir()


def _points(override: Override) -> list[str]:
    """The override itself, or one per value where it sweeps."""
    if not override.is_sweep_override():
        return [str(override.input_line)]
    prefix = str(override.input_line).partition("=")[0]
    return [f"{prefix}={value}" for value in override.sweep_string_iterator()]


def _compose(overrides: list[str], arguments: Namespace, conf_dir: Path) -> DictConfig:
    if arguments.config_dir:
        overrides = [*overrides, f"hydra.searchpath=[file://{Path(arguments.config_dir).absolute()}]"]
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(version_base="1.3", config_dir=str(conf_dir)):
            return compose(arguments.config_name or "config", overrides=overrides, return_hydra_config=True)
    finally:
        GlobalHydra.instance().clear()


def _complaint_about(override: str, chosen: list[str], arguments: Namespace, conf_dir: Path) -> list[str]:
    """What is wrong with one override, given the groups that are chosen."""
    try:
        _compose([*chosen, override], arguments, conf_dir)
    except UNREADABLE as error:
        return [_explain(override, error, conf_dir)]
    return []


def _explain(override: str, error: Exception, conf_dir: Path) -> str:
    """Hydra's error in one sentence, with the nearest name that would have worked."""
    key, _, value = override.lstrip("+~").partition("=")
    group = conf_dir / key
    if group.is_dir():
        known = sorted(path.stem for path in group.rglob("*.yaml"))
        if value not in known:
            return (
                f"{override}: there is no {key} {value!r}; choose one of {', '.join(known)}{did_you_mean(value, known)}"
            )
    cause: BaseException = error
    while cause.__cause__ is not None:
        cause = cause.__cause__
    message = _first_line(cause)
    *path, name = key.split(".")
    known_here: Any = Config
    for part in path:
        known_here = get_type_hints(known_here).get(part) if dataclasses.is_dataclass(known_here) else None
    if dataclasses.is_dataclass(known_here) and name not in get_type_hints(known_here) and path[:1] != ["hydra"]:
        prefix = "".join(f"{part}." for part in path)
        return f"{override}: there is no option {key}{_suggest(prefix, name, get_type_hints(known_here))}"
    return f"{override}: {message}"


def _complaints_of(overrides: list[str], arguments: Namespace, conf_dir: Path) -> list[str]:
    """What is wrong with overrides that are each fine alone."""
    try:
        cfg = _compose(overrides, arguments, conf_dir)
    except UNREADABLE as error:
        return [_first_line(error)]
    hydra = cfg.hydra
    run_dir = Path(hydra.run.dir) if cfg.get("resume") is None else Path(cfg.resume)
    complaints = []
    if cfg.get("resume") is None:
        OmegaConf.set_struct(cfg, False)
        del cfg["hydra"]
        try:
            config = resolve(cfg)
        except ConfigError as error:
            complaints += error.complaints
        else:
            if arguments.multirun and config.trainer.devices > 1:
                complaints.append(
                    f"trainer.devices={config.trainer.devices} cannot be combined with -m: each device's process would "
                    "start the whole sweep again; run the points one by one"
                )
    elif not (run_dir / ".hydra" / "config.yaml").is_file():
        complaints.append(f"resume={cfg.resume}: there is no run in that folder (.hydra/config.yaml is missing)")
    complaint = _unwritable(run_dir)
    if complaint:
        complaints.append(complaint)
    return complaints


def _unwritable(folder: Path) -> str | None:
    """Why a folder cannot be made or written to."""
    existing = folder.absolute()
    while not existing.exists() and existing != existing.parent:
        existing = existing.parent
    try:
        with TemporaryFile(dir=existing):
            return None
    except OSError as error:
        return f"hydra.run.dir={folder}: cannot write in {existing} ({error.strerror}); choose another folder"


def _first_line(error: BaseException) -> str:
    return str(error).strip().partition("\n")[0]


# Where a run writes, and going on with one


def run_dir() -> Path:
    """The run folder that Hydra has made for this job."""
    return Path(HydraConfig.get().runtime.output_dir)


def sweep_name() -> str | None:
    """The sweep folder's name, where this job is part of one."""
    hydra = HydraConfig.get()
    return Path(hydra.sweep.dir).name if hydra.mode == RunMode.MULTIRUN else None


def resume_arguments(argv: Sequence[str]) -> list[str]:
    """`resume=<folder>` also means: write into that folder, and leave the configuration saved there as it is."""
    arguments = list(argv)
    for argument in argv:
        if argument.startswith("resume=") and len(argument) > len("resume="):
            folder = argument.removeprefix("resume=").strip("'\"")
            arguments += [f"hydra.run.dir='{folder}'", "hydra.output_subdir=null"]
    return arguments


def saved_config(cfg: DictConfig) -> DictConfig:
    """The configuration of the run that `resume` names, with this command's own values on top.

    Raises:
        LptError: the command also chooses another config group, which the run already has.
    """
    folder = Path(cfg.resume)
    saved = OmegaConf.load(folder / ".hydra" / "config.yaml")
    changes = []
    for override in HydraConfig.get().overrides.task:
        key = override.lstrip("+~").partition("=")[0]
        if (CONF_DIR / key).is_dir():
            raise LptError(f"{override} cannot be given with resume={cfg.resume}: a run keeps what it was started with")
        changes.append(override.lstrip("+"))
    merged = OmegaConf.merge(OmegaConf.structured(Config), saved, OmegaConf.from_dotlist(changes))
    assert isinstance(merged, DictConfig)
    return merged


def exit_with(error: LptError) -> None:
    """End the process with the message alone: 2 for a bad command line, 1 for the rest."""
    print(f"error: {error}", file=sys.stderr)
    raise SystemExit(2 if isinstance(error, ConfigError) else 1)
