"""The report's figures. Colours are told apart also by those who see few of them; lines are labelled where they end."""

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.optimize import isotonic_regression

from lpt.errors import LptError
from lpt.report.configurations import Configuration, name_of
from lpt.report.runs import Run, read_curves
from lpt.report.study import Standing, Standings

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK, MUTED, FAINT, PAPER = "#1d1d22", "#6d6d78", "#dcdce2", "#ffffff"
ACCENT = "#0072B2"
COLOURS = (ACCENT, "#D55E00", "#009E73", "#CC79A7", "#B8860B", "#56B4E9", "#8C6BB1")  # after Okabe and Ito
MARKERS = {"o": "●", "s": "■", "^": "▲", "D": "◆", "v": "▼"}  # and how a text shows them
REFERENCES = 4  # configurations drawn as lines across
STYLE: Any = {
    "svg.fonttype": "none",  # text stays text
    "font.family": "DejaVu Sans",
    "font.size": 8.5,
    "axes.titlesize": 9.5,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": FAINT,
    "axes.labelcolor": MUTED,
    "axes.titlecolor": INK,
    "text.color": INK,
    "xtick.color": FAINT,
    "ytick.color": FAINT,
    "xtick.labelcolor": MUTED,
    "ytick.labelcolor": MUTED,
    "xtick.minor.size": 0,
    "axes.grid": True,
    "grid.color": FAINT,
    "grid.linewidth": 0.5,
    "axes.axisbelow": True,
    "lines.linewidth": 1.6,
    "lines.markersize": 5,
    "lines.solid_capstyle": "round",
    "axes.facecolor": "none",
    "figure.facecolor": PAPER,
    "savefig.facecolor": "auto",
}
WIDTH = 9.6  # inches
PANEL = 2.9  # and the height of axes with their labels
LINE = 0.22  # between the rows of scores


@dataclass(frozen=True)
class Drawing:
    """A figure.

    Attributes:
        name: of its file, without the ending.
        caption: what it shows, in words.
        about: the one board that it is about, if it is about one.
    """

    name: str
    caption: str
    figure: "Figure"
    about: Standings | None = None


@dataclass(frozen=True)
class Against:
    """An option that a score may be drawn against.

    Attributes:
        keys: the options that it stands for: a line connects configurations that differ in these alone.
        value: of a configuration; None where it has none.
    """

    name: str
    label: str
    keys: tuple[str, ...]
    value: Callable[[Configuration], Any]


def _first(*keys: str) -> Callable[[Configuration], Any]:
    return lambda c: next((value for key in keys if (value := c.runs[0].options.get(key)) is not None), None)


def _training_rows(c: Configuration) -> Any:
    return _first("fewshot.k")(c) or c.mean("data", "sizes", "train")


DRAW = ("fewshot.k", "fewshot.protocol", "fewshot.k_dev")
AGAINST = (
    Against("layer", "layer", ("lpt.layer", "method.from_layer"), lambda c: c.mean("lpt", "layer")),
    Against(
        "prompt_length",
        "prompt length P",
        ("lpt.prompt_length", "method.prompt_length"),
        _first("lpt.prompt_length", "method.prompt_length"),
    ),
    Against("k", "training rows k", DRAW, _training_rows),
    Against(
        "bottleneck",
        "bottleneck m",
        ("lpt.bottleneck", "method.bottleneck"),
        _first("lpt.bottleneck", "method.bottleneck"),
    ),
    Against("lr", "learning rate", ("optim.lr",), _first("optim.lr")),
)


@contextmanager
def drawing_style() -> Iterator[None]:
    """Matplotlib set up for drawing and saving.

    Raises:
        LptError: it is not installed.
    """
    try:
        import matplotlib
    except ImportError:
        raise LptError("figures are drawn by matplotlib, which is not installed: pip install 'lpt[bench]'") from None
    with matplotlib.rc_context(STYLE):
        yield


def draw_study(standings: Sequence[Standings]) -> Iterator[Drawing]:
    """Every figure that these results, of one backbone or of one comparison of backbones, have something to show in."""
    shown = [s for s in standings if s.scored]
    suffix = "" if not shown or shown[0].board.backbone is None else f"_{shown[0].board.backbone}"
    if any(len(s.rows) > 1 for s in shown):
        yield Drawing(f"scores{suffix}", SCORES_CAPTION, _scores(shown))
    for against in AGAINST:
        panels = [(s, lines) for s in shown if (lines := _lines(s, against))]
        if panels:
            yield Drawing(f"{against.name}{suffix}", CURVES_CAPTION.format(against.label), _curves(panels, against))
    for s in shown:
        figure = _costs(s)
        if figure is not None:
            alone = sum(other.board.task == s.board.task for other in shown) == 1
            name = f"cost_{s.board.task}{suffix}" + ("" if alone else f"_{s.board.test_set}")
            yield Drawing(name, COSTS_CAPTION.format(s.title), figure, about=s)


