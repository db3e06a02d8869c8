"""The options of the configuration by name: type, allowed values, default, meaning.

One description for what is checked, what is explained in errors, and what `--help` shows.
"""

import dataclasses
import inspect
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, get_args, get_origin, get_type_hints

from omegaconf import OmegaConf

from lpt.config.declarations import Option, declared
from lpt.config.schema import Config, DeclaredConfig, GeneratorConfig, HeadConfig, MethodConfig
from lpt.errors import did_you_mean
from lpt.ranges import Allowed, OneOf, allowed_by, plain_type

BASES: dict[str, type[DeclaredConfig]] = {"method": MethodConfig, "generator": GeneratorConfig, "head": HeadConfig}
CHOSEN = {"method": "lpt", "generator": "npg", "head": "label_words"}  # by conf/config.yaml


@dataclass(frozen=True)
class Field:
    """One option.

    Attributes:
        name: as typed, such as `optim.lr`.
        type: in the types that a configuration knows; a dataclass for a group of options.
        allowed: beyond the type; of a list, of each item.
        meaning: for people.
    """

    name: str
    type: Any
    allowed: Allowed | None
    meaning: str

    @property
    def is_group(self) -> bool:
        """Whether it is a group of options, such as `optim`, instead of a single one."""
        return dataclasses.is_dataclass(self.type)


@cache
def options_class(kind: str, name: str, plugins: tuple[str, ...] = ()) -> type[DeclaredConfig]:
    """The schema of `method.*`, `generator.*` or `head.*` where `name` is chosen."""
    base = BASES[kind]
    declaration = declared(plugins)[kind].get(name)
    if declaration is None:
        return base
    own = [(option.name, option.type, _own_field(option)) for option in declaration.options]
    defaults = {"name": name, **_settings_of(kind, declaration.settings)}
    hints = get_type_hints(base, include_extras=True)
    inherited = [(key, hints[key], dataclasses.field(default=value)) for key, value in defaults.items() if key in hints]
    return dataclasses.make_dataclass(f"{base.__name__}_{name}", [*inherited, *own], bases=(base,))


