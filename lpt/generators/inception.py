"""Several bottlenecks side by side around an initial prompt: the generator of LIPT.

He et al.: LIPT: Improving Prompt Tuning with Late Inception Reparameterization. Electronics 13(23), 2024,
https://doi.org/10.3390/electronics13234741, figure 1:

    P = P_0 + sum_i (W_up_i relu(W_down_i P_0 + b_down_i) + b_up_i)        bottlenecks of sizes m, m/2, m/4, ...

The figure has three of them, and an initial prompt P_0 that is learned.

Shapes: B batch, T tokens, H hidden size, P prompt length, m bottleneck.
"""

from typing import Annotated, Literal

import torch
from torch import Tensor, nn

from lpt.errors import LptError
from lpt.generators.base import PromptGenerator
from lpt.generators.paper import adaptive_bins, average_pool
from lpt.ranges import at_least, check_word
from lpt.registry import register_generator

Initial = Literal["learned", "pooled"]


@register_generator("inception")
class InceptionPromptGenerator(PromptGenerator):
    """LIPT's generator: an initial prompt, and what bottlenecks of different sizes make of it, added up.

    With m_i = m / 2^i, i from 0, trains P*H (if learned) + the sum of 2*H*m_i + m_i + H.

    Args:
        hidden_size: H.
        prompt_length: P.
        bottleneck: m, of the largest bottleneck.
        dropout: rate on the prompt.
        branches: how many bottlenecks.
        initial: `learned`, one for every input, as in the paper; or `pooled`, average pooling of the text's states.

    Raises:
        LptError: unknown `initial`, or a bottleneck that cannot be halved so often.
    """

    starts_from = ("states", "vocabulary")

    def __init__(
        self,
        hidden_size: int,
        prompt_length: int,
        bottleneck: int,
        dropout: float = 0.0,
        branches: Annotated[int, at_least(1)] = 3,
        initial: Initial = "learned",
    ):
        super().__init__(hidden_size, prompt_length, bottleneck, dropout)
        sizes = [bottleneck >> i for i in range(branches)]
        if sizes[-1] < 1:
            raise LptError(f"bottleneck={bottleneck} is too small for branches={branches}: each has half of the last")
        check_word("generator.initial", initial, Initial)
        self.prompt = nn.Parameter(torch.randn(prompt_length, hidden_size) * 0.02) if initial == "learned" else None
        self.branches = nn.ModuleList(
            nn.Sequential(nn.Linear(hidden_size, m), nn.ReLU(), nn.Linear(m, hidden_size)) for m in sizes
        )

    @property
    def constant_rows(self) -> Tensor:
        """The initial prompt, `[P, H]`, where it is learned."""
        return super().constant_rows if self.prompt is None else self.prompt

    def write(self, h_BTH: Tensor, summary_index_B: Tensor, pooling_mask_BT: Tensor) -> Tensor:
        """Write a prompt `[B, P, H]`."""
        if self.prompt is None:
            p_BPH = average_pool(h_BTH.float(), adaptive_bins(pooling_mask_BT, self.prompt_length))
        else:
            p_BPH = self.prompt.expand(h_BTH.shape[0], -1, -1)
        return torch.stack([p_BPH, *(branch(p_BPH) for branch in self.branches)]).sum(0)
