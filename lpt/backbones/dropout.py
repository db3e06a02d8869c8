"""Dropout whose masks cost little on a CPU.

PyTorch draws one random number per element there, one after the other: in bf16 that is a fifth of a training step of
an encoder. Here a 64-bit number decides about four elements.
"""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

SCALE = 2**15  # a probability is this many parts
BITS = {2: torch.int16, 4: torch.int32, 8: torch.int64}  # integers of a float's size


def parts(p: float) -> int:
    """A probability as a number of `SCALE` parts."""
    return round(p * SCALE)


def drop(x: Tensor, dropped: int) -> Tensor:
    """A mask for `x`, int8: -1, all bits set, where an element stays; 0 with probability `dropped / SCALE`."""
    random = torch.empty(-(-x.numel() // 4), dtype=torch.int64).random_(-(2**63), None)
    draw = random.view(torch.int16)[: x.numel()].view(x.shape).bitwise_and_(SCALE - 1)
    return draw.neg_().add_(dropped - 1).bitwise_right_shift_(15).to(torch.int8)  # the sign of dropped - 1 - draw


def masked(x: Tensor, keep: Tensor, dropped: int) -> Tensor:
    """`x` where it stays, scaled by what was dropped on average; 0 elsewhere."""
    return (x.view(BITS[x.dtype.itemsize]) & keep).view(x.dtype).mul_(SCALE / max(SCALE - dropped, 1))


class _Dropout(torch.autograd.Function):
    """Keeps one byte per element for the backward pass."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, dropped: int) -> Tensor:
        keep = drop(x, dropped)
        ctx.save_for_backward(keep)
        ctx.dropped = dropped
        return masked(x, keep, dropped)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (keep,) = ctx.saved_tensors
        return masked(gradients[0], keep, ctx.dropped), None


def dropout(x: Tensor, p: float) -> Tensor:
    """Zero each element of a CPU tensor with probability `p`, to 1 in 32,768, and scale the others by 1 / (1 - p).

    Draws from PyTorch's default generator, though not the numbers that its own dropout draws.
    """
    dropped: Tensor = _Dropout.apply(x, parts(p))  # type: ignore[no-untyped-call]
    return dropped


class CheapDropout(TorchFunctionMode):
    """Within it, `torch.nn.functional.dropout`, which all of transformers' layers come down to, is ours on the CPU."""

    def __torch_function__(
        self, function: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if function is F.dropout:
            return _replaced(*args, **kwargs or {})
        return function(*args, **kwargs or {})


def _replaced(input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
    if not training or p == 0:
        return input
    if inplace or input.device.type != "cpu":
        return F.dropout(input, p, training, inplace)
    return dropout(input, p)
