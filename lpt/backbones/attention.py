"""Attention for short texts on a CPU: the textbook's products, and nothing kept that the backward pass can do without.

Transformers' `eager` keeps three squares of attention weights per layer (after softmax, dropout's mask, after dropout)
and repeats keys and values for grouped queries; the backward pass of `sdpa` is slow for short texts. This keeps one
square and a byte per weight for dropout, and shares keys and values. Registered with transformers as `lean`.

Shapes: B batch, h query heads, g key-value heads, Q queries, S keys, d head size; N = B * g, R = h / g * Q.
"""

from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.masking_utils import eager_mask

from lpt.backbones.dropout import drop, masked, parts
from lpt.backbones.names import LEAN


class _Attention(torch.autograd.Function):
    """softmax(q k^T + mask) v, with dropout of `dropped` parts on the softmax."""

    @staticmethod
    def forward(ctx: Any, q_NRd: Tensor, k_NSd: Tensor, v_NSd: Tensor, mask: Tensor | None, dropped: int) -> Tensor:
        scores_NRS = torch.bmm(q_NRd, k_NSd.transpose(1, 2))
        if mask is not None:
            scores_NRS.view(mask.shape[0], -1, *mask.shape[2:]).add_(mask)
        p_NRS = torch.softmax(scores_NRS, -1)
        keep = drop(p_NRS, dropped) if dropped else None
        ctx.save_for_backward(q_NRd, k_NSd, v_NSd, p_NRS, *([] if keep is None else [keep]))
        ctx.dropped = dropped
        return torch.bmm(p_NRS if keep is None else masked(p_NRS, keep, dropped), v_NSd)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        q_NRd, k_NSd, v_NSd, p_NRS, *keep = ctx.saved_tensors
        (o_NRd,) = gradients
        kept_NRS = masked(p_NRS, keep[0], ctx.dropped) if keep else p_NRS
        dv_NSd = torch.bmm(kept_NRS.transpose(1, 2), o_NRd) if ctx.needs_input_grad[2] else None
        dp_NRS = torch.bmm(o_NRd, v_NSd.transpose(1, 2))
        if keep:
            dp_NRS = masked(dp_NRS, keep[0], ctx.dropped)
        ds_NRS = torch._softmax_backward_data(dp_NRS, p_NRS, -1, p_NRS.dtype)
        dq_NRd = torch.bmm(ds_NRS, k_NSd) if ctx.needs_input_grad[0] else None
        dk_NSd = torch.bmm(ds_NRS.transpose(1, 2), q_NRd) if ctx.needs_input_grad[1] else None
        return dq_NRd, dk_NSd, dv_NSd, None, None


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
        key: `[B, g, S, d]`, as value.
        attention_mask: additive, `[B, 1, Q, S]`; None: every query sees every key.

    Returns:
        `[B, Q, h, d]`, and no weights.
    """
    batch, heads, queries, size = query.shape
    groups = key.shape[1]
    q_NRd = (query * (size**-0.5 if scaling is None else scaling)).reshape(batch * groups, -1, size)
    k_NSd, v_NSd = key.reshape(batch * groups, -1, size), value.reshape(batch * groups, -1, size)
    o_NRd = _Attention.apply(q_NRd, k_NSd, v_NSd, attention_mask, parts(dropout))  # type: ignore[no-untyped-call]
    return o_NRd.view(batch, heads, queries, size).transpose(1, 2), None


AttentionInterface.register(LEAN, lean_attention)
AttentionMaskInterface.register(LEAN, eager_mask)  # for the model's own forward pass; ours brings its masks
