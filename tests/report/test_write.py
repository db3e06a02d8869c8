import json
import re
import subprocess
import sys
from xml.etree import ElementTree

import numpy as np
import pytest
from experiment import make_experiment
from made_runs import write_run
from read_page import Page

from lpt.cli import main
from lpt.errors import LptError
from lpt.report.write import write_report


def report(folder, *baseline):
    _, path = write_report(folder, baseline=baseline)
    return Page(path.read_text())


@pytest.fixture(scope="module")
def sweep(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sweep <one>")
    for seed in (1, 2):
        for layer, right in ((4, 0.7), (16, 0.9), (21, 0.85)):
            write_run(folder / f"{layer} {seed}", right, seed=seed, lpt__layer=layer)
        write_run(folder / f"lora {seed}", 0.88, method="lora", seed=seed)
    write_run(folder / "lora 3", method="lora", seed=3, error="CUDA out of memory <here>\nTried to allocate")
    return folder


@pytest.fixture(scope="module")
def shown(sweep):
    return report(sweep)


def test_the_page_needs_nothing_else(shown, sweep):
    assert all(link.startswith("#") for link in shown.links)
    text = (sweep / "report" / "index.html").read_text()
    assert "@import" not in text
    assert set(re.findall(r"url\((.)", text)) <= {"#"}
    assert not {"script", "img", "link", "iframe"} & set(shown.tags)


def test_ids_within_the_page_are_unique_and_references_have_their_targets(shown, sweep):
    assert len(shown.ids) == len(set(shown.ids))
    text = (sweep / "report" / "index.html").read_text()
    assert set(re.findall(r'(?:url\(#|href="#)([^)"]+)', text)) <= set(shown.ids)


def test_colours_of_text_and_lines_follow_the_dress_of_the_page(sweep):
    text = (sweep / "report" / "index.html").read_text()
    figures = text[text.index("<figure") : text.rindex("</figure>")]
    assert "var(--ink)" in figures
    assert not re.search(r"#(1d1d22|000000|ffffff)", figures)


def test_everything_that_ran_is_on_the_page_and_so_is_what_failed(shown):
    for expected in (
        "lpt · layer 16",
        "lora",
        "sweep <one>",
        "CUDA out of memory <here>",
        "8 completed runs · 1 failed",
    ):
        assert expected in shown.text


def test_every_figure_is_there_as_png_and_svg_and_on_the_page(shown, sweep):
    files = {path.name for path in (sweep / "report" / "figures").iterdir()}
    names = {"scores_tiny", "layer_tiny", "cost_reviews_tiny"}
    assert files == {f"{name}.{ending}" for name in names for ending in ("png", "svg")}
    assert shown.tags.count("figure") == len(names)
    for name in names:
        ElementTree.parse(sweep / "report" / "figures" / f"{name}.svg")
        assert (sweep / "report" / "figures" / f"{name}.png").read_bytes().startswith(b"\x89PNG")


def test_a_report_is_the_same_when_made_again(sweep, tmp_path):
    for name in ("a", "b"):
        write_report(sweep, tmp_path / name)
    for path in (tmp_path / "a").rglob("*"):
        if path.is_file():
            assert path.read_bytes() == (tmp_path / "b" / path.relative_to(tmp_path / "a")).read_bytes()


def test_markdown_has_a_row_per_configuration_the_best_in_bold(sweep, shown):
    text = (sweep / "report" / "report.md").read_text()
    tables = [block.splitlines() for block in text.split("\n\n") if block.startswith("|")]
    scores = [[cell.strip() for cell in line.strip("|").split("|")] for line in tables[0]]
    assert scores[0][:3] == ["configuration", "accuracy ± sd", "95% interval"]
    assert scores[2][0] == "**lpt · layer 16**"
    assert len({len(row) for row in scores}) == 1
    assert len(scores) == 2 + 4
    assert "![" in text
    for path in re.findall(r"\]\((.+?)\)", text):
        assert (sweep / "report" / path).is_file()


def test_a_single_run_shows_its_confusions_its_surest_mistakes_and_how_it_learned(tmp_path):
    gold = np.arange(100) % 2
    predicted = gold.copy()
    predicted[:6:2] = 1  # three of class 0
    shown = report(write_run(tmp_path / "one", rows=100, predicted=predicted))
    assert "bad 47 3 0.940 good 0 50 1.000" in shown.text
    rows = [json.loads(line) for line in (tmp_path / "one/predictions/test.jsonl").read_text().splitlines()]
    wrong = [row for row in rows if row["gold"] != row["predicted"]]
    surest = max(wrong, key=lambda row: row["probabilities"]["good"])
    assert f"probability {surest['index']} bad good" in shown.text
    assert (tmp_path / "one" / "report" / "figures" / "learning_curve.svg").is_file()


def test_a_regression_is_reported_with_its_correlation(tmp_path):
    for method, noise in (("lpt", 0.5), ("lora", 1.5)):
        random = np.random.default_rng(0)
        gold = random.uniform(0, 5, 80)
        predicted = gold + random.normal(0, noise, 80)
        value = float(np.corrcoef(gold, predicted)[0, 1])
        scores = {split: {"pearson": value, "loss": 0.1} for split in ("validation", "test")}
        folder = write_run(tmp_path / method, method=method, result={"metrics": scores, "primary_metric": "pearson"})
        lines = [
            json.dumps({"index": i, "gold": gold[i], "predicted": predicted[i], "probabilities": {"low": 0.5}})
            for i in range(80)
        ]
        (folder / "predictions" / "test.jsonl").write_text("\n".join(lines))
    study, _ = write_report(tmp_path)
    assert study.cautions == []
    (standings,) = study.standings
    assert standings.metric == "pearson"
    assert standings.rows[1].difference.sure
    shown = report(tmp_path / "lpt")
    assert "Confusion" not in shown.text
    assert (tmp_path / "lpt" / "report" / "figures" / "values.png").is_file()


def test_runs_that_all_failed_make_a_page_too(tmp_path):
    write_run(tmp_path / "a", error="no such layer")
    shown = report(tmp_path)
    assert "no such layer" in shown.text
    assert "figure" not in shown.tags


def test_few_shot_curves_reach_the_full_data(tmp_path):
    for k in (16, 64):
        write_run(tmp_path / f"{k}", fewshot__k=k)
    everything = {"data": {"sizes": {"train": 5000}}}
    write_run(tmp_path / "all", fewshot__protocol="full", fewshot__k=None, result=everything)
    write_report(tmp_path)
    svg = (tmp_path / "report" / "figures" / "k_tiny.svg").read_text()
    assert [label for label in ("16", "64", "5000") if f">{label}<" in svg] == ["16", "64", "5000"]


def test_without_matplotlib_one_error_names_the_extra(tmp_path, monkeypatch):
    write_run(tmp_path / "a")
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(LptError, match=r"pip install 'lpt\[bench\]'"):
        write_report(tmp_path)


def test_bad_input_ends_in_one_line_and_status_1(tmp_path, capsys):
    with pytest.raises(SystemExit) as end:
        main(["report", str(tmp_path)])
    assert end.value.code == 1
    assert capsys.readouterr().err.count("\n") == 1


def test_the_command_does_not_wait_for_torch(tmp_path):
    write_run(tmp_path / "a")
    code = f"import sys, lpt.cli\nlpt.cli.main(['report', {str(tmp_path)!r}])\nassert 'torch' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert f"in {tmp_path}/report/index.html" in done.stdout


@pytest.mark.e2e
def test_real_runs_make_a_report(tmp_path, capsys):
    experiment = make_experiment(tmp_path)
    for seed in (1, 2):
        for layer in (2, 3):
            experiment.run(f"layer{layer} {seed}", f"lpt.layer={layer}", f"seed={seed}", "trainer.max_epochs=1")
    experiment.train("zero", "method=zero_shot", "seed=1")
    main(["report", str(tmp_path / "runs"), "--output", str(tmp_path / "report")])
    out = capsys.readouterr().out
    assert "5 completed runs · 3 configurations · task custom · backbone tiny" in out
    shown = Page((tmp_path / "report" / "index.html").read_text())
    assert "zero_shot" in shown.text
    score = experiment.result("zero")["metrics"]["test"]["accuracy"]
    assert f"{score:.3f}" in shown.text
    assert "Take care" not in shown.text or "uncommitted" in shown.text
