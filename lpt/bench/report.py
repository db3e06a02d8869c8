"""A bench for people: a table, and a plot of cost against what was varied."""

import statistics
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.table import Table as RichTable

from lpt.errors import LptError

PRECISION = {"float32": "float32", "bfloat16": "bf16", "float16": "fp16", "32": "float32", "16": "fp16"}
LEGEND = "x best: over the fastest of all; x floor: over its arithmetic alone; MB: most memory above the backbone's"
COLORS = {  # of the usual ones, told apart also by those who see few colors; others take matplotlib's
    "full": "#000000",
    "lora": "#D55E00",
    "prompt_tuning": "#CC79A7",
    "per_label": "#999999",
    "lpt": "#56B4E9",
    "lpt_cached": "#0072B2",
    "late_lora_cached": "#E69F00",
    "lpt_lora_cached": "#009E73",
}


@dataclass(frozen=True)
class Table:
    """Headings and rows of text."""

    headings: list[str]
    rows: list[list[str]]

    def rich(self) -> RichTable:
        shown = RichTable(box=None, pad_edge=False, padding=(0, 2, 0, 0))
        for i, heading in enumerate(self.headings):
            shown.add_column(heading, justify="left" if i < 2 else "right", no_wrap=True)
        for row in self.rows:
            shown.add_row(*row)
        return shown

    def markdown(self) -> str:
        lines = [self.headings, ["---", "---", *["---:"] * (len(self.headings) - 2)], *self.rows]
        return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def table(bench: dict[str, Any]) -> Table:
    """Each contestant's cost, in the terms of `LEGEND`; the spread is half the distance between the quartiles."""
    fastest = min(result["step_seconds"] for result in bench["results"] if "error" not in result)
    vary = [] if bench["vary"] is None else [bench["vary"].rpartition(".")[2]]
    headings = ["method", "format", *vary, "per step", "spread", "x best", "rows/s", "x floor", "MB", "trained"]
    rows = []
    for result in bench["results"]:
        value = [] if bench["vary"] is None else ["" if result["value"] is None else str(result["value"])]
        start = [result["method"], PRECISION.get(result["precision"], result["precision"]), *value]
        if "error" in result:
            rows.append([*start, "failed", *[""] * (len(headings) - len(start) - 1)])
            continue
        median = result["step_seconds"]
        rows.append(
            [
                *start,
                seconds(median),
                f"±{_spread(result['step_seconds_all']) / median:.0%}",
                f"{median / fastest:.1f}",
                f"{result['examples_per_second']:,.{0 if result['examples_per_second'] >= 100 else 1}f}",
                f"{result['times_floor']:.2f}" if result["times_floor"] < 10 else f"{result['times_floor']:,.0f}",
                f"{result['peak_bytes_above_backbone'] / 1e6:,.0f}",
                f"{result['trainable_parameters']:,}",
            ]
        )
    return Table(headings, rows)


def seconds(value: float) -> str:
    """A step's time for people."""
    return f"{value * 1000:.3g} ms" if value < 1 else f"{value:.2f} s"


def _spread(values: list[float]) -> float:
    if len(values) < 2:
        return 0.0
    low, _, high = statistics.quantiles(values, n=4, method="inclusive")
    return (high - low) / 2


def plot(bench: dict[str, Any], path: Path) -> None:
    """Step time and memory against the varied option, a line per method and number format.

    Raises:
        LptError: matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise LptError("plots are drawn by matplotlib, which is not installed: pip install 'lpt[bench]'") from None
    values = bench["config"]["bench"]["values"]
    numeric = all(isinstance(value, int | float) for value in values)
    places = values if numeric else list(range(len(values)))
    figure = Figure(figsize=(11, 4.5), layout="constrained")
    time_axes, memory_axes = figure.subplots(1, 2)
    measured = [result for result in bench["results"] if "error" not in result]
    for precision in dict.fromkeys(result["precision"] for result in measured):
        for place, method in enumerate(dict.fromkeys(result["method"] for result in measured)):
            points = [r for r in measured if (r["method"], r["precision"]) == (method, precision)]
            if not points:
                continue
            label = f"{method}, {PRECISION.get(precision, precision)}"
            style = {
                "color": COLORS.get(method, f"C{place % 10}"),
                "linestyle": "-" if precision == "bfloat16" else "--",
                "label": label,
            }
            flat = points[0]["value"] is None
            x = [places[0], places[-1]] if flat else [places[values.index(r["value"])] for r in points]
            for axes, key, unit in ((time_axes, "step_seconds", 1.0), (memory_axes, "peak_bytes_above_backbone", 1e6)):
                y = [r[key] / unit for r in points] * (2 if flat else 1)
                axes.plot(x, y, marker=None if flat else "o", markersize=4, linewidth=1.6, **style)
    for axes, title in ((time_axes, "seconds per step"), (memory_axes, "peak MB above the loaded backbone")):
        axes.set_title(title, fontsize=11, loc="left")
        axes.set_xlabel(bench["vary"])
        axes.set_ylim(0, 1.05 * axes.dataLim.y1)
        axes.set_xticks(places, [str(value) for value in values])
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="y", color="0.9")
    figure.suptitle(bench["title"], fontsize=10, x=0.01, ha="left")
    figure.legend(*time_axes.get_legend_handles_labels(), loc="outside right center", frameon=False, fontsize=9)
    figure.savefig(path, dpi=130)
