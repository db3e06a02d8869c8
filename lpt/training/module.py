"""The LightningModule: a classifier trained on weighted rows, evaluated on every row once."""

import json
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
import torch.distributed
from torch import Tensor
from transformers import get_linear_schedule_with_warmup

from lpt.adapter import check_state, trained_state
from lpt.classifier import LatePromptClassifier
from lpt.data.batches import Batch, EncodedSplit
from lpt.data.regression import interpolate
from lpt.hardware import peak_memory_bytes, wait
from lpt.metrics import compute, interval

GIGABYTE = 1e9


@dataclass(frozen=True)
class Schedule:
    """AdamW with linear warm-up and linear decay to zero.

    Attributes:
        head_lr: of the head, which starts from random numbers where methods start beside what the model knows.
    """

    lr: float
    head_lr: float
    weight_decay: float
    warmup_steps: int
    total_steps: int


@dataclass(frozen=True)
class Predictions:
    """What a model says of a split, in the order of its rows.

    Attributes:
        probabilities: `[N, C]` float.
        gold: `[N]` int classes, or float values of a regression.
        loss: mean training loss over the rows.
        value_range: of a regression's values.
    """

    probabilities: np.ndarray
    gold: np.ndarray
    loss: float
    value_range: Sequence[float] | None = None

    @property
    def predicted(self) -> np.ndarray:
        """`[N]`, of the kind of `gold`."""
        return (
            self.probabilities.argmax(1)
            if self.value_range is None
            else interpolate(self.probabilities, self.value_range)
        )

    def metrics(self, names: list[str]) -> dict[str, float]:
        return compute(names, *self._scored())

    def intervals(self, names: list[str]) -> dict[str, tuple[float, float]]:
        return {name: interval(name, *self._scored()) for name in names}

    def _scored(self) -> tuple[Tensor, Tensor, int | None]:
        num_classes = self.probabilities.shape[1] if self.value_range is None else None
        return torch.from_numpy(self.predicted), torch.from_numpy(self.gold), num_classes

    def rows(self, split: EncodedSplit, labels: list[str]) -> Iterator[dict[str, Any]]:
        """Of each row its place in the source, gold and predicted label or value, and the labels' probabilities."""
        predicted_N, probabilities_NC = self.predicted.tolist(), self.probabilities.tolist()
        answers = zip(split.labeled.index, split.labels, predicted_N, probabilities_NC, strict=True)
        for index, gold, predicted, probabilities in answers:
            yield {
                "index": index,
                "gold": labels[int(gold)] if self.value_range is None else gold,
                "predicted": labels[predicted] if self.value_range is None else round(predicted, 6),
                "probabilities": {name: round(p, 6) for name, p in zip(labels, probabilities, strict=True)},
            }

    def write(self, path: Path, split: EncodedSplit, labels: list[str]) -> None:
        """One JSON object per row."""
        path.parent.mkdir(parents=True, exist_ok=True)
        lines = map(json.dumps, self.rows(split, labels))
        path.write_text("\n".join([*lines, ""]), encoding="utf-8")


@torch.no_grad()
def norm_ratio(prompt_BPH: Tensor, h_BTH: Tensor, attention_mask: Tensor | None) -> Tensor:
    """Mean norm of the prompt's rows over that of the attended tokens' states, a scalar: 1 is a prompt of their size.

    Args:
        prompt_BPH: `[B, P, H]`.
        h_BTH: `[B, T, H]` states entering layer k.
        attention_mask: `[B, T]`, 0 at padding; None: nothing is padded.
    """
    prompt_BP, h_BT = (torch.linalg.vector_norm(x, dim=-1, dtype=torch.float32) for x in (prompt_BPH, h_BTH))
    attended_BT = torch.ones_like(h_BT) if attention_mask is None else attention_mask.bool().float()
    return prompt_BP.mean() * attended_BT.sum() / (h_BT * attended_BT).sum()


