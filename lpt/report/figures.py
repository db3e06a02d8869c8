"""All figures of a study: scores of every configuration, scores against options, scores against costs."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from lpt.report.cost_plot import COSTS_CAPTION, plot_costs
from lpt.report.curves import AGAINST, CURVES_CAPTION, plot_curves, varied_lines
from lpt.report.plotting import ACCENT, INK, LINE, MUTED, PAPER, WIDTH, Plot, figure_of, file_name
from lpt.report.standings import Standings

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SCORES_CAPTION = (
    "Test score of each configuration: mean over seeds with its 95% interval over test rows; ticks are single seeds. "
    "Blue: the best, and those not shown to be worse than it."
)


def plot_study(standings: Sequence[Standings]) -> Iterator[Plot]:
    """Plot every figure in which these results, of one backbone or one comparison of backbones, show something."""
    shown = [s for s in standings if s.scored]
    backbone = shown[0].board.backbone if shown else None
    if any(len(s.rows) > 1 for s in shown):
        yield Plot(file_name("scores", backbone), SCORES_CAPTION, plot_scores(shown))
    for against in AGAINST:
        panels = [(s, lines) for s in shown if (lines := varied_lines(s, against))]
        if panels:
            yield Plot(
                file_name(against.name, backbone), CURVES_CAPTION.format(against.label), plot_curves(panels, against)
            )
    for s in shown:
        figure = plot_costs(s)
        if figure is not None:
            alone = sum(other.board.task == s.board.task for other in shown) == 1
            name = file_name("cost", s.board.task, backbone, None if alone else s.board.test_set)
            yield Plot(name, COSTS_CAPTION.format(s.title), figure, about=s)


def plot_scores(standings: Sequence[Standings]) -> "Figure":
    """Draw the score of every configuration, one panel per board."""
    labels = _by_mean(standings)[::-1]
    if len(standings) == 1:
        labels = [row.label for row in reversed(standings[0].rows)]
    columns = min(4, len(standings))
    rows = -(-len(standings) // columns)
    width = WIDTH if columns > 1 else 6.8
    figure, grid = figure_of(rows * (LINE * len(labels) + 0.75), rows, columns, width, sharey=True)
    for axes, s in zip(grid.flat, standings, strict=False):
        _score_panel(axes, s, labels)
    for axes in grid.flat[len(standings) :]:
        axes.set_visible(False)
    return figure


def _by_mean(standings: Sequence[Standings]) -> list[str]:
    """Sort labels by their mean score over boards, the highest first, those without a score last."""
    means: dict[str, list[float]] = defaultdict(list)
    for s in standings:
        for row in s.rows:
            means[row.label] += [row.mean] if row.mean is not None else []
    return sorted(means, key=lambda label: -float(np.mean(means[label])) if means[label] else np.inf)


def _score_panel(axes: "Axes", standings: Standings, labels: list[str]) -> None:
    from matplotlib.ticker import MaxNLocator

    rows = {row.label: row for row in standings.rows}
    if standings.best is not None and standings.best.mean is not None:
        axes.axvline(standings.best.mean, color=MUTED, linewidth=0.7, linestyle=(0, (2, 3)))
    for y, label in enumerate(labels):
        row = rows.get(label)
        if row is None or row.mean is None:
            reason = "no run" if row is None else row.without_score
            axes.annotate(
                reason,
                (0.02, y),
                xycoords=("axes fraction", "data"),
                va="center",
                color=MUTED,
                style="italic",
                size=7.5,
            )
            continue
        color = ACCENT if row.tied else MUTED
        axes.plot(row.scores, [y] * len(row.scores), "|", color=color, markersize=6, markeredgewidth=0.7, alpha=0.6)
        if row.interval is not None:
            axes.plot(row.interval, [y, y], color=color, linewidth=1.4, alpha=0.75)
        axes.plot([row.mean], [y], "o", color=color, markersize=5.5, markeredgecolor=PAPER, markeredgewidth=0.6)
    axes.set_yticks(range(len(labels)), labels)
    axes.tick_params(axis="y", length=0, labelcolor=INK)
    axes.set_ylim(-0.7, len(labels) - 0.3)
    axes.xaxis.set_major_locator(MaxNLocator(4))
    axes.margins(x=0.06)
    axes.spines["left"].set_visible(False)
    axes.set_title(
        standings.title if len(labels) == len(rows) and not standings.board.backbone else standings.board.task
    )
    axes.set_xlabel(standings.metric)
