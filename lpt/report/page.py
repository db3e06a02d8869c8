"""The report as one page that needs nothing else: style, tables and figures are in it."""

from collections.abc import Iterable, Sequence
from html import escape

from lpt.report.board_tables import costs_table, pairs_table, standings_table
from lpt.report.html import bullets, document, figure, section, table
from lpt.report.plotting import Plot
from lpt.report.prediction_tables import class_table, confusion_table, mistakes_table
from lpt.report.reproduce import commands_for
from lpt.report.run_tables import data_notes, data_table, run_table
from lpt.report.standings import Standings
from lpt.report.study import Study
from lpt.report.study_tables import facts_table, gaps_table
from lpt.report.words import findings, headline, legend, rows_of, single_run, title


def page(study: Study, plots: Sequence[Plot]) -> str:
    """Return the whole HTML file."""
    name = escape(title(study))
    figures = {plot.name: figure(plot) for plot in plots}
    body = [f"<header><h1>{name}</h1><p class=lead>{escape(headline(study))}</p></header>"]
    run = single_run(study)
    if run is None and findings(study):
        body.append(bullets(findings(study), "findings"))
    if study.cautions:
        body.append(f"<aside><h2>Take care</h2>{bullets(study.cautions)}</aside>")
    if run is None:
        body += section("Results", [figures[d.name] for d in plots if d.about is None])
        for standings in study.standings:
            body += section(
                standings.title, _board(standings, [figures[d.name] for d in plots if d.about is standings])
            )
    else:
        body += section("Scores", [table(run_table(run)), *figures.values()])
        if run.result is not None:
            notes = data_notes(run.result)
            body += section("The data", [table(data_table(run.result)), bullets(notes) if notes else ""])
        body += section("What it costs", [table(costs_table(study.standings[0]))])
        found = run.predictions
        if found is not None:
            if found.labels is not None:
                rows = rows_of(run.judged_on)
                body += section(f"Each class, {rows}", [table(class_table(found))])
                body += section(f"Confusion, {rows}", [table(confusion_table(found), "confusion")])
            body += section(
                "Mistakes, the surest first", [table(mistakes_table(found), "mistakes" if found.texts else "")]
            )
    if study.gaps:
        body += section("Missing and failed", [table(gaps_table(study.gaps), "gaps")])
    body += section("How it was run", [_commands(study), table(facts_table(study), "facts")])
    return document(title(study), body)


def _board(standings: Standings, costs: Sequence[str]) -> Iterable[str]:
    yield table(standings_table(standings), "standings")
    yield f"<p class=legend>{escape(legend(standings))}</p>"
    if len(standings.pairs) > 1:
        yield "<h3>Every two of them</h3>"
        yield table(pairs_table(standings), "pairs")
        yield (
            "<p class=legend>Points by which the row is ahead of the column; colored and starred where that is more "
            "than chance.</p>"
        )
    if standings.scored:
        yield "<h3>What they cost</h3>"
        yield table(costs_table(standings), "standings")
        yield from costs


def _commands(study: Study) -> str:
    lines = commands_for(study.runs)
    text = escape("\n".join(lines))
    if len(lines) <= 4:
        return f"<pre>{text}</pre>"
    return f"<details><summary>{len(lines)} commands</summary><pre>{text}</pre></details>"
