"""Attention for short texts on a CPU: the textbook's products, and nothing kept that the backward pass can do without.

Transformers' `eager` keeps three squares of attention weights per layer (after softmax, dropout's mask, after dropout)
and repeats keys and values for grouped queries; the backward pass of `sdpa` is slow for short texts. This keeps one
square and a byte per weight for dropout, and shares keys and values. Registered with transformers as `lean`.

A text that is read only (`lpt.backbones.context`) has keys and values that are constants. They have no gradient, and
the backward pass asks for them again instead of keeping them.

Shapes: B batch, h query heads, g key-value heads, Q queries, T tokens of a text that is read only, S the other keys, d
head size; N = B * g, R = h / g * Q.
"""

from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.masking_utils import eager_mask

from lpt.backbones.dropout import drop, masked, parts
from lpt.backbones.names import LEAN
from lpt.backbones.prefix import Given, carried


class _Attention(torch.autograd.Function):
    """softmax(q k^T + mask) v, with dropout of `dropped` parts on the softmax; those of a text come first."""

    @staticmethod
    def forward(
        ctx: Any,
        q_NRd: Tensor,
        k_NSd: Tensor,
        v_NSd: Tensor,
        text: Given | None,
        mask: Tensor | None,
        dropped: int,
    ) -> Tensor:
        text_keys, text_values = _of_text(text, q_NRd)
        scores_NRS = _products(q_NRd, text_keys, k_NSd)
        if mask is not None:
            scores_NRS.view(mask.shape[0], -1, *mask.shape[2:]).add_(mask)
        p_NRS = torch.softmax(scores_NRS, -1)
        keep = drop(p_NRS, dropped) if dropped else None
        ctx.save_for_backward(q_NRd, k_NSd, v_NSd, p_NRS, keep)
        ctx.text, ctx.dropped = text, dropped
        return _weighted(p_NRS if keep is None else masked(p_NRS, keep, dropped), text_values, v_NSd)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        q_NRd, k_NSd, v_NSd, p_NRS, keep = ctx.saved_tensors
        text_keys, text_values = _of_text(ctx.text, q_NRd)
        (o_NRd,) = gradients
        own = slice(p_NRS.shape[2] - k_NSd.shape[1], None)
        kept_NRS = p_NRS if keep is None else masked(p_NRS, keep, ctx.dropped)
        dv_NSd = torch.bmm(kept_NRS[..., own].transpose(1, 2), o_NRd) if ctx.needs_input_grad[2] else None
        dp_NRS = _products(o_NRd, text_values, v_NSd)
        if keep is not None:
            dp_NRS = masked(dp_NRS, keep, ctx.dropped)
        ds_NRS = torch._softmax_backward_data(dp_NRS, p_NRS, -1, p_NRS.dtype)
        dq_NRd = _weighted(ds_NRS, text_keys, k_NSd) if ctx.needs_input_grad[0] else None
        dk_NSd = torch.bmm(ds_NRS[..., own].transpose(1, 2), q_NRd) if ctx.needs_input_grad[1] else None
        return dq_NRd, dk_NSd, dv_NSd, None, None, None


def _of_text(text: Given | None, q_NRd: Tensor) -> tuple[Tensor, Tensor] | tuple[None, None]:
    """A text's keys and values, `[N, T, d]`, if there is one."""
    if text is None:
        return None, None
    keys, values = text()
    return keys.reshape(len(q_NRd), -1, keys.shape[3]), values.reshape(len(q_NRd), -1, keys.shape[3])


def _products(x_NRd: Tensor, text_NTd: Tensor | None, own_NSd: Tensor) -> Tensor:
    """Products of each query's row with each key's, `[N, R, T + S]`."""
    products_NRS = torch.bmm(x_NRd, own_NSd.transpose(1, 2))
    if text_NTd is None:
        return products_NRS
    return torch.cat([torch.bmm(x_NRd, text_NTd.transpose(1, 2)), products_NRS], -1)


def _weighted(weights_NRS: Tensor, text_NTd: Tensor | None, own_NSd: Tensor) -> Tensor:
    """Sums of rows, weighted, `[N, R, d]`."""
    if text_NTd is None:
        return torch.bmm(weights_NRS, own_NSd)
    text_NRT, own_NRS = weights_NRS.split([text_NTd.shape[1], own_NSd.shape[1]], -1)
    return torch.bmm(text_NRT, text_NTd).baddbmm_(own_NRS, own_NSd)


def lean_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Transformers' attention interface.

    Args:
        query: `[B, h, Q, d]`.
        key: `[B, g, S, d]`, as value; a text's that it carries (`lpt.backbones.prefix`) stand in front.
        attention_mask: additive, `[B, 1, Q, T + S]`; None: every query sees every key.

    Returns:
        `[B, Q, h, d]`, and no weights.
    """
    batch, heads, queries, size = query.shape
    groups = key.shape[1]
    q_NRd = (query * (size**-0.5 if scaling is None else scaling)).reshape(batch * groups, -1, size)
    k_NSd, v_NSd = key.reshape(batch * groups, -1, size), value.reshape(batch * groups, -1, size)
    o_NRd = _Attention.apply(  # type: ignore[no-untyped-call]
        q_NRd, k_NSd, v_NSd, carried(key), attention_mask, parts(dropout)
    )
    return o_NRd.view(batch, heads, queries, size).transpose(1, 2), None


AttentionInterface.register(LEAN, lean_attention)
AttentionMaskInterface.register(LEAN, eager_mask)  # for the model's own forward pass; ours brings its masks
