import json
import math
from dataclasses import replace

import pytest
from results import COMPLETED, IDENTITY, completed

from lpt.errors import LptError
from lpt.training.result import FailedRun, read_result, write_result


@pytest.mark.parametrize("result", [COMPLETED, replace(COMPLETED, git=None), FailedRun(**IDENTITY, error="no memory")])
def test_a_result_is_read_as_it_was_written(tmp_path, result):
    write_result(tmp_path, result)
    assert read_result(tmp_path) == result


def test_a_number_that_is_not_finite_leaves_valid_json_and_is_read_back_as_nan(tmp_path):
    metrics = {"validation": {"accuracy": 0.5, "loss": math.nan}, "test": {"accuracy": 0.5, "loss": math.inf}}
    write_result(tmp_path, replace(COMPLETED, metrics=metrics))

    def refuse(constant):
        raise ValueError(f"{constant} is not JSON")

    json.loads((tmp_path / "result.json").read_text(), parse_constant=refuse)
    read = read_result(tmp_path).metrics
    assert read["validation"]["accuracy"] == 0.5
    assert math.isnan(read["validation"]["loss"])
    assert math.isnan(read["test"]["loss"])


def test_a_folder_without_a_result_has_none(tmp_path):
    assert read_result(tmp_path) is None


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ('{"format": 2, "status": "comp', "cannot be read"),
        ("[]", "cannot be read"),
        (json.dumps({"format": 2}), "cannot be read"),
        (json.dumps(completed(seed="13")), "cannot be read"),
        (json.dumps(completed(train={"steps": None})), "cannot be read"),
        (json.dumps({**completed(), "extra": 1}), "cannot be read"),
        ('{"status": "completed"}', "has format 1, and this version of lpt reads format 2; run it again"),
        (json.dumps({**completed(), "format": 3}), "has format 3"),
    ],
)
def test_a_damaged_or_foreign_result_is_refused_with_its_path(tmp_path, content, problem):
    (tmp_path / "result.json").write_text(content)
    with pytest.raises(LptError) as error:
        read_result(tmp_path)
    assert f"{tmp_path / 'result.json'} {problem}" in str(error.value)


def test_the_partial_file_is_gone_when_the_result_is_there(tmp_path):
    write_result(tmp_path, COMPLETED)
    assert [path.name for path in tmp_path.iterdir()] == ["result.json"]
