"""Scores against an option that was varied: layer, prompt length, training rows."""

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lpt.report.configurations import Configuration, name_of
from lpt.report.plotting import COLORS, MUTED, PANEL, PAPER, WIDTH, figure_of, label_ends
from lpt.report.standings import Standing, Standings

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

REFERENCES = 4  # configurations drawn as lines across
CURVES_CAPTION = (
    "Test score against {}: mean over seeds, in a band of its 95% interval over test rows; the small dots are single "
    "seeds. Dashed: the best of the configurations that were run with one choice, or have none."
)


@dataclass(frozen=True)
class Against:
    """An option that a score may be drawn against.

    Attributes:
        keys: the options that it stands for: a line connects configurations that differ in these alone.
        value: its value for a configuration; None where that has none.
    """

    name: str
    label: str
    keys: tuple[str, ...]
    value: Callable[[Configuration], Any]


def _first(*keys: str) -> Callable[[Configuration], Any]:
    return lambda c: next((value for key in keys if (value := c.runs[0].options.get(key)) is not None), None)


def _training_rows(c: Configuration) -> Any:
    return _first("fewshot.k")(c) or c.mean(lambda result: result.data.sizes.get("train"))


SAMPLING = ("fewshot.k", "fewshot.protocol", "fewshot.k_dev")
AGAINST = (
    Against("layer", "layer", ("lpt.layer",), lambda c: c.mean(lambda result: result.lpt.layer)),
    Against(
        "prompt_length",
        "prompt length P",
        ("lpt.prompt_length", "method.prompt_length"),
        _first("lpt.prompt_length", "method.prompt_length"),
    ),
    Against("k", "training rows k", SAMPLING, _training_rows),
    Against(
        "bottleneck",
        "bottleneck m",
        ("lpt.bottleneck", "method.bottleneck"),
        _first("lpt.bottleneck", "method.bottleneck"),
    ),
    Against("lr", "learning rate", ("optim.lr",), _first("optim.lr")),
)


def varied_lines(standings: Standings, against: Against) -> dict[str, list[tuple[Any, Standing]]]:
    """Return label -> (value, standing) of configurations that differ in this option alone; {} where none does."""
    groups: dict[tuple[Any, ...], list[tuple[Any, Standing]]] = defaultdict(list)
    for row in standings.scored:
        c = row.configuration
        key = tuple((name, str(value)) for name, value in c.values.items() if name not in against.keys)
        groups[key].append((against.value(c), row))
    lines: dict[str, list[tuple[Any, Standing]]] = {}
    varied = False
    for points in groups.values():
        first = points[0][1].configuration
        different = len({value for value, _ in points}) == len(points) > 1 and all(v is not None for v, _ in points)
        if different:
            points.sort(key=lambda point: point[0])
            lines[name_of(first, without=against.keys)] = points
            varied = True
        else:
            lines |= {row.label: [(None, row)] for _, row in points}
    return lines if varied else {}


def plot_curves(
    panels: Sequence[tuple[Standings, dict[str, list[tuple[Any, Standing]]]]], against: Against
) -> "Figure":
    """Draw scores against the option that varies, one panel per board.

    Args:
        panels: a board's standings, and its lines by name as `varied_lines` returns them.
        against: the option on the horizontal axis.
    """
    columns = 2 if len(panels) in (2, 4) else min(3, len(panels))
    rows = -(-len(panels) // columns)
    names = dict.fromkeys(name for _, lines in panels for name, points in lines.items() if len(points) > 1)
    colors = {name: COLORS[i % len(COLORS)] for i, name in enumerate(names)}
    width = {1: 6.2, 2: 8.2}.get(columns, WIDTH)
    figure, grid = figure_of(PANEL * rows, rows, columns, width)
    for axes, (standings, lines) in zip(grid.flat, panels, strict=False):
        _curve_panel(axes, standings, lines, against, colors)
    for axes in grid[:, 0]:
        axes.set_ylabel(panels[0][0].metric)
    for axes in grid.flat[len(panels) :]:
        axes.set_visible(False)
    return figure


def _curve_panel(
    axes: "Axes",
    standings: Standings,
    lines: dict[str, list[tuple[Any, Standing]]],
    against: Against,
    colors: dict[str, str],
) -> None:
    ends: list[tuple[float, str, str]] = []
    values = sorted({value for points in lines.values() for value, _ in points if value is not None})
    references = sorted(
        (points[0][1] for points in lines.values() if len(points) == 1), key=lambda row: -(row.mean or 0)
    )
    for row in references[:REFERENCES]:
        assert row.mean is not None
        axes.axhline(row.mean, color=MUTED, linewidth=0.8, linestyle=(0, (4, 3)), alpha=0.7)
        ends.append((row.mean, row.label, MUTED))
    for name, points in lines.items():
        if len(points) == 1:
            continue
        x = [value for value, _ in points]
        means = [row.mean or 0.0 for _, row in points]
        if all(row.interval is not None for _, row in points):
            low, high = zip(*(row.interval for _, row in points), strict=True)
            axes.fill_between(x, low, high, color=colors[name], alpha=0.13, linewidth=0)
        for value, row in points:
            axes.plot([value] * len(row.scores), row.scores, ".", color=colors[name], markersize=2.5, alpha=0.6)
        axes.plot(x, means, "-o", color=colors[name], markeredgecolor=PAPER, markeredgewidth=0.6)
        ends.append((means[-1], name, colors[name]))
    if against.name != "layer" and values[0] > 0 and values[-1] / values[0] > 8:
        axes.set_xscale("log")
    axes.minorticks_off()
    axes.set_xticks(values[:: -(-len(values) // 8)], [f"{value:g}" for value in values[:: -(-len(values) // 8)]])
    axes.set_xlabel(against.label)
    axes.set_title(standings.board.task)
    axes.margins(y=0.08)
    if len(ends) > 1:
        label_ends(axes, ends, PANEL - 0.8)
