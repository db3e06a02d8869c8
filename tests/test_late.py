"""What a late method may ask of a backbone besides a prompt: prefixes, branches behind a text, several read-outs."""

import pytest
import torch
import torch.nn.functional as F
from tiny import DECODERS, FAMILIES, HIDDEN, LAYERS, PREFIXABLE, attentions, no_prompt, tiny_model, token_batch
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.masking_utils import eager_mask

from lpt.backbones.context import Context
from lpt.backbones.families import FAMILIES as KNOWN
from lpt.backbones.masks import token_positions
from lpt.backbones.names import ATTENTIONS
from lpt.errors import LptError
from lpt.late_prompt import LateMethod

ROWS = 3  # of a prefix
# Families whose layers call transformers' attention interface, with which a test can look into them.
WITH_INTERFACE = tuple(name for name in PREFIXABLE if KNOWN[name].attentions == ATTENTIONS)


def with_prefix(family, attention="eager", layer=2):
    method = LateMethod(tiny_model(family, attention), layer)
    torch.manual_seed(1)
    method.backbone.add_prefix(ROWS)
    with torch.no_grad():
        for p in method.backbone.prefix.parameters():
            p.mul_(50)  # as large as a layer's own
    return method


# Prefixes


@pytest.fixture
def plain_attention(monkeypatch):
    """The textbook's attention, in which layers from the first one on find a prefix in front of keys and values."""

    def use(prefix, first):
        layers = []  # attended so far

        def attend(module, query, key, value, attention_mask, scaling=None, **kwargs):
            if len(layers) >= first - 1:
                own = len(layers) - first + 1
                key, value = (
                    torch.cat([x[own].expand(len(query), -1, -1, -1), y], dim=2)
                    for x, y in ((prefix.keys, key), (prefix.values, value))
                )
                attention_mask = F.pad(attention_mask, (prefix.length, 0))
            layers.append(module)
            heads = query.shape[1] // key.shape[1]
            key, value = (x.repeat_interleave(heads, dim=1) for x in (key, value))
            weights = (query @ key.transpose(2, 3) * scaling + attention_mask).softmax(-1)
            return (weights @ value).transpose(1, 2), None

        monkeypatch.setitem(AttentionInterface._global_mapping, "plain", attend)
        monkeypatch.setitem(AttentionMaskInterface._global_mapping, "plain", eager_mask)
        return "plain"

    return use


