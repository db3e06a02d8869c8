"""What all prompt generators share, and the units that they may read and write in. Pure tensors: no backbone.

Shapes: B batch, T tokens, H hidden size, P prompt length.
"""

import math
from typing import ClassVar

import torch
from torch import Tensor, nn

from lpt.errors import LptError


class PromptGenerator(nn.Module):
    """What all generators share: the interface, units, and dropout on what they write.

    A new generator is a subclass with `write`, registered under a name; further parameters of its constructor are its
    options (`generator.<name>`).

    Attributes:
        normalize: read and write in units of the states' size: every state is divided by its root mean square, and
            what is written is multiplied by the median one of the text. In some models states grow a hundredfold from
            layer to layer, and single tokens are a hundred times as large as the others.
        starts_from: values of `generator.init`, besides `default`, that the generator can start from.
    """

    normalize = False
    starts_from: ClassVar[tuple[str, ...]] = ()

    def __init__(self, hidden_size: int, prompt_length: int, bottleneck: int, dropout: float = 0.0):
        super().__init__()
        self.hidden_size, self.prompt_length, self.bottleneck = hidden_size, prompt_length, bottleneck
        self.dropout = nn.Dropout(dropout)

    def forward(self, h_BTH: Tensor, summary_index_B: Tensor, pooling_mask_BT: Tensor) -> Tensor:
        """Write a prompt for each row.

        Args:
            h_BTH: `[B, T, H]` states entering layer k, in the backbone's dtype.
            summary_index_B: `[B]` int64, the token that stands for the whole text.
            pooling_mask_BT: `[B, T]` bool, the tokens that pooling may see.

        Returns:
            `[B, P, H]` in the dtype of `h_BTH`; inside, the generator computes in its own (float32).
        """
        # The generator stays in float32 over a half-precision backbone, also under autocast.
        with torch.autocast(h_BTH.device.type, enabled=False):
            if self.normalize:
                prompt_BPH = self.write(in_units(h_BTH), summary_index_B, pooling_mask_BT)
                prompt_BPH = prompt_BPH * typical_size(h_BTH, pooling_mask_BT)[:, None, None]
            else:
                prompt_BPH = self.write(h_BTH, summary_index_B, pooling_mask_BT)
            dropped_BPH: Tensor = self.dropout(prompt_BPH)
            return dropped_BPH.to(h_BTH.dtype)

    def write(self, h_BTH: Tensor, summary_index_B: Tensor, pooling_mask_BT: Tensor) -> Tensor:
        """Write a prompt `[B, P, H]` for each row, in the generator's own dtype; arguments as for `forward`.

        Subclasses define it. With `normalize`, states come and the prompt goes in units of the states' size.
        """
        raise NotImplementedError

    def start_from(self, rows_PH: Tensor) -> None:
        """Write about these rows at first, `[P, H]`, whatever is read."""
        with torch.no_grad():
            self.constant_rows.copy_((in_units(rows_PH) if self.normalize else rows_PH).view_as(self.constant_rows))

    @property
    def constant_rows(self) -> Tensor:
        """The part of the prompt that no input changes, of P*H values.

        Raises:
            LptError: the generator has none.
        """
        raise LptError("this generator has no prompt of its own to start from; use generator npg, phm or none")


def in_units(h: Tensor) -> Tensor:
    """States `[..., H]` divided by their root mean square, in float32."""
    return nn.functional.rms_norm(h.float(), h.shape[-1:])


def typical_size(h_BTH: Tensor, mask_BT: Tensor) -> Tensor:
    """Median root mean square of each row's states where the mask is true, `[B]`."""
    size_BT = h_BTH.float().square().mean(-1).sqrt()
    return size_BT.masked_fill(~mask_BT, math.nan).nanmedian(1).values
