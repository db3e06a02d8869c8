"""Texts that an export answers before it is called done, and what the classifier makes of them. B batch, T tokens."""

import torch
from torch import Tensor

from lpt.classifier import LatePromptClassifier
from lpt.data.batches import EncodedSplit
from lpt.data.rows import LabeledRows, Sentences
from lpt.data.templates import Encoded

INPUTS = ("input_ids", "attention_mask", "readout_position")
TOLERANCE = 1e-4
_TEXTS = (
    "fine",
    "A moving, funny film!",
    "We waited two hours for the 7",
    "The plot is thin, the actors do what they can, and the music is far too loud; still, I would see it again. " * 4,
    "Où est la gare ?",
    "never again",
)  # short and long, with different ends


def probe_rows(classifier: LatePromptClassifier) -> list[Sentences]:
    """The probe texts, as the classifier's task takes them."""
    if not classifier.template.pair:
        return [(text,) for text in _TEXTS]
    return list(zip(_TEXTS, reversed(_TEXTS), strict=True))


def encoded(classifier: LatePromptClassifier, rows: list[Sentences]) -> list[Encoded]:
    """Tokens of each row, in the classifier's template."""
    return classifier.template.encode(rows)


def inputs(classifier: LatePromptClassifier, rows: list[Sentences]) -> tuple[Tensor, Tensor, Tensor]:
    """What the exported program takes: `[B, T]` token ids, `[B, T]` attention mask, `[B]` positions; all int64."""
    labeled = LabeledRows(rows, labels=[0] * len(rows), index=list(range(len(rows))))
    split = EncodedSplit.encode(labeled, classifier.template)
    batch = split.collate([(i, 1.0) for i in range(len(rows))], classifier.pad_id)
    mask = torch.ones_like(batch.input_ids) if batch.attention_mask is None else batch.attention_mask.long()
    return batch.input_ids, mask, batch.readout_position
