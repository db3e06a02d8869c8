"""`lpt report`: from a folder of runs to a page, a Markdown file, and figures."""

from collections.abc import Sequence
from pathlib import Path

from lpt.report.drawing import Drawing, drawing_style
from lpt.report.figures import draw_study
from lpt.report.learning import draw_run
from lpt.report.markdown import markdown
from lpt.report.page import page, svg
from lpt.report.study import Study, study_of
from lpt.report.words import single_run


def write_report(folder: Path, output: Path | None = None, baseline: Sequence[str] = ()) -> tuple[Study, Path]:
    """Report on the runs under `folder`: `index.html`, `report.md`, `figures/<name>.png` and `.svg`.

    Args:
        output: where to; `<folder>/report` without it.
        baseline: see `study_of`.

    Returns:
        What was found, and where the page is.

    Raises:
        LptError: no runs, a baseline that fits none, matplotlib is not installed.
    """
    with drawing_style():
        study = study_of(folder, baseline)
        output = output or folder / "report"
        (output / "figures").mkdir(parents=True, exist_ok=True)
        drawings = _draw(study)
        for drawing in drawings:
            path = output / "figures" / drawing.name
            drawing.figure.savefig(f"{path}.png", dpi=160)
            Path(f"{path}.svg").write_text(svg(drawing), encoding="utf-8")
        (output / "report.md").write_text(markdown(study, drawings), encoding="utf-8")
        (output / "index.html").write_text(page(study, drawings), encoding="utf-8")
    return study, output / "index.html"


def _draw(study: Study) -> list[Drawing]:
    run = single_run(study)
    if run is not None:
        return list(draw_run(run))
    backbones = dict.fromkeys(standings.board.backbone for standings in study.standings)
    return [
        drawing
        for backbone in backbones
        for drawing in draw_study([s for s in study.standings if s.board.backbone == backbone])
    ]
