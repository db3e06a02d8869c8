"""`lpt adapter`: what an adapter is, and how two of them differ."""

import argparse
import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lpt.adapter import CARD_NAME, CONFIG_NAME, WEIGHTS_NAME, AdapterConfig, adapter_folder, load_adapter_config
from lpt.cli.arguments import Commands

if TYPE_CHECKING:
    import numpy as np

    from lpt.report.text_table import TextTable

NOTED = ("probe", "tensors", "training", "versions")  # what comes of the rest, and would differ anyway


def add(commands: Commands) -> None:
    """Add the commands."""
    adapter = commands.add_parser(
        "adapter",
        help="inspect or compare adapters",
        description="Show what an adapter is, or how two of them differ. The backbone is not loaded.",
    )
    actions = adapter.add_subparsers(required=True, metavar="action")
    inspect = actions.add_parser("inspect", help="show what an adapter is, how it was trained, and its tensors")
    inspect.add_argument("adapter", help="a run folder, an adapter/ folder, or a hub id")
    inspect.set_defaults(command=_inspect)
    diff = actions.add_parser("diff", help="show in which settings and tensors two adapters differ")
    for name in ("a", "b"):
        diff.add_argument(name, help="a run folder, an adapter/ folder, or a hub id")
    diff.set_defaults(command=_diff)


def _inspect(arguments: argparse.Namespace) -> None:
    from lpt.cli.tables import print_table
    from lpt.console import say
    from lpt.report.text_table import TextTable

    folder = adapter_folder(arguments.adapter)
    config, tensors = load_adapter_config(folder), _tensors(folder)
    print_table(TextTable(["", ""], [[name, value] for name, value in _facts(folder, config)], words=2))
    say("")
    alike: dict[tuple[str, str], list[int]] = {}
    for name, tensor in tensors.items():
        alike.setdefault((_in_any_layer(name), str(list(tensor.shape))), []).append(tensor.size)
    rows = [[name, str(len(sizes)), shape, f"{sum(sizes):,}"] for (name, shape), sizes in alike.items()]
    rows.append(["all", str(len(tensors)), "", f"{sum(tensor.size for tensor in tensors.values()):,}"])
    print_table(TextTable(["tensors", "", "shape", "numbers"], rows, quiet={len(rows) - 1}))


def _in_any_layer(name: str) -> str:
    """The name of a tensor with `*` for the number of its layer."""
    return re.sub(r"(?<=\.)\d+(?=\.)", "*", name)


def _facts(folder: Path, config: AdapterConfig) -> Iterator[tuple[str, str]]:
    training = config.training
    settings = ", ".join(f"{name}={value}" for name, value in config.settings.items())
    yield "task", config.task
    yield "backbone", f"{config.backbone} ({config.architecture}; weights {config.weights[:8]})"
    yield "method", f"{config.method} ({settings})" if settings else config.method
    yield "head", config.head
    if config.value_range:
        yield "values", "{:g} to {:g}".format(*config.value_range)
    else:
        yield f"{len(config.labels)} labels", ", ".join(config.labels)
    yield "template", config.template
    columns = [f"text in {config.reading.a}", config.reading.b and f"second text in {config.reading.b}"]
    yield "columns", ", ".join([name for name in columns if name] + [f"label in {config.reading.label}"])
    yield "temperature", f"{config.temperature:g}"
    if training:
        rows = ", ".join(f"{size:,} {split}" for split, size in training["rows"].items())
        yield "trained on", f"{rows}; {training['best_step']} of {training['steps']} steps, seed {training['seed']}"
        for split, metrics in training["metrics"].items():
            yield split, ", ".join(f"{name} {value:.3f}" for name, value in metrics.items())
        yield "versions", ", ".join(f"{name} {version}" for name, version in config.versions.items())
    sizes = {name: folder / name for name in (WEIGHTS_NAME, CONFIG_NAME, CARD_NAME)}
    yield "files", ", ".join(f"{name} {path.stat().st_size:,} B" for name, path in sizes.items() if path.exists())


def _diff(arguments: argparse.Namespace) -> None:
    from lpt.cli.tables import print_table
    from lpt.console import say
    from lpt.report.text_table import TextTable

    folders = [adapter_folder(name) for name in (arguments.a, arguments.b)]
    configs = [_flat(load_adapter_config(folder)) for folder in folders]
    settings = [
        [name, *(str(config.get(name, "")) for config in configs)]
        for name in dict.fromkeys([*configs[0], *configs[1]])
        if configs[0].get(name) != configs[1].get(name)
    ]
    tensors = _tensor_differences(*(_tensors(folder) for folder in folders))
    if settings:
        print_table(TextTable(["setting", *map(str, (arguments.a, arguments.b))], settings, words=3))
    if tensors.rows:
        say("" if settings else "the settings are the same\n")
        print_table(tensors)
    elif not settings:
        say("the adapters are the same")
    else:
        say("\nthe tensors are the same")


def _tensor_differences(a: "dict[str, np.ndarray]", b: "dict[str, np.ndarray]") -> "TextTable":
    """How far tensors are from their namesakes: the largest difference, and its norm as a share of the first ones'."""
    import numpy as np

    from lpt.report.text_table import TextTable

    rows, pairs = [], defaultdict(list)
    for name in dict.fromkeys([*a, *b]):
        shapes = ["absent" if found is None else str(list(found.shape)) for found in (a.get(name), b.get(name))]
        if shapes[0] != shapes[1]:
            rows.append([name, f"{shapes[0]} and {shapes[1]}", "", ""])
        elif not np.array_equal(a[name], b[name]):
            pairs[_in_any_layer(name)].append((a[name].astype(np.float64), b[name].astype(np.float64)))
    for name, alike in pairs.items():
        largest = max(float(np.abs(one - other).max()) for one, other in alike)
        moved = sum(float(np.sum((one - other) ** 2)) for one, other in alike) ** 0.5
        norm = sum(float(np.sum(one**2)) for one, _ in alike) ** 0.5
        rows.append([name, str(len(alike)), f"{largest:.2g}", f"{moved / norm:.0%}" if norm else ""])
    return TextTable(["tensors", "", "largest difference", "norm"], rows)


def _flat(config: AdapterConfig) -> dict[str, Any]:
    """Dotted name -> value of everything that was chosen."""
    flat: dict[str, Any] = {}

    def put(prefix: str, value: Any) -> None:
        if isinstance(value, dict) and value:
            for name, inner in value.items():
                put(f"{prefix}.{name}" if prefix else name, inner)
        else:
            flat[prefix] = value

    put("", {name: value for name, value in asdict(config).items() if name not in NOTED})
    return flat


def _tensors(folder: Path) -> "dict[str, np.ndarray]":
    """Every tensor by name, without torch; raises LptError for a missing or damaged file."""
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    from lpt.errors import LptError

    try:
        found: dict[str, np.ndarray] = load_file(folder / WEIGHTS_NAME)
    except (OSError, SafetensorError) as error:
        raise LptError(f"{folder / WEIGHTS_NAME} could not be read ({error}); copy the adapter folder again") from error
    return found
