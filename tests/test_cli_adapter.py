import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from test_classifier import build
from tiny import tiny_adapter

from lpt.cli import main


@pytest.fixture(scope="module")
def adapter(tmp_path_factory):
    folder = tmp_path_factory.mktemp("adapter")
    build(tiny_adapter(folder, "llama")).save_pretrained(folder / "adapter")
    return folder / "adapter"


def shown(capsys, *arguments):
    main(["adapter", *map(str, arguments)])
    return capsys.readouterr().out


def test_inspect_shows_what_an_adapter_is_and_counts_its_numbers(adapter, capsys):
    said = shown(capsys, "inspect", adapter)
    numbers = sum(tensor.numel() for tensor in load_file(adapter / "adapter.safetensors").values())
    assert f"{numbers:,}" in said.splitlines()[-1]
    for expected in ("lpt (layer=", "bad, good", "method.generator.proj_down.weight", "adapter.safetensors"):
        assert expected in said


def test_diff_tells_settings_and_tensors_apart(adapter, tmp_path, capsys):
    assert shown(capsys, "diff", adapter, adapter).strip() == "the adapters are the same"
    shutil.copytree(adapter, tmp_path / "other")
    path = tmp_path / "other" / "adapter_config.json"
    path.write_text(path.read_text().replace('"max_length": ', '"max_length": 1'))
    assert "the tensors are the same" in shown(capsys, "diff", adapter, tmp_path / "other")
    tensors = load_file(adapter / "adapter.safetensors")
    bias = tensors["method.generator.proj_up.bias"]
    bias.copy_(torch.ones_like(bias))
    save_file(
        tensors | {"method.generator.proj_up.bias": 2 * bias, "more": torch.zeros(2)},
        path.with_name("adapter.safetensors"),
    )
    said = shown(capsys, "diff", adapter, tmp_path / "other")
    assert "max_length" in said
    assert "absent and [2]" in said
    assert "method.generator.proj_up.bias" in said
    assert "proj_down" not in said
