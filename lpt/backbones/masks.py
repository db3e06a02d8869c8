"""Who sees whom, and at which position each token stands: pure functions of the attention mask.

An attention mask `[B, T]` says what each token is: 0 padding, 1 text, and from 2 on a branch: one of several
continuations that stand behind the text, each of which sees the text and itself. So several answers are scored in one
pass over the text. A boolean mask, or None where nothing is padded, has no branches.

The prompt stands before all tokens and is always attended; a prefix (`lpt.backbones.prefix`) stands before the prompt.

Shapes: B batch, T tokens, P prompt length, S = P + T, Q queries, N prefix length.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

BRANCH = 2  # the first


def token_positions(tokens_BT: Tensor, attention_mask: Tensor | None) -> Tensor:
    """Position of each token among those that it sees, from 0, `[B, T]`; padding gets a harmless one.

    Every branch continues where the text ends.

    Args:
        tokens_BT: any tensor of this shape, such as the token ids; its values are not read.
    """
    if attention_mask is None:
        return torch.arange(tokens_BT.shape[1], device=tokens_BT.device).expand(tokens_BT.shape[0], -1)
    if attention_mask.dtype == torch.bool:
        return (attention_mask.long().cumsum(1) - 1).clamp(min=0)
    text_BT = attention_mask == 1
    place_T = torch.arange(tokens_BT.shape[1], device=tokens_BT.device)
    starts_BT = F.pad(attention_mask[:, 1:] != attention_mask[:, :-1], (1, 0), value=True)
    within_branch_BT = place_T - torch.where(starts_BT, place_T, 0).cummax(1).values
    in_text_BT = (text_BT.long().cumsum(1) - 1).clamp(min=0)
    return torch.where(attention_mask >= BRANCH, text_BT.sum(1, keepdim=True) + within_branch_BT, in_text_BT)


def positions_with_prompt(
    tokens_BT: Tensor, attention_mask: Tensor | None, prompt_length: int, prefix_length: int
) -> Tensor:
    """Positions of `[prompt ; tokens]` behind a prefix, `[B, S]`: the prompt from N on, the text from N + P on."""
    prompt_BP = torch.arange(prompt_length, device=tokens_BT.device).expand(tokens_BT.shape[0], -1)
    tokens_BT = token_positions(tokens_BT, attention_mask) + prompt_length
    return torch.cat([prompt_BP, tokens_BT], dim=1) + prefix_length


def with_prompt(attention_mask: Tensor, prompt_length: int) -> Tensor:
    """The mask of `[prompt ; tokens]`, `[B, S]`: the prompt is text."""
    return F.pad(attention_mask, (prompt_length, 0), value=1)


@dataclass(frozen=True)
class Visibility:
    """What decides which keys a query sees.

    Attributes:
        attention_mask: `[B, T]`, of the tokens alone; None: nothing is padded.
        positions: of `[prompt ; tokens]`, `[B, S]`.
        prompt_length: P.
        causal: no query sees keys behind it.
        window: of a layer with a sliding window, the distance from which on a key is out of sight.
        prefix_length: N.
        queries: their indices in `[prompt ; tokens]`, `[B, Q]`; None: every token is one.
    """

    attention_mask: Tensor | None
    positions: Tensor
    prompt_length: int
    causal: bool
    window: int | None = None
    prefix_length: int = 0
    queries: Tensor | None = None

    @property
    def everything(self) -> bool:
        """Whether every query sees every key."""
        return self.attention_mask is None and self.window is None and not self.causal

    @property
    def plain_causal(self) -> bool:
        """Whether every token is a query and sees exactly itself and what stands before it."""
        everywhere = self.attention_mask is None and self.window is None and self.queries is None
        return self.causal and everywhere and not self.prefix_length

    def allowed(self) -> Tensor:
        """Which keys each query sees, bool `[B, Q, N + S]`, or `[B, 1, N + S]` where all queries see the same."""
        batch, total = self.positions.shape
        key_S = torch.arange(total, device=self.positions.device)
        allowed_BQS = torch.ones(batch, 1, total, dtype=torch.bool, device=key_S.device)
        if self.attention_mask is not None:
            allowed_BQS[:, 0, self.prompt_length :] = self.attention_mask.bool()
        if self.causal or self.window is not None:
            query_BQ1 = key_S[None, :, None] if self.queries is None else self.queries[:, :, None]
            if self.causal:
                allowed_BQS = allowed_BQS & (query_BQ1 >= key_S)
            if self.window is not None:
                # The prompt stays in sight of every token.
                allowed_BQS = allowed_BQS & (self._near(self.window) | (key_S < self.prompt_length))
            if self.attention_mask is not None and self.attention_mask.dtype != torch.bool:
                allowed_BQS = allowed_BQS & self._same_branch(self.attention_mask)
            # A padding query that sees nothing would be all minus infinity, and NaN: let it see itself.
            allowed_BQS = allowed_BQS | (query_BQ1 == key_S)
        return F.pad(allowed_BQS, (self.prefix_length, 0), value=True)

    def _near(self, window: int) -> Tensor:
        """Whether a key is within the window of a query, `[B, Q, S]`."""
        return (self._of_queries(self.positions)[:, :, None] - self.positions[:, None, :]).abs() < window

    def _same_branch(self, attention_mask: Tensor) -> Tensor:
        """Whether a key is text, or of the query's own branch, `[B, Q, S]`."""
        kind_BS = with_prompt(attention_mask, self.prompt_length)
        return (self._of_queries(kind_BS)[:, :, None] == kind_BS[:, None, :]) | (kind_BS[:, None, :] == 1)

    def _of_queries(self, x_BS: Tensor) -> Tensor:
        return x_BS if self.queries is None else x_BS.gather(1, self.queries)


