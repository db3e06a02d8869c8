"""Figures of a single run: how it learned, and the values of a regression."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from lpt.metrics_csv import read_lines
from lpt.report.plotting import ACCENT, MUTED, PANEL, Plot, figure_of, label_ends
from lpt.report.predictions import SavedPredictions
from lpt.report.runs import Run

if TYPE_CHECKING:
    from matplotlib.figure import Figure

CURVE_CAPTION = "Training: loss and score against optimizer steps. The dot is the step that was kept."
VALUES_CAPTION = "Predicted against gold values."


def plot_run(run: Run) -> Iterator[Plot]:
    """Plot a run's learning curve, and for a regression its values."""
    curves = read_curves(run)
    losses = [(name, curves[f"{name}/loss"]) for name in ("train", "validation") if f"{name}/loss" in curves]
    scores = curves.get(f"validation/{run.metric}", [])
    if losses and len(losses[0][1]) > 1:
        yield Plot("learning_curve", CURVE_CAPTION, _learning_curve(run, losses, scores))
    found = run.predictions
    if found is not None and found.labels is None:
        yield plot_values(found)


def plot_values(found: SavedPredictions) -> Plot:
    """Plot the values of a regression."""
    figure, ((axes,),) = figure_of(4.2, 1, 1, 4.8)
    axes.plot(found.gold, found.predicted, "o", color=ACCENT, markersize=3, alpha=0.35, markeredgewidth=0)
    ends = [min(found.gold.min(), found.predicted.min()), max(found.gold.max(), found.predicted.max())]
    axes.plot(ends, ends, color=MUTED, linewidth=0.7, linestyle=(0, (2, 3)))
    axes.set_xlabel("gold")
    axes.set_ylabel("predicted")
    return Plot("values", VALUES_CAPTION, figure)


def read_curves(run: Run) -> dict[str, list[tuple[int, float]]]:
    """Read `metrics.csv`: column -> (optimizer steps taken, value) of every row that has it, without epoch and step."""
    curves: dict[str, list[tuple[int, float]]] = {}
    try:
        for line in read_lines(run.folder):
            for name, value in line.items():
                if name not in ("epoch", "step"):
                    curves.setdefault(name, []).append((int(line["step"]) + 1, float(value)))
    except (OSError, ValueError, TypeError):
        return {}
    return curves


def _learning_curve(
    run: Run, losses: list[tuple[str, list[tuple[int, float]]]], scores: list[tuple[int, float]]
) -> "Figure":
    figure, grid = figure_of(PANEL, 1, 2 if scores else 1, 8.2 if scores else 4.6)
    ends = []
    for (name, points), color in zip(losses, (MUTED, ACCENT), strict=False):
        steps, values = zip(*points, strict=True)
        grid[0, 0].plot(steps, values, "-", color=color, marker="o" if name != "train" else None, markersize=4)
        ends.append((values[-1], name, color))
    grid[0, 0].set_title("loss")
    grid[0, 0].set_ylim(bottom=0)
    label_ends(grid[0, 0], ends, PANEL - 0.8)
    if scores:
        steps, values = zip(*scores, strict=True)
        grid[0, 1].plot(steps, values, "-o", color=ACCENT, markersize=4)
        best = run.result.best_step if run.result else None
        grid[0, 1].plot(*zip(*[p for p in scores if p[0] == best], strict=True) or ([], []), "o", color="#D55E00")
        grid[0, 1].set_title(f"validation {run.metric}")
    for axes in grid.flat:
        axes.set_xlabel("optimizer steps")
    return figure
