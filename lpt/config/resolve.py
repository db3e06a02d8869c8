"""`resolve()`: Hydra's composition in, a checked `Config` out."""

from collections.abc import Iterator
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from lpt.config.checks import problems
from lpt.config.explain import describe
from lpt.config.fields import BASES, Schema
from lpt.config.schema import Config
from lpt.data.tasks import SOURCES
from lpt.errors import ConfigError, LptError


def resolve(cfg: DictConfig) -> Config:
    """A checked `Config` from Hydra's composition.

    Raises:
        ConfigError: all complaints at once: missing and unknown keys (also those forced in with `++`), wrong types,
            values out of range.
    """
    complaints = []
    schema = Schema()
    try:
        missing = OmegaConf.missing_keys(cfg)
        complaints += [f"{key} is not set; give {key}=<value>" for key in sorted(missing)]
        plain = OmegaConf.to_container(cfg, resolve=True)
        assert isinstance(plain, dict)
        schema = schema_of(plain)
        complaints += [f"{name}={value}: {schema.no_option(name)}" for name, value in take_unknown(plain, schema)]
        complaints += _truth_values(plain)
        if missing:
            raise ConfigError(complaints)
        config = OmegaConf.to_object(OmegaConf.merge(schema.structured(), plain))
    except OmegaConfBaseException as error:
        raise ConfigError([*complaints, describe(error, schema=schema)]) from None
    except ConfigError:
        raise
    except LptError as error:  # of a plugin
        raise ConfigError([*complaints, str(error)]) from None
    assert isinstance(config, Config)
    complaints += problems(config, schema)
    if complaints:
        raise ConfigError(complaints)
    return config


def schema_of(plain: dict[Any, Any]) -> Schema:
    """The options of a configuration that chooses what this one does.

    Raises:
        LptError: a file that `plugins` names cannot be used.
    """
    groups = {kind: plain.get(kind) for kind in BASES}
    chosen = {kind: str(group["name"]) for kind, group in groups.items() if isinstance(group, dict) and "name" in group}
    return Schema(chosen, tuple(map(str, plain.get("plugins") or ())))


def take_unknown(plain: dict[Any, Any], schema: Schema, group: str = "") -> Iterator[tuple[str, Any]]:
    """Remove what is no option from nested options; yields the name and value of each."""
    known = {field.name.rpartition(".")[2]: field for field in schema.fields(group)}
    for key, value in list(plain.items()):
        name = f"{group}.{key}" if group else str(key)
        if key not in known:
            del plain[key]
            yield name, value
        elif known[key].is_group and isinstance(value, dict):
            yield from take_unknown(value, schema, name)


def _truth_values(plain: dict[Any, Any]) -> Iterator[str]:
    """YAML reads an unquoted `No` as false, and the label or its word would be "False"."""
    task = plain.get("task")
    if not isinstance(task, dict):
        return
    places = [("task.labels", f"label {i + 1}", value) for i, value in enumerate(_list(task.get("labels")))]
    words = {"task.label_words": task.get("label_words")}
    words |= {f"task.{source}.values": (task.get(source) or {}).get("values") for source in SOURCES}
    for option, mapping in words.items():
        what = "the word for" if option == "task.label_words" else "the label for"
        places += [(option, f"{what} {k!r}", v) for k, v in mapping.items()] if isinstance(mapping, dict) else []
    for option, what, value in places:
        if isinstance(value, bool):
            yield (
                f"{option}: {what} is read as the truth value {value}, as yes, no, on, off, true and false are; put it "
                "in quotes"
            )


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []
