"""Scores against what they cost."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from lpt.report.drawing import MARKERS, PAPER, color_of, figure_of, label_ends, marker_of
from lpt.report.standings import Standings

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COSTS_CAPTION = "What quality costs on {}: the upper left is best. Labels stand level with their points, or near."

COSTS: tuple[tuple[str, tuple[str, ...], Callable[[float], float], bool], ...] = (
    ("trained parameters", ("trainable_parameters",), lambda value: value, True),
    ("ms per training step", ("train", "steps_per_second"), lambda value: 1000 / value if value else 0.0, False),
    ("peak memory, GB", ("train", "peak_memory_bytes"), lambda value: value / 1e9, False),
)


def draw_costs(standings: Standings, places: dict[str, int]) -> "Figure | None":
    """None where fewer than two configurations differ in what they cost. Each label has its color by its place."""
    from matplotlib.ticker import EngFormatter, LogLocator

    rows = [row for row in standings.scored if row.configuration.mean("trainable_parameters")]
    panels = []
    for label, path, convert, log in COSTS:
        found = [convert(value) if (value := row.configuration.mean(*path)) else None for row in rows]
        if len({f"{value:.3g}" for value in found if value}) > 1:
            panels.append((label, found, log))
    if not panels:
        return None
    height = max(3.0, 0.16 * len(rows) + 1.2)
    figure, grid = figure_of(height, 1, len(panels), sharey=True)
    for axes, (label, found, log) in zip(grid.flat, panels, strict=True):
        for row, cost in zip(rows, found, strict=True):
            if not cost:
                continue
            i = places[row.label]
            style = {"color": color_of(i), "zorder": 3 - i / 100}
            if row.interval is not None:
                axes.plot([cost, cost], row.interval, linewidth=0.9, alpha=0.35, **style)
            axes.plot(
                [cost], [row.mean], marker_of(i), markeredgecolor=PAPER, markeredgewidth=0.6, markersize=6, **style
            )
        shown = [cost for cost in found if cost]
        if log:
            axes.set_xscale("log")
            subs = (1.0,) if max(shown) / min(shown) > 50 else (1.0, 2.0, 5.0)
            axes.xaxis.set_major_locator(LogLocator(subs=subs))
            axes.xaxis.set_major_formatter(EngFormatter(sep=""))
        else:
            axes.set_xlim(0, 1.08 * max(shown))
        axes.minorticks_off()
        axes.set_xlabel(label)
    grid[0, 0].set_ylabel(standings.metric)
    ends = []
    for row in rows:
        i = places[row.label]
        ends.append((float(row.mean or 0), f"{MARKERS[marker_of(i)]} {row.label}", color_of(i)))
    label_ends(grid[0, -1], ends, height - 0.7)
    return figure
