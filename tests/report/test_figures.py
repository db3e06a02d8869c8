import numpy as np
import pytest
from made_runs import write_run

from lpt.report.configurations import Configuration
from lpt.report.cost_plot import front, plot_costs
from lpt.report.curves import AGAINST, varied_lines
from lpt.report.figures import plot_study
from lpt.report.plotting import file_name, plotting_style, spread_out
from lpt.report.standings import Standing
from lpt.report.study import study_of

BY_NAME = {against.name: against for against in AGAINST}


def names(folder):
    with plotting_style():
        return [plot.name for plot in plot_study(study_of(folder).standings)]


def values(lines):
    return {name: [value for value, _ in points] for name, points in lines.items()}


def test_a_line_connects_configurations_that_differ_in_the_one_option_alone(tmp_path):
    for generator, layers in (("npg", (21, 4, 16)), ("none", (16,))):
        for layer in layers:
            write_run(tmp_path / f"{generator}{layer}", lpt__layer=layer, generator__name=generator)
    write_run(tmp_path / "full", method="lora")
    write_run(tmp_path / "late", method="lora", lpt__layer=16)
    (standings,) = study_of(tmp_path).standings
    found = values(varied_lines(standings, BY_NAME["layer"]))
    assert found == {"lpt · npg": [4, 16, 21], "lora": [1, 16], "lpt · none · layer 16": [None]}
    assert varied_lines(standings, BY_NAME["prompt_length"]) == {}


def test_few_rows_and_all_of_them_are_one_line_and_what_trains_nothing_is_level(tmp_path):
    """As experiment=few_shot_curve is run: on all rows for longer, and zero-shot once."""
    for k in (16, 64):
        write_run(tmp_path / f"{k}", fewshot__k=k, trainer__max_steps=1000)
    everything = {"data": {"sizes": {"train": 5000}}}
    full = {"fewshot__protocol": "full", "fewshot__k": None, "fewshot__k_dev": 1000}
    write_run(tmp_path / "all", result=everything, trainer__max_epochs=10, **full)
    write_run(tmp_path / "zero", method="zero_shot", fewshot__k=16, trainer__max_steps=1000)
    (standings,) = study_of(tmp_path).standings
    assert values(varied_lines(standings, BY_NAME["k"])) == {"lpt": [16, 64, 5000], "zero_shot": [None]}


def test_what_was_not_varied_has_no_figure(tmp_path):
    for method in ("lpt", "lora"):
        write_run(tmp_path / method, method=method)
    assert names(tmp_path) == ["scores_tiny", "cost_reviews_tiny"]


@pytest.mark.parametrize(
    ("option", "figure"),
    [
        ("lpt__prompt_length", "prompt_length"),
        ("fewshot__k", "k"),
        ("lpt__bottleneck", "bottleneck"),
        ("optim__lr", "lr"),
    ],
)
def test_what_was_varied_has_a_figure(tmp_path, option, figure):
    for value in (2, 50):
        write_run(tmp_path / str(value), **{option: value})
    assert f"{figure}_tiny" in names(tmp_path)


def test_costs_that_are_all_the_same_have_no_figure(tmp_path):
    for generator in ("npg", "none"):
        write_run(tmp_path / generator, generator__name=generator)
    assert names(tmp_path) == ["scores_tiny"]


def test_a_front_has_what_no_other_beats_for_less():
    def standing(label, score):
        return Standing(Configuration({}, label), [score])

    priced = [
        (3.0, standing("a", 0.9)),
        (1.0, standing("b", 0.7)),
        (2.0, standing("c", 0.6)),
        (3.0, standing("d", 0.8)),
    ]
    assert [row.label for row in front([*priced, (4.0, standing("e", 0.9))])] == ["b", "a"]


def test_the_cost_figure_names_the_best_trade_offs_and_is_not_scaled_by_an_outlier(tmp_path):
    write_run(tmp_path / "cheap", 0.7, lpt__layer=2, result={"trainable_parameters": 10})
    write_run(tmp_path / "best", 0.9, lpt__layer=3, result={"trainable_parameters": 90_000})
    for layer, right in enumerate((0.8, 0.81, 0.82, 0.83, 0.84, 0.2), start=4):
        write_run(tmp_path / str(layer), right, lpt__layer=layer, result={"trainable_parameters": 100_000 + layer})
    (standings,) = study_of(tmp_path).standings
    with plotting_style():
        (axes,) = plot_costs(standings).axes
    assert [text.get_text() for text in axes.texts if not text.get_text().isdigit()] == ["layer 3", "layer 2"]
    assert axes.get_xscale() == "log"
    assert 0.5 < axes.get_ylim()[0] < 0.7


def test_a_configuration_without_a_score_is_named_in_the_figure_of_scores(tmp_path):
    for method in ("lpt", "lora"):
        write_run(tmp_path / method, method=method)
    write_run(tmp_path / "broken", method="bitfit", error="out of memory")
    with plotting_style():
        scores, *_ = plot_study(study_of(tmp_path).standings)
    (axes,) = scores.figure.axes
    assert axes.get_yticklabels()[0].get_text() == "bitfit"
    assert [text.get_text() for text in axes.texts] == ["failed"]


def test_labels_keep_their_order_and_their_distance_and_move_no_further_than_they_must():
    places = np.array([0.5, 0.1, 0.52, 0.9, 0.51])
    spread = spread_out(places, 0.1)
    assert np.argsort(spread, kind="stable").tolist() == np.argsort(places, kind="stable").tolist()
    assert np.diff(np.sort(spread)).min() == pytest.approx(0.1)
    assert spread[[1, 3]] == pytest.approx([0.1, 0.9])  # they had room
    assert spread[[0, 2, 4]].mean() == pytest.approx(0.51)


def test_file_names_have_no_slashes_and_no_spaces():
    assert file_name("cost", "my task", "lab/model", None) == "cost_my-task_lab-model"
