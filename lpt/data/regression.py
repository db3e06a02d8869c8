"""Regression with two label words, as in LM-BFF (Gao et al., ACL 2021, arXiv 2012.15723).

A value in a range is written as probabilities of two label words, one for each end, and read back from them:

    value = low + (high - low) p(label word of the high end)

Training minimizes the cross-entropy against the gold value's probabilities.

Shapes: N rows, 2 labels, that of the low end first.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


def soft_targets(values: Sequence[float], value_range: Sequence[float]) -> Tensor:
    """Return the label probabilities that stand for each value, `[N, 2]` float32.

    Args:
        values: N values.
        value_range: lowest and highest value.
    """
    low, high = value_range
    high_N = (torch.tensor(values, dtype=torch.float64) - low) / (high - low)
    return torch.stack([1 - high_N, high_N], dim=1).float()


def interpolate(weights_N2: Any, value_range: Sequence[float]) -> Any:
    """Return the value for which label probabilities stand, `[N]`.

    Args:
        weights_N2: probabilities of the two labels, `[N, 2]`, an array or a tensor.
        value_range: lowest and highest value.
    """
    low, high = value_range
    return low + (high - low) * weights_N2[:, 1]
