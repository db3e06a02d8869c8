"""What every method promises, over every family; what single methods promise is in `test_each.py`."""

import copy

import pytest
import torch
import torch.nn.functional as F
from method_zoo import ANATOMY, FROM_THE_INPUT, SETTINGS, WITHOUT_BIASES, build, expected, readout, stir, trained
from tiny import LAYERS, tiny_model, token_batch
from torch.autograd.graph import saved_tensors_hooks

from lpt.adapter import AdapterConfig, load_adapter_weights, save_adapter
from lpt.backbones.names import ATTENTIONS
from lpt.backbones.split import SplitBackbone
from lpt.cache.key import TrunkHash
from lpt.errors import LptError
from lpt.late_prompt import LateMethod
from lpt.methods import METHODS, build_method

LENGTHS = (7, 3, 10, 1)
K = 3
FAMILIES = tuple(ANATOMY)
CONFIG = AdapterConfig("", "", None, "", {}, "", [], {}, "", "", 0, weights="some")  # any will do for tensors
LIKE_OTHERS = {"deep_lpt": ("bert", "qwen2"), "iapt": ("roberta", "gpt2")}  # `spt` is both, in every family
CASES = [
    (name, family)
    for name in SETTINGS
    for family in LIKE_OTHERS.get(name, FAMILIES)
    if name != "bitfit" or family not in WITHOUT_BIASES
]
LATE = [case for case in CASES if case[0] not in FROM_THE_INPUT]
FEW = ("roberta", "gpt2", "qwen2")  # an encoder, both kinds of decoders
# As the paper has it, and late.
BEGINS = [(*case, None) for case in CASES] + [(*case, K) for case in LATE if case[1] in FEW]
SOME = [case for case in BEGINS if case[1] in FEW]
AT_THE_PAPERS_LAYER = [(name, family) for name, family, layer in SOME if layer is None]


def logits(method, family):
    ids, mask = token_batch(LENGTHS)
    return method(ids, mask, readout(family, mask))


def loss(method, family):
    return F.cross_entropy(logits(method, family), torch.tensor([3, 4, 5, 6]))


def test_all_methods_are_tested_here():
    assert {*SETTINGS, "linear_probe", "state_probe", "zero_shot"} == set(METHODS)


@pytest.mark.parametrize(("name", "family", "layer"), BEGINS)
def test_each_method_trains_exactly_its_tensors_as_many_numbers_as_its_formula_says_and_all_get_a_gradient(
    name, family, layer
):
    method = stir(build(name, family, layer)).train()
    found = trained(method)
    names, size = expected(name, family, layer)
    assert set(found) == names
    assert sum(p.numel() for p in found.values()) == size
    assert {p.dtype for p in found.values()} == {torch.float32}
    loss(method, family).backward()
    reached = {n for n, p in method.named_parameters() if p.grad is not None and p.grad.any()}
    assert reached == {n for n, p in method.named_parameters() if p.requires_grad}


@pytest.mark.parametrize(("name", "family", "layer"), SOME)
def test_training_moves_all_that_is_trained_and_leaves_every_bit_of_the_rest(name, family, layer):
    method = build(name, family, layer).train()
    start = copy.deepcopy(method.state_dict())
    optimizer = torch.optim.AdamW(method.parameters(), lr=0.1)  # of all: without gradient none is to move
    for _ in range(3):
        optimizer.zero_grad()
        loss(method, family).backward()
        optimizer.step()
    moved = {n for n, p in method.named_parameters() if not torch.equal(p, start[n])}
    assert moved == {n for n, p in method.named_parameters() if p.requires_grad}


@pytest.mark.parametrize(("name", "family"), LATE)
def test_nothing_below_layer_k_is_touched(name, family):
    """Neither built into, nor set to training, nor changed in what it computes, nor kept for a backward pass."""
    method, plain = build(name, family, K, backbone_dropout=True).train(), LateMethod(tiny_model(family), K)
    stir(method)
    for layer, stock in zip(method.backbone.layers[: K - 1], plain.backbone.layers[: K - 1], strict=True):
        assert layer.state_dict().keys() == stock.state_dict().keys()
        assert not any(module.training for module in layer.modules())
    ids, mask = token_batch(LENGTHS)
    kept = []
    with saved_tensors_hooks(lambda tensor: kept.append(tensor) or tensor, lambda tensor: tensor):
        h = method.trunk(ids, mask)
    assert kept == []
    assert not h.requires_grad
    assert torch.equal(h, plain.trunk(ids, mask))


@pytest.mark.parametrize("family", FAMILIES)
def test_all_late_methods_at_a_layer_share_its_cached_states(family):
    hashes = {name: TrunkHash(stir(build(name, family, K)).backbone).entering(K) for name, f in LATE if f == family}
    assert set(hashes.values()) == {TrunkHash(SplitBackbone(tiny_model(family), K)).entering(K)}


