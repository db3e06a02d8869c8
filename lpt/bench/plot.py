"""The cost of each candidate against the option that a bench has varied."""

from pathlib import Path
from typing import Any

from lpt.bench.table import shown_format
from lpt.errors import LptError

# Colors of the usual candidates, distinct also to those who see few colors; others take matplotlib's.
COLORS = {
    "full": "#000000",
    "lora": "#D55E00",
    "prompt_tuning": "#CC79A7",
    "per_label": "#999999",
    "lpt": "#56B4E9",
    "lpt_cached": "#0072B2",
    "lpt_read_only_cached": "#009E73",
    "late_lora_read_only_cached": "#44AA99",
    "alora": "#DDCC77",
    "late_lora_cached": "#E69F00",
    "lpt_lora_cached": "#882255",
}
WIDE = 20  # values so many times as large as others need a logarithmic axis for both to be seen
PANELS = (
    ("step_seconds", 1.0, "seconds per step"),
    ("peak_bytes_above_backbone", 1e6, "peak MB above the loaded backbone"),
)


def plot(bench: dict[str, Any], path: Path) -> None:
    """Draw step time and memory against the varied option, a line per candidate and number format.

    Args:
        bench: what `bench.json` holds.
        path: the image to write.

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
    panels = figure.subplots(1, len(PANELS))
    for axes, (key, unit, title) in zip(panels, PANELS, strict=True):
        _draw_lines(axes, bench["results"], dict(zip(map(str, values), places, strict=True)), key, unit)
        axes.set_title(title, fontsize=11, loc="left")
        axes.set_xlabel(bench["vary"])
        if axes.dataLim.y1 > WIDE * max(axes.dataLim.y0, 0):
            axes.set_yscale("log")
        else:
            axes.set_ylim(0, 1.05 * axes.dataLim.y1)
        if numeric and min(places) > 0 and max(places) > WIDE * min(places):
            axes.set_xscale("log")
            axes.minorticks_off()
        axes.set_xticks(places, [str(value) for value in values])
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="y", color="0.9")
    figure.suptitle(bench["title"], fontsize=10, x=0.01, ha="left")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside right center", frameon=False, fontsize=9)
    figure.savefig(path, dpi=130)


def _draw_lines(axes: Any, results: list[dict[str, Any]], places: dict[str, float], key: str, unit: float) -> None:
    """Draw one quantity of every result.

    Args:
        axes: matplotlib's axes.
        results: as in `bench.json`.
        places: position on the x axis of each varied value, by its text.
        key: the quantity to draw.
        unit: the unit to divide it by.
    """
    measured = [result for result in results if "error" not in result]
    for precision in dict.fromkeys(result["precision"] for result in measured):
        for i, method in enumerate(dict.fromkeys(result["method"] for result in measured)):
            points = [r for r in measured if (r["method"], r["precision"]) == (method, precision)]
            if not points:
                continue
            flat = points[0]["value"] is None  # does not depend on the varied option: a line across
            xs = list(places.values())
            x = [xs[0], xs[-1]] if flat else [places[str(r["value"])] for r in points]
            axes.plot(
                x,
                [r[key] / unit for r in points] * (2 if flat else 1),
                marker=None if flat else "o",
                markersize=4,
                linewidth=1.6,
                color=COLORS.get(method, f"C{i % 10}"),
                linestyle="-" if shown_format(precision) == "bf16" else "--",
                label=f"{method}, {shown_format(precision)}",
            )
