"""A prompt that attention gathers, and a learned activation: the generator of IAPT.

Zhu et al.: IAPT: Instance-Aware Prompt Tuning for Large Language Models. ACL 2024, https://arxiv.org/abs/2405.18203.

    x = W_down h + b_down                       every token, H -> m
    A = softmax over tokens of (x W_pool)       P weights for each token
    P = W_up g(A^T x) + b_up                    m -> H

with g a quotient of polynomials whose ten coefficients are trained. `method=iapt` has one in every layer.

Shapes: B batch, T tokens, H hidden size, P prompt length, m bottleneck.
"""

import torch
from torch import Tensor, nn

from lpt.generators.base import PromptGenerator
from lpt.registry import register_generator

# Near GELU: within 0.03 from -4 to 4, and within a tenth of |x| from -30 to 30. Fitted by least squares.
ABOVE = (0.01868, 0.5, 0.35766, 0.07836, 0.00546, 0.000092)
BELOW = (0.0, 0.15672, 0.0, 0.000183)


class Rational(nn.Module):
    """`(a_0 + a_1 x + ... + a_5 x^5) / (1 + |b_1 x + ... + b_4 x^4|)`, which starts as GELU.

    Padé activation units (Molina et al. 2020, https://arxiv.org/abs/1907.06732). Trains 10 numbers.
    """

    def __init__(self) -> None:
        super().__init__()
        self.above, self.below = nn.Parameter(torch.tensor(ABOVE)), nn.Parameter(torch.tensor(BELOW))

    def forward(self, x: Tensor) -> Tensor:
        """Any shape; elementwise."""
        # Of a large x in powers of 1 / x, since x^5 of a state as large as some are would leave float32.
        large = x.abs() > 1
        u = torch.where(large, 1 / torch.where(large, x, 1), x)
        inner = _horner(self.above, u) / (1 + (_horner(self.below, u) * u).abs())
        outer = _horner(self.above.flip(0), u) / (u**4 + _horner(self.below.flip(0), u).abs())
        return torch.where(large, x * outer, inner)


def _horner(coefficients: Tensor, x: Tensor) -> Tensor:
    """`c_0 + c_1 x + c_2 x^2 + ...`."""
    total = torch.zeros_like(x)
    for coefficient in coefficients.flip(0):
        total = total * x + coefficient
    return total


@register_generator("attentive")
class AttentivePromptGenerator(PromptGenerator):
    """IAPT's generator: attention over the tokens pools them to P rows, and the activation is learned.

    Trains H*m + m + m*P + 10 + m*H + H parameters.
    """

    def __init__(self, hidden_size: int, prompt_length: int, bottleneck: int, dropout: float = 0.0):
        super().__init__(hidden_size, prompt_length, bottleneck, dropout)
        self.proj_down = nn.Linear(hidden_size, bottleneck)
        self.pool = nn.Linear(bottleneck, prompt_length, bias=False)
        self.activation = Rational()
        self.proj_up = nn.Linear(bottleneck, hidden_size)

    def write(self, h_BTH: Tensor, summary_index_B: Tensor, pooling_mask_BT: Tensor) -> Tensor:
        """Write a prompt `[B, P, H]` from the states of the tokens that pooling may see."""
        x_BTm = self.proj_down(h_BTH.to(self.proj_down.weight.dtype))
        scores_BTP = self.pool(x_BTm).masked_fill(~pooling_mask_BT[..., None], float("-inf"))
        pooled_BPm = scores_BTP.softmax(1).transpose(1, 2) @ x_BTm
        prompt_BPH: Tensor = self.proj_up(self.activation(pooled_BPm))
        return prompt_BPH
