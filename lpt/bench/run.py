"""A bench as a whole: which contestants, one process each, and where the results go."""

import dataclasses
import json
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from lpt.bench.report import LEGEND, plot, seconds, table
from lpt.config.candidates import STOCK, method_of
from lpt.config.explain import describe
from lpt.config.fields import options_class
from lpt.config.resolve import resolve
from lpt.config.schema import Config, HeadConfig, MethodConfig
from lpt.console import console, say
from lpt.errors import ConfigError, LptError

OUR_OPTIONS = ("lpt", "generator", "head", "method")  # that stock rivals do not know: they are measured once


def run_bench(cfg: DictConfig) -> dict[str, Any]:
    """Measure what the configuration asks for, print a table, and leave `bench.json`, `bench.md` and a plot.

    Returns:
        What `bench.json` holds.

    Raises:
        ConfigError: a value of `bench.values` that the option cannot have.
        LptError: nothing at all could be measured.
    """
    config = resolve(cfg)
    points = _points(cfg, config)
    folder = Path(config.bench.output or f"runs/{time.strftime('%Y-%m-%d_%H-%M-%S')}_bench_{config.backbone.name}")
    folder.mkdir(parents=True, exist_ok=True)
    title = _title(config)
    say(title)
    results: list[dict[str, Any]] = []
    for i, (method, value, point) in enumerate(points, 1):
        what = f"{i}/{len(points)}  {_what(method, value, point)}"
        with console.status(what):
            result = measure_alone(method, point)
        result |= {"value": value, "precision": result.get("precision", point.trainer.precision)}
        results.append(result)
        say(f"{what}: {result['error'] if 'error' in result else seconds(result['step_seconds'])}")
    if all("error" in result for result in results):
        raise LptError("nothing could be measured; see the lines above")
    bench = {
        "title": title,
        "vary": config.bench.vary,
        "config": dataclasses.asdict(config),
        "results": results,
    }
    (folder / "bench.json").write_text(json.dumps(bench, indent=2) + "\n", encoding="utf-8")
    shown = table(bench)
    console.print()
    console.width = max(console.width, 110)  # whole, also in a pipe
    console.print(shown.rich())
    console.print(f"[dim]{LEGEND}[/dim]", soft_wrap=True)
    (folder / "bench.md").write_text(f"{title}\n\n{shown.markdown()}", encoding="utf-8")
    if config.bench.vary is not None:
        plot(bench, folder / "bench.png")
    say(f"in {folder}")
    return bench


def _points(cfg: DictConfig, config: Config) -> list[tuple[str, Any, Config]]:
    """(method, varied value, configuration) for each process; no value for a rival that the option leaves as is."""
    bench, complaints = config.bench, []
    varied: list[tuple[Any, Config]] = []
    for value in bench.values or [None]:
        changed = cfg.copy()
        try:
            if bench.vary is not None:
                OmegaConf.update(changed, bench.vary, value)
            varied.append((value, resolve(changed)))
        except ConfigError as error:
            complaints += [f"bench.values: {complaint}" for complaint in error.complaints]
        except OmegaConfBaseException as error:
            complaints.append(f"bench.values: {describe(error, f'{bench.vary}={value}')}")
    if complaints:
        raise ConfigError(complaints)
    ours_alone = bench.vary is not None and bench.vary.partition(".")[0] in OUR_OPTIONS
    points = []
    for precision in bench.precisions:
        for method in bench.methods:
            for value, point in [(None, config)] if ours_alone and method in STOCK else varied:
                trainer = dataclasses.replace(point.trainer, precision=precision)
                own = _method(method, point)
                # A probe trains its head alone.
                head = HeadConfig("linear") if own.name == "linear_probe" else point.head
                points.append((method, value, dataclasses.replace(point, trainer=trainer, method=own, head=head)))
    return points


def _method(contestant: str, config: Config) -> MethodConfig:
    """The settings of a contestant's method: the user's, for the method that the user named, else its own file's."""
    name = method_of(contestant)
    if contestant in STOCK or name == config.method.name:
        return config.method
    made = options_class("method", name, tuple(config.plugins))()
    assert isinstance(made, MethodConfig)
    return made


def measure_alone(method: str, config: Config) -> dict[str, Any]:
    """`lpt.bench.measure` in a process of its own; `error` says why where it came to nothing."""
    with TemporaryDirectory() as folder:
        output = Path(folder) / "result.json"
        command = [
            sys.executable,
            "-m",
            "lpt.bench.measure",
            method,
            json.dumps(dataclasses.asdict(config)),
            str(output),
        ]
        process = subprocess.run(command, capture_output=True, text=True)
        if output.exists():
            return json.loads(output.read_text(encoding="utf-8"))
    lines = process.stderr.strip().splitlines()
    reason = (
        lines[-1] if lines else f"its process ended with {process.returncode} (-9: killed, memory may have run out)"
    )
    return {"method": method, "error": reason}


def _title(config: Config) -> str:
    """What every measurement of the bench has in common."""
    bench, lpt = config.bench, config.lpt
    facts = {
        "optim.batch_size": f"{config.optim.batch_size} rows",
        "bench.tokens": f"{bench.tokens} tokens each",
        "lpt.layer": f"layer {lpt.layer or 'L // 2 + 1'}",
        "lpt.prompt_length": f"P={lpt.prompt_length}",
        "generator.name": config.generator.name,
        "head.name": f"head {config.head.name}",
        "bench.labels": f"{bench.labels} labels",
    }
    common = ", ".join(fact for option, fact in facts.items() if option != bench.vary)
    return f"{config.backbone.name}, one {'training step' if bench.step == 'train' else 'evaluation'}: {common}"


def _what(method: str, value: Any, config: Config) -> str:
    varied = "" if value is None else f", {config.bench.vary}={value}"
    return f"{method}, {config.trainer.precision}{varied}"