@dataclass(frozen=True)
class ActiveVisibility:
    """What decides which keys the active tokens see, of a text that sees none of them (`lpt.backbones.context`).

    Active are the prompt and, behind it, the tokens that are read out. Each of those stands for its own frozen self,
    which is out of sight. Keys stand in the order `[text ; prefix ; active tokens]`.

    Attributes:
        attention_mask: `[B, T]`, of the text; None: nothing is padded.
        text_positions: `[B, T]`.
        read_out: indices in the text of the tokens that are read out, `[B, Q]`: the read-out token first, then the
            answers behind it.
        prompt_length: P.
        causal: the text is seen up to the read-out token.
        window: as of `Visibility`; the prompt stays in sight.
        prefix_length: N.
        queries: how many of the active tokens, the last ones, are queries; None: all.
    """

    attention_mask: Tensor | None
    text_positions: Tensor
    read_out: Tensor
    prompt_length: int
    causal: bool
    window: int | None = None
    prefix_length: int = 0
    queries: int | None = None

    everything = plain_causal = False

    @property
    def positions(self) -> Tensor:
        """Of the active tokens, `[B, P + Q]`.

        Decoders: the prompt takes the read-out token's position and those behind it, and the read-out token the next.
        Encoders: the read-out token keeps its own, and the prompt takes those before it, which may be below 0.
        """
        read_out_BQ = self.text_positions.gather(1, self.read_out)
        prompt_P = torch.arange(self.prompt_length, device=read_out_BQ.device)
        if self.causal:
            return torch.cat([read_out_BQ[:, :1] + prompt_P, read_out_BQ + self.prompt_length], 1)
        return torch.cat([read_out_BQ[:, :1] + prompt_P - self.prompt_length, read_out_BQ], 1)

    def allowed(self) -> Tensor:
        """Which keys each query sees, bool `[B, A, T + N + A]`."""
        text_BAT, active_BAA = self._text(), self._active()
        allowed = torch.cat([text_BAT, F.pad(active_BAA, (self.prefix_length, 0), value=True)], 2)
        return allowed if self.queries is None else allowed[:, -self.queries :]

    def _text(self) -> Tensor:
        """Which of the text's tokens each active token sees, `[B, A, T]`."""
        index_T, read_out_B1 = (
            torch.arange(self.text_positions.shape[1], device=self.read_out.device),
            self.read_out[:, :1],
        )
        seen_BT = index_T < read_out_B1 if self.causal else index_T != read_out_B1
        if self.attention_mask is not None:
            seen_BT = seen_BT & self.attention_mask.bool()
        seen_BAT = seen_BT[:, None].expand(-1, self.prompt_length + self.read_out.shape[1], -1)
        if self.window is None:
            return seen_BAT
        return seen_BAT & ((self.positions[:, :, None] - self.text_positions[:, None]).abs() < self.window)

    def _active(self) -> Tensor:
        """Which active tokens each active token sees, `[B, A, A]`."""
        positions_BA = self.positions
        batch, active = positions_BA.shape
        seen_BAA = torch.ones(batch, active, active, dtype=torch.bool, device=positions_BA.device)
        if self.causal:
            seen_BAA = seen_BAA.tril()
        if self.window is not None:
            near_BAA = (positions_BA[:, :, None] - positions_BA[:, None]).abs() < self.window
            seen_BAA = seen_BAA & (near_BAA | (torch.arange(active, device=near_BAA.device) < self.prompt_length))
        if self.attention_mask is None or self.attention_mask.dtype == torch.bool:
            return seen_BAA
        kind_BA = with_prompt(self.attention_mask.gather(1, self.read_out), self.prompt_length)
        return seen_BAA & ((kind_BA[:, :, None] == kind_BA[:, None]) | (kind_BA[:, None] == 1))


def additive(allowed: Tensor, dtype: torch.dtype) -> Tensor:
    """0 where a key is seen and the lowest number of `dtype` elsewhere, for attention that adds its mask to scores."""
    return torch.zeros(allowed.shape, dtype=dtype, device=allowed.device).masked_fill_(~allowed, torch.finfo(dtype).min)