SCORES_CAPTION = (
    "Test score of each configuration: mean over seeds with its 95% interval over test rows; ticks are single seeds. "
    "Blue: the best, and those not shown to be worse than it."
)
CURVES_CAPTION = (
    "Test score against {}: mean over seeds, in a band of its 95% interval over test rows; the small dots are single "
    "seeds. Dashed: the best of the configurations that were run with one choice, or have none."
)
COSTS_CAPTION = "What quality costs on {}: the upper left is best. Labels stand level with their points, or near."
CURVE_CAPTION = "Training: loss and score against optimizer steps. The dot is the step that was kept."
VALUES_CAPTION = "Predicted against gold values of the test rows."


def _figure(height: float, rows: int, columns: int, width: float = WIDTH, **options: Any) -> "tuple[Figure, Any]":
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots(rows, columns, squeeze=False, **options)


# Scores, a row per configuration


def _scores(standings: Sequence[Standings]) -> "Figure":
    means: dict[str, list[float]] = defaultdict(list)
    for s in standings:
        for row in s.rows:
            means[row.label] += [row.mean] if row.mean is not None else []
    labels = sorted(means, key=lambda label: np.mean(means[label]) if means[label] else -np.inf)
    if len(standings) == 1:
        labels = [row.label for row in reversed(standings[0].rows)]
    columns = min(4, len(standings))
    rows = -(-len(standings) // columns)
    width = WIDTH if columns > 1 else 6.8
    figure, grid = _figure(rows * (LINE * len(labels) + 0.75), rows, columns, width, sharey=True)
    for axes, s in zip(grid.flat, standings, strict=False):
        _score_panel(axes, s, labels)
    for axes in grid.flat[len(standings) :]:
        axes.set_visible(False)
    return figure


def _score_panel(axes: "Axes", standings: Standings, labels: list[str]) -> None:
    from matplotlib.ticker import MaxNLocator

    rows = {row.label: row for row in standings.rows}
    if standings.best is not None and standings.best.mean is not None:
        axes.axvline(standings.best.mean, color=MUTED, linewidth=0.7, linestyle=(0, (2, 3)))
    for y, label in enumerate(labels):
        row = rows.get(label)
        if row is None or row.mean is None:
            reason = "no run" if row is None else row.configuration.others[0].status
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
        colour = ACCENT if row.tied else MUTED
        axes.plot(row.scores, [y] * len(row.scores), "|", color=colour, markersize=6, markeredgewidth=0.7, alpha=0.6)
        if row.interval is not None:
            axes.plot(row.interval, [y, y], color=colour, linewidth=1.4, alpha=0.75)
        axes.plot([row.mean], [y], "o", color=colour, markersize=5.5, markeredgecolor=PAPER, markeredgewidth=0.6)
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


# Scores against an option, a line per configuration


def _lines(standings: Standings, against: Against) -> dict[str, list[tuple[Any, Standing]]]:
    """label -> (value, standing) of configurations that differ in this option alone; {} where none does."""
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


def _curves(panels: Sequence[tuple[Standings, dict[str, list[tuple[Any, Standing]]]]], against: Against) -> "Figure":
    columns = 2 if len(panels) in (2, 4) else min(3, len(panels))
    rows = -(-len(panels) // columns)
    names = dict.fromkeys(name for _, lines in panels for name, points in lines.items() if len(points) > 1)
    colours = {name: COLOURS[i % len(COLOURS)] for i, name in enumerate(names)}
    width = {1: 6.2, 2: 8.2}.get(columns, WIDTH)
    figure, grid = _figure(PANEL * rows, rows, columns, width)
    for axes, (standings, lines) in zip(grid.flat, panels, strict=False):
        _curve_panel(axes, standings, lines, against, colours)
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
    colours: dict[str, str],
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
            low, high = zip(*(row.interval for _, row in points), strict=True)  # type: ignore[misc]
            axes.fill_between(x, low, high, color=colours[name], alpha=0.13, linewidth=0)
        for value, row in points:
            axes.plot([value] * len(row.scores), row.scores, ".", color=colours[name], markersize=2.5, alpha=0.6)
        axes.plot(x, means, "-o", color=colours[name], markeredgecolor=PAPER, markeredgewidth=0.6)
        ends.append((means[-1], name, colours[name]))
    if against.name != "layer" and values[0] > 0 and values[-1] / values[0] > 8:
        axes.set_xscale("log")
    axes.minorticks_off()
    axes.set_xticks(values[:: -(-len(values) // 8)], [f"{value:g}" for value in values[:: -(-len(values) // 8)]])
    axes.set_xlabel(against.label)
    axes.set_title(standings.board.task)
    axes.margins(y=0.08)
    if len(ends) > 1:
        _label_ends(axes, ends, PANEL - 0.8)


def _label_ends(axes: "Axes", ends: Sequence[tuple[float, str, str]], inches: float) -> None:
    """Names at the right edge of axes so high, at the heights they belong to or as near as they can be."""
    low, high = axes.get_ylim()
    places = (np.array([height for height, _, _ in ends]) - low) / (high - low)
    spread = spread_out(places, 0.155 / inches)
    for (_, name, colour), place, wanted in zip(ends, spread, places, strict=True):
        axes.annotate(
            name,
            (1.0, wanted),
            (1.045, place),
            xycoords="axes fraction",
            textcoords="axes fraction",
            va="center",
            color=colour,
            size=7.8,
            arrowprops={"arrowstyle": "-", "color": FAINT, "linewidth": 0.6, "shrinkA": 1, "shrinkB": 1},
        )


def spread_out(places: np.ndarray, gap: float) -> np.ndarray:
    """The nearest places to these, in the same order, that are `gap` apart; `[N]` each."""
    order = np.argsort(places, kind="stable")
    steps = gap * np.arange(len(places))
    spread = np.empty(len(places))
    spread[order] = isotonic_regression(places[order] - steps).x + steps
    return spread


# Scores against cost

COSTS: tuple[tuple[str, tuple[str, ...], Callable[[float], float], bool], ...] = (
    ("trained parameters", ("trainable_parameters",), lambda value: value, True),
    ("ms per training step", ("train", "steps_per_second"), lambda value: 1000 / value if value else 0.0, False),
    ("peak memory, GB", ("train", "peak_memory_bytes"), lambda value: value / 1e9, False),
)


def _costs(standings: Standings) -> "Figure | None":
    """None where fewer than two configurations differ in what they cost."""
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
    figure, grid = _figure(height, 1, len(panels), sharey=True)
    for axes, (label, found, log) in zip(grid.flat, panels, strict=True):
        for i, (row, cost) in enumerate(zip(rows, found, strict=True)):
            if not cost:
                continue
            style = {"color": _colour(i), "zorder": 3 - i / 100}
            if row.interval is not None:
                axes.plot([cost, cost], row.interval, linewidth=0.9, alpha=0.35, **style)
            axes.plot([cost], [row.mean], _marker(i), markeredgecolor=PAPER, markeredgewidth=0.6, markersize=6, **style)
        costs = [cost for cost in found if cost]
        if log:
            axes.set_xscale("log")
            subs = (1.0,) if max(costs) / min(costs) > 50 else (1.0, 2.0, 5.0)
            axes.xaxis.set_major_locator(LogLocator(subs=subs))
            axes.xaxis.set_major_formatter(EngFormatter(sep=""))
        else:
            axes.set_xlim(0, 1.08 * max(costs))
        axes.minorticks_off()
        axes.set_xlabel(label)
    grid[0, 0].set_ylabel(standings.metric)
    ends = [(float(row.mean or 0), f"{MARKERS[_marker(i)]} {row.label}", _colour(i)) for i, row in enumerate(rows)]
    _label_ends(grid[0, -1], ends, height - 0.7)
    return figure


def _colour(i: int) -> str:
    return COLOURS[i % len(COLOURS)]


def _marker(i: int) -> str:
    return list(MARKERS)[i // len(COLOURS) % len(MARKERS)]


# A single run


def draw_run(run: Run) -> Iterator[Drawing]:
    """Its learning curve, and for a regression its values."""
    curves = read_curves(run)
    losses = [(name, curves[f"{name}/loss"]) for name in ("train", "validation") if f"{name}/loss" in curves]
    scores = curves.get(f"validation/{run.metric}", [])
    if losses and len(losses[0][1]) > 1:
        yield Drawing("learning_curve", CURVE_CAPTION, _learning_curve(run, losses, scores))
    found = run.test_predictions
    if found is not None and found.labels is None:
        figure, ((axes,),) = _figure(4.2, 1, 1, 4.8)
        axes.plot(found.gold, found.predicted, "o", color=ACCENT, markersize=3, alpha=0.35, markeredgewidth=0)
        ends = [min(found.gold.min(), found.predicted.min()), max(found.gold.max(), found.predicted.max())]
        axes.plot(ends, ends, color=MUTED, linewidth=0.7, linestyle=(0, (2, 3)))
        axes.set_xlabel("gold")
        axes.set_ylabel("predicted")
        yield Drawing("values", VALUES_CAPTION, figure)


def _learning_curve(
    run: Run, losses: list[tuple[str, list[tuple[int, float]]]], scores: list[tuple[int, float]]
) -> "Figure":
    figure, grid = _figure(PANEL, 1, 2 if scores else 1, 8.2 if scores else 4.6)
    ends = []
    for (name, points), colour in zip(losses, (MUTED, ACCENT), strict=False):
        steps, values = zip(*points, strict=True)
        grid[0, 0].plot(steps, values, "-", color=colour, marker="o" if name != "train" else None, markersize=4)
        ends.append((values[-1], name, colour))
    grid[0, 0].set_title("loss")
    grid[0, 0].set_ylim(bottom=0)
    _label_ends(grid[0, 0], ends, PANEL - 0.8)
    if scores:
        steps, values = zip(*scores, strict=True)
        grid[0, 1].plot(steps, values, "-o", color=ACCENT, markersize=4)
        best = run.result.get("best_step")
        grid[0, 1].plot(*zip(*[p for p in scores if p[0] == best], strict=True) or ([], []), "o", color="#D55E00")
        grid[0, 1].set_title(f"validation {run.metric}")
    for axes in grid.flat:
        axes.set_xlabel("optimizer steps")
    return figure
