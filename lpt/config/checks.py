"""Checks of values and combinations that no run can have. What depends on backbone or data is checked with them."""

from collections.abc import Iterator
from importlib.util import find_spec
from typing import Any, get_origin

from lpt.config.candidates import candidates
from lpt.config.fields import Field, Schema, values_problems
from lpt.config.schema import BenchConfig, Config
from lpt.data.task_checks import describe_problems
from lpt.errors import did_you_mean

LOGGERS_NEED = {"tensorboard": ("tensorboard",), "mlflow": ("mlflow", "sqlalchemy", "alembic")}
NOT_VARIED = ("trainer.precision", "bench.methods", "bench.precisions", "bench.vary", "bench.values", "bench.output")


def problems(config: Config, schema: Schema) -> Iterator[str]:
    """A complaint for each value, or combination of values, that no run can have."""
    values = {field.name: (field, value_of(config, field)) for field in schema.all()}
    if config.fewshot.seed == config.seed:
        del values["fewshot.seed"]  # by default it is the run's seed, which gets the complaint
    yield from values_problems(values)
    yield from _seeds(config)
    yield from _names(config, schema)
    yield from _method(config, schema)
    yield from _generator_init(config, schema)
    yield from _rows(config)
    yield from _logger(config)
    yield from _bench(config.bench, schema)
    yield from describe_problems(config.task)


def value_of(config: Config, field: Field) -> Any:
    """The value of an option."""
    value: Any = config
    for part in field.name.split("."):
        value = getattr(value, part, None)
    return value


def _seeds(config: Config) -> Iterator[str]:
    for option, seed in {"seed": config.seed, "fewshot.seed": config.fewshot.seed}.items():
        if seed >= 2**32:
            yield f"{option}={seed} must be in 0..{2**32 - 1}"


def _names(config: Config, schema: Schema) -> Iterator[str]:
    """Names that a file of the user's may have wrong; those on the command line are known to be right by now."""
    for kind, given in (("method", config.method), ("generator", config.generator), ("head", config.head)):
        known = schema.declarations[kind]
        if given.name not in known:
            hint = did_you_mean(given.name, known)
            yield f"{kind}.name={given.name} is not known; choose one of {', '.join(known)}{hint}"


def _method(config: Config, schema: Schema) -> Iterator[str]:
    method, head = schema.declarations["method"].get(config.method.name), config.head
    if method is None:
        return
    if config.lpt.layer is not None and "layer" not in method.parameters:
        yield f"lpt.layer={config.lpt.layer}: method={method.name} begins at the input; remove it, or use method=lpt"
    if method.traits.get("trains_backbone") and config.backbone.quantization is not None:
        yield (
            f"backbone.quantization={config.backbone.quantization}: method={method.name} trains the backbone's own "
            "weights, which cannot be quantized; remove it, or use method=lora"
        )
    if head.calibrate and method.name != "zero_shot":
        yield (
            f"head.calibrate=true goes with method=zero_shot; method={method.name} learns by itself what calibration "
            "subtracts"
        )
    trains = (
        schema.declarations["head"][head.name].traits.get("trains") if head.name in schema.declarations["head"] else 1
    )
    if head.lr is not None and not trains:
        yield f"head.lr={head.lr} goes with head=linear; head={head.name} trains nothing of its own"
    if method.name == "zero_shot" and trains:
        yield f"method=zero_shot cannot use head={head.name}, which would stay untrained; use head=label_words"
    if method.name == "linear_probe" and not trains:
        yield f"method=linear_probe trains the head alone, so it needs head=linear, not {head.name}"
    if method.name == "state_probe" and not trains:
        yield f"method=state_probe reads no words, so it needs head=linear, not {head.name}"


