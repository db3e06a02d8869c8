import pytest
import torch
from tiny import (
    FAMILIES,
    HIDDEN,
    LAYERS,
    SHAPES,
    VOCABULARY,
    attentions,
    no_prompt,
    tiny_config,
    tiny_model,
    token_batch,
    trained_model,
)
from torch import nn
from transformers import AttentionInterface, AutoModel, BertConfig, T5Config

from lpt.backbones.attention import lean_attention
from lpt.backbones.dropout import CheapDropout
from lpt.backbones.families import family_of
from lpt.backbones.split import ATTENTION_DROPOUT, SplitBackbone
from lpt.errors import LptError
from lpt.late_prompt import LateMethod


def whole_forward(method, ids, mask):
    """Every token's logits through the split, without a prompt."""
    h = method.trunk(ids, mask)
    return method.backbone.vocabulary_logits(method.backbone.finish(method.upper(no_prompt(h), h, mask)))


@pytest.mark.parametrize(("shape", "attention"), attentions(SHAPES))
def test_the_split_without_a_prompt_is_the_stock_forward_wherever_it_is(shape, attention):
    ids, mask = token_batch()
    model, attended = trained_model(shape, attention), mask.bool()
    with torch.no_grad():
        stock = trained_model(shape)(input_ids=ids, attention_mask=mask).logits
        for layer in (1, 2, LAYERS):
            split = whole_forward(LateMethod(model, layer), ids, mask)
            torch.testing.assert_close(split[attended], stock[attended], atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize(("family", "attention"), attentions(FAMILIES))
def test_without_padding_the_mask_may_be_left_out(family, attention):
    method = LateMethod(tiny_model(family, attention), 2)
    ids, mask = token_batch(lengths=(9, 9))
    with torch.no_grad():
        masked = whole_forward(method, ids, mask)
        torch.testing.assert_close(whole_forward(method, ids, None), masked, atol=1e-5, rtol=0)


@pytest.mark.parametrize(("shape", "attention"), attentions(SHAPES))
def test_the_last_layer_for_one_token_gives_what_it_gives_for_all(shape, attention):
    """Values and gradients, at any token, also one in the middle of a text, padded or not, behind any layer k."""
    model, position = trained_model(shape, attention), torch.tensor([6, 1, 4, 0])
    for layer, (ids, mask) in ((2, token_batch()), (LAYERS, token_batch()), (2, (token_batch((9, 9, 9, 9))[0], None))):
        method = LateMethod(model, layer)
        h = method.trunk(ids, mask)
        prompt = torch.randn(4, 3, HIDDEN, generator=torch.Generator().manual_seed(1)).requires_grad_()
        everywhere = method.upper(prompt, h, mask)[torch.arange(4), position]
        there = method.upper(prompt, h, mask, position)
        torch.testing.assert_close(there, everywhere, atol=1e-5, rtol=1e-5)
        expected, found = (torch.autograd.grad(out.square().sum(), prompt) for out in (everywhere, there))
        torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("shape", SHAPES)
def test_logits_of_chosen_tokens_are_those_of_the_whole_vocabulary(shape):
    backbone = SplitBackbone(trained_model(shape))
    z, chosen = torch.randn(3, backbone.finished_size), torch.tensor([40, 7, 7])
    whole = backbone.vocabulary_logits(z)
    assert whole.shape == (3, VOCABULARY)
    torch.testing.assert_close(backbone.vocabulary_logits(z, chosen), whole[:, chosen])


def test_a_model_of_no_known_family_is_told_the_families_and_how_to_add_one():
    with pytest.raises(LptError, match=r"'t5' fits no known family; known: albert, bert, .*FAMILIES"):
        family_of(T5Config())


def test_an_attention_implementation_without_masks_of_ours_is_refused():
    model = tiny_model("llama")
    model.config._attn_implementation = "flash_attention_2"
    with pytest.raises(LptError, match=r"'flash_attention_2'; load it with one of eager, sdpa, lean$"):
        SplitBackbone(model)


@pytest.mark.parametrize("family", ["deberta", "gemma2", "gpt_neo"])
def test_an_attention_implementation_that_the_family_lacks_is_refused(family):
    with pytest.raises(LptError, match=rf"^{family} computes attention by eager, not sdpa$"):
        SplitBackbone(tiny_model(family)).use_attention("sdpa")


def test_use_attention_changes_what_every_layer_computes_with(monkeypatch):
    method, calls = LateMethod(tiny_model("llama", "eager"), LAYERS), []
    monkeypatch.setitem(
        AttentionInterface._global_mapping, "lean", lambda *a, **k: calls.append(1) or lean_attention(*a, **k)
    )
    ids, mask = token_batch()
    before = whole_forward(method, ids, mask)
    assert (method.backbone.attention, len(calls)) == ("eager", 0)
    method.backbone.use_attention("lean")
    torch.testing.assert_close(whole_forward(method, ids, mask)[mask.bool()], before[mask.bool()])
    assert (method.backbone.attention, len(calls)) == ("lean", LAYERS)


def test_a_text_longer_than_the_positions_is_refused():
    backbone = SplitBackbone(tiny_model("roberta"), 2)
    assert backbone.max_length == 38  # two rows of RoBERTa's position table are reserved
    backbone.embed(torch.full((1, 38), 5))
    with pytest.raises(LptError, match="39 tokens is longer than roberta allows"):
        backbone.embed(torch.full((1, 39), 5))


@pytest.mark.parametrize(
    ("asked", "below", "above"),
    [
        ({}, False, False),
        ({"dropout": True}, False, True),
        ({"trunk_dropout": True}, True, False),
        ({"dropout": True, "trunk_dropout": True}, True, True),
    ],
)
def test_frozen_layers_are_in_train_mode_only_on_request_and_the_trunk_on_one_of_its_own(asked, below, above):
    backbone = SplitBackbone(tiny_model("bert"), 3, **asked).train()
    assert backbone.training
    assert [{m.training for m in layer.modules()} for layer in backbone.layers] == [{below}] * 2 + [{above}] * 2
    assert {m.training for m in backbone.base.embeddings.modules()} == {below}
    assert not any(module.training for module in backbone.eval().modules())


def test_what_is_put_into_frozen_layers_follows_the_mode():
    backbone = SplitBackbone(tiny_model("bert"), 3)
    added = [nn.Dropout(), nn.Dropout()]
    backbone.layers[3].output.dense.added, backbone.layers[0].added = added
    assert [module.training for module in backbone.train().modules()].count(True) == 1 + len(added)
    assert all(module.training for module in added)
    assert not any(module.training for module in backbone.eval().modules())


def test_embeddings_that_are_trained_drop_where_the_layers_do():
    for dropout in (False, True):
        backbone = SplitBackbone(tiny_model("bert"), 1, dropout=dropout)
        backbone.train_embeddings = True
        assert {module.training for module in backbone.train().base.modules()} == {dropout}


@pytest.mark.parametrize("family", ["bert", "gpt2", "albert"])
def test_the_trunk_repeats_itself_in_training_unless_its_dropout_is_asked_for(family):
    ids, mask = token_batch()
    for above in (False, True):
        still = LateMethod(tiny_model(family), 3, backbone_dropout=above).train()
        assert torch.equal(still.trunk(ids, mask), still.trunk(ids, mask))
    noisy = LateMethod(tiny_model(family), 3, trunk_dropout=True).train()
    assert not torch.equal(noisy.trunk(ids, mask), noisy.trunk(ids, mask))


def test_an_encoder_without_lm_head_finishes_with_its_last_states():
    model = AutoModel.from_config(BertConfig(**tiny_config("bert").to_diff_dict()), attn_implementation="eager").eval()
    method = LateMethod(model, 2)
    ids, mask = token_batch()
    assert not method.backbone.has_lm_head
    h = method.trunk(ids, mask)
    with torch.no_grad():
        states = method.backbone.finish(method.upper(no_prompt(h), h, mask))
        stock = model(input_ids=ids, attention_mask=mask).last_hidden_state
    assert (states - stock)[mask.bool()].abs().max() < 1e-5


@pytest.mark.parametrize("family", ["bert", "albert"])
def test_the_layers_above_drop_while_training_where_it_is_asked_for_though_they_may_be_the_trunks_own(family):
    ids, mask = token_batch()
    for asked in (False, True):
        for below in (False, True):
            method = LateMethod(tiny_model(family), 3, backbone_dropout=asked, trunk_dropout=below).train()
            h = method.trunk(ids, mask)
            first, second = (method.upper(torch.zeros(len(h), 2, HIDDEN), h, mask) for _ in range(2))
            assert torch.equal(first, second) != asked
            assert torch.equal(method.trunk(ids, mask), method.trunk(ids, mask)) != below


@pytest.mark.parametrize(("family", "attention"), attentions(FAMILIES))
def test_half_precision_backbones_stay_in_their_dtype(family, attention):
    method = LateMethod(tiny_model(family, attention).to(torch.bfloat16), 2)
    ids, mask = token_batch()
    h = method.trunk(ids, mask)
    out = method.upper(torch.randn(len(h), 3, HIDDEN), h, mask)
    assert h.dtype == out.dtype == torch.bfloat16
    assert out.isfinite().all()


# Dropout and compilation


@pytest.mark.parametrize("family", FAMILIES)
def test_the_rate_of_attention_dropout_is_the_configurations(family):
    name = next(name for name in ATTENTION_DROPOUT if hasattr(tiny_config(family), name))
    assert [SplitBackbone(tiny_model(family, **{name: rate})).attention_dropout for rate in (0.3, 0.0)] == [0.3, 0.0]


@pytest.fixture
def cheap(monkeypatch):
    """How often cheap dropout was entered."""
    entered = []

    class Spy(CheapDropout):
        def __enter__(self):
            entered.append(1)
            return super().__enter__()

    monkeypatch.setattr("lpt.backbones.split.CheapDropout", Spy)
    return entered


def upper_at_middle(method, prompt):
    ids, mask = token_batch((9, 6))
    h = method.backbone.embed(ids, mask).detach()
    return method.backbone.finish(method.upper(prompt, h, mask, torch.tensor([4, 2])))


NO_DROPOUT = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}


