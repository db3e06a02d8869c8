"""A whole bench: every measurement in a process of its own, and the files with the results."""

import dataclasses
import json
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from lpt.bench.plot import plot
from lpt.bench.table import LEGEND, cost_table, seconds
from lpt.config.bench import Measurement, config_to_json
from lpt.config.schema import Config
from lpt.console import console, say
from lpt.errors import LptError
from lpt.files import write_text


def run_bench(config: Config, measurements: Sequence[Measurement]) -> dict[str, Any]:
    """Measure, print a table, and write `bench.json`, `bench.md` and, where an option varies, `bench.png`.

    Args:
        config: what the measurements have in common, and where to write.
        measurements: what to measure (`lpt.config.bench.measurements`).

    Returns:
        What `bench.json` holds.

    Raises:
        LptError: every measurement failed, or matplotlib is missing for the plot.
    """
    folder = Path(config.bench.output or f"runs/{time.strftime('%Y-%m-%d_%H-%M-%S')}_bench_{config.backbone.name}")
    folder.mkdir(parents=True, exist_ok=True)
    title = _title(config)
    say(title)
    results: list[dict[str, Any]] = []
    bench = {"title": title, "vary": config.bench.vary, "config": dataclasses.asdict(config), "results": results}
    for i, each in enumerate(measurements, 1):
        results.append(_measure_aloud(f"{i}/{len(measurements)}", each))
        # At once, so that what was measured is there if the bench is ended.
        write_text(folder / "bench.json", json.dumps(bench, indent=2) + "\n")
    if all("error" in result for result in results):
        raise LptError("nothing could be measured; the lines above say why")
    _write(bench, folder)
    say(f"in {folder}")
    return bench


def _measure_aloud(count: str, measurement: Measurement) -> dict[str, Any]:
    config, value = measurement.config, measurement.value
    varied = "" if value is None else f", {config.bench.vary}={value}"
    what = f"{count}  {measurement.candidate}, {config.trainer.precision}{varied}"
    with console.status(what):
        result = measure_alone(measurement.candidate, config)
    say(f"{what}: {result['error'] if 'error' in result else seconds(result['step_seconds'])}")
    return result | {"value": value, "precision": result.get("precision", config.trainer.precision)}


def measure_alone(candidate: str, config: Config) -> dict[str, Any]:
    """Run `lpt.bench.measure` in a process of its own; the result has `error` where it failed."""
    with TemporaryDirectory() as folder:
        output = Path(folder) / "result.json"
        program = [sys.executable, "-m", "lpt.bench.measure"]
        process = subprocess.run(
            [*program, candidate, config_to_json(config), str(output)], capture_output=True, text=True
        )
        if output.exists():
            result: dict[str, Any] = json.loads(output.read_text(encoding="utf-8"))
            return result
    lines = process.stderr.strip().splitlines()
    status = f"its process ended with exit status {process.returncode} (-9: killed, memory may have run out)"
    return {"method": candidate, "error": lines[-1] if lines else status}


def _write(bench: dict[str, Any], folder: Path) -> None:
    """Print the results as a table, and write that too."""
    table = cost_table(bench)
    console.print()
    console.width = max(console.width, 140)  # all columns, also in a pipe
    console.print(table.rich())
    console.print(f"[dim]{LEGEND}[/dim]", soft_wrap=True)
    (folder / "bench.md").write_text(f"{bench['title']}\n\n{table.markdown()}", encoding="utf-8")
    if bench["vary"] is not None:
        plot(bench, folder / "bench.png")


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