def _settings_of(kind: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    return {key.removeprefix(f"{kind}."): value for key, value in settings.items() if key.startswith(f"{kind}.")}


def _own_field(option: Option) -> Any:
    if isinstance(option.default, list | tuple):
        return dataclasses.field(default_factory=lambda: list(option.default), metadata={"option": option})
    return dataclasses.field(default=option.default, metadata={"option": option})


class Schema:
    """The options of a configuration in which a method, a generator and a head are chosen.

    Args:
        chosen: kind -> name; what is left out is as `conf/config.yaml` has it.
        plugins: files of the user's that declare some.
    """

    def __init__(self, chosen: Mapping[str, str] | None = None, plugins: tuple[str, ...] = ()):
        self.declarations = declared(plugins)
        self.chosen = CHOSEN | dict(chosen or {})
        self._classes = {kind: options_class(kind, name, plugins) for kind, name in self.chosen.items()}

    def structured(self) -> Any:
        """The configuration with every option at its default, typed, for OmegaConf."""
        structured = OmegaConf.structured(Config)
        for kind, cls in self._classes.items():
            structured[kind] = OmegaConf.structured(cls)
        return structured

    def fields(self, group: str = "") -> list[Field]:
        """The options directly under a group, such as `optim`; `""` is the top."""
        cls: Any = Config
        for part in group.split(".") if group else ():
            cls = next(field.type for field in self._fields(cls) if field.name == part)
        prefix = f"{group}." if group else ""
        return [dataclasses.replace(field, name=f"{prefix}{field.name}") for field in self._fields(cls)]

    def all(self, group: str = "") -> Iterator[Field]:
        """Every option under a group at any depth."""
        for field in self.fields(group):
            if field.is_group:
                yield from self.all(field.name)
            else:
                yield field

    def find(self, key: str) -> Field | None:
        """The option of this name; within mappings and lists, one of any type. None: there is no such option."""
        cls: Any = Config
        found = None
        for part in key.split("."):
            if not dataclasses.is_dataclass(cls):
                return Field(key, Any, None, "")
            found = next((field for field in self._fields(cls) if field.name == part), None)
            if found is None:
                return None
            cls = found.type
        return None if found is None else dataclasses.replace(found, name=key)

    def no_option(self, key: str) -> str | None:
        """`"there is no option ..."`, with the nearest ones, unless there is."""
        if key == "" or re.match(r"hydra\b", key) or self.find(key) is not None:
            return None
        group = ""
        for part in key.split("."):
            known = [field.name for field in self.fields(group)]
            name = f"{group}.{part}" if group else part
            if name not in known:
                return f"there is no option {key}{self._suggest(group, part, known)}"
            group = name
        return None

    def _suggest(self, group: str, part: str, known: list[str]) -> str:
        if group in BASES:
            others = [
                name
                for name, declaration in self.declarations[group].items()
                if part in (option.name for option in declaration.options)
            ]
            if others:
                return f": {group}={self.chosen[group]} has none; {group}={' or '.join(others)} has"
        elsewhere = [field.name for field in self.all() if field.name.endswith(f".{part}")]
        if elsewhere:
            return f"; did you mean {elsewhere[0]!r}?"
        nearest = did_you_mean(part, [name.rpartition(".")[2] for name in known])
        if nearest:
            return nearest.replace("'", f"'{group}.", 1) if group else nearest
        owner = f" of {group}={self.chosen[group]}" if group in BASES else ""
        here = f"under {group}{owner} there are" if group else "there are"
        return f"; {here} {', '.join(name.rpartition('.')[2] for name in known)}"

    def _fields(self, cls: Any) -> list[Field]:
        return fields_of(self._classes.get(_kind_of(cls) or "", cls))


def _kind_of(cls: Any) -> str | None:
    return next((kind for kind, base in BASES.items() if cls is base), None)


@cache
def fields_of(cls: Any) -> list[Field]:
    """The options of one schema, by the names that they have there."""
    hints, meanings = get_type_hints(cls, include_extras=True), meanings_of(cls)
    found = []
    for field in dataclasses.fields(cls):
        if option := field.metadata.get("option"):
            found.append(Field(field.name, option.type, option.allowed, option.meaning))
            continue
        hint = hints[field.name]
        kind = hint if dataclasses.is_dataclass(hint) or hint is Any else plain_type(hint)
        item = get_args(hint)[0] if get_origin(hint) is list else hint
        found.append(Field(field.name, kind, allowed_by(item), meanings.get(field.name, "")))
    return found


def meanings_of(cls: type) -> dict[str, str]:
    """What the comments of a dataclass say beneath its fields."""
    meanings: dict[str, str] = {}
    for part in cls.__mro__[-2::-1]:
        try:
            lines = inspect.getsource(part).splitlines()
        except (OSError, TypeError):  # made, not written
            continue
        name = ""
        for line in lines:
            if found := re.match(r"    (\w+): ", line):
                name = found[1]
                meanings.pop(name, None)  # of a class above
            elif name and line.startswith("    # "):
                meanings[name] = f"{meanings.get(name, '')} {line[6:]}".strip()
            else:
                name = ""
    return meanings


def values_problems(fields: Mapping[str, tuple[Field, Any]]) -> Iterator[str]:
    """A complaint for each value that its option does not allow."""
    for name, (field, value) in fields.items():
        for item in value if isinstance(value, list) else [value]:
            if item is None or field.allowed is None or field.allowed.allows(item):
                continue
            if isinstance(field.allowed, OneOf):
                words = field.allowed.words
                hint = did_you_mean(str(item), words)
                yield f"{name}={item} is not known; choose one of {', '.join(words)}{hint}"
            else:
                layers = " (layers are numbered 1..L)" if name == "lpt.layer" else ""
                yield f"{name}={item} must be {field.allowed}{layers}"
