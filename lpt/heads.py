"""Read-out state -> class scores. A head reads `z [B, H]`, what the vocabulary projection would read.

Shapes: B batch, H hidden size, V vocabulary, C classes.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lpt.backbone import SplitBackbone
from lpt.errors import LptError, did_you_mean


class Head(nn.Module):
    """Scores classes, and says what training minimises.

    A new head is a subclass, a name in `HEADS` and a line in `build_head`.
    """

    def scores(self, z_BH: Tensor, backbone: SplitBackbone) -> Tensor:
        """Class scores `[B, C]`, float32; their softmax are the probabilities."""
        raise NotImplementedError

    def losses(self, z_BH: Tensor, labels: Tensor, backbone: SplitBackbone) -> Tensor:
        """Loss per row, `[B]`, float32. Labels are classes, `[B]` int64, or shares of each class, `[B, C]` float32."""
        return F.cross_entropy(self.scores(z_BH, backbone), labels, reduction="none")


class LabelWordsHead(Head):
    """Softmax over the label words' tokens alone; nothing else of the vocabulary is computed.

    Args:
        label_ids: token id of each class's label word.
    """

    label_ids: Tensor

    def __init__(self, label_ids: Sequence[int]):
        super().__init__()
        self.register_buffer("label_ids", torch.tensor(label_ids), persistent=False)

    def scores(self, z_BH: Tensor, backbone: SplitBackbone) -> Tensor:
        return backbone.vocabulary_logits(z_BH, self.label_ids).float()


class VocabularyHead(LabelWordsHead):
    """The paper's code: cross-entropy over the whole vocabulary, argmax over the label words."""

    def losses(self, z_BH: Tensor, labels: Tensor, backbone: SplitBackbone) -> Tensor:
        logits_BV = backbone.vocabulary_logits(z_BH).float()
        if labels.is_floating_point():
            return -(labels * logits_BV.log_softmax(1)[:, self.label_ids]).sum(1)
        return F.cross_entropy(logits_BV, self.label_ids[labels], reduction="none")


class LinearHead(Head):
    """A trained linear layer on the read-out state, for encoders without a language-model head. Trains H*C + C."""

    def __init__(self, hidden_size: int, num_classes: int):
        super().__init__()
        self.linear = nn.Linear(hidden_size, num_classes)

    def scores(self, z_BH: Tensor, backbone: SplitBackbone) -> Tensor:
        with torch.autocast(z_BH.device.type, enabled=False):
            return self.linear(z_BH.to(self.linear.weight.dtype))


HEADS = ("label_words", "vocabulary", "linear")


def build_head(name: str, backbone: SplitBackbone, num_classes: int, label_ids: Sequence[int] | None) -> Head:
    """The head of this name.

    Args:
        label_ids: token id per class; `linear` does without.

    Raises:
        LptError: unknown name, or the backbone has no LM head to read label words with.
    """
    if name not in HEADS:
        raise LptError(f"head={name!r} is not known; choose one of {', '.join(HEADS)}{did_you_mean(name, HEADS)}")
    if name == "linear":
        return LinearHead(backbone.hidden_size, num_classes)
    if not backbone.has_lm_head:
        raise LptError(f"head={name!r} needs a language-model head, which {backbone.name} lacks; use head=linear")
    assert label_ids is not None
    return LabelWordsHead(label_ids) if name == "label_words" else VocabularyHead(label_ids)
