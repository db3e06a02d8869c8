"""A small network beside the frozen one, which reads the states that enter its layers.

No gradient passes through the backbone, whatever layer the ladder begins at.

Shapes: B batch, T tokens, Q tokens that are read out, H hidden size, d side size.
"""

import math
from collections.abc import Callable
from typing import Annotated, Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lpt.backbones.context import Context
from lpt.backbones.masks import Visibility, token_positions
from lpt.backbones.passes import Entering
from lpt.errors import LptError
from lpt.late_prompt import LateMethod
from lpt.ranges import at_least, check_word
from lpt.registry import register_method

Rungs = Literal["linear", "average"]
TEMPERATURE = 0.1  # of the gates (LST, section 3.2)


@register_method("ladder", settings={"optim.lr": 1e-3})
class LadderSideTuning(LateMethod):
    """Ladder side tuning (LST; Sung et al. 2022, https://arxiv.org/abs/2206.06522).

        s = down_k(h_k)
        s = layer_l(mu_l s + (1 - mu_l) down_l(h_l+1)),  mu_l = sigmoid(a_l / 0.1)      l = k..L
        o = h_L+1 + W_up s

    h_l are the frozen states entering layer l, h_L+1 those leaving layer L, and layer_l is a transformer layer of size
    d = H / reduction. W_up starts at zero, so that it begins as the frozen model does, as the side network of QST does
    (Zhang et al. 2024, https://arxiv.org/abs/2401.07004), whose rungs without weights are `rungs=average`. LST's
    initialization from pruned weights of the backbone is not here.

    The text sees nothing of it anyway. With `read_only`, the side network reads the read-out token alone, and layers
    k..L compute that alone.

    With L' = L - k + 1, trains L' (12 d^2 + 13 d + 1) + d H + H, and of `linear` rungs (L' + 1) (H d + d).

    Args:
        model: a Hugging Face model.
        layer: k; None is 1, as the papers have it.
        reduction: H / d.
        rungs: how states come down to size d: `linear`, or `average` of neighboring numbers.
        late: as of `LateMethod`.

    Raises:
        LptError: unknown `rungs`, or a reduction that does not divide H.
    """

    def __init__(
        self,
        model: Any,
        layer: int | None = None,
        reduction: Annotated[int, at_least(1)] = 8,
        rungs: Rungs = "linear",
        **late: Any,
    ):
        super().__init__(model, layer, **late)
        hidden, count = self.backbone.hidden_size, len(self.backbone.upper_layers)
        if hidden % reduction:
            raise LptError(
                f"method.reduction={reduction} does not divide the hidden size {hidden}; choose one that does"
            )
        check_word("method.rungs", rungs, Rungs)
        d = hidden // reduction
        down = (nn.Linear(hidden, d) if rungs == "linear" else nn.AdaptiveAvgPool1d(d) for _ in range(count + 1))
        heads, device = math.gcd(d, self.backbone.config.num_attention_heads), model.device
        self.down = nn.ModuleList(down).to(device)
        self.layers = nn.ModuleList(SideLayer(d, heads) for _ in range(count)).to(device)
        self.gates = nn.Parameter(torch.zeros(count, device=device))
        self.up = nn.Linear(d, hidden, device=device)
        nn.init.zeros_(self.up.weight)
        nn.init.zeros_(self.up.bias)
        self.train(self.backbone.training)

    def upper(
        self,
        p_BPH: Tensor,
        h_BTH: Tensor,
        attention_mask: Tensor | None,
        position: Tensor | None = None,
        entering: Entering | None = None,
    ) -> Tensor:
        """States leaving layer L, with what the ladder adds; as of `LateMethod`."""
        states = self._frozen(
            lambda keep: super(LadderSideTuning, self).upper(p_BPH, h_BTH, attention_mask, None, keep)
        )
        o_BTH = self._beside(states, attention_mask)
        if position is None:
            return o_BTH
        row_B = torch.arange(o_BTH.shape[0], device=position.device)
        return o_BTH[row_B if position.ndim == 1 else row_B[:, None], position]

    def over(self, p_BPH: Tensor, context: Context, position: Tensor, entering: Entering | None = None) -> Tensor:
        """The same at some tokens of a text that is read only; the ladder reads these alone."""
        position_BQ, mask = position[:, None] if position.ndim == 1 else position, context.attention_mask
        states = self._frozen(lambda keep: super(LadderSideTuning, self).over(p_BPH, context, position_BQ, keep))
        apart = None if mask is None or mask.dtype == torch.bool else mask.gather(1, position_BQ)
        o_BQH = self._beside(states, apart)
        return o_BQH[:, 0] if position.ndim == 1 else o_BQH

    @torch.no_grad()
    def _frozen(self, run: Callable[[Entering], Tensor]) -> list[Tensor]:
        """States entering layers k..L, and those leaving layer L."""
        states: list[Tensor] = []

        def keep(layer: int, h: Tensor) -> Tensor:
            states.append(h)
            return h

        leaving = run(keep)
        return [*states, leaving]

    def _beside(self, states: list[Tensor], attention_mask: Tensor | None) -> Tensor:
        """Run the ladder: the last of the states, with what it adds."""
        seen = Visibility(attention_mask, token_positions(states[0][..., 0], attention_mask), 0, self.backbone.causal)
        allowed = None if seen.everything else seen.allowed()[:, None]
        with torch.autocast(states[0].device.type, enabled=False):
            s_BTd = self.down[0](states[0].to(self.gates.dtype))
            for down, layer, gate, h_BTH in zip(self.down[1:], self.layers, self.gates, states[1:], strict=True):
                mu = (gate / TEMPERATURE).sigmoid()
                s_BTd = layer(mu * s_BTd + (1 - mu) * down(h_BTH.to(gate.dtype)), allowed)
            added_BTH: Tensor = self.up(s_BTd)
        return states[-1] + added_BTH.to(states[-1].dtype)

    def active_tokens(self, length: float) -> float:
        """Tokens that pass through the side network in a training step."""
        return 1 if self.read_only else length


class SideLayer(nn.Module):
    """A transformer layer with its norms in front. Trains 12 d^2 + 13 d."""

    def __init__(self, size: int, heads: int):
        super().__init__()
        self.heads = heads
        self.norm, self.qkv, self.out = nn.LayerNorm(size), nn.Linear(size, 3 * size), nn.Linear(size, size)
        self.feed_forward = nn.Sequential(
            nn.LayerNorm(size), nn.Linear(size, 4 * size), nn.GELU(), nn.Linear(4 * size, size)
        )

    def forward(self, s_BTd: Tensor, allowed: Tensor | None) -> Tensor:
        """Map `[B, T, d]` to the same; `allowed`: which keys each query sees, `[B, 1, T or 1, T]`; None: all."""
        q, k, v = (x.unflatten(-1, (self.heads, -1)).transpose(1, 2) for x in self.qkv(self.norm(s_BTd)).chunk(3, -1))
        attended = F.scaled_dot_product_attention(q, k, v, attn_mask=allowed)
        s_BTd = s_BTd + self.out(attended.transpose(1, 2).flatten(2))
        return s_BTd + self.feed_forward(s_BTd)  # type: ignore[no-any-return]
