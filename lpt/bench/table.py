"""The results of a bench as a table, for terminals and for Markdown."""

import statistics
from dataclasses import dataclass
from typing import Any

from rich.table import Table

from lpt.backbones.names import PRECISIONS

LEGEND = (
    "vs fastest: time per step over that of the fastest; vs arithmetic bound: over the time of its matrix products "
    "alone; MB: peak memory above the loaded backbone and the cache, which training maps from a file"
)
TEXT_COLUMNS = 2  # method and format; the columns after them hold numbers
# A number format as tables show it, by PyTorch's name and by that of the options.
_SHOWN = {"float32": "float32", "bfloat16": "bf16", "float16": "fp16"}
_FORMATS = _SHOWN | {option: _SHOWN[name] for option, name in PRECISIONS.items()}


@dataclass(frozen=True)
class CostTable:
    """Headings and rows of text."""

    headings: list[str]
    rows: list[list[str]]

    def rich(self) -> Table:
        """The table for a terminal."""
        shown = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
        for i, heading in enumerate(self.headings):
            shown.add_column(heading, justify="left" if i < TEXT_COLUMNS else "right", no_wrap=True)
        for row in self.rows:
            shown.add_row(*row)
        return shown

    def markdown(self) -> str:
        """The table as Markdown."""
        numbers = len(self.headings) - TEXT_COLUMNS
        lines = [self.headings, [*["---"] * TEXT_COLUMNS, *["---:"] * numbers], *self.rows]
        return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def cost_table(bench: dict[str, Any]) -> CostTable:
    """The cost of each candidate, in the terms of `LEGEND`; the spread is half the distance between the quartiles.

    Args:
        bench: what `bench.json` holds.
    """
    fastest = min(result["step_seconds"] for result in bench["results"] if "error" not in result)
    vary = bench["vary"]
    varied = [] if vary is None else [vary.rpartition(".")[2]]
    numbers = ["per step", "spread", "vs fastest", "rows/s", "vs arithmetic bound", "MB", "cache kB/row", "trained"]
    rows = []
    for result in bench["results"]:
        value = [] if vary is None else ["" if result["value"] is None else str(result["value"])]
        failed = ["failed", *[""] * (len(numbers) - 1)]
        cells = failed if "error" in result else _costs(result, fastest)
        rows.append([result["method"], shown_format(result["precision"]), *value, *cells])
    return CostTable(["method", "format", *varied, *numbers], rows)


def _costs(result: dict[str, Any], fastest: float) -> list[str]:
    median, rate, bound = result["step_seconds"], result["examples_per_second"], result["vs_arithmetic_bound"]
    return [
        seconds(median),
        f"±{_spread(result['step_seconds_all']) / median:.0%}",
        f"{median / fastest:.1f}",
        f"{rate:,.{0 if rate >= 100 else 1}f}",
        f"{bound:.2f}" if bound < 10 else f"{bound:,.0f}",
        f"{result['peak_bytes_above_backbone'] / 1e6:,.0f}",
        f"{result['cache_bytes'] / result['cache_rows'] / 1e3:,.0f}" if result["cache_bytes"] else "",
        f"{result['trainable_parameters']:,}",
    ]


def seconds(value: float) -> str:
    """A duration for people, such as `120 ms` or `1.20 s`."""
    return f"{value * 1000:.3g} ms" if value < 1 else f"{value:.2f} s"


def shown_format(precision: str) -> str:
    """A number format as tables and plots show it: `float32`, `bf16` or `fp16`."""
    return _FORMATS.get(precision, precision)


def _spread(values: list[float]) -> float:
    if len(values) < 2:
        return 0.0
    low, _, high = statistics.quantiles(values, n=4, method="inclusive")
    return (high - low) / 2
