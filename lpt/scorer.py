"""What a training step computes: a method over a frozen backbone, and a head."""

from torch import Tensor, nn

from lpt.batches import Batch
from lpt.heads import Head
from lpt.late import LateMethod


class Scorer(nn.Module):
    """A method's read-out state, scored by a head. B batch, C classes, H hidden size, Q positions."""

    method: LateMethod
    head: Head

    def __init__(self, method: LateMethod, head: Head):
        super().__init__()
        self.method, self.head = method, head

    def read_out(self, batch: Batch) -> Tensor:
        """Finished states at the read-out positions, `[B, H]`, or at those that the head reads, `[B, Q, H]`."""
        h = batch.states
        if h is None:
            h = self.method.trunk(batch.input_ids, batch.attention_mask)
        return self.method.read_out(h, batch.attention_mask, batch.readout_position, self.head.further)

    def scores(self, batch: Batch) -> Tensor:
        """Class scores `[B, C]`, float32."""
        return self.head.scores(self.read_out(batch), self.method.backbone)

    def losses(self, batch: Batch) -> Tensor:
        """Loss per row, `[B]`."""
        return self.head.losses(self.read_out(batch), batch.labels, self.method.backbone)

    def evaluate(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Class probabilities `[B, C]` and losses `[B]`, float32, from one pass for all classes."""
        z, backbone = self.read_out(batch), self.method.backbone
        return self.head.scores(z, backbone).softmax(1), self.head.losses(z, batch.labels, backbone)
