"""The LightningModule: a classifier trained on weighted rows, evaluated on every row once."""

import math
import time
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
import torch.distributed
from torch import Tensor, nn

from lpt.adapter import check_state, trained_state
from lpt.classifier import LatePromptClassifier
from lpt.data.batches import Batch
from lpt.data.regression import interpolate
from lpt.errors import LptError
from lpt.hardware import peak_memory_bytes, wait
from lpt.training.freeze import Promise
from lpt.training.optimizer import Schedule, build_optimizer
from lpt.training.predictions import SplitPredictions
from lpt.training.result import FreezeFacts

GIGABYTE = 1e9


@torch.no_grad()
def norm_ratio(prompt_BPH: Tensor, h_BTH: Tensor, attention_mask: Tensor | None) -> Tensor:
    """Mean norm of the prompt tokens over that of the attended tokens' states, a scalar: 1 is a prompt of their size.

    Args:
        prompt_BPH: `[B, P, H]`.
        h_BTH: `[B, T, H]` states entering layer k.
        attention_mask: `[B, T]`, 0 at padding; None: nothing is padded.
    """
    prompt_BP, h_BT = (torch.linalg.vector_norm(x, dim=-1, dtype=torch.float32) for x in (prompt_BPH, h_BTH))
    attended_BT = torch.ones_like(h_BT) if attention_mask is None else attention_mask.bool().float()
    ratio: Tensor = prompt_BP.mean() * attended_BT.sum() / (h_BT * attended_BT).sum()
    return ratio


class NotFiniteError(LptError):
    """Training has met a number that is not finite, and has ended before it spread further.

    Args:
        step: the optimizer step, from 1.
        what: what is not finite.
    """

    def __init__(self, step: int, what: str):
        self.step = step
        super().__init__(f"step {step}: {what}")


