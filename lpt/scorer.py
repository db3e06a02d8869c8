"""What a training step computes: a method over a frozen backbone, and a head."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from lpt.batches import Batch
from lpt.heads import Head
from lpt.late import LateMethod


class Scorer(nn.Module):
    """A method's read-out state, scored by a head. B batch, C classes, H hidden size, Q positions."""

    method: LateMethod
    head: Head
    prior: Tensor | None
    # [C], taken from the scores; None but for calibrated zero-shot answers

    def __init__(self, method: LateMethod, head: Head):
        super().__init__()
        self.method, self.head = method, head
        self.register_buffer("prior", None)

    def read_out(self, batch: Batch) -> Tensor:
        """Finished states at the read-out positions, `[B, H]`, or at those that the head reads, `[B, Q, H]`."""
        h = batch.states
        if h is None:
            h = self.method.trunk(batch.input_ids, batch.attention_mask)
        return self.method.read_out(h, batch.attention_mask, batch.readout_position, self.head.num_extra_positions)

    def scores(self, batch: Batch) -> Tensor:
        """Class scores `[B, C]`, float32."""
        return self._scored(self.read_out(batch))

    def losses(self, batch: Batch) -> Tensor:
        """Loss per row, `[B]`."""
        return self.head.losses(self.read_out(batch), batch.labels, self.method.backbone)

    def evaluate(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Class probabilities `[B, C]` and losses `[B]`, float32, from one pass for all classes."""
        z, backbone = self.read_out(batch), self.method.backbone
        return self._scored(z).softmax(1), self.head.losses(z, batch.labels, backbone)

    @torch.no_grad()
    def calibrate(self, batches: Iterable[Batch]) -> None:
        """Take the mean log-probability that each class has over these rows from all scores to come.

        What a model says of any text at all, such as "great" more often than "terrible", says nothing of this one
        (batch calibration: Zhou et al. 2024, https://arxiv.org/abs/2309.17249).
        """
        self.prior = torch.cat([self.scores(batch).log_softmax(1) for batch in batches]).mean(0)

    def _scored(self, z: Tensor) -> Tensor:
        scores_BC = self.head.scores(z, self.method.backbone)
        return scores_BC if self.prior is None else scores_BC - self.prior
