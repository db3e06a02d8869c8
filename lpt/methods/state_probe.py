"""A head over the frozen states of any layer: the cheapest baseline of all.

Layers from k on are never computed. What enters layer k is kept by the cache, so that a run costs one pass through
layers 1..k-1.

Shapes: B batch, T tokens, H hidden size.
"""

from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lpt.backbones.context import Context
from lpt.errors import LptError
from lpt.late_prompt import LateMethod
from lpt.ranges import check_word
from lpt.registry import register_method

Pool = Literal["readout", "mean", "attention"]


@register_method("state_probe", settings={"head": "linear"})
class StateProbe(LateMethod):
    """A linear head on the states entering layer k, pooled over the tokens and normalized.

    `readout` is the state at the read-out position, `mean` the mean of all tokens, and `attention` their mean weighted
    by softmax(q . h / sqrt(H)) with a trained q: an attentive probe. Normalized by mean and deviation, since the sizes
    of states differ from layer to layer (`lpt.generators.base`). Trains H with `attention`, else the head alone.

    Args:
        model: a Hugging Face model.
        layer: k; None is L // 2 + 1.
        pool: `readout`, `mean` or `attention`.
        late: as of `LateMethod`.

    Raises:
        LptError: unknown `pool`.
    """

    late = True

    def __init__(self, model: Any, layer: int | None = None, pool: Pool = "attention", **late: Any):
        super().__init__(model, layer, **late)
        check_word("method.pool", pool, Pool)
        self.pool = pool
        hidden = self.backbone.hidden_size
        self.query = nn.Parameter(torch.zeros(hidden, device=model.device)) if pool == "attention" else None

    def read_on(self, context: Context) -> Context:
        """The same context: nothing above layer k is needed, whether the text is read only or not."""
        return context

    def read_out(self, context: Context, readout_position: Tensor, num_extra_positions: int = 0) -> Tensor:
        """Normalized state of each text, `[B, H]`.

        Raises:
            LptError: several positions are to be read out.
        """
        if num_extra_positions or self.backbone.finished_size != self.backbone.hidden_size:
            raise LptError("method=state_probe gives one state of the backbone's size for a text; use head=linear")
        h_BTH, mask, _ = context
        z_BH = pooled(h_BTH, mask, readout_position, self.pool, self.query)
        return F.layer_norm(z_BH, z_BH.shape[-1:]).to(context.states.dtype)

    def token_logits(self, input_ids: Tensor, attention_mask: Tensor | None, readout_position: Tensor) -> Tensor:
        """There are none.

        Raises:
            LptError: always.
        """
        raise LptError("token_logits: method=state_probe gives one state for a text, and nothing at its tokens")


def pooled(
    h_BTH: Tensor, attention_mask: Tensor | None, readout_position: Tensor, pool: Pool, query: Tensor | None = None
) -> Tensor:
    """One state for each row, `[B, H]` float32, of states that are normalized first; `query [H]` is for `attention`."""
    h_BTH = F.layer_norm(h_BTH.float(), h_BTH.shape[-1:])
    if pool == "readout":
        return h_BTH[torch.arange(h_BTH.shape[0], device=h_BTH.device), readout_position]
    scores_BT = h_BTH.new_zeros(h_BTH.shape[:2]) if query is None else h_BTH @ query / h_BTH.shape[-1] ** 0.5
    if attention_mask is not None:
        scores_BT = scores_BT.masked_fill(~attention_mask.bool(), float("-inf"))
    return (scores_BT.softmax(1)[:, None] @ h_BTH)[:, 0]
