"""The flags of `train.py`: Hydra's own, read before Hydra is there to end at the first that is wrong."""

import argparse
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException

from lpt.errors import ConfigError, did_you_mean

INFO = ("all", "config", "defaults", "defaults-tree", "plugins", "searchpath")
EXCLUSIVE = ("run", "multirun", "cfg", "info")
KEYWORDS = ("true", "false", "null", "nan", "inf", "yes", "no", "on", "off")
LOCATIONS = ("config_path", "config_name", "config_dir")


@dataclass(frozen=True)
class Arguments:
    """A command line, taken apart.

    Attributes:
        overrides: the arguments that are options, as typed.
        flags: the others, by name, as Hydra calls them.
    """

    overrides: list[str] = field(default_factory=list)
    flags: dict[str, Any] = field(default_factory=dict)

    def __getitem__(self, flag: str) -> Any:
        return self.flags.get(flag)

    @property
    def plugins(self) -> tuple[str, ...]:
        """Files that `plugins=` names."""
        files: list[str] = []
        for text in self.overrides:
            if text.startswith("plugins="):
                try:
                    value: Any = parse(text).value()
                except HydraException:
                    continue  # complained about with the other overrides
                files += map(str, value) if isinstance(value, list) else []
        return tuple(dict.fromkeys(files))

    @property
    def location_flags(self) -> list[str]:
        """The flags that say where configuration lies, for another process anywhere."""
        found = []
        for name in LOCATIONS:
            value = self[name]
            if value is not None:
                path = value if name == "config_name" else str(Path(value).expanduser().absolute())
                found += [f"--{name.replace('_', '-')}", path]
        return found


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise ConfigError([f"{message}; --hydra-help lists the flags"])


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(add_help=False, allow_abbrev=False)
    parser.add_argument("overrides", nargs="*")
    for long, short in (("help", "h"), ("run", "r"), ("multirun", "m"), ("shell-completion", "sc")):
        parser.add_argument(f"--{long}", f"-{short}", action="store_true")
    for long in ("hydra-help", "version", "resolve"):
        parser.add_argument(f"--{long}", action="store_true")
    parser.add_argument("--cfg", "-c", choices=("job", "hydra", "all"))
    parser.add_argument("--info", "-i", nargs="?", const="all", choices=INFO)
    for long, short in (("package", "p"), ("config-path", "cp"), ("config-name", "cn"), ("config-dir", "cd")):
        parser.add_argument(f"--{long}", f"-{short}")
    parser.add_argument("--experimental-rerun")
    return parser


def read_arguments(argv: Sequence[str]) -> Arguments:
    """Take a command line apart.

    Raises:
        ConfigError: with one complaint for each flag that is wrong.
    """
    parser = _parser()
    found, unknown = parser.parse_known_args(argv)
    flags = dict(vars(found))
    overrides = flags.pop("overrides")
    complaints = []
    for text in unknown:
        if text.startswith("-"):
            names = [action.option_strings[0] for action in parser._actions if action.option_strings]
            complaints.append(f"{text}: there is no such flag; --hydra-help lists them{did_you_mean(text, names)}")
        else:
            complaints.append(f"{text}: flags such as -m go before the first or after the last option, not between")
    given = [f"--{name}" for name in EXCLUSIVE if flags[name]]
    if len(given) > 1:
        complaints.append(f"{' '.join(given)}: these flags exclude each other; keep one")
    if flags["resolve"] and not flags["cfg"]:
        complaints.append("--resolve goes with --cfg")
    for name in ("config_dir", "config_path"):
        folder = flags[name]
        if folder and not Path(folder).expanduser().is_dir():
            complaints.append(f"--{name.replace('_', '-')} {folder}: there is no such folder")
    if complaints:
        raise ConfigError(complaints)
    return Arguments(overrides, flags)


def parse(text: str, loader: Any = None) -> Override:
    """One override, taken apart.

    Raises:
        HydraException: it is not written as an override is.
    """
    (override,) = OverridesParser.create(loader).parse_overrides([text])
    return override


def assignment(option: str, value: str | Path) -> str:
    """`option=value` as Hydra reads it, whatever characters the value has; for a shell it may need quotes around it."""
    return f"{option}={written(str(value))}"


def assignment_of_list(option: str, values: Sequence[str]) -> str:
    """`option=[value,...]` as Hydra reads it, each value a text."""
    return f"{option}=[{','.join(value if _is_word(value) else _quoted(value) for value in values)}]"


def written(text: str) -> str:
    """A text as Hydra reads it, in quotes where it needs them."""
    return text if re.fullmatch(r"[\w./@%+-]+", text, re.ASCII) else _quoted(text)


def _is_word(text: str) -> bool:
    """Whether it is a text without quotes too, neither a number nor a truth value."""
    return re.fullmatch(r"[A-Za-z_][\w-]*", text, re.ASCII) is not None and text.lower() not in KEYWORDS


def _quoted(text: str) -> str:
    # Backslashes mean themselves, except before a quote.
    escaped = re.sub(r"(\\*)('|$)", lambda found: found[1] * 2 + ("\\'" if found[2] else ""), text)
    return f"'{escaped}'"
