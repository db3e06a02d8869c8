"""Tables of a board: scores, costs, and every two configurations compared. Numbers as people read them."""

from collections.abc import Sequence

from lpt.report.comparison import Difference
from lpt.report.configurations import Configuration
from lpt.report.costs import peak_gigabytes, step_milliseconds, trained_parameters
from lpt.report.standings import Standing, Standings, difference_between
from lpt.report.text_table import NONE, TextTable


def standings_table(standings: Standings) -> TextTable:
    """A row per configuration: its scores, and how sure they are."""
    metric, rows = standings.metric, standings.rows
    others = _other_scores(rows, metric)
    compared = any(row.difference for row in rows)
    to = "to the baseline" if standings.baseline else "to the best"
    headings = ["configuration", f"{metric} ± sd", "95% interval", *([to, "adjusted p"] if compared else [])]
    headings += ["seeds", f"validation {metric}", *(_heading(split, name) for split, name in others)]
    table = _with_rows(headings, standings)
    seeds = len({seed for row in rows for seed in row.configuration.seeds})
    for row, cells in zip(rows, table.rows, strict=True):
        c = row.configuration
        cells[0] += " ≈" if row.tied and row is not standings.best else ""
        cells += [_mean_sd(row), _span(row.interval)]
        cells += [_points(row.difference), _p(row.difference)] if compared else []
        cells.append(f"{len(row.scores)}" + (f" of {seeds}" if len(row.scores) < seeds else ""))
        wanted = [("validation", metric), *others]
        cells += [_number(_mean_metric(c, split, name), "{:.3f}") for split, name in wanted]
    return table


def costs_table(standings: Standings) -> TextTable:
    """A row per configuration: what it trains, and what that takes; means over seeds."""
    headings = ["configuration", standings.metric, "trained parameters", "ms per step", "tokens/s", "peak GB", "wall s"]
    table = _with_rows(headings, standings)
    for row, cells in zip(standings.rows, table.rows, strict=True):
        c = row.configuration
        milliseconds = step_milliseconds(c)
        cells += [
            _number(row.mean, "{:.3f}"),
            _number(trained_parameters(c), "{:,.0f}"),
            _number(milliseconds, "{:,.0f}" if milliseconds and milliseconds > 50 else "{:.1f}"),
            _number(c.mean(lambda result: result.train.tokens_per_second) or None, "{:,.0f}"),
            _number(peak_gigabytes(c), "{:.2f}"),
            _number(c.mean(lambda result: result.wall_seconds), "{:,.0f}"),
        ]
    return table


def _with_rows(headings: list[str], standings: Standings) -> TextTable:
    """A row for each configuration, with its name alone."""
    strong = {i for i, row in enumerate(standings.rows) if row is standings.best and len(standings.rows) > 1}
    quiet = {i for i, row in enumerate(standings.rows) if not row.scores}
    return TextTable(headings, [[row.label] for row in standings.rows], strong=strong, quiet=quiet)


def pairs_table(standings: Standings) -> TextTable:
    """Differences of every two configurations, in points: row minus column, `*` where it is more than chance."""
    labels = [row.label for row in standings.rows if any(row.label in pair for pair in standings.pairs)]
    table = TextTable(["", *(str(i + 1) for i in range(len(labels)))], [])
    for i, label in enumerate(labels):
        row = [f"{i + 1} {label}"]
        for j, other in enumerate(labels):
            difference = difference_between(standings, other, label)
            row.append("" if difference is None else f"{_signed(difference.value)}{'*' if difference.sure else ''}")
            if difference is not None:
                kind = "unsure" if not difference.sure else "better" if difference.value > 0 else "worse"
                what = f"{label} minus {other}: {_points(difference)}, adjusted p {_p(difference)} ({difference.test})"
                table.marks[i, j + 1] = (kind, what)
        table.rows.append(row)
    return table


def _other_scores(rows: Sequence[Standing], metric: str) -> list[tuple[str, str]]:
    """(split, metric) of every score besides the one that runs are judged by, and those on the validation rows."""
    found: dict[tuple[str, str], None] = {}
    for row in rows:
        for result in row.configuration.results:
            for split, values in result.metrics.items():
                if split != "validation":
                    ranked_by = (result.judged_on, metric)
                    found |= {(split, name): None for name in values if name != "loss" and (split, name) != ranked_by}
    return list(found)


def _mean_metric(c: Configuration, split: str, name: str) -> float | None:
    return c.mean(lambda result: result.metrics.get(split, {}).get(name))


def _heading(split: str, name: str) -> str:
    return name if split == "test" else f"{split.removeprefix('test_')} {name}"


def _number(value: float | None, form: str) -> str:
    return NONE if value is None else form.format(value)


def _mean_sd(row: Standing) -> str:
    if row.mean is None:
        return row.without_score
    return f"{row.mean:.3f}" + ("" if row.sd is None else f" ± {row.sd:.3f}")


def _span(interval: Sequence[float] | None) -> str:
    return NONE if interval is None else "{:.3f} to {:.3f}".format(*interval)


def _points(difference: Difference | None) -> str:
    if difference is None:
        return NONE
    return f"{_signed(difference.value)} ({_signed(difference.low)} to {_signed(difference.high)})"


def _signed(value: float) -> str:
    """In points, hundredths of the metric."""
    text = f"{100 * value:+.1f}".replace("-", "−")
    return "0.0" if text in ("+0.0", "−0.0") else text


def _p(difference: Difference | None) -> str:
    if difference is None:
        return NONE
    return "<0.001" if difference.adjusted < 0.001 else f"{difference.adjusted:.3f}"
