"""Regression with two label words, as LM-BFF has it (Gao et al., ACL 2021, arXiv 2012.15723).

A value between two ends is a mixture of their words, and the model's mixture is a value:

    value = low + (high - low) p(the word of the high end)

Training minimises the cross-entropy against the gold value's mixture.

Shapes: N rows, 2 labels, the one of the low end first.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


def shares(values: Sequence[float], ends: Sequence[float]) -> Tensor:
    """The mixture that is each value, `[N, 2]` float32."""
    low, high = ends
    high_N = (torch.tensor(values, dtype=torch.float64) - low) / (high - low)
    return torch.stack([1 - high_N, high_N], dim=1).float()


def interpolate(shares_N2: Any, ends: Sequence[float]) -> Any:
    """The value that is each mixture, `[N]`; arrays or tensors."""
    low, high = ends
    return low + (high - low) * shares_N2[:, 1]
