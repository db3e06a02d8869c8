"""Where a backbone runs and in which number format: chosen in one way for training, prediction and the benchmark."""

from dataclasses import dataclass

import torch

from lpt.backbones.names import AUTO, EAGER, LEAN
from lpt.backbones.split import SplitBackbone
from lpt.hardware import choose_accelerator, choose_attention, choose_dtype


@dataclass(frozen=True)
class Placement:
    """The device and number formats of a backbone; what is trained besides it is always float32."""

    accelerator: str
    # cpu or gpu.
    dtype: torch.dtype
    # Of the weights.
    compute_dtype: torch.dtype
    # Of the matrix products: that of the weights, or a smaller one under autocast.

    @classmethod
    def choose(
        cls, accelerator: str = AUTO, precision: str = AUTO, devices: int = 1, train_weights: bool = False
    ) -> "Placement":
        """The best placement on this machine that the options allow.

        Args:
            accelerator: `trainer.accelerator`: `auto`, `cpu` or `gpu`.
            precision: `trainer.precision`: `auto`, `32`, `bf16` or `16`.
            devices: how many are needed.
            train_weights: the backbone's own weights are trained: they are float32, and computed in another format
                only where one is asked for.

        Raises:
            LptError: what this machine does not have or cannot compute.
        """
        chosen = choose_accelerator(accelerator, devices)
        if train_weights and precision == AUTO:
            precision = "32"
        compute_dtype = choose_dtype(precision, chosen)
        return cls(chosen, torch.float32 if train_weights else compute_dtype, compute_dtype)

    @property
    def device(self) -> torch.device:
        """Of a single process."""
        return torch.device("cuda" if self.accelerator == "gpu" else "cpu")

    @property
    def precision(self) -> str:
        """PyTorch's name of the format that is computed in: float32, bfloat16 or float16."""
        return str(self.compute_dtype).removeprefix("torch.")

    @property
    def autocast(self) -> bool:
        """Whether matrix products are computed in another format than that of the weights."""
        return self.compute_dtype is not self.dtype

    def choose_attention(
        self, backbone: SplitBackbone, length: float, asked: str = AUTO, training: bool = False
    ) -> str:
        """How a backbone's layers compute attention.

        Args:
            length: tokens of a typical text.
            asked: `backbone.attention`: `auto`, or one of `lpt.backbones.names.ATTENTIONS`.
            training: attention weights are dropped at the backbone's rate.

        Returns:
            One of the family's `attentions`, for `SplitBackbone.use_attention`.

        Raises:
            LptError: `asked` is not among the family's.
        """
        dropout = backbone.attention_dropout if training and backbone.dropout else 0.0
        if training and backbone.twins is not None:
            length = 0.0  # however long the text is, few tokens of a step look at it
        available = backbone.family.attentions
        chosen = choose_attention(asked, self.accelerator, self.dtype, length, dropout, available)
        # The backward pass of lean attention knows nothing of autocast.
        return EAGER if self.autocast and chosen == LEAN else chosen
