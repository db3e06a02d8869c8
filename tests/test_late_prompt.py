import copy

import pytest
import torch
import torch.nn.functional as F
from tiny import (
    ENCODERS,
    FAMILIES,
    LAYERS,
    SHAPES,
    attentions,
    model_type,
    tiny_config,
    tiny_model,
    token_batch,
)
from torch.autograd.graph import saved_tensors_hooks
from transformers import AutoModel

from lpt import LatePromptModel
from lpt.errors import LptError
from lpt.generators import GENERATORS

LENGTHS = (7, 3, 10, 1)


def readout(shape, lengths=LENGTHS):
    """The last token in decoders, some token in encoders."""
    return torch.tensor([n // 2 if model_type(shape) in ENCODERS else n - 1 for n in lengths])


def build(family, attention="eager", generator="npg", layer=3, **changes):
    model = tiny_model(family, attention, **changes)
    torch.manual_seed(1)
    late = LatePromptModel(model, layer, prompt_length=4, generator=generator, bottleneck=8)
    return late.eval()


def with_generators(cases):
    """Each case with a generator: all of them over an encoder and a decoder, over other families one."""
    some = {"roberta": GENERATORS, "llama": GENERATORS}
    return [(*case, generator) for case in cases for generator in some.get(case[0], ("npg",))]


@pytest.mark.parametrize(("shape", "attention", "generator"), with_generators(attentions(SHAPES)))
def test_padding_changes_nothing_left_or_right_any_amount(shape, attention, generator):
    model = build(shape, attention, generator)
    ids, mask = token_batch(LENGTHS)
    position = readout(shape)
    expected = model(ids, mask, position)
    for left, right in ((0, 5), (5, 0), (2, 3), (20, 9)):
        padded = model(F.pad(ids, (left, right), value=1), F.pad(mask, (left, right)), position + left)
        torch.testing.assert_close(padded, expected, atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize(("family", "attention", "generator"), with_generators(attentions(FAMILIES)))
def test_a_row_does_not_depend_on_its_neighbors(family, attention, generator):
    model = build(family, attention, generator)
    ids, mask = token_batch(LENGTHS)
    together = model(ids, mask, readout(family))
    for row, length in enumerate(LENGTHS):
        alone = model(ids[row : row + 1, :length], None, readout(family)[row : row + 1])
        torch.testing.assert_close(alone[0], together[row], atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_prompt_matters_and_every_layer_from_k_on_sees_it(family):
    model = build(family, generator="none", layer=2)
    ids, mask = token_batch(LENGTHS)
    before = model(ids, mask, readout(family))
    with torch.no_grad():
        model.generator.prompt.add_(3 * torch.randn_like(model.generator.prompt))
    after = model(ids, mask, readout(family))
    assert ((before - after).abs().amax(1) > 1e-3).all()


@pytest.mark.parametrize("family", FAMILIES)
def test_from_trunk_gives_the_numbers_of_the_whole_model(family):
    model = build(family)
    ids, mask = token_batch(LENGTHS)
    h = model.trunk(ids, mask)
    assert torch.equal(model.from_trunk(h, mask, readout(family)), model(ids, mask, readout(family)))


@pytest.mark.parametrize("family", FAMILIES)
def test_token_logits_at_the_read_out_are_the_models_logits(family):
    model = build(family)
    ids, mask = token_batch(LENGTHS)
    position = readout(family)
    every = model.token_logits(ids, mask, position)
    assert every.shape == (*ids.shape, 50)
    torch.testing.assert_close(every[torch.arange(len(ids)), position], model(ids, mask, position))


@pytest.mark.parametrize(
    ("family", "layer", "generator"),
    [
        *with_generators([(family, 3) for family in FAMILIES]),
        *((family, layer, "npg") for family in ("roberta", "llama") for layer in (1, LAYERS)),
    ],
)
def test_training_leaves_every_bit_of_the_backbone_and_moves_all_of_the_generator(family, layer, generator):
    model = build(family, generator=generator, layer=layer).train()
    frozen = copy.deepcopy(model.backbone.model.state_dict())
    start = copy.deepcopy(model.generator.state_dict())
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=0.1)
    ids, mask = token_batch(LENGTHS)
    for _ in range(3):
        optimizer.zero_grad()
        F.cross_entropy(model(ids, mask, readout(family)), torch.tensor([3, 4, 5, 6])).backward()
        optimizer.step()
    for name, tensor in model.backbone.model.state_dict().items():
        assert torch.equal(tensor, frozen[name]), name
    for name, tensor in model.generator.state_dict().items():
        assert not torch.equal(tensor, start[name]), name


@pytest.mark.parametrize("family", FAMILIES)
def test_only_the_generator_is_trainable_and_gets_gradients(family):
    model = build(family)
    ids, mask = token_batch(LENGTHS)
    model(ids, mask, readout(family)).sum().backward()
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    assert trained == {f"generator.{name}.{part}" for name in ("proj_down", "proj_up") for part in ("weight", "bias")}
    assert {name for name, p in model.named_parameters() if p.grad is not None} == trained


@pytest.mark.parametrize("family", FAMILIES)
def test_the_trunk_keeps_nothing_for_a_backward_pass(family):
    model = build(family).train()
    ids, mask = token_batch(LENGTHS)
    kept = []
    with saved_tensors_hooks(lambda tensor: kept.append(tensor) or tensor, lambda tensor: tensor):
        h = model.trunk(ids, mask)
        assert not h.requires_grad
        assert kept == []
        model.from_trunk(h, mask, readout(family))
        assert kept  # the upper layers do


@pytest.mark.parametrize(("family", "attention"), attentions(("mistral", "modernbert", "gpt_neo", "gemma3_text")))
def test_a_prompt_stays_in_sight_of_a_sliding_window(family, attention):
    """The window is shorter than the text, but the prompt is always attended."""
    windows = {"layer_types": ["sliding_attention"] * LAYERS, "attention_types": [[["local"], LAYERS]]}
    config = tiny_config(family)
    changes = {name: value for name, value in windows.items() if hasattr(config, name)}
    model = build(family, attention, generator="none", layer=LAYERS, **changes)
    ids, _ = token_batch((20,))
    position = torch.tensor([19])
    before = model(ids, None, position)
    with torch.no_grad():
        model.generator.prompt.add_(3 * torch.randn_like(model.generator.prompt))
    assert (model(ids, None, position) - before).abs().max() > 1e-3


def test_a_prompt_at_layer_1_of_a_rotary_model_is_ordinary_prompt_tuning():
    """Rows of the prompt are then nothing but embeddings in front of the text."""
    model = build("llama", generator="none", layer=1)
    ids, _ = token_batch((6, 6))
    hf = model.backbone.model
    with torch.no_grad():
        embedded = torch.cat([model.generator.prompt.expand(2, -1, -1), hf.get_input_embeddings()(ids)], dim=1)
        stock = hf(inputs_embeds=embedded).logits[:, -1]
    torch.testing.assert_close(model(ids, None, torch.tensor([5, 5])), stock, atol=1e-5, rtol=0)


def test_the_generator_drops_nothing_or_at_the_backbones_rate_where_that_drops_unless_told():
    def rate(model, **options):
        return LatePromptModel(model, **options).generator.dropout.p

    assert rate(tiny_model("bert", hidden_dropout_prob=0.3)) == 0.0
    assert rate(tiny_model("bert", hidden_dropout_prob=0.3), backbone_dropout=True) == 0.3
    assert rate(tiny_model("gpt2"), backbone_dropout=True) == 0.1
    assert rate(tiny_model("llama"), backbone_dropout=True) == 0.0
    for backbone_dropout in (False, True):
        assert rate(tiny_model("bert"), dropout=0.2, backbone_dropout=backbone_dropout) == 0.2


def test_a_model_from_pretrained_is_in_eval_mode_and_repeats_itself():
    model = LatePromptModel(tiny_model("gpt2"), bottleneck=8, dropout=0.5)
    ids, mask = token_batch(LENGTHS)
    assert not any(module.training for module in model.modules())
    assert torch.equal(model(ids, mask, readout("gpt2")), model(ids, mask, readout("gpt2")))


def test_a_backbone_without_lm_head_gives_states_but_no_logits():
    headless = AutoModel.from_config(tiny_config("bert"), attn_implementation="eager").eval()
    model = LatePromptModel(headless, bottleneck=8)
    ids, mask = token_batch(LENGTHS)
    position = torch.tensor([0, 0, 0, 0])
    assert model.read_out(model.read(ids, mask), position).shape == (4, 16)
    with pytest.raises(LptError, match="no language-model head"):
        model(ids, mask, position)
