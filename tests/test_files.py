from pathlib import Path

import pytest

from lpt.files import nearest_path


@pytest.mark.parametrize(
    ("given", "found"),
    [
        ("rnus/lora_13", "runs/lora_13"),
        ("rnus/lroa_13", "runs/lora_13"),
        ("runs/lora_31/adaptr", "runs/lora_13/adapter"),
        ("runs/other", None),
        ("google/lora_13", None),
    ],
)
def test_a_mistyped_path_is_told_the_one_that_is_there(tmp_path, monkeypatch, given, found):
    (tmp_path / "runs" / "lora_13" / "adapter").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    for root in (Path(), tmp_path):
        assert nearest_path(root / given) == (f"; did you mean {root / found}?" if found else "")
