import io

import pytest
from rich.console import Console
from tiny_bench import CANDIDATES, measured

from lpt.bench.plot import COLORS
from lpt.bench.table import cost_table, shown_format


@pytest.fixture
def bench():
    failed = {"method": "full", "precision": "bf16", "value": None, "error": "out of memory"}
    results = [
        measured("lora", 0.3, value=None, step_seconds_all=[0.2, 0.3, 0.3, 0.4, 0.9]),
        measured("lpt_cached", 0.12, value=1, precision="bfloat16"),
        measured("lpt_cached", 0.1, value=3, step_seconds_all=[0.1]),
        failed,
    ]
    return {"vary": "lpt.layer", "results": results}


def test_times_are_relative_to_the_fastest_and_failures_have_a_row(bench):
    shown = cost_table(bench)
    column = {heading: [row[i] for row in shown.rows] for i, heading in enumerate(shown.headings)}
    assert column["method"] == ["lora", "lpt_cached", "lpt_cached", "full"]
    assert column["format"] == ["float32", "bf16", "float32", "bf16"]
    assert column["layer"] == ["", "1", "3", ""]
    assert column["vs fastest"] == ["3.0", "1.2", "1.0", ""]
    assert column["per step"] == ["300 ms", "120 ms", "100 ms", "failed"]
    assert column["spread"] == ["±17%", "±0%", "±0%", ""]
    assert column["MB"] == ["2", "2", "2", ""]
    assert column["trained"] == ["12,345"] * 3 + [""]


def test_without_a_varied_option_there_is_no_column_for_it(bench):
    assert "layer" not in cost_table(bench | {"vary": None}).headings


def test_terminal_and_markdown_say_the_same(bench):
    shown = cost_table(bench)
    lines = [line.strip("| ") for line in shown.markdown().splitlines()]
    cells = [[cell.strip() for cell in line.split("|")] for line in lines]
    assert set(cells.pop(1)) == {"---", "---:"}
    file = io.StringIO()
    Console(file=file, width=200).print(shown.rich())
    assert file.getvalue().split() == [word for row in cells for cell in row for word in cell.split()]


@pytest.mark.parametrize(
    ("precision", "shown"),
    [
        ("float32", "float32"),
        ("32", "float32"),
        ("bfloat16", "bf16"),
        ("bf16", "bf16"),
        ("16", "fp16"),
        ("auto", "auto"),
    ],
)
def test_a_number_format_has_one_name_whether_it_was_asked_for_or_used(precision, shown):
    assert shown_format(precision) == shown


def test_every_method_has_a_color_of_its_own():
    assert set(COLORS) <= set(CANDIDATES)
    assert len(set(COLORS.values())) == len(COLORS)
