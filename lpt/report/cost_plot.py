"""Scores against what they cost: the best trade-offs stand out, the other configurations stay in the background."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from lpt.report.costs import COSTS, Cost
from lpt.report.plotting import ACCENT, FAINT, INK, MUTED, PAPER, figure_of, spread_out
from lpt.report.standings import Standing, Standings

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COSTS_CAPTION = (
    "What quality costs on {}: the upper left is best. Blue: the best trade-offs, where no other configuration scores "
    "as high for less; with their 95% intervals over test rows. Numbers name every configuration that is one of them "
    "in some panel; gray dots are all others. Triangles at the lower edge score below it."
)
FEW = 6  # configurations that can all be named
HEIGHT = 3.4  # inches
FENCE = 1.5  # interquartile ranges below the lower quartile, from which on a score is an outlier (Tukey)
LOG = 3  # times that the highest cost is the lowest, from which on the scale is logarithmic

Priced = list[tuple[float, Standing]]  # what each configuration costs


def plot_costs(standings: Standings) -> "Figure | None":
    """Plot scores against each kind of cost; None where no kind tells two configurations apart."""
    rows = [row for row in standings.scored if COSTS[0].of(row.configuration)]
    panels = [(cost, _priced(rows, cost)) for cost in COSTS]
    panels = [(cost, priced) for cost, priced in panels if len({f"{price:.3g}" for price, _ in priced}) > 1]
    if not panels:
        return None
    fronts = [front(priced) for _, priced in panels]
    best = {row.label for on_front in fronts for row in on_front}
    named = [row for row in sorted(rows, key=_score, reverse=True) if len(rows) <= FEW or row.label in best]
    numbers = {row.label: i + 1 for i, row in enumerate(named)}
    figure, grid = figure_of(HEIGHT, 1, len(panels), sharey=True)
    lowest, highest = _score_limits(rows, {row.label for row in named})
    for axes, (cost, priced), on_front in zip(grid.flat, panels, fronts, strict=True):
        axes.set_ylim(lowest, highest)
        _cost_axis(axes, cost.label, [price for price, _ in priced])
        _panel(axes, priced, {row.label for row in on_front}, numbers)
    grid[0, 0].set_ylabel(standings.metric)
    _key(grid[0, -1], named)
    return figure


def front(priced: Priced) -> list[Standing]:
    """Return the best trade-offs, the cheapest first: none of the others costs as little and scores as high."""
    found: list[Standing] = []
    for _, row in sorted(priced, key=lambda point: (point[0], -_score(point[1]))):
        if not found or _score(row) > _score(found[-1]):
            found.append(row)
    return found


def _score(row: Standing) -> float:
    return row.mean or 0.0


def _priced(rows: Sequence[Standing], cost: Cost) -> Priced:
    return [(price, row) for row in rows if (price := cost.of(row.configuration))]


def _score_limits(rows: Sequence[Standing], named: set[str]) -> tuple[float, float]:
    """Heights that show what is named, with its interval, and all that is no outlier downward."""
    scores = np.array([_score(row) for row in rows])
    lower, upper = np.percentile(scores, [25, 75])
    fence = lower - FENCE * (upper - lower)
    shown = [_score(row) for row in rows if _score(row) >= fence]
    shown += [end for row in rows if row.label in named for end in row.interval or (_score(row),)]
    margin = 0.06 * (max(shown) - min(shown)) or 0.01
    return min(shown) - margin, max(shown) + margin


def _cost_axis(axes: "Axes", label: str, prices: list[float]) -> None:
    from matplotlib.ticker import EngFormatter, LogLocator

    low, high = min(prices), max(prices)
    if high / low > LOG:
        axes.set_xscale("log")
        edge = (high / low) ** 0.07
        axes.set_xlim(low / edge, high * edge)
        axes.xaxis.set_major_locator(LogLocator(subs=(1.0,) if high / low > 50 else (1.0, 2.0, 5.0)))
        axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    else:
        edge = 0.08 * (high - low)
        axes.set_xlim(low - edge, high + edge)
        axes.locator_params(axis="x", nbins=4)
    axes.minorticks_off()
    axes.set_xlabel(label)


def _panel(axes: "Axes", priced: Priced, on_front: set[str], numbers: dict[str, int]) -> None:
    lowest, _ = axes.get_ylim()
    best = sorted((price, _score(row)) for price, row in priced if row.label in on_front)
    best.append((axes.get_xlim()[1], best[-1][1]))  # whoever can pay more can have the best of all
    axes.plot(*zip(*best, strict=True), color=ACCENT, linewidth=1.2, alpha=0.5, drawstyle="steps-post")
    for price, row in priced:
        if row.label in on_front and row.interval is not None:
            axes.plot([price, price], row.interval, color=ACCENT, linewidth=4.5, alpha=0.16)
        if row.label in numbers:
            _disc(axes, price, _score(row), numbers[row.label], row.label in on_front)
        elif _score(row) < lowest:
            axes.plot([price], [lowest], "v", color=MUTED, markersize=4, alpha=0.6, clip_on=False, markeredgewidth=0)
        else:
            axes.plot([price], [_score(row)], "o", color=MUTED, markersize=3.5, alpha=0.45, markeredgewidth=0)


def _disc(axes: "Axes", price: float, score: float, number: int, on_front: bool) -> None:
    order = (5 if on_front else 3) - number / 1000  # where two overlap, the higher score is on top
    fill, ink = (ACCENT, PAPER) if on_front else (FAINT, INK)
    axes.plot(
        [price], [score], "o", color=fill, markersize=10, markeredgecolor=PAPER, markeredgewidth=0.8, zorder=order
    )
    axes.annotate(
        str(number), (price, score), ha="center", va="center_baseline", color=ink, size=6.8, weight="bold", zorder=order
    )


def _key(axes: "Axes", named: Sequence[Standing]) -> None:
    """Names beside the last panel, the highest score first."""
    low, high = axes.get_ylim()
    heights = np.array([(_score(row) - low) / (high - low) for row in named])
    places = spread_out(heights[::-1], 0.175 / (HEIGHT - 0.6))[::-1]  # of equals, the first stands highest
    for i, (row, place) in enumerate(zip(named, places, strict=True)):
        axes.annotate(
            str(i + 1),
            (1.07, place),
            xycoords="axes fraction",
            ha="right",
            va="center",
            color=ACCENT,
            size=7.8,
            weight="bold",
        )
        axes.annotate(row.label, (1.1, place), xycoords="axes fraction", va="center", color=INK, size=7.8)
