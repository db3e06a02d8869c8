"""`lpt report`: from a folder of runs to a page, a Markdown file, and figures."""

from collections.abc import Sequence
from pathlib import Path

from lpt.report.figures import plot_study
from lpt.report.html import svg
from lpt.report.learning import plot_run
from lpt.report.markdown import markdown
from lpt.report.page import page
from lpt.report.plotting import Plot, plotting_style
from lpt.report.study import Study, study_of
from lpt.report.words import single_run


def write_report(folder: Path, output: Path | None = None, baseline: Sequence[str] = ()) -> tuple[Study, Path]:
    """Report on the runs under `folder`: `index.html`, `report.md`, `figures/<name>.png` and `.svg`.

    Args:
        output: the folder to write to; `<folder>/report` by default.
        baseline: see `study_of`.

    Returns:
        The study, and the path of the page.

    Raises:
        LptError: no runs, a baseline that fits none, matplotlib is not installed.
    """
    with plotting_style():
        study = study_of(folder, baseline)
        output = output or folder / "report"
        (output / "figures").mkdir(parents=True, exist_ok=True)
        plots = _plots(study)
        for plot in plots:
            path = output / "figures" / plot.name
            plot.figure.savefig(f"{path}.png", dpi=160)
            Path(f"{path}.svg").write_text(svg(plot), encoding="utf-8")
        (output / "report.md").write_text(markdown(study, plots), encoding="utf-8")
        (output / "index.html").write_text(page(study, plots), encoding="utf-8")
    return study, output / "index.html"


def _plots(study: Study) -> list[Plot]:
    run = single_run(study)
    if run is not None:
        return list(plot_run(run))
    backbones = dict.fromkeys(standings.board.backbone for standings in study.standings)
    return [
        plot
        for backbone in backbones
        for plot in plot_study([s for s in study.standings if s.board.backbone == backbone])
    ]
