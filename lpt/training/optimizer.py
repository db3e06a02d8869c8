"""AdamW with linear warm-up and linear decay to zero."""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from torch import nn
from torch.optim import AdamW, Optimizer
from torch.optim.lr_scheduler import LambdaLR


@dataclass(frozen=True)
class Schedule:
    """What the optimizer does in the course of training.

    Attributes:
        lr: the highest learning rate.
        head_lr: that of the head, which starts from random numbers where methods start beside what the model knows.
        weight_decay: of matrices; biases have none.
        warmup_steps: steps over which the learning rate rises.
        total_steps: steps after which it is zero.
    """

    lr: float
    head_lr: float
    weight_decay: float
    warmup_steps: int
    total_steps: int

    def factor(self, step: int) -> float:
        """What the rates are multiplied by before this step, from 0."""
        if step < self.warmup_steps:
            return step / self.warmup_steps
        return max(0.0, (self.total_steps - step) / max(1, self.total_steps - self.warmup_steps))


def build_optimizer(
    parameters: Iterable[nn.Parameter], head: Iterable[nn.Parameter], schedule: Schedule
) -> tuple[Optimizer, LambdaLR]:
    """Optimizer and learning rate of the `parameters` that require a gradient, those of the `head` at its own rate."""
    in_head = set(head)
    groups = defaultdict(list)
    for p in parameters:
        if p.requires_grad:
            lr = schedule.head_lr if p in in_head else schedule.lr
            groups[lr, schedule.weight_decay if p.ndim > 1 else 0.0].append(p)
    optimizer = AdamW(
        [{"params": group, "lr": lr, "weight_decay": weight_decay} for (lr, weight_decay), group in groups.items()],
        # On GPUs, a fused step would unscale float16 gradients after they are clipped.
        fused=all(p.device.type == "cpu" for group in groups.values() for p in group),
    )
    return optimizer, LambdaLR(optimizer, schedule.factor)
