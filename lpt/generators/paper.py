"""The generators of the paper, and those that its baselines have.

Late Prompt Tuning, Liu et al. 2022 (https://arxiv.org/abs/2210.11292), section 4.

Shapes: B batch, T tokens, H hidden size, P prompt length, m bottleneck.
"""

import math

import torch
from torch import Tensor, nn

from lpt.generators.base import PromptGenerator
from lpt.registry import register_generator


def adaptive_bins(pooling_mask_BT: Tensor, bins: int) -> Tensor:
    """Which pooled token falls into which bin, for every row at once.

    Bin p of a row with n pooled tokens covers their ranks floor(p*n/P) .. ceil((p+1)*n/P) - 1, PyTorch's
    adaptive pooling: neighbouring bins may share a token, and where n < P tokens repeat.

    Args:
        pooling_mask_BT: `[B, T]` bool, the tokens to pool; at least one in each row.
        bins: P.

    Returns:
        `[B, P, T]` bool.
    """
    rank_B1T = (pooling_mask_BT.cumsum(1) - 1)[:, None]
    count_B11 = pooling_mask_BT.sum(1)[:, None, None]
    p_P1 = torch.arange(bins, device=pooling_mask_BT.device)[:, None]
    start_BP1 = p_P1 * count_B11 // bins
    stop_BP1 = ((p_P1 + 1) * count_B11 + bins - 1) // bins
    return pooling_mask_BT[:, None] & (rank_B1T >= start_BP1) & (rank_B1T < stop_BP1)


def average_pool(x_BTm: Tensor, bins_BPT: Tensor) -> Tensor:
    """Mean of each bin's tokens, `[B, P, m]`."""
    weights_BPT = bins_BPT.to(x_BTm.dtype)
    return (weights_BPT / weights_BPT.sum(-1, keepdim=True)) @ x_BTm


def max_pool(x_BTm: Tensor, bins_BPT: Tensor) -> Tensor:
    """Largest value of each bin's tokens, `[B, P, m]`."""
    # One bin at a time: a [B, P, T, m] intermediate would dwarf everything else in memory.
    lowest = torch.finfo(x_BTm.dtype).min
    pooled = [x_BTm.masked_fill(~bin_BT[..., None], lowest).max(1).values for bin_BT in bins_BPT.unbind(1)]
    return torch.stack(pooled, dim=1)


