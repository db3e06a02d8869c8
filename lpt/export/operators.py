"""Operators that ONNX lacks, in terms of those that it has. Shapes: B rows, T tokens."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


def cummax(x_BT: Tensor, dim: int) -> tuple[Tensor, Tensor]:
    """As `torch.cummax` along dimension 1, for whole numbers that are not negative."""
    index_T = torch.arange(x_BT.shape[1], device=x_BT.device)
    before_TT = index_T[:, None] >= index_T
    return torch.where(before_TT, x_BT[:, None], -1).max(2)


def nanmedian(x_BT: Tensor, dim: int, keepdim: bool = False) -> tuple[Tensor, Tensor]:
    """As `torch.nanmedian` along dimension 1, of rows that are not all NaN."""
    missing_BT = x_BT.isnan()
    values_BT, index_BT = x_BT.masked_fill(missing_BT, torch.inf).sort(1)
    middle_B1 = ((~missing_BT).long().sum(1, keepdim=True) - 1) // 2
    return values_BT.gather(1, middle_B1)[:, 0], index_BT.gather(1, middle_B1)[:, 0]


DECOMPOSITIONS: dict[Any, Callable[..., Any]] = {
    torch.ops.aten.cummax.default: cummax,
    torch.ops.aten.nanmedian.dim: nanmedian,
}