class FiniteWatch:
    """Raises NotFiniteError for a number that is not finite: on a CPU at once, on a GPU one step later.

    By then the GPU has long computed it, and nothing waits.
    """

    def __init__(self) -> None:
        self._noted: tuple[int, Tensor, torch.cuda.Event | None] | None = None

    def note(self, step: int, value: Tensor) -> None:
        """Look at the scalar that this step, from 1, has computed."""
        self.check()
        on_host, event = value.detach().to("cpu", non_blocking=True), None
        if value.is_cuda:
            event = torch.cuda.Event()
            event.record()
        self._noted = step, on_host, event
        if event is None:
            self.check()

    def check(self) -> None:
        """Look at what was noted last."""
        if self._noted is None:
            return
        step, value, event = self._noted
        self._noted = None
        if event is not None:
            event.synchronize()
        if not np.isfinite(value.numpy()):
            raise NotFiniteError(step, "the loss or its gradient is not finite")


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
        self.predictions: SplitPredictions | None = None
        self.scores: dict[str, float] = {}  # of the last evaluation, by name; Lightning rounds them to float32
        self._outputs: list[tuple[Tensor, Tensor, Tensor, Tensor]] = []
        self.train_seconds, self._started = 0.0, 0.0
        self.train_steps, self.train_tokens, self.train_rows, self._first_step = 0, 0, 0, 0
        self._step_loss = torch.zeros(())  # of the micro-batches so far
        self._writes_line = False  # whether loggers get this step
        self._last_line = (0, 0.0)  # rows and seconds of training up to there
        self._grad_norm = torch.zeros(())
        self._watch = FiniteWatch()
        self._promise: Promise | None = None
        self.certificate: FreezeFacts | None = None  # when training has ended
        self._prompt_norm_ratio: Tensor | None = None

    # Training

    def on_fit_start(self) -> None:
        """Put what a method adds into train mode; the backbone keeps its own modules as they are to be."""
        self.train()  # Lightning leaves modes as they are
        self._promise = Promise.of(self.classifier)

    def on_train_start(self) -> None:
        """Start the clock."""
        self._first_step = self.global_step
        self._step_loss = torch.zeros((), device=self.device)
        self._last_line = (self.train_rows, self.train_seconds)
        self._started = time.perf_counter()

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        """Seed dropout, and decide whether loggers hear of this step."""
        self.seed_dropout(batch_idx)
        ends_step = (batch_idx + 1) % self.trainer.accumulate_grad_batches == 0
        trainer: Any = self.trainer
        due = (self.global_step + 1) % trainer.log_every_n_steps == 0
        self._writes_line = ends_step and due and bool(self.trainer.loggers)

    def seed_dropout(self, batch_idx: int) -> None:
        """Have dropout depend on the step alone: a resumed run draws the masks that the undisturbed one did."""
        place = np.random.SeedSequence([self.seed, self.global_rank, self.current_epoch, batch_idx])
        torch.manual_seed(int(place.generate_state(1)[0]))

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """The weighted loss of a micro-batch, a scalar."""
        if self._writes_line:
            loss = self._loss_with_prompt_norm(batch)
        else:
            loss = (self.classifier.losses(batch) * batch.weights).sum()
        # On all ranks alike: by way of the gradients, which become NaN with it, a loss that is not finite reaches all.
        loss = loss * torch.where(loss.detach().isfinite(), 1.0, math.nan)
        self.train_tokens += batch.num_tokens
        self.train_rows += len(batch.rows)
        self._step_loss = self._step_loss + loss.detach() / self.trainer.accumulate_grad_batches
        if (batch_idx + 1) % self.trainer.accumulate_grad_batches == 0:
            self.log("train/loss", self._step_loss, on_step=True, sync_dist=True, batch_size=1)
            self._step_loss = torch.zeros_like(self._step_loss)
        return loss

    def configure_gradient_clipping(
        self,
        optimizer: torch.optim.Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clip as Lightning does, and keep the norm that this computes anyway."""
        assert gradient_clip_val is not None
        trained = [p for group in optimizer.param_groups for p in group["params"]]
        self._grad_norm = torch.nn.utils.clip_grad_norm_(trained, gradient_clip_val)
        # Of float16, gradients overflow now and then, and their step is left out; their scale adapts.
        scaled = getattr(self.trainer.precision_plugin, "scaler", None) is not None
        self._watch.note(self.global_step + 1, self._step_loss if scaled else self._grad_norm)

    def optimizer_step(self, epoch: int, batch_idx: int, optimizer: Any, optimizer_closure: Any = None) -> None:
        """Take the step, at the learning rate that is logged with it."""
        lr = optimizer.param_groups[0]["lr"]
        super().optimizer_step(epoch, batch_idx, optimizer, optimizer_closure)
        if self._writes_line:
            self._log_step(lr)

    def _loss_with_prompt_norm(self, batch: Batch) -> Tensor:
        """The batch's loss; the size of the prompt that the generator writes for it, if there is one, is kept."""
        method = self.classifier.method
        if batch.states is None:
            batch = batch._replace(states=method.trunk(batch.input_ids, batch.attention_mask))
        h_BTH = batch.states
        assert h_BTH is not None

        def keep(generator: nn.Module, given: tuple[Any, ...], prompt_BPH: Tensor) -> None:
            self._prompt_norm_ratio = norm_ratio(prompt_BPH, h_BTH, batch.attention_mask)

        generator = getattr(method, "generator", None)
        handle = None if generator is None else generator.register_forward_hook(keep)
        loss: Tensor = (self.classifier.losses(batch) * batch.weights).sum()
        if handle is not None:
            handle.remove()
        return loss

    def _log_step(self, lr: float) -> None:
        """Log what there is to say of a step besides its loss.

        Not of every step: even to hand a number to Lightning waits for the GPU.
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
        """Stop the clock, and certify what was frozen."""
        self._watch.check()
        self.train_seconds += time.perf_counter() - self._started
        self.train_steps = self.global_step - self._first_step
        assert self._promise is not None
        self.certificate = self._promise.certify(self.classifier, self.trainer.optimizers)

    def configure_optimizers(self) -> Any:
        """AdamW, and its learning rate at every step."""
        assert self.schedule is not None
        optimizer, rate = build_optimizer(self.parameters(), self.classifier.head.parameters(), self.schedule)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": rate, "interval": "step"}}

    # Evaluation

    def on_validation_start(self) -> None:
        """Stop the clock while training rows wait."""
        if self.trainer.state.fn == "fit":
            self._watch.check()
            self.train_seconds += time.perf_counter() - self._started

    def on_validation_end(self) -> None:
        """Start the clock again."""
        self._started = time.perf_counter()

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Keep what the classifier says of a batch."""
        probabilities, losses = self.classifier.probabilities_and_losses(batch)
        self._outputs.append((batch.rows, probabilities, batch.labels, losses))

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        """Keep what the classifier says of a batch."""
        self.validation_step(batch, batch_idx)

    def on_validation_epoch_end(self) -> None:
        """Log the scores of the validation rows."""
        self._log_evaluation("validation")

    def on_test_epoch_end(self) -> None:
        """Log the scores of the test set."""
        self._log_evaluation(self.test_split)

    def _log_evaluation(self, split: str) -> None:
        self.predictions = self._gather()
        bad = int((~np.isfinite(self.predictions.probabilities).all(1)).sum())
        if bad:
            raise NotFiniteError(self.global_step, f"the scores of {bad} {split} rows are not finite")
        self.scores = self.predictions.metrics(self.metric_names)
        values = {"loss": self.predictions.loss} | self.scores
        # Every rank has gathered the same rows and computed the same values: nothing is left to synchronize.
        for name, value in values.items():
            # What is evaluated after training is no point of its curves.
            self.log(f"{split}/{name}", value, logger=bool(self.trainer.loggers) and self.trainer.state.fn == "fit")

    def take_predictions(self) -> SplitPredictions:
        """The predictions of the evaluation just done, of all processes."""
        assert self.predictions is not None
        return self.predictions

    def _gather(self) -> SplitPredictions:
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
        return SplitPredictions(probabilities[each_once], gold, float(losses[each_once].mean()), value_range)

    # Checkpoints: kilobytes

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Save what is trained, and nothing of the backbone."""
        checkpoint["state_dict"] = trained_state(self)
        checkpoint["frozen_hash"] = None if self._promise is None else self._promise.hash

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Raises LptError unless the checkpoint has exactly what is trained, and is of the same frozen weights."""
        check_state(self, checkpoint["state_dict"], "the checkpoint does not fit this configuration")
        frozen = checkpoint.get("frozen_hash")
        if frozen is not None and frozen != Promise.of(self.classifier).hash:
            raise LptError(
                "the backbone's weights, or their number format, are not those that this run was started with; resume "
                "it with the same weights and trainer.precision, or start it again"
            )
