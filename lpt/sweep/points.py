"""A point of a sweep, named by what its results depend on."""

import dataclasses
import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from lpt.config.schema import Config

# Results do not depend on these options, so neither does the identity of a point.
IRRELEVANT = (
    "resume",
    "recipe",
    "experiment",
    "bench",
    "logger",
    "cache",
    "trainer.progress",
    "trainer.log_every",
    "trainer.save_every",
    "trainer.keep_text",
)
# What the cached states depend on.
TRUNK = ("backbone.", "task.", "fewshot.", "trainer.precision", "trainer.accelerator")
HASH_SHOWN = 8  # digits of the hash in a name
NAME_LENGTH = 100  # characters of a folder's name, well below the limit of file systems


@dataclass(frozen=True)
class Point:
    """One run of a sweep, to be started as `train.py <overrides>`."""

    name: str
    # The name of its folder.
    overrides: tuple[str, ...]
    # The options given on the command line, except those that tell Hydra how to sweep.
    facts: dict[str, Any]
    # Option -> value, for all options that results depend on.
    plan: str = ""
    # The whole configuration that the overrides were composed to when the point was planned, as YAML: what it runs,
    # whatever becomes of the configuration files in the meantime.

    @property
    def hash(self) -> str:
        """The hash of all that results depend on."""
        return content_hash(self.facts)

    def recomposed(self, config: Config, plan: str) -> "Point":
        """The same point with the configuration that its overrides compose to today."""
        facts = result_facts(config)
        name = self.name.removesuffix(self.hash[:HASH_SHOWN]) + content_hash(facts)[:HASH_SHOWN]
        return Point(name, self.overrides, facts, plan)

    @property
    def kind(self) -> tuple[str, ...]:
        """What was chosen, and which options were given: all other options of points of one kind are the defaults."""
        keys = [text.partition("=")[0] for text in self.overrides]
        return tuple(
            sorted(key if "." in key or key == "seed" else text for key, text in zip(keys, self.overrides, strict=True))
        )

    @property
    def devices(self) -> int:
        """The number of devices on each node."""
        return int(self.facts.get("trainer.devices", 1))

    @property
    def nodes(self) -> int:
        """The number of machines."""
        return int(self.facts.get("trainer.nodes", 1))


def make_point(overrides: Sequence[str], config: Config, swept: Iterable[str], plan: str = "") -> Point:
    """The point that `overrides` compose to.

    Args:
        overrides: as given on the command line.
        config: what they compose to.
        swept: options that vary in the sweep, for the readable part of the name.
        plan: what they compose to, as YAML.
    """
    own = tuple(text for text in overrides if not _of_sweep(text))
    facts = result_facts(config)
    return Point(_name(own, list(swept), content_hash(facts)), own, facts, plan)


def result_facts(config: Config) -> dict[str, Any]:
    """Dotted option -> value, for all that results depend on.

    Options that are null are left out, so that a new option, null by default, changes no name.
    """
    return {
        option: value
        for option, value in flat(dataclasses.asdict(config))
        if value is not None and not any(option == aside or option.startswith(f"{aside}.") for aside in IRRELEVANT)
    }


def content_hash(facts: dict[str, Any]) -> str:
    """A hash of these options and values, as 32 hexadecimal digits."""
    return hashlib.blake2b(json.dumps(facts, sort_keys=True).encode(), digest_size=16).hexdigest()


def differences(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """`option: old -> new` for each option that differs."""
    return [
        f"{option}: {old.get(option)} -> {new.get(option)}"
        for option in sorted({*old, *new})
        if old.get(option) != new.get(option)
    ]


def in_order(points: Iterable[Point]) -> list[Point]:
    """The points in the order to work in.

    Points of one trunk are neighbors, lower layers first: higher layers start from the states that lower ones cached.
    """
    groups: dict[str, list[Point]] = {}
    for point in points:
        trunk = {option: value for option, value in point.facts.items() if option.startswith(TRUNK)}
        groups.setdefault(content_hash(trunk), []).append(point)
    return [point for group in groups.values() for point in sorted(group, key=_layer)]


def _layer(point: Point) -> float:
    layer = point.facts.get("lpt.layer")
    return float("inf") if layer is None else layer


def _of_sweep(override: str) -> bool:
    """Whether an override tells Hydra where and how to sweep, which is not an option of a single point."""
    key = override.lstrip("+~").partition("=")[0]
    return bool(re.match(r"hydra[./](run|sweep|sweeper|launcher|mode)\b", key))


def flat(tree: dict[Any, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield (dotted name, value) for everything in a nested configuration."""
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _name(overrides: Sequence[str], swept: list[str], content: str) -> str:
    """Such as `layer-8_seed-13_3fa9c1d2`: only characters that need no quotes in a shell or in Hydra's overrides."""
    last = [option.rpartition(".")[2] for option in swept]
    parts = {}
    for override in overrides:
        option, _, value = override.lstrip("+").partition("=")
        if option in swept:
            short = option.rpartition(".")[2]
            part = f"{option if last.count(short) > 1 else short}-{value}"
            parts[option] = re.sub(r"[^A-Za-z0-9.]+", "-", part).strip("-")  # given twice, the last counts
    readable = "_".join(parts.values())[: NAME_LENGTH - HASH_SHOWN - 1]
    return f"{readable}_{content[:HASH_SHOWN]}" if readable else content[:HASH_SHOWN]
