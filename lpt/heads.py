"""Read-out state -> class scores. A head reads `z [B, H]`, what the vocabulary projection would read.

Shapes: B batch, H hidden size, V vocabulary, C classes, A tokens of all answers.
"""

import inspect
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lpt.backbones.split import SplitBackbone
from lpt.errors import LptError
from lpt.registry import HEADS, register_head


class Head(nn.Module):
    """Scores classes, and says what training minimizes.

    A new head is a subclass, registered under a name. Its constructor is given what it names of `label_ids` (the token
    id of each class's label word), `answers` (the token ids of each class's whole answer), `num_classes` and
    `finished_size` (the size of a read-out state); further parameters are its options (`head.<name>`).

    Attributes:
        decoders_only: whether it scores what follows a text.
        trains: whether it has parameters of its own, which `head.lr` is for.
        num_extra_positions: how many positions after the read-out it reads too; `z` is then
            `[B, 1 + num_extra_positions, H]`.
    """

    num_extra_positions = 0
    decoders_only: ClassVar[bool] = False
    trains: ClassVar[bool] = False

    def scores(self, z_BH: Tensor, backbone: SplitBackbone) -> Tensor:
        """Class scores `[B, C]`, float32; their softmax are the probabilities."""
        raise NotImplementedError

    def losses(self, z_BH: Tensor, labels: Tensor, backbone: SplitBackbone) -> Tensor:
        """Loss per row, `[B]`, float32. Labels are classes, `[B]` int64, or shares of each class, `[B, C]` float32."""
        return F.cross_entropy(self.scores(z_BH, backbone), labels, reduction="none")


@register_head("label_words")
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
        """Logits of the label words, `[B, C]`, float32."""
        return backbone.vocabulary_logits(z_BH, self.label_ids).float()


@register_head("vocabulary")
class VocabularyHead(LabelWordsHead):
    """The paper's code: cross-entropy over the whole vocabulary, argmax over the label words."""

    def losses(self, z_BH: Tensor, labels: Tensor, backbone: SplitBackbone) -> Tensor:
        """Cross-entropy of each row's label word against the whole vocabulary, `[B]`, float32."""
        logits_BV = backbone.vocabulary_logits(z_BH).float()
        if labels.is_floating_point():
            return -(labels * logits_BV.log_softmax(1)[:, self.label_ids]).sum(1)
        return F.cross_entropy(logits_BV, self.label_ids[labels], reduction="none")


@register_head("continuation")
class ContinuationHead(Head):
    """Decoders: the mean negative log-likelihood of each class's whole answer, as the paper's code scores GPT-2.

    The answers stand behind the text as branches (`lpt.backbones.split`), so one pass over the text serves them all.

    Args:
        answers: token ids of each class's answer.
    """

    decoders_only = True
    tokens: Tensor
    places: Tensor
    owners: Tensor

    def __init__(self, answers: Sequence[Sequence[int]]):
        super().__init__()
        self.num_classes, self.num_extra_positions = len(answers), len(branches(answers)[0])
        tokens: list[int] = []
        places: list[int] = []
        owners: list[int] = []
        behind = 1
        for c, answer in enumerate(answers):
            tokens += answer
            # The first token is foretold by the text's last state, each other by the one before it.
            places += [0, *range(behind, behind + len(answer) - 1)]
            owners += [c] * len(answer)
            behind += len(answer) - 1
        for name, values in (("tokens", tokens), ("places", places), ("owners", owners)):
            self.register_buffer(name, torch.tensor(values), persistent=False)

    def scores(self, z_BQH: Tensor, backbone: SplitBackbone) -> Tensor:
        """Mean log-likelihood of each class's answer per token, `[B, C]`, float32.

        Args:
            z_BQH: `[B, Q, H]` states of the text's last token and of the answers' tokens behind it; `[B, H]` where
                every answer is a single token.
            backbone: whose vocabulary projection reads them.
        """
        if not self.num_extra_positions:  # answers of one token: the text's last state, alone, is [B, H]
            z_BQH = z_BQH[:, None]
        logits_BQV = backbone.vocabulary_logits(z_BQH).float()
        nll_BQ = logits_BQV.logsumexp(-1)
        nll_BA = nll_BQ[:, self.places] - logits_BQV[:, self.places, self.tokens]
        total_BC = nll_BA.new_zeros(z_BQH.shape[0], self.num_classes).index_add(1, self.owners, nll_BA)
        return -total_BC / self.owners.bincount(minlength=self.num_classes)

    def losses(self, z_BQH: Tensor, labels: Tensor, backbone: SplitBackbone) -> Tensor:
        """The gold answer's mean negative log-likelihood, `[B]`; of a regression, both answers' in their shares."""
        scores_BC = self.scores(z_BQH, backbone)
        if labels.is_floating_point():
            return -(labels * scores_BC).sum(1)
        return F.nll_loss(scores_BC, labels, reduction="none")


def branches(answers: Sequence[Sequence[int]]) -> tuple[list[int], list[int]]:
    """What stands behind a text for its answers to be scored: token ids, and the branch (from 2) of each.

    An answer's last token foretells nothing and is left out.
    """
    tokens = [token for answer in answers for token in answer[:-1]]
    return tokens, [branch for branch, answer in enumerate(answers, 2) for _ in answer[:-1]]


@register_head("linear", settings={"head.lr": 1e-2})
class LinearHead(Head):
    """A trained linear layer on the read-out state, for encoders without a language-model head. Trains H*C + C."""

    trains = True

    def __init__(self, finished_size: int, num_classes: int):
        super().__init__()
        self.linear = nn.Linear(finished_size, num_classes)

    def scores(self, z_BH: Tensor, backbone: SplitBackbone) -> Tensor:
        """Outputs of the linear layer, `[B, C]`, in the dtype of its weights."""
        with torch.autocast(z_BH.device.type, enabled=False):
            scores_BC: Tensor = self.linear(z_BH.to(self.linear.weight.dtype))
            return scores_BC


def check_head(name: str, causal: bool) -> None:
    """Raises LptError for a head that is not known, or that this kind of backbone cannot have."""
    head: type[Head] = HEADS[name]
    if head.decoders_only and not causal:
        raise LptError(f"head={name} scores what follows a text, so it needs a decoder; use head=label_words")


def reads(name: str) -> str | None:
    """What a head asks the LM head for: `label_ids`, `answers`, or None."""
    return next((what for what in ("label_ids", "answers") if what in inspect.signature(HEADS[name]).parameters), None)


def build_head(
    name: str,
    backbone: SplitBackbone,
    num_classes: int,
    answers: Sequence[Sequence[int]] | None,
    **options: Any,
) -> Head:
    """The head that is registered under `name`.

    Args:
        name: `label_words`, `vocabulary`, `continuation`, `linear`, or one of the user's own.
        backbone: whose states it reads.
        num_classes: C.
        answers: token ids that answer for each class; None for a head that does not read the vocabulary.
        options: parameters that this head has of its own.

    Raises:
        LptError: unknown name, or the backbone has no LM head to read label words with, or is no decoder.
    """
    check_head(name, backbone.causal)
    if reads(name) and not backbone.has_lm_head:
        raise LptError(f"head={name} needs a language-model head, which {backbone.name} lacks; use head=linear")
    supplied: dict[str, Any] = {"num_classes": num_classes, "finished_size": backbone.finished_size}
    if answers is not None:
        supplied |= {"answers": answers, "label_ids": [answer[0] for answer in answers]}
    wanted = inspect.signature(HEADS[name]).parameters
    head: Head = HEADS[name](**{key: value for key, value in supplied.items() if key in wanted}, **options)
    return head
