"""The report as one page that needs nothing else: style, tables and figures are in it."""

import io
import re
from collections.abc import Iterable, Sequence
from html import escape

from lpt.report.board_tables import costs_table, pairs_table, standings_table
from lpt.report.plotting import ACCENT, FAINT, INK, MUTED, PAPER, Plot
from lpt.report.reproduce import commands_for
from lpt.report.run_tables import confusion_table, mistakes_table, run_table
from lpt.report.standings import Standings
from lpt.report.study import Study
from lpt.report.study_tables import facts_table, gaps_table
from lpt.report.style import STYLE_SHEET
from lpt.report.text_table import TextTable
from lpt.report.words import findings, headline, legend, single_run, title

# Colors of the page, which follow its light or dark theme.
THEMED = {INK: "--ink", MUTED: "--muted", FAINT: "--faint", PAPER: "--paper", ACCENT: "--accent"}


def page(study: Study, plots: Sequence[Plot]) -> str:
    """Return the whole HTML file."""
    name = escape(title(study))
    figures = {plot.name: _figure(plot) for plot in plots}
    body = [f"<header><h1>{name}</h1><p class=lead>{escape(headline(study))}</p></header>"]
    run = single_run(study)
    if run is None and findings(study):
        body.append(_list(findings(study), "findings"))
    if study.cautions:
        body.append(f"<aside><h2>Take care</h2>{_list(study.cautions)}</aside>")
    if run is None:
        body += _section("Results", [figures[d.name] for d in plots if d.about is None])
        for standings in study.standings:
            body += _section(
                standings.title, _board(standings, [figures[d.name] for d in plots if d.about is standings])
            )
    else:
        body += _section("Scores", [_table(run_table(run)), *figures.values()])
        body += _section("What it costs", [_table(costs_table(study.standings[0]))])
        found = run.test_predictions
        if found is not None:
            if found.labels is not None:
                body += _section("Confusion on the test rows", [_table(_shaded(confusion_table(found)), "confusion")])
            body += _section("Mistakes, the surest first", [_table(mistakes_table(found))])
    if study.gaps:
        body += _section("Missing and failed", [_table(gaps_table(study.gaps), "gaps")])
    body += _section("How it was run", [_commands(study), _table(facts_table(study), "facts")])
    head = (
        "<meta charset=utf-8>",
        '<meta name=viewport content="width=device-width, initial-scale=1">',
        '<meta name=color-scheme content="light dark">',
        f"<title>{name}</title>",
        f"<style>{STYLE_SHEET}</style>",
    )
    parts = ["<!doctype html>", "<html lang=en>", "<head>", *head, "</head>", "<body>", "<main>", *body]
    return "\n".join([*parts, "</main>", "</body>", "</html>", ""])


def svg(plot: Plot) -> str:
    """Return a figure as an SVG file, the same bytes every time."""
    import matplotlib

    buffer = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": plot.name}):
        plot.figure.savefig(buffer, format="svg", metadata={"Date": None})
    return buffer.getvalue()


def _figure(plot: Plot) -> str:
    """Return a figure as inline SVG in the page's colors, with ids of its own among the page's other figures."""
    text = svg(plot)
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{plot.name}-", text)
    for color, name in THEMED.items():
        text = text.replace(color.lower(), f"var({name})")
    label = escape(plot.caption, quote=True)
    text = text.replace("<svg", f'<svg role="img" aria-label="{label}"', 1)
    width = re.search(r'width="([\d.]+)pt"', text)
    limit = f' style="max-width:{float(width[1]) * 4 / 3:.0f}px"' if width else ""
    return f"<figure{limit}>{text}<figcaption>{escape(plot.caption)}</figcaption></figure>"


def _board(standings: Standings, costs: Sequence[str]) -> Iterable[str]:
    yield _table(standings_table(standings), "standings")
    yield f"<p class=legend>{escape(legend(standings))}</p>"
    if len(standings.pairs) > 1:
        yield "<h3>Every two of them</h3>"
        yield _table(pairs_table(standings), "pairs")
        yield (
            "<p class=legend>Points by which the row is ahead of the column; colored and starred where that is more "
            "than chance.</p>"
        )
    if standings.scored:
        yield "<h3>What they cost</h3>"
        yield _table(costs_table(standings), "standings")
        yield from costs


def _section(heading: str, parts: Iterable[str]) -> list[str]:
    parts = list(parts)
    return [f"<section><h2>{escape(heading)}</h2>", *parts, "</section>"] if parts else []


def _list(lines: Iterable[str], kind: str = "") -> str:
    return f'<ul class="{kind}">' + "".join(f"<li>{escape(line)}</li>" for line in lines) + "</ul>"


def _table(table: TextTable, kind: str = "") -> str:
    words = table.words
    head = "".join(
        f'<th scope=col class="{"word" if j < words else "number"}">{escape(heading)}</th>'
        for j, heading in enumerate(table.headings)
    )
    rows = []
    for i, row in enumerate(table.rows):
        cells = []
        for j, cell in enumerate(row):
            mark, note = table.marks.get((i, j), ("", ""))
            attributes = f' class="{"word" if j < words else "number"} {mark}"'.replace(' "', '"')
            attributes += f' title="{escape(note, quote=True)}"' if note else ""
            tag = "th scope=row" if j == 0 else "td"
            cells.append(f"<{tag}{attributes}>{escape(cell)}</{tag[:2]}>")
        dress = "strong" if i in table.strong else "quiet" if i in table.quiet else ""
        rows.append(f'<tr class="{dress}">{"".join(cells)}</tr>' if dress else f"<tr>{''.join(cells)}</tr>")
    thead = f"<thead><tr>{head}</tr></thead>" if any(table.headings) else ""
    return f'<div class=wide><table class="{kind}">{thead}<tbody>{"".join(rows)}</tbody></table></div>'


def _shaded(table: TextTable) -> TextTable:
    """Mark the right answers of a confusion matrix."""
    for i in range(len(table.rows)):
        table.marks[i, i + 1] = ("better", "")
    return table


def _commands(study: Study) -> str:
    lines = commands_for(study.runs)
    text = escape("\n".join(lines))
    if len(lines) <= 4:
        return f"<pre>{text}</pre>"
    return f"<details><summary>{len(lines)} commands</summary><pre>{text}</pre></details>"
