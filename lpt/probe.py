"""Scores of a few fixed texts, kept with an adapter: they tell whether it was loaded as it was saved.

Names, shapes and hashes of an adapter can all be right and its answers wrong: another tokenizer, a library that
computes a model differently, a number format that it cannot bear. Shapes: N texts, C classes.
"""

from dataclasses import dataclass

import numpy as np

from lpt.errors import LptError

# Ours, so that no adapter carries a text of those that it was trained on: words, another script, numbers and marks.
TEXTS = (
    ("The second half is better than the first, and it made me laugh.", "It is worth watching to its end."),
    ("Where is parcel 40718? It was due on Monday!", "The delivery is late."),
    ("Ñandú, größer, 東京 — 3,50 €", "¿Qué es esto?"),
    ("no", "yes"),
)
# The most that scores may move, as a share of their spread. Seen with two backbones: 4e-6 with other threads and
# batches, 0.06 from float32 to bf16, 0.08 to int8.
IN_FLOAT32, IN_HALF, QUANTIZED = 1e-2, 0.25, 0.5
DIGITS = 6  # of the scores that are kept


@dataclass(frozen=True)
class Probe:
    """What an adapter said of `TEXTS` when it was saved."""

    scores: list[list[float]]
    # `[N, C]`, before the temperature.
    dtype: str
    # Of the backbone, as PyTorch names it: float32, bfloat16 or float16.
    quantization: str | None = None

    @classmethod
    def of(cls, scores_NC: np.ndarray, dtype: str, quantization: str | None) -> "Probe":
        """The probe of scores just computed."""
        return cls(np.round(scores_NC.astype(np.float64), DIGITS).tolist(), dtype, quantization)

    def check(self, found: "Probe", adapter: object) -> None:
        """Compare with what is said of the same texts now.

        Raises:
            LptError: the scores moved by more than number formats explain; or they are of other texts or classes.
        """
        before, now = np.array(self.scores), np.array(found.scores)
        if before.shape != now.shape:
            raise LptError(
                f"{adapter}: its probe has scores of shape {before.shape}, expected {now.shape}; copy the adapter "
                "folder again"
            )
        moved, most = deviation(before, now), self._tolerance(found)
        if not moved <= most:  # NaN too
            raise LptError(
                f"{adapter}: loaded here, it gives other scores than when it was saved: they moved by {moved:.2g} of "
                f"their spread, and {_formats(self, found)} explains {most:g} at most. Something that it depends on is "
                "different: its configuration, the backbone's tokenizer, or a library (adapter_config.json has the "
                "versions that it was trained with)"
            )

    def _tolerance(self, found: "Probe") -> float:
        if self.quantization != found.quantization:
            return QUANTIZED
        exact = self.quantization is None and self.dtype == found.dtype == "float32"
        return IN_FLOAT32 if exact else IN_HALF


def deviation(before_NC: np.ndarray, now_NC: np.ndarray) -> float:
    """The largest change of a score as a share of the scores' spread, or as it is where they spread by less than 1.

    What all scores of a text have in common does not count, since a softmax does not see it.
    """
    before, now = (x - x.mean(1, keepdims=True) for x in (before_NC, now_NC))
    return float(np.abs(before - now).max() / max(np.abs(before).max(), 1.0))


def _formats(saved: Probe, loaded: Probe) -> str:
    names = [f"{p.quantization} over {p.dtype}" if p.quantization else p.dtype for p in (saved, loaded)]
    return names[0] if names[0] == names[1] else f"{names[0]} against {names[1]}"