class PHMLinear(nn.Module):
    """A linear map as a sum of Kronecker products: `W = sum_i A_i (x) B_i`, A_i `[n, n]`, B_i `[in / n, out / n]`.

    Parametrized hypercomplex multiplication (Zhang et al. 2021, https://arxiv.org/abs/2102.08597), which needs about
    one n-th of a linear layer's weights. Trains n^3 + in * out / n + out.
    """

    def __init__(self, in_features: int, out_features: int, n: int):
        super().__init__()
        self.a = nn.Parameter(torch.empty(n, n, n))
        self.b = nn.Parameter(torch.empty(n, in_features // n, out_features // n))
        self.bias = nn.Parameter(torch.zeros(out_features))
        for factor in (self.a, self.b):  # so that W starts about as a linear layer's does
            nn.init.xavier_uniform_(factor.view(-1, factor.shape[-1]))

    def forward(self, x: Tensor) -> Tensor:
        """Map `[..., in]` to `[..., out]`."""
        n = len(self.a)
        parts: Tensor = torch.einsum("...ip,kij,kpq->...jq", x.unflatten(-1, (n, -1)), self.a, self.b)
        return parts.flatten(-2) + self.bias


@register_generator("npg")
class NaivePromptGenerator(PromptGenerator):
    """NPG: `P = reshape(W_up relu(W_down h_s + b_down) + b_up)` from one summary state h_s (section 4.2).

    Trains H*m + m + m*P*H + P*H parameters.
    """

    starts_from = ("states",)

    def __init__(self, hidden_size: int, prompt_length: int, bottleneck: int, dropout: float = 0.0):
        super().__init__(hidden_size, prompt_length, bottleneck, dropout)
        self.proj_down = self.linear(hidden_size, bottleneck)
        self.proj_up = self.linear(bottleneck, prompt_length * hidden_size)

    def linear(self, in_features: int, out_features: int) -> nn.Linear | PHMLinear:
        """Build one of the generator's two maps; a subclass may choose another kind."""
        return nn.Linear(in_features, out_features)

    @property
    def constant_rows(self) -> Tensor:
        """Bias of the up-projection, `[P * H]`."""
        return self.proj_up.bias

    def write(self, h_BTH: Tensor, summary_index_B: Tensor, pooling_mask_BT: Tensor) -> Tensor:
        """Write a prompt `[B, P, H]` from each row's summary state alone."""
        rows_B = torch.arange(h_BTH.shape[0], device=h_BTH.device)
        summary_BH = h_BTH[rows_B, summary_index_B].to(self.proj_down.bias.dtype)
        up_BPH: Tensor = self.proj_up(torch.relu(self.proj_down(summary_BH)))
        return up_BPH.view(-1, self.prompt_length, self.hidden_size)


@register_generator("phm")
class HypercomplexPromptGenerator(NaivePromptGenerator):
    """NPG with hypercomplex maps, as IDPG has them (Wu et al. 2022, https://arxiv.org/abs/2204.04497).

    n is 16, IDPG's choice, or what divides H and m too: gcd(16, H, m).
    """

    def linear(self, in_features: int, out_features: int) -> PHMLinear:
        """Build a hypercomplex map, whose n divides both sizes."""
        return PHMLinear(in_features, out_features, math.gcd(16, self.hidden_size, self.bottleneck))


class PooledPromptGenerator(PromptGenerator):
    """APPG / MPPG: `P = W_up relu(pool(W_down h + b_down)) + b_up`, adaptive pooling to P rows (section 4.2).

    Trains H*m + m + m*H + H parameters, whatever the prompt length.
    """

    pool = staticmethod(average_pool)

    def __init__(self, hidden_size: int, prompt_length: int, bottleneck: int, dropout: float = 0.0):
        super().__init__(hidden_size, prompt_length, bottleneck, dropout)
        self.proj_down = nn.Linear(hidden_size, bottleneck)
        self.proj_up = nn.Linear(bottleneck, hidden_size)

    def write(self, h_BTH: Tensor, summary_index_B: Tensor, pooling_mask_BT: Tensor) -> Tensor:
        """Write a prompt `[B, P, H]` from the states of the tokens that pooling may see."""
        down_BTm = self.proj_down(h_BTH.to(self.proj_down.weight.dtype))
        pooled_BPm = self.pool(down_BTm, adaptive_bins(pooling_mask_BT, self.prompt_length))
        prompt_BPH: Tensor = self.proj_up(torch.relu(pooled_BPm))
        return prompt_BPH


@register_generator("appg")
class AveragePooledPromptGenerator(PooledPromptGenerator):
    """APPG: the average over each bin of tokens."""


@register_generator("mppg")
class MaxPooledPromptGenerator(PooledPromptGenerator):
    """MPPG: the largest value in each bin of tokens."""

    pool = staticmethod(max_pool)


@register_generator("none")
class StaticPrompt(PromptGenerator):
    """No generator: one learned prompt `[P, H]` for every input (the paper's "LPT w/o PG"). Trains P*H."""

    starts_from = ("states", "vocabulary")

    def __init__(self, hidden_size: int, prompt_length: int, bottleneck: int = 0, dropout: float = 0.0):
        super().__init__(hidden_size, prompt_length, bottleneck, dropout)
        self.prompt = nn.Parameter(torch.randn(prompt_length, hidden_size) * 0.02)

    def write(self, h_BTH: Tensor, summary_index_B: Tensor, pooling_mask_BT: Tensor) -> Tensor:
        """Repeat the one prompt for each row, `[B, P, H]`."""
        return self.prompt.expand(h_BTH.shape[0], -1, -1)

    @property
    def constant_rows(self) -> Tensor:
        """Whole prompt, `[P, H]`."""
        return self.prompt
