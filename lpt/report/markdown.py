"""The report as Markdown, for a README or a pull request."""

from collections.abc import Sequence

from lpt.report.board_tables import costs_table, pairs_table, standings_table
from lpt.report.plotting import Plot
from lpt.report.prediction_tables import class_table, confusion_table, mistakes_table
from lpt.report.run_tables import run_table
from lpt.report.study import Study
from lpt.report.study_tables import gaps_table
from lpt.report.words import findings, headline, legend, single_run, title


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
        if run.test_predictions is not None:
            if run.test_predictions.labels is not None:
                parts += ["## Classes", class_table(run.test_predictions).markdown()]
                parts += ["## Confusion", confusion_table(run.test_predictions).markdown()]
            parts += ["## Mistakes", mistakes_table(run.test_predictions).markdown()]
    parts += [f"![{plot.caption}](figures/{plot.name}.png)" for plot in plots]
    if study.gaps:
        parts += ["## Missing and failed", gaps_table(study.gaps).markdown()]
    return "\n\n".join(part.rstrip("\n") for part in parts if part) + "\n"
