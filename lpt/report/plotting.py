"""What figures look like. Colors are told apart also by those who see few of them; lines are labeled where they end."""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.optimize import isotonic_regression

from lpt.errors import LptError
from lpt.report.standings import Standings

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK, MUTED, FAINT, PAPER = "#1d1d22", "#6d6d78", "#dcdce2", "#ffffff"
ACCENT = "#0072B2"
COLORS = (ACCENT, "#D55E00", "#009E73", "#CC79A7", "#B8860B", "#56B4E9", "#8C6BB1")  # after Okabe and Ito
STYLE: Any = {
    "svg.fonttype": "none",  # text stays text
    "text.parse_math": False,  # a class may be called $0-$50
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
class Plot:
    """A figure of the report.

    Attributes:
        name: the name of its file, without the ending.
        caption: what it shows, in words.
        about: the one board that it is about, if it is about one.
    """

    name: str
    caption: str
    figure: "Figure"
    about: Standings | None = None


def file_name(*parts: str | None) -> str:
    """Join the parts that there are into what fits a file's name and an SVG's ids."""
    return re.sub(r"[^\w.-]+", "-", "_".join(part for part in parts if part))


@contextmanager
def plotting_style() -> Iterator[None]:
    """Set matplotlib up for plotting and saving.

    Raises:
        LptError: it is not installed.
    """
    try:
        import matplotlib
    except ImportError:
        raise LptError("figures are drawn by matplotlib, which is not installed: pip install 'lpt[bench]'") from None
    with matplotlib.rc_context(STYLE):
        yield


def figure_of(height: float, rows: int, columns: int, width: float = WIDTH, **options: Any) -> "tuple[Figure, Any]":
    """Return a figure and its `[rows, columns]` array of axes.

    Args:
        height: in inches.
        rows: of panels.
        columns: of panels.
        width: in inches.
        options: for matplotlib's `Figure.subplots`.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots(rows, columns, squeeze=False, **options)


def label_ends(axes: "Axes", ends: Sequence[tuple[float, str, str]], inches: float) -> None:
    """Write names at the right edge of axes `inches` high, level with their ends or as near as there is room."""
    low, high = axes.get_ylim()
    places = (np.array([height for height, _, _ in ends]) - low) / (high - low)
    spread = spread_out(places, 0.155 / inches)
    for (_, name, color), place, wanted in zip(ends, spread, places, strict=True):
        axes.annotate(
            name,
            (1.0, wanted),
            (1.045, place),
            xycoords="axes fraction",
            textcoords="axes fraction",
            va="center",
            color=color,
            size=7.8,
            # From the name's left end; from its middle, where it would start by itself, it crosses other names.
            arrowprops={
                "arrowstyle": "-",
                "color": FAINT,
                "linewidth": 0.6,
                "shrinkA": 1,
                "shrinkB": 1,
                "relpos": (0, 0.5),
            },
        )


def spread_out(places: np.ndarray, gap: float) -> np.ndarray:
    """Return the nearest places to these, in the same order, that are at least `gap` apart; `[N]` each."""
    order = np.argsort(places, kind="stable")
    steps = gap * np.arange(len(places))
    spread = np.empty(len(places))
    spread[order] = isotonic_regression(places[order] - steps).x + steps
    return spread