@pytest.mark.parametrize(
    ("asked", "rates", "training", "compiled", "times"),
    [
        (True, {}, True, False, 2),
        (True, {}, True, True, 0),
        (True, {}, False, False, 0),
        (True, NO_DROPOUT, True, False, 0),
        (False, {}, True, False, 0),
    ],
)
def test_masks_are_cheap_where_layers_draw_some_and_are_not_compiled(cheap, asked, rates, training, compiled, times):
    method = LateMethod(tiny_model("roberta", **rates), LAYERS - 1, backbone_dropout=asked).train(training)
    if compiled:
        method.backbone.compile(backend="eager", dynamic=True)
    prompt = torch.randn(2, 3, HIDDEN)
    first, second = (upper_at_middle(method, prompt) for _ in range(2))
    assert torch.equal(first, second) == (not training or bool(rates) or not asked)
    assert len(cheap) == 2 * times  # layers before the last, and the last for one token


@pytest.mark.parametrize(("family", "attention"), [("llama", "sdpa")])
def test_compiled_layers_give_the_same_values_and_gradients_and_save_the_same_tensors(family, attention):
    plain, compiled = (LateMethod(tiny_model(family, attention), LAYERS - 1) for _ in range(2))
    compiled.backbone.compile(backend="aot_eager", dynamic=True)
    assert compiled.state_dict().keys() == plain.state_dict().keys()
    prompt = torch.randn(2, 3, HIDDEN, requires_grad=True)
    (there, slope), (here, expected) = (
        (z, *torch.autograd.grad(z.square().sum(), prompt))
        for z in (upper_at_middle(method, prompt) for method in (compiled, plain))
    )
    torch.testing.assert_close(there, here, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(slope, expected, atol=1e-4, rtol=1e-4)
