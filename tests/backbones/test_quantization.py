"""Layers in fewer bits: what is quantized and what is not, and that training goes on through it."""

from importlib.util import find_spec

import pytest
import torch
from tiny import FAMILIES, HIDDEN, tiny_model, tiny_tokenizer, token_batch

from lpt.backbones.pretrained import find_pretrained
from lpt.backbones.quantization import is_quantized
from lpt.backbones.split import SplitBackbone
from lpt.cache.key import TrunkHash
from lpt.errors import LptError
from lpt.late_prompt import LateMethod

needs_torchao = pytest.mark.skipif(find_spec("torchao") is None, reason="torchao is not installed")


def save(folder, family="llama", **changes):
    tiny_model(family, **changes).save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return find_pretrained(str(folder))


def complaint(function, *arguments) -> str:
    with pytest.raises(LptError) as caught:
        function(*arguments)
    return str(caught.value)


@needs_torchao
@pytest.mark.parametrize("family", [family for family in FAMILIES if family != "gpt2"])
def test_matrices_of_the_layers_are_quantised_and_nothing_else(tmp_path, family):
    model = save(tmp_path, family).load_model(torch.float32, "int8")
    backbone = SplitBackbone(model, 2)
    inside = {id(p) for p in backbone.layers.parameters()}
    for name, parameter in model.named_parameters():
        assert is_quantized(parameter) == (id(parameter) in inside and parameter.dim() == 2), name


@needs_torchao
@pytest.mark.parametrize("family", [family for family in FAMILIES if family != "gpt2"])
def test_states_and_gradients_through_quantised_layers_are_nearly_the_models(tmp_path, family):
    pretrained = save(tmp_path, family)
    ids, mask = token_batch()
    found = []
    for quantization in (None, "int8"):
        method = LateMethod(pretrained.load_model(torch.float32, quantization), 3)
        prompt = torch.ones(len(ids), 3, HIDDEN, requires_grad=True)
        z = method.upper(prompt, method.trunk(ids, mask), mask, torch.tensor([6, 1, 9, 0]))
        found.append((z.detach(), *torch.autograd.grad(z.sin().sum(), prompt)))
    for exact, quantized in zip(*found, strict=True):
        assert 0 < (quantized - exact).norm() < 0.2 * exact.norm()


@needs_torchao
def test_cached_states_of_quantised_layers_are_theirs_alone(tmp_path):
    def key(folder, quantization):
        return TrunkHash(SplitBackbone(find_pretrained(str(folder)).load_model(torch.float32, quantization), 3))

    save(tmp_path / "one")
    save(tmp_path / "other", seed=1)
    model = tiny_model("llama")
    with torch.no_grad():
        model.model.layers[0].self_attn.q_proj.weight.mul_(2)  # the same integers, another scale
    model.save_pretrained(tmp_path / "doubled")
    keys = [key(tmp_path / name, "int8").entering(3) for name in ("one", "other", "doubled")]
    assert key(tmp_path / "one", "int8").entering(3) == keys[0]
    assert len({*keys, key(tmp_path / "one", None).entering(3)}) == 4


@needs_torchao
def test_layers_without_matrices_of_the_usual_kind_are_refused(tmp_path):
    assert complaint(save(tmp_path, "gpt2").load_model, torch.float32, "int8") == (
        "backbone.quantization=int8 finds nothing that it can quantize in layers of type 'gpt2' on a CPU; remove it"
    )


@pytest.mark.parametrize(
    ("accelerator", "library", "where"), [("cpu", "torchao", "a CPU"), ("gpu", "bitsandbytes", "a GPU")]
)
def test_a_library_that_is_not_installed_is_named_with_its_extra(tmp_path, monkeypatch, accelerator, library, where):
    monkeypatch.setattr("lpt.backbones.quantization.find_spec", lambda name: None)
    assert complaint(save(tmp_path).load_model, torch.float32, "int8", accelerator) == (
        f"backbone.quantization=int8 on {where} is done by {library}, which is not installed: "
        "pip install 'lpt[quantization]'"
    )


def test_four_bits_are_for_gpus(tmp_path):
    assert complaint(save(tmp_path).load_model, torch.float32, "nf4") == (
        "backbone.quantization=nf4 needs a GPU; on a CPU use int8"
    )


def test_random_weights_are_not_quantized():
    path = "random://llama"
    assert "random weights, which are not quantized" in complaint(find_pretrained(path).load_model, None, "int8")
