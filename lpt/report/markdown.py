"""The report as Markdown, for a README or a pull request."""

from collections.abc import Sequence

from lpt.report.board_tables import costs_table, pairs_table, standings_table
from lpt.report.plotting import Plot
from lpt.report.prediction_tables import class_table, confusion_table, mistakes_table
from lpt.report.run_tables import data_notes, data_table, run_table
from lpt.report.study import Study
from lpt.report.study_tables import gaps_table
from lpt.report.words import findings, headline, legend, rows_of, single_run, title


def markdown(study: Study, plots: Sequence[Plot]) -> str:
    """Return tables and figures, the figures by relative links."""
    parts = [f"# {title(study)}", headline(study), "\n".join(f"- {line}" for line in findings(study))]
    parts += (
        ["\n".join(["**Take care**", "", *(f"- {caution}" for caution in study.cautions)])] if study.cautions else []
    )
    run = single_run(study)
    if run is None:
        for standings in study.standings:
            parts += [f"## {standings.title}", standings_table(standings).markdown(), legend(standings)]
            if standings.scored:
                parts.append(costs_table(standings).markdown())
            if len(standings.pairs) > 1:
                parts += [
                    "Points by which the row is ahead of the column; `*`: more than chance.",
                    pairs_table(standings).markdown(),
                ]
    else:
        parts += [run_table(run).markdown(), costs_table(study.standings[0]).markdown()]
        if run.result is not None:
            notes = "\n".join(f"- {note}" for note in data_notes(run.result))
            parts += ["## Data", data_table(run.result).markdown(), notes]
        if run.predictions is not None:
            if run.predictions.labels is not None:
                rows = rows_of(run.judged_on)
                parts += [f"## Classes, {rows}", class_table(run.predictions).markdown()]
                parts += [f"## Confusion, {rows}", confusion_table(run.predictions).markdown()]
            parts += ["## Mistakes", mistakes_table(run.predictions).markdown()]
    parts += [f"![{plot.caption}](figures/{plot.name}.png)" for plot in plots]
    if study.gaps:
        parts += ["## Missing and failed", gaps_table(study.gaps).markdown()]
    return "\n\n".join(part.rstrip("\n") for part in parts if part) + "\n"
