"""What Hydra and OmegaConf complain about, in the terms of the options."""

import dataclasses
import re
from collections.abc import Callable, Sequence
from types import NoneType
from typing import Any, get_args, get_origin

from hydra.errors import MissingConfigException
from omegaconf.errors import (
    ConfigAttributeError,
    ConfigKeyError,
    InterpolationResolutionError,
    OmegaConfBaseException,
)
from yaml import MarkedYAMLError

from lpt.config.fields import Schema
from lpt.errors import LptError, did_you_mean

IN_WORDS = {bool: "true or false", int: "a whole number", float: "a number", str: "a text", NoneType: "null"}


def explain(
    override: str,
    error: Exception,
    choices: Callable[[str], Sequence[str]],
    is_group: Callable[[str], bool],
    schema: Schema,
) -> str:
    """What is wrong with an override (or, if it is empty, with a file), and the nearest that would be right."""
    group, _, name = override.lstrip("+").partition("=")
    if isinstance(error, MissingConfigException) and error.options is not None:  # maybe one that a file chooses
        group, _, name = str(error.missing_cfg_file).partition("/")
        if group == "hydra":
            group, _, name = str(error.missing_cfg_file).rpartition("/")
    elif not is_group(override):
        return describe(error, override, schema)
    known = choices(group)
    if name in known:
        if override.startswith("+"):
            return f"{override}: write {group}={name}; + is for what is not there yet"
        return describe(error, override, schema)
    if not known:
        return f"{override}: there is no {group} {name!r} and no other either; add one as conf/{group}/{name}.yaml"
    return f"{override}: there is no {group} {name!r}; choose one of {', '.join(known)}{did_you_mean(name, known)}"


def describe(error: BaseException, override: str = "", schema: Schema | None = None) -> str:
    """One sentence about an option that cannot be set, or a file that cannot be read."""
    schema = schema or Schema()
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
    key = re.sub(r"\[\d+\]", "", key)
    if override.lstrip("+").startswith(f"{key}=") and not file:
        expected = _expectation(error, key, schema)
        if expected:
            return f"{override} must be {expected}"
    problem = _problem(error, key, schema)
    return f"{subject}: {problem}" if subject else problem


def _problem(error: BaseException, key: str, schema: Schema) -> str:
    message = str(error).strip().partition("\n")[0]
    if unknown := schema.no_option(key):
        return unknown
    field = schema.find(key)
    if isinstance(error, InterpolationResolutionError):
        return f"{key}: {message}"
    if isinstance(error, ConfigKeyError | ConfigAttributeError) and field is not None and field.type is Any:
        mapping, _, name = key.rpartition(".")
        return f"{mapping} has no {name!r} yet; put + in front to add it"
    if expected := _expectation(error, key, schema):
        return f"{key} must be {expected}"
    return message


def _expectation(error: BaseException, key: str, schema: Schema) -> str | None:
    """The type that an option should have had, where that is what is wrong."""
    field = schema.find(key)
    other = InterpolationResolutionError | ConfigKeyError | ConfigAttributeError
    if field is None or field.type is Any or isinstance(error, other) or not isinstance(error, OmegaConfBaseException):
        return None
    return in_words(field.type)


def in_words(kind: Any) -> str:
    """A type in words."""
    if kind in IN_WORDS:
        return IN_WORDS[kind]
    if dataclasses.is_dataclass(kind):
        return f"set by its own options: {', '.join(field.name for field in dataclasses.fields(kind))}"
    if get_origin(kind) is list:
        return "a list, as in [a,b]"
    return " or ".join(map(in_words, get_args(kind)))