def _generator_init(config: Config, schema: Schema) -> Iterator[str]:
    init, generator = config.generator.init, config.generator.name
    method = schema.declarations["method"].get(config.method.name)
    if init == "default" or method is None:
        return
    generators = schema.declarations["generator"]
    able = [name for name, found in generators.items() if init in found.traits.get("starts_from", ())]
    if init in method.traits.get("starts_from", ()) or (method.has_late_prompt and generator in able):
        return
    yield (
        f"generator.init={init} goes with method=prompt_tuning, or with generator={' or '.join(able)} of a method that "
        f"has generators, such as lpt; not with generator={generator} method={method.name}"
    )


def _rows(config: Config) -> Iterator[str]:
    fewshot, optim, trainer = config.fewshot, config.optim, config.trainer
    if fewshot.protocol != "full" and fewshot.k is None:
        yield f"fewshot={fewshot.protocol} needs fewshot.k=<number of training rows>"
    if fewshot.protocol == "per_class" and config.task.value_range is not None:
        yield (
            f"fewshot=per_class draws rows of each class, and task {config.task.name} has none (task.value_range); use "
            "fewshot=total or fewshot=full"
        )
    if fewshot.folds is not None and trainer.processes > 1:
        yield (
            f"fewshot.folds={fewshot.folds} runs on one device; remove it, or give trainer.devices=1 trainer.nodes=1"
        )
    if fewshot.folds is not None and config.trainer.max_steps == 0:
        yield f"fewshot.folds={fewshot.folds} tests what was trained; remove it, or trainer.max_steps=0"
    yield from _lr_candidates(config)
    gradient_accumulation = optim.gradient_accumulation or 1
    if gradient_accumulation * trainer.processes > optim.batch_size:
        nodes = f"trainer.nodes={trainer.nodes} x " if trainer.nodes > 1 else ""
        yield (
            f"optim.batch_size={optim.batch_size} cannot be shared by {nodes}trainer.devices={trainer.devices} x "
            f"optim.gradient_accumulation={gradient_accumulation} micro-batches; raise it or lower them"
        )


def _lr_candidates(config: Config) -> Iterator[str]:
    found, fewshot, trainer = config.optim.lr_candidates, config.fewshot, config.trainer
    given = f"optim.lr_candidates=[{','.join(f'{lr:g}' for lr in found)}]"
    if found and trainer.processes > 1:
        yield f"{given} is tried on one device; remove it, or give trainer.devices=1 trainer.nodes=1"
    if found and trainer.max_steps == 0:
        yield f"{given} compares what was trained; remove it, or trainer.max_steps=0"
    if found and fewshot.folds is None and fewshot.k_dev == 0:
        yield f"{given} needs rows to compare them on; give fewshot.k_dev=<validation rows> or fewshot.folds=<folds>"


def _logger(config: Config) -> Iterator[str]:
    name = config.logger.name
    missing = [package for package in LOGGERS_NEED.get(name, ()) if find_spec(package) is None]
    if missing:
        yield f"logger={name} needs {' and '.join(missing)}, not installed here: pip install 'lpt[{name}]'"


def _bench(bench: BenchConfig, schema: Schema) -> Iterator[str]:
    known = candidates(schema.declarations)
    for name in bench.methods:
        if name not in known:
            hint = did_you_mean(name, known)
            yield f"bench.methods={name} is not known; choose one of {', '.join(known)}{hint}"
    for option in ("methods", "precisions"):
        if not getattr(bench, option):
            yield f"bench.{option}=[] leaves nothing to measure"
    if bench.step == "train" and "per_label" in bench.methods:
        yield "bench.methods=per_label only evaluates; give bench.step=evaluate"
    if bench.vary is None:
        if bench.values:
            yield "bench.vary=<option> and bench.values=[<its values>] go together"
        return
    field = schema.find(bench.vary)
    if field is None or field.is_group or field.type is Any or get_origin(field.type) is list:
        yield f"bench.vary={bench.vary}: {schema.no_option(bench.vary) or 'it must be an option of one value'}"
    elif bench.vary in NOT_VARIED:
        yield f"bench.vary={bench.vary} cannot be varied; number formats are listed in bench.precisions"
    elif not bench.values:
        yield "bench.vary=<option> and bench.values=[<its values>] go together"