@pytest.mark.parametrize("layer", [1, 3, LAYERS])
@pytest.mark.parametrize("family", WITH_INTERFACE)
def test_a_prefix_is_keys_and_values_that_every_token_of_layers_k_to_l_attends(family, layer, plain_attention):
    """In the stock model; rotary positions continue behind the prefix, absolute ones do not know it."""
    method = with_prefix(family, layer=layer)
    backbone = method.backbone
    ids, mask = token_batch()
    h = method.trunk(ids, mask)
    found = method.upper(no_prompt(h), h, mask)
    stock = tiny_model(family, plain_attention(backbone.prefix, layer)).base_model
    rotary = backbone.family.rotary is not None
    first = ROWS if rotary else backbone.family.first_position(backbone.config)
    leaving = []
    stock.get_submodule(backbone.family.layers)[-1].register_forward_hook(
        lambda module, given, out: leaving.append(out if torch.is_tensor(out) else out[0])
    )
    stock(input_ids=ids, attention_mask=mask, position_ids=token_positions(ids, mask) + first)
    torch.testing.assert_close(found[mask.bool()], leaving[0][mask.bool()], atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize(("family", "attention"), attentions(PREFIXABLE))
def test_a_prefix_gives_the_same_with_every_attention_implementation(family, attention):
    ids, mask = token_batch()
    found, expected = (with_prefix(family, chosen) for chosen in (attention, "eager"))
    for padded in (mask, None):
        h = expected.trunk(ids, mask)
        out, reference = (method.upper(no_prompt(h), h, padded) for method in (found, expected))
        seen = mask.bool() if padded is not None else slice(None)
        torch.testing.assert_close(out[seen], reference[seen], atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize(("family", "attention"), attentions(PREFIXABLE))
def test_the_last_layer_for_some_tokens_with_a_prefix_gives_what_it_gives_for_all(family, attention):
    """Values and gradients, with a prompt and without."""
    method = with_prefix(family, attention)
    ids, mask = token_batch()
    h, position = method.trunk(ids, mask), torch.tensor([6, 1, 4, 0])
    prefix = tuple(method.backbone.prefix.parameters())
    for prompt in (no_prompt(h), torch.randn(4, 2, HIDDEN)):
        everywhere = method.upper(prompt, h, mask)[torch.arange(4), position]
        there = method.upper(prompt, h, mask, position)
        torch.testing.assert_close(there, everywhere, atol=2e-5, rtol=1e-4)
        expected, found = (torch.autograd.grad(out.square().sum(), prefix) for out in (everywhere, there))
        torch.testing.assert_close(found, expected, atol=2e-4, rtol=1e-3)


def test_a_prefix_stays_in_sight_of_a_sliding_window():
    method = with_prefix("mistral", layer=LAYERS)
    ids, _ = token_batch((20,))
    h, position = method.trunk(ids), torch.tensor([19])
    before = method.upper(no_prompt(h), h, None, position)
    with torch.no_grad():
        method.backbone.prefix.values.add_(1)
    assert (method.upper(no_prompt(h), h, None, position) - before).abs().max() > 1e-3


def test_the_trunk_knows_nothing_of_a_prefix():
    ids, mask = token_batch()
    plain = LateMethod(tiny_model("llama"), 3)
    assert torch.equal(with_prefix("llama", layer=3).trunk(ids, mask), plain.trunk(ids, mask))


# Branches: several continuations behind a text, each of which sees the text and itself

TEXTS = [[5, 9, 12, 7], [8, 30, 31, 6, 11, 14, 40, 22, 13]]
BRANCHES = [[20, 21, 22], [23], [24, 25, 26, 27, 28, 29, 10, 3]]  # the last is longer than the tests' windows


def branched(texts=TEXTS, branches=BRANCHES):
    """Right-padded rows of a text and its branches, with their mask."""
    behind = [token for branch in branches for token in branch]
    kinds = [kind for kind, branch in enumerate(branches, 2) for _ in branch]
    rows = [(text + behind, [1] * len(text) + kinds) for text in texts]
    longest = max(len(ids) for ids, _ in rows)
    ids = torch.tensor([ids + [1] * (longest - len(ids)) for ids, _ in rows])
    mask = torch.tensor([kinds + [0] * (longest - len(kinds)) for _, kinds in rows])
    return ids, mask


def test_positions_continue_from_the_text_in_every_branch():
    ids, mask = branched(TEXTS[:1], [[20, 21], [23], [24, 25, 26]])
    assert mask.tolist() == [[1, 1, 1, 1, 2, 2, 3, 4, 4, 4]]
    assert token_positions(ids, mask).tolist() == [[0, 1, 2, 3, 4, 5, 4, 4, 5, 6]]
    left = token_positions(F.pad(ids, (2, 1)), F.pad(mask, (2, 1)))
    assert left[:, 2:-1].tolist() == token_positions(ids, mask).tolist()


def in_passes(method, prompt, texts=TEXTS, branches=BRANCHES):
    """States of each text's and each branch's tokens, a pass for each branch."""
    rows = []
    for i, text in enumerate(texts):
        passes = []
        for branch in branches:
            h = method.trunk(torch.tensor([text + branch]))
            passes.append(method.upper(prompt[i : i + 1], h, None)[0])
        rows.append(torch.cat([passes[0][: len(text)], *(states[len(text) :] for states in passes)]))
    return rows


@pytest.mark.parametrize("prefixed", [False, True])
@pytest.mark.parametrize(("family", "attention"), attentions(DECODERS))
def test_one_pass_over_all_branches_gives_what_a_pass_for_each_gives(family, prefixed, attention):
    """Also in the trunk, with a prompt, under sliding windows, and where the last layer is computed for some tokens.

    Half of the layers are trunk, so that either kind of layer, with and without a window, is on both sides.
    """
    method = with_prefix(family, attention, 3) if prefixed else LateMethod(tiny_model(family, attention), 3)
    ids, mask = branched()
    prompt = torch.randn(len(ids), 2, HIDDEN)
    h = method.trunk(ids, mask)
    found = method.upper(prompt, h, mask)
    for i, expected in enumerate(in_passes(method, prompt)):
        torch.testing.assert_close(found[i, : len(expected)], expected, atol=3e-5, rtol=1e-4)
    position = torch.tensor([[3, 8, 5], [8, 9, 17]])
    there = method.upper(prompt, h, mask, position)
    torch.testing.assert_close(there, found[torch.arange(2)[:, None], position], atol=3e-5, rtol=1e-4)


@pytest.mark.parametrize(("family", "attention"), attentions(FAMILIES))
def test_several_read_outs_are_each_what_one_is(family, attention):
    method = LateMethod(tiny_model(family, attention), 3)
    for ids, mask in (token_batch(), (token_batch((9, 9, 9, 9))[0], None)):
        h, prompt = method.trunk(ids, mask), torch.randn(4, 2, HIDDEN)
        position = torch.tensor([[6, 0], [1, 2], [4, 4], [0, 0]])
        several = method.upper(prompt, h, mask, position)
        assert several.shape == (4, 2, HIDDEN)
        for q in range(2):
            one = method.upper(prompt, h, mask, position[:, q])
            torch.testing.assert_close(several[:, q], one, atol=1e-5, rtol=1e-5)


def test_branches_of_a_padded_batch_count_as_tokens_where_positions_are_few():
    """Wider than the positions allow by padding alone."""
    method = LateMethod(tiny_model("gpt2"), 2)
    ids, mask = branched(TEXTS[:1])
    wide = F.pad(ids, (0, 30), value=1), F.pad(mask, (0, 30))
    torch.testing.assert_close(method.trunk(*wide)[:, : ids.shape[1]], method.trunk(ids, mask))


# The base of all methods


@pytest.mark.parametrize("family", FAMILIES)
def test_a_late_method_of_its_own_trains_nothing_and_is_the_stock_model(family):
    ids, mask = token_batch()
    method, position = LateMethod(tiny_model(family), 2), mask.sum(1) - 1
    assert not any(p.requires_grad for p in method.parameters())
    stock = tiny_model(family)(input_ids=ids, attention_mask=mask).logits
    expected = stock[torch.arange(4), position]
    torch.testing.assert_close(method(ids, mask, position), expected, atol=2e-5, rtol=1e-4)
    assert method.generate(method.trunk(ids, mask), mask, position).shape == (4, 0, HIDDEN)


def test_further_read_outs_follow_the_first_one():
    ids, mask = token_batch((9, 9))
    method, position = LateMethod(tiny_model("llama"), 2), torch.tensor([4, 2])
    context = Context(method.trunk(ids, mask), mask)
    found = method.read_out(context, position, num_extra_positions=2)
    expected = [method.read_out(context, position + i) for i in range(3)]
    torch.testing.assert_close(found, torch.stack(expected, dim=1))


@pytest.mark.parametrize("layer", [0, LAYERS + 1])
def test_a_layer_that_does_not_exist_is_refused(layer):
    with pytest.raises(LptError, match=rf"layer={layer} does not exist: bert has L={LAYERS} layers"):
        LateMethod(tiny_model("bert"), layer)
