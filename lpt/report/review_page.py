"""A review as one page: scores of each class, what is confused, how reliable probabilities are, the mistakes."""

from collections.abc import Iterator
from html import escape

import numpy as np

from lpt.calibration import BINS
from lpt.report.html import document, figure, section, table
from lpt.report.learning import plot_values
from lpt.report.plotting import ACCENT, INK, MUTED, PAPER, Plot, figure_of, plotting_style
from lpt.report.prediction_tables import MATRIX, class_table, confusion_table, mistakes_table
from lpt.report.review import Review

DRAWN = 60  # the most classes that a heat map is drawn with
HEAT_CAPTION = "Share of the rows of each gold class (row) that were predicted as each class (column)."
RELIABILITY_CAPTION = (
    "Share of right answers by confidence, of the rows in each bin. On the dotted line, probabilities mean what they "
    "say; below it, they promise too much. Beneath: how many rows are in each bin."
)


def review_page(review: Review, mistakes: int, confidence: float) -> str:
    """Return the whole HTML file.

    Args:
        mistakes: the most to show.
        confidence: below which a person would look at the rows.

    Raises:
        LptError: matplotlib is not installed.
    """
    found = review.found
    furthest = table(mistakes_table(found, mistakes, characters=10_000), "mistakes" if found.texts else "")
    lead = escape(review.headline)
    body = [f"<header><h1>{escape(review.title)}</h1><p class=lead>{lead}</p></header>"]
    with plotting_style():
        if found.labels is None:
            body += section("Values", [figure(plot_values(found))])
            return document(review.title, [*body, *section("The largest errors", [furthest])])
        trust = f"<p>{escape(str(review.coverage(confidence)))}; {escape(review.calibration)}.</p>"
        body += section("Each class", [table(class_table(found))])
        confusion = [figure(plot) for plot in _heat_map(review)]
        if len(found.labels) > MATRIX:
            confusion.append("<h3>The most confused classes</h3>" + table(confusion_table(found)))
        body += section("Confusion", confusion)
        body += section("How far to trust a probability", [trust, figure(_reliability(review))])
    return document(review.title, [*body, *section("Mistakes, the surest first", [furthest])])


def _heat_map(review: Review) -> Iterator[Plot]:
    """Plot the confusion matrix, if it is small enough to be read."""
    from matplotlib.patches import Rectangle

    labels = review.found.labels or []
    if len(labels) > DRAWN:
        return
    counts_CC = review.found.confusion_counts()
    share_CC = counts_CC / np.maximum(counts_CC.sum(1, keepdims=True), 1)
    size = max(2.6, min(0.62 * len(labels), 7.0))
    drawing, ((axes,),) = figure_of(size, 1, 1, size + 1.6)
    for (gold, predicted), share in np.ndenumerate(share_CC):
        axes.add_patch(Rectangle((predicted, gold), 1, 1, facecolor=ACCENT, alpha=float(share), linewidth=0))
        if len(labels) <= MATRIX and counts_CC[gold, predicted]:
            color = PAPER if share > 0.55 else INK
            place = (predicted + 0.5, gold + 0.5)
            axes.annotate(f"{counts_CC[gold, predicted]:,}", place, ha="center", va="center", color=color)
    middles = np.arange(len(labels)) + 0.5
    axes.set_xticks(middles, labels, rotation=0 if len(labels) <= 4 else 90)
    axes.set_yticks(middles, labels)
    axes.set(xlim=(0, len(labels)), ylim=(len(labels), 0), aspect="equal", xlabel="predicted", ylabel="gold")
    axes.grid(visible=False)
    axes.tick_params(length=0)
    yield Plot("confusion", HEAT_CAPTION, drawing)


def _reliability(review: Review) -> Plot:
    bins = review.bins
    middle = bins.low + 0.5 / BINS
    drawing, ((above,), (below,)) = figure_of(4.6, 2, 1, 5.2, sharex=True, height_ratios=(3, 1))
    above.plot([0, 1], [0, 1], color=MUTED, linewidth=0.7, linestyle=(0, (2, 3)))
    above.bar(middle, bins.accuracy, 0.9 / BINS, color=ACCENT, alpha=0.35)
    above.plot(bins.confidence, bins.accuracy, "o", color=ACCENT, markersize=4.5)
    above.set(xlim=(0, 1), ylim=(0, 1), ylabel="share right")
    below.bar(middle, bins.rows, 0.9 / BINS, color=MUTED, alpha=0.6)
    below.set(xlabel="confidence", ylabel="rows")
    return Plot("reliability", RELIABILITY_CAPTION, drawing)
