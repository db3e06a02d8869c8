"""Regression with two label words, as LM-BFF has it (Gao et al., ACL 2021, arXiv 2012.15723).

A value in a range is a mixture of the words of its two ends, and the model's mixture is a value:

    value = low + (high - low) p(the word of the high end)

Training minimizes the cross-entropy against the gold value's mixture.

Shapes: N rows, 2 labels, the one of the low end first.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


def soft_targets(values: Sequence[float], value_range: Sequence[float]) -> Tensor:
    """The mixture that is each value, `[N, 2]` float32."""
    low, high = value_range
    high_N = (torch.tensor(values, dtype=torch.float64) - low) / (high - low)
    return torch.stack([1 - high_N, high_N], dim=1).float()


def interpolate(weights_N2: Any, value_range: Sequence[float]) -> Any:
    """The value that is each mixture, `[N]`; arrays or tensors."""
    low, high = value_range
    return low + (high - low) * weights_N2[:, 1]
