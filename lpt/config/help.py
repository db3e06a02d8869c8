"""`--help`: the everyday options on one screen; `--help all`: every option, as it stands with these overrides."""

import textwrap
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf

from lpt.config.compose import Composer, composer
from lpt.config.fields import Field, Schema, fields_of
from lpt.config.flags import read_arguments
from lpt.config.schema import PLUGIN_SCHEMAS, Config
from lpt.data.tasks import SOURCES
from lpt.errors import ConfigError

WIDTH = 100
COLUMN = 34
GROUPS = (
    "backbone",
    "task",
    "fewshot",
    "method",
    "generator",
    "head",
    "optim",
    "cache",
    "logger",
    "recipe",
    "experiment",
)
EVERYDAY = (
    "lpt.layer",
    "lpt.prompt_length",
    "lpt.bottleneck",
    "fewshot.k",
    "optim.lr",
    "optim.batch_size",
    "trainer.max_epochs",
    "trainer.devices",
    "trainer.precision",
    "seed",
)
PLACES = {"backbone": "docs/backbones.md"}
START = """\
Late Prompt Tuning: train a small network that writes a soft prompt, for each input, at an
intermediate layer of a frozen language model.

  {program} [group=choice] [option=value] ...

Examples
  {program}                                          film reviews, SmolLM2-135M, 400 rows
  {program} tickets.csv --text body --label intent   a file of your own
  {program} backbone=gpt2-large lpt.layer=13         another backbone, the prompt entering layer 13
  {program} task=sst2 task.source=tsv task.data_dir=$HOME/glue fewshot=full
  {program} method=lora lpt.layer=16                 a baseline, from layer 16 on
  {program} -m lpt.layer=4,8,12 seed=13,21           a sweep; see lpt sweep --help
  {program} resume=runs/<folder>                     resume an interrupted run
"""
END = """
  {program} --help all               every option
  {program} --help method=lora       this page with method=lora chosen; its own options are shown
  {program} task=rte --cfg job       show the configuration, run nothing
"""


def show_help(argv: Sequence[str], program: str) -> str:
    """The page for a command line that has `--help` in it.

    Args:
        program: how the command is typed, such as `python train.py`.

    Raises:
        ConfigError: an override is wrong.
    """
    whole = "all" in argv
    arguments = read_arguments([text for text in argv if text != "all"])
    with composer(arguments) as hydra:
        cfg, complaints = hydra.compose_good(arguments.overrides)
        if complaints or cfg is None:
            raise ConfigError(complaints)
        names = {kind: cfg[kind].name for kind in ("method", "generator", "head")}
        schema = Schema(names, arguments.plugins)
        lines = list(_groups(hydra))
        lines += _everything(schema, cfg) if whole else _everyday(schema, cfg)
    page = [START.format(program=program), *lines, *([] if whole else [END.format(program=program)])]
    return "\n".join(page).rstrip() + "\n"


def _groups(hydra: Composer) -> Iterator[str]:
    yield "Groups and their choices (--config-dir <folder> and plugins=[<file.py>] add your own)"
    for group in GROUPS:
        choices = sorted(name for name in hydra.choices(group) if name != "schema")
        text = textwrap.wrap(" ".join(choices), WIDTH - 13, break_on_hyphens=False)
        if len(text) > 3:
            text = [*text[:2], f"... {len(choices)} in all: {PLACES.get(group, f'conf/{group}/')}"]
        yield f"  {group:<11}{text[0]}"
        yield from (" " * 13 + line for line in text[1:])


def _everyday(schema: Schema, cfg: DictConfig) -> Iterator[str]:
    yield "\nEveryday options, as they stand"
    own = [f"{kind}.{option.name}" for kind, name in schema.chosen.items() for option in _own(schema, kind, name)]
    late_prompt = schema.declarations["method"][schema.chosen["method"]].has_late_prompt
    prompt = EVERYDAY[:3] if late_prompt else EVERYDAY[:1]
    for name in (*prompt, *own, *EVERYDAY[3:]):
        field = schema.find(name)
        assert field is not None
        yield from _beside(field, OmegaConf.select(cfg, name), short=True)


def _own(schema: Schema, kind: str, name: str) -> Iterable[Any]:
    declaration = schema.declarations[kind].get(name)
    return declaration.options if declaration else ()


def _everything(schema: Schema, cfg: DictConfig) -> Iterator[str]:
    yield "\nOptions, as they stand"
    yield from _lines(schema, cfg, "")
    for part in ("launcher", "sweeper"):
        for cls in PLUGIN_SCHEMAS:
            if cfg.hydra[part]._target_ == cls._target_:
                yield f"\n{cls.__doc__}"
                for field in fields_of(cls):
                    if field.name != "_target_":
                        value = cfg.hydra[part].get(field.name)
                        yield from _beside(field, value, name=f"hydra.{part}.{field.name}")


def _lines(schema: Schema, cfg: Any, group: str) -> Iterator[str]:
    for field in schema.fields(group):
        value = OmegaConf.select(cfg, field.name)
        if not field.is_group:
            if field.name == "seed":
                yield f"\n{Config.__doc__}"
            if field.name not in ("recipe", "experiment"):
                yield from _beside(field, value)
            continue
        last = field.name.rpartition(".")[2]
        if last in SOURCES and last != cfg.task.source:
            continue  # of four sources one is read
        if not group:
            yield f"\n{field.type.__doc__}"
        yield from _lines(schema, cfg, field.name)


def _beside(field: Field, value: Any, name: str | None = None, short: bool = False) -> list[str]:
    """An option as it is typed, and beside it what it means and what it allows."""
    meaning = field.meaning.split(". ")[0].rstrip(".") + "." if short and field.meaning else field.meaning
    allowed = f"[{field.allowed}]" if field.allowed is not None else ""
    lines = textwrap.wrap(" ".join(filter(None, (meaning, allowed))), WIDTH - COLUMN, break_on_hyphens=False)
    option = f"  {name or field.name}={as_typed(value)}"
    if len(option) < COLUMN:
        first, *lines = lines or [""]
        return [f"{option:<{COLUMN}}{first}".rstrip(), *(" " * COLUMN + line for line in lines)]
    return [option, *(" " * COLUMN + line for line in lines)]


def as_typed(value: Any) -> str:
    """A value as the command line takes it, but for quotes."""
    if isinstance(value, ListConfig | list):
        return f"[{','.join(map(as_typed, value))}]"
    if isinstance(value, DictConfig | dict):
        return "{" + ", ".join(f"{key!s}: {as_typed(item)}" for key, item in value.items()) + "}"
    return {"None": "null", "True": "true", "False": "false"}.get(str(value), str(value))
