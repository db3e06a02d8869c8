"""The backbone's own weights, all of them or the biases alone, from layer k on or everywhere."""

from collections.abc import Iterator
from typing import Any

from torch import nn

from lpt.errors import LptError
from lpt.late_prompt import LateMethod
from lpt.registry import register_method


# Of those that LM-BFF and RoBERTa try.
@register_method("full", settings={"optim.lr": 1e-5})
class Full(LateMethod):
    """Full fine-tuning of layers k..L, the final norm and the LM-head transform.

    The vocabulary projection stays as it is, but where it is the embedding matrix and that is trained.

    Args:
        model: a Hugging Face model, in float32: half precision loses small updates.
        layer: k; None is 1, and trains the embeddings too, unless the text is read only.
        late: as of `LatePromptModel`; `read_only` keeps a frozen copy of layers k..L to read texts with.

    Raises:
        LptError: nothing to train there, or layers that share their weights with the trunk.
    """

    trains_backbone = True
    what = "weights"

    def __init__(self, model: Any, layer: int | None = None, **late: Any):
        super().__init__(model, layer, **late)
        self.backbone.train_embeddings = layer is None and not self.read_only
        wanted = list(self.wanted())
        if not wanted:
            raise LptError(f"{self.backbone.name} has no {self.what} from layer {self.backbone.layer} on")
        for parameter in wanted:
            parameter.requires_grad_(True)
        self.train(self.backbone.training)

    def wanted(self) -> Iterator[nn.Parameter]:
        """What is trained."""
        for module in self.backbone.trainable_modules():
            yield from module.parameters()


# From the range of 1e-4 to 9e-4 that suits BERT-large in the paper.
@register_method("bitfit", settings={"optim.lr": 5e-4})
class BitFit(Full):
    """BitFit (Ben Zaken et al. 2022, https://arxiv.org/abs/2106.10199): the bias vectors alone, those of norms too."""

    what = "biases"

    def wanted(self) -> Iterator[nn.Parameter]:
        """Biases of the modules that full fine-tuning trains."""
        for module in self.backbone.trainable_modules():
            for name, parameter in module.named_parameters():
                if name.rpartition(".")[2] == "bias":
                    yield parameter
