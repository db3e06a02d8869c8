"""Lean attention: the numbers of the textbook, with less kept for the backward pass.

Shapes: B batch, h query heads, g key-value heads, Q queries, S keys, d head size.
"""

import pytest
import torch
import torch.nn.functional as F
from tiny import ENCODERS, FAMILIES, LAYERS, tiny_model, token_batch
from torch.autograd.graph import saved_tensors_hooks

from lpt import LatePromptModel
from lpt.backbones.attention import lean_attention
from lpt.backbones.dropout import SCALE, drop, parts
from lpt.backbones.families import FAMILIES as KNOWN
from lpt.backbones.names import LEAN

LEAN_FAMILIES = [family for family in FAMILIES if LEAN in KNOWN[family].attentions]
BATCH, HEADS, QUERIES, KEYS, SIZE = 3, 4, 5, 7, 8


def textbook(q_BhQd, k_BgSd, v_BgSd, mask_B1QS, scaling, keep_BhQS, dropped):
    """softmax(q k^T + mask) v, keys and values repeated for the queries that share them."""
    k_BhSd, v_BhSd = (x.repeat_interleave(HEADS // x.shape[1], 1) for x in (k_BgSd, v_BgSd))
    p_BhQS = (q_BhQd @ k_BhSd.transpose(2, 3) * scaling + mask_B1QS).softmax(-1)
    return (p_BhQS * (keep_BhQS != 0) * (SCALE / (SCALE - dropped)) @ v_BhSd).transpose(1, 2)


@pytest.mark.parametrize("rate", [0.0, 0.3])
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("groups", [1, 2, HEADS])
def test_values_and_gradients_are_the_textbooks_with_shared_keys_a_mask_and_dropout(groups, masked, rate):
    shapes = [(BATCH, HEADS, QUERIES, SIZE), *[(BATCH, groups, KEYS, SIZE)] * 2]
    ours = [torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in shapes]
    theirs = [x.detach().clone().requires_grad_() for x in ours]
    mask = torch.randn(BATCH, 1, QUERIES, KEYS, dtype=torch.float64).masked_fill(torch.rand(KEYS) < 0.3, -1e300)
    torch.manual_seed(5)
    out, weights = lean_attention(None, *ours, mask if masked else None, scaling=0.4, dropout=rate)
    torch.manual_seed(5)
    keep = drop(torch.empty(BATCH, HEADS, QUERIES, KEYS), parts(rate))
    expected = textbook(*theirs, mask * masked, 0.4, keep, parts(rate))
    assert weights is None
    assert bool((keep == 0).any()) == (rate > 0)
    torch.testing.assert_close(out, expected)
    for result in (out, expected):
        result.square().sum().backward()
    for x, reference in zip(ours, theirs, strict=True):
        torch.testing.assert_close(x.grad, reference.grad)


def test_bf16_rounds_values_and_gradients_no_further_than_the_textbooks_products_do():
    inputs = [torch.randn(64, heads, 20, SIZE) for heads in (HEADS, 2, 2)]
    mask = torch.zeros(64, 1, 20, 20).masked_fill(torch.rand(20) < 0.3, torch.finfo(torch.bfloat16).min)

    def results(function, dtype):
        leaves = [x.bfloat16().to(dtype).requires_grad_() for x in inputs]
        out = function(*leaves, mask.to(dtype))
        assert out.dtype == dtype
        return [x.detach().double() for x in (out, *torch.autograd.grad(out.double().square().sum(), leaves))]

    def plain(*tensors):
        return textbook(*tensors, SIZE**-0.5, torch.ones(()), 0)

    exact = results(plain, torch.float64)
    ours, theirs = (
        [((x - y).norm() / y.norm()).item() for x, y in zip(results(function, torch.bfloat16), exact, strict=True)]
        for function in (lambda *tensors: lean_attention(None, *tensors)[0], plain)
    )
    assert all(our < 1.5 * their < 0.03 for our, their in zip(ours, theirs, strict=True)), (ours, theirs)


def late(family, attention, dropout=False):
    model = tiny_model(family, attention)
    torch.manual_seed(1)
    return LatePromptModel(model, 2, prompt_length=4, bottleneck=8, backbone_dropout=dropout)


def logits_and_gradients(model, ids, mask, position):
    logits = model(ids, mask, position)
    F.cross_entropy(logits, torch.tensor([3, 4, 5, 6])).backward()
    return logits.detach(), [p.grad for p in model.generator.parameters()]


@pytest.mark.parametrize("padding", [None, (0, 0), (0, 5), (4, 2)], ids=str)
@pytest.mark.parametrize("family", LEAN_FAMILIES)
def test_every_family_gets_eagers_logits_and_gradients_however_padded(family, padding):
    left, right = padding or (0, 0)
    ids, mask = token_batch((9, 9, 9, 9) if padding is None else (7, 3, 10, 1))
    position = (mask.sum(1) // 2 if family in ENCODERS else mask.sum(1) - 1) + left
    ids, mask = F.pad(ids, (left, right), value=1), F.pad(mask, (left, right))
    lean, eager = (
        logits_and_gradients(late(family, attention), ids, None if padding is None else mask, position)
        for attention in ("lean", "eager")
    )
    torch.testing.assert_close(lean, eager, atol=2e-5, rtol=1e-4)


def kept_bytes(family, attention, dropout):
    """Bytes that layers 2..L keep for the backward pass: squares of attention weights, and all but parameters."""
    model = late(family, attention, dropout).train()
    ids, mask = token_batch((30, 30))
    parameters = {p.data_ptr() for p in model.parameters()}
    kept = {}
    h = model.trunk(ids, mask)
    with saved_tensors_hooks(lambda x: kept.setdefault(x.data_ptr(), x), lambda x: x):
        model.upper(model.generate(h, mask, torch.tensor([29, 29])), h, mask)
    tensors = [x for x in kept.values() if x.data_ptr() not in parameters]
    squares = [x for x in tensors if x.shape[-1] == 34 and x.shape[-2] % 34 == 0]  # queries that share keys follow
    return sum(x.nbytes for x in squares), sum(x.nbytes for x in tensors)


WEIGHTS = 2 * 2 * 34 * 34 * (LAYERS - 1)  # batch, heads, [4 prompt rows ; 30 tokens] twice, layers 2..L


@pytest.mark.parametrize(("family", "per_weight"), [("roberta", 4 + 1), ("llama", 4)])
def test_one_square_is_kept_for_the_backward_pass_and_a_byte_per_weight_for_dropout(family, per_weight):
    lean, eager = (kept_bytes(family, attention, dropout=True) for attention in ("lean", "eager"))
    assert lean[0] == WEIGHTS * per_weight
    assert lean[1] < eager[1]
    if family == "roberta":
        assert eager[0] > 1.5 * lean[0]


def test_without_dropout_nothing_is_kept_for_it():
    lean, eager = (kept_bytes("roberta", attention, dropout=False) for attention in ("lean", "eager"))
    assert lean[0] == WEIGHTS * 4
    assert lean[1] <= eager[1]


@pytest.mark.parametrize("family", LEAN_FAMILIES)
def test_a_models_own_forward_pass_stays_right(family):
    ids, mask = token_batch()
    with torch.no_grad():
        lean, eager = (
            tiny_model(family, name)(ids, attention_mask=mask).logits[mask.bool()] for name in ("lean", "eager")
        )
    torch.testing.assert_close(lean, eager, atol=2e-5, rtol=1e-4)


def test_all_weights_can_be_dropped():
    q = torch.randn(1, 2, 3, 4)
    assert lean_attention(torch.nn.Module(), q, q, q, None, dropout=1.0)[0].eq(0).all()