class PromptModule(pl.LightningModule):
    """Trains what a classifier trains; its backbone stays as it was, and out of checkpoints.

    Args:
        classifier: see `lpt.classifier`.
        metrics: names for `lpt.metrics.compute`; the first selects the best step.
        schedule: optimizer settings; None where nothing is trained.
        seed: of dropout, so that a step's masks depend on the step and not on what ran before.
    """

    def __init__(
        self,
        classifier: LatePromptClassifier,
        metrics: list[str],
        schedule: Schedule | None = None,
        seed: int = 0,
    ):
        super().__init__()
        self.classifier = classifier
        self.metric_names, self.schedule, self.seed = metrics, schedule, seed
        # Checkpoints lack the backbone; on_load_checkpoint checks that they have all that is trained.
        self.strict_loading = False
        self.test_split = "test"  # what the next test is of
        self.predictions: Predictions | None = None
        self._outputs: list[tuple[Tensor, Tensor, Tensor, Tensor]] = []
        self.train_seconds, self._started = 0.0, 0.0
        self.train_steps, self.train_tokens, self.train_rows, self._first_step = 0, 0, 0, 0
        self._step_loss = torch.zeros(())  # of the micro-batches so far
        self._writes_line = False  # whether loggers are told of this step
        self._last_line = (0, 0.0)  # rows and seconds of training up to there
        self._grad_norm = torch.zeros(())
        self._prompt_norm_ratio: Tensor | None = None

    # Training

    def on_fit_start(self) -> None:
        # Lightning leaves modes as they are. From layer k on dropout is on; the backbone keeps its trunk in eval mode.
        self.train()

    def on_train_start(self) -> None:
        self._first_step = self.global_step
        self._step_loss = torch.zeros((), device=self.device)
        self._last_line = (self.train_rows, self.train_seconds)
        self._started = time.perf_counter()

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        # Dropout as a function of the step: a resumed run draws the masks that the undisturbed one did.
        place = np.random.SeedSequence([self.seed, self.global_rank, self.current_epoch, batch_idx])
        torch.manual_seed(int(place.generate_state(1)[0]))
        ends_step = (batch_idx + 1) % self.trainer.accumulate_grad_batches == 0
        trainer: Any = self.trainer
        due = (self.global_step + 1) % trainer.log_every_n_steps == 0
        self._writes_line = ends_step and due and bool(self.trainer.loggers)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        method = self.classifier.method
        method.watch = self._see_prompt if self._writes_line else None
        loss = (self.classifier.losses(batch) * batch.weights).sum()
        method.watch = None
        self.train_tokens += batch.num_tokens
        self.train_rows += len(batch.rows)
        self._step_loss = self._step_loss + loss.detach() / self.trainer.accumulate_grad_batches
        if (batch_idx + 1) % self.trainer.accumulate_grad_batches == 0:
            # Not for the bar: Lightning would read it at every step, and so wait for the GPU (see `summary.Bar`).
            self.log("train/loss", self._step_loss, on_step=True, sync_dist=True, batch_size=1)
            self._step_loss = torch.zeros_like(self._step_loss)
        return loss

    def configure_gradient_clipping(
        self,
        optimizer: torch.optim.Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """As Lightning clips, with the norm kept that this computes anyway."""
        assert gradient_clip_val is not None
        trained = [p for group in optimizer.param_groups for p in group["params"]]
        self._grad_norm = torch.nn.utils.clip_grad_norm_(trained, gradient_clip_val)

    def optimizer_step(self, epoch: int, batch_idx: int, optimizer: Any, optimizer_closure: Any = None) -> None:
        lr = optimizer.param_groups[0]["lr"]
        super().optimizer_step(epoch, batch_idx, optimizer, optimizer_closure)
        if self._writes_line:
            self._log_step(lr)

    def _see_prompt(self, prompt_BPH: Tensor, h_BTH: Tensor, attention_mask: Tensor | None) -> None:
        if prompt_BPH.shape[1]:
            self._prompt_norm_ratio = norm_ratio(prompt_BPH, h_BTH, attention_mask)

    def _log_step(self, lr: float) -> None:
        """What loggers are told of a step besides its loss.

        Only of steps that they are told of: even to hand a number to Lightning waits for the GPU.
        """
        accelerator = "gpu" if self.device.type == "cuda" else "cpu"
        wait(accelerator)  # for the clock to tell the truth; the loggers would do so next
        seconds = self.train_seconds + time.perf_counter() - self._started
        last_rows, last_seconds = self._last_line
        speed = (self.train_rows - last_rows) / (seconds - last_seconds)
        self._last_line = (self.train_rows, seconds)
        self.log("lr", lr)
        self.log("train/grad_norm", self._grad_norm)
        self.log("train/examples_per_second", speed, sync_dist=True, reduce_fx="sum")
        self.log("train/peak_memory_gb", peak_memory_bytes(accelerator) / GIGABYTE)
        if self._prompt_norm_ratio is not None:
            self.log("train/prompt_norm_ratio", self._prompt_norm_ratio, sync_dist=True)

    def on_train_end(self) -> None:
        self.train_seconds += time.perf_counter() - self._started
        self.train_steps = self.global_step - self._first_step

    def configure_optimizers(self) -> Any:
        assert self.schedule is not None
        head = set(self.classifier.head.parameters())
        groups = defaultdict(list)
        for p in self.parameters():
            if p.requires_grad:
                lr = self.schedule.head_lr if p in head else self.schedule.lr
                weight_decay = self.schedule.weight_decay if p.ndim > 1 else 0.0  # none of biases
                groups[lr, weight_decay].append(p)
        optimizer = torch.optim.AdamW(
            [{"params": p, "lr": lr, "weight_decay": weight_decay} for (lr, weight_decay), p in groups.items()]
        )
        scheduler = get_linear_schedule_with_warmup(optimizer, self.schedule.warmup_steps, self.schedule.total_steps)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    # Evaluation

    def on_validation_start(self) -> None:
        if self.trainer.state.fn == "fit":
            self.train_seconds += time.perf_counter() - self._started

    def on_validation_end(self) -> None:
        self._started = time.perf_counter()

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        probabilities, losses = self.classifier.evaluate(batch)
        self._outputs.append((batch.rows, probabilities, batch.labels, losses))

    test_step = validation_step

    def on_validation_epoch_end(self) -> None:
        self._log_evaluation("validation")

    def on_test_epoch_end(self) -> None:
        self._log_evaluation(self.test_split)

    def _log_evaluation(self, split: str) -> None:
        self.predictions = self._gather()
        values = {"loss": self.predictions.loss} | self.predictions.metrics(self.metric_names)
        # Every rank has gathered the same rows and computed the same values: nothing is left to synchronize.
        for name, value in values.items():
            prominent = name == self.metric_names[0]
            self.log(f"{split}/{name}", value, prog_bar=prominent)

    def take_predictions(self) -> Predictions:
        """Those of the evaluation just done."""
        assert self.predictions is not None
        return self.predictions

    def _gather(self) -> Predictions:
        """The outputs of all ranks, each row once, in the order of the split."""
        parts = [torch.cat(column).cpu() for column in zip(*self._outputs, strict=True)]
        self._outputs.clear()
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            gathered: list[Any] = [None] * torch.distributed.get_world_size()
            torch.distributed.all_gather_object(gathered, parts)
            parts = [torch.cat(column) for column in zip(*(p for p in gathered if p), strict=True)]
        rows, probabilities, labels, losses = (part.numpy() for part in parts)
        _, each_once = np.unique(rows, return_index=True)
        value_range = self.classifier.config.value_range
        gold = labels[each_once] if value_range is None else interpolate(labels[each_once], value_range)
        return Predictions(probabilities[each_once], gold, float(losses[each_once].mean()), value_range)

    # Checkpoints: kilobytes

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["state_dict"] = trained_state(self)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        check_state(self, checkpoint["state_dict"], "the checkpoint does not fit this configuration")