@pytest.mark.parametrize(("name", "family", "layer"), SOME)
def test_a_method_given_the_states_entering_its_layer_gives_the_numbers_of_the_whole(name, family, layer):
    method = stir(build(name, family, layer))
    ids, mask = token_batch(LENGTHS)
    position = readout(family, mask)
    h = method.trunk(ids, mask)
    assert torch.equal(method.from_trunk(h, mask, position), method(ids, mask, position))
    every = method.token_logits(ids, mask, position)[torch.arange(len(ids)), position]
    torch.testing.assert_close(method(ids, mask, position), every, atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("attention", ATTENTIONS)
@pytest.mark.parametrize(("name", "family"), AT_THE_PAPERS_LAYER)
def test_padding_changes_nothing_left_or_right_any_amount(name, family, attention):
    method = stir(build(name, family, attention=attention))
    ids, mask = token_batch(LENGTHS)
    position = readout(family, mask)
    expected = method(ids, mask, position)
    for left, right in ((0, 5), (20, 9)):
        padded = method(F.pad(ids, (left, right), value=1), F.pad(mask, (left, right)), position + left)
        torch.testing.assert_close(padded, expected, atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize(("name", "family"), AT_THE_PAPERS_LAYER)
def test_what_is_saved_makes_a_fresh_method_the_trained_one(name, family, tmp_path):
    method = stir(build(name, family))
    save_adapter(tmp_path, CONFIG, method)
    fresh = build(name, family, seed=2)
    assert not torch.equal(logits(fresh, family), logits(method, family))
    load_adapter_weights(tmp_path, fresh)
    assert torch.equal(logits(fresh, family), logits(method, family))


@pytest.mark.parametrize(
    ("name", "family"), [case for case in AT_THE_PAPERS_LAYER if case[0] not in ("full", "bitfit")]
)
def test_over_a_half_precision_backbone_all_that_is_trained_is_float32(name, family):
    method = build_method(name, tiny_model(family).to(torch.bfloat16), **SETTINGS[name]).train()
    out = logits(method, family)
    out.float().square().mean().backward()
    assert out.dtype == torch.bfloat16
    assert out.isfinite().all()
    assert {p.dtype for p in trained(method).values()} == {torch.float32}
    assert all(p.grad.isfinite().all() for p in trained(method).values())


@pytest.mark.parametrize("dropout", [False, True])
@pytest.mark.parametrize("name", [*SETTINGS, "zero_shot"])
def test_a_method_stays_in_the_mode_that_the_model_was_given_in_but_the_models_own_layers_train_on_request(
    name, dropout
):
    for training in (False, True):
        model = tiny_model("bert").train(training)
        own = set(model.modules())
        method = build_method(name, model, **SETTINGS.get(name, {}), backbone_dropout=dropout)
        layers = {m.training for layer in method.backbone.upper_layers for m in layer.modules() if m in own}
        added = {m.training for m in method.modules() if m not in own}
        assert (layers, added, method.training) == ({training and dropout}, {training}, training)


def test_a_model_without_a_final_norm_can_be_trained_late():
    method = build_method("full", tiny_model("opt that is normed behind"), layer=K)
    layers = {id(p) for layer in method.backbone.upper_layers for p in layer.parameters()}
    assert {id(p) for p in method.parameters() if p.requires_grad} == layers


# What cannot be


def test_an_unknown_setting_is_refused_with_those_there_are():
    with pytest.raises(
        LptError,
        match=r"method=bitfit has no setting 'rank'; it has layer, read_only, backbone_dropout, trunk_dropout$",
    ):
        build_method("bitfit", tiny_model("bert"), rank=2)


@pytest.mark.parametrize("name", [name for name in SETTINGS if name not in FROM_THE_INPUT])
def test_a_layer_that_does_not_exist_is_refused(name):
    with pytest.raises(LptError, match=rf"layer={LAYERS + 1} does not exist: gpt2 has L={LAYERS} layers"):
        build(name, "gpt2", LAYERS + 1)


@pytest.mark.parametrize("name", ["lora", "adapter", "adapterdrop", "bitfit", "full", "p_tuning_v2", "zero_shot"])
def test_layer_0_does_not_exist_for_any(name):
    with pytest.raises(LptError, match=r"layer=0 does not exist"):
        build(name, "gpt2", 0)


def repeated_layers(family):
    """One layer, L times, as ALBERT has it."""
    model = tiny_model(family)
    layers = model.get_submodule(ANATOMY[family].layers)
    for i in range(1, LAYERS):
        layers[i] = layers[0]
    return model


@pytest.mark.parametrize("name", ["lora", "adapter", "bitfit", "full"])
def test_layers_that_are_one_and_the_same_cannot_be_changed_late_but_from_the_input_on(name):
    with pytest.raises(LptError, match=r"share their weights, so layers 3..4 cannot.*begin at layer 1"):
        build_method(name, repeated_layers("bert"), layer=K)
    method = build_method(name, repeated_layers("bert"), layer=1)
    assert any(p.requires_grad for p in method.parameters())
