"""Which row and which module made a number that is not finite: the step is computed again, and looked into."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lpt.config.schema import Config
from lpt.data.batches import Batch, EncodedSplit
from lpt.training.checkpoints import checkpoint_to_resume
from lpt.training.experiment import prepare
from lpt.training.module import NotFiniteError, PromptModule
from lpt.training.run import build_cache, build_data, build_module, fit
from lpt.training.trainer import build_trainer, quiet_lightning

TEXT = 60  # characters of a text that are shown


@dataclass(frozen=True)
class Replay:
    """What a step that was computed again has shown.

    Attributes:
        step: the optimizer step, from 1.
        lr: its learning rate.
        bad_rows: place in the source, loss and text of each row whose loss is not finite.
        rows: how many rows the step has.
        module: the first module whose output is not finite, though its inputs are; None: there is none.
        gradients: trained parameters whose gradient is not finite.
        largest: the largest trained value, and whose it is.
    """

    step: int
    lr: float
    bad_rows: list[tuple[int, float, str]]
    rows: int
    module: str | None
    gradients: list[str]
    largest: tuple[float, str]

    def lines(self) -> list[str]:
        """The same in words."""
        found = [f"step {self.step}, learning rate {self.lr:g}: {len(self.bad_rows)} of {self.rows} losses not finite"]
        found += [f"  row {index}: loss {loss:g}  {text[:TEXT]!r}" for index, loss, text in self.bad_rows]
        if self.module is not None:
            found.append(f"first output that is not finite: that of {self.module}, whose inputs are")
        if self.gradients:
            found.append(f"gradients that are not finite: {', '.join(self.gradients)}")
        found.append(f"largest trained value: {self.largest[0]:.3g}, in {self.largest[1]}")
        return found


class Recorder(PromptModule):
    """Trains as ever, and keeps the micro-batches of the step that it is in."""

    batches: list[tuple[int, Batch]]

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        """Keep the batch."""
        super().on_train_batch_start(batch, batch_idx)
        first = batch_idx % self.trainer.accumulate_grad_batches == 0
        self.batches = [*([] if first else self.batches), (batch_idx, batch)]


def replay(config: Config, run_dir: Path) -> Replay | None:
    """Train again, from the run's last checkpoint on and in one process, until a number is not finite.

    Args:
        config: the run's.
        run_dir: its folder, in which nothing is written.

    Returns:
        What the step shows; None where training comes to its end.
    """
    quiet_lightning()
    config.trainer.devices = config.trainer.nodes = 1
    experiment = prepare(config)
    data, module = build_data(experiment, build_cache(config)), build_module(experiment)
    module.__class__ = Recorder
    assert isinstance(module, Recorder)
    trainer = build_trainer(config, experiment.placement, experiment.plan, [], None, False, run_dir)
    try:
        fit(trainer, module, data, checkpoint_to_resume(run_dir)[0])
    except NotFiniteError as error:
        return _look_into(module, error.step, experiment.splits["train"])
    return None


def _look_into(module: Recorder, step: int, split: EncodedSplit) -> Replay:
    classifier, bad_rows, first = module.classifier, [], FirstNotFinite(module.classifier)
    module.zero_grad()
    module.train()
    with first:
        for batch_idx, batch in module.batches:
            module.seed_dropout(batch_idx)
            losses_B = classifier.losses(batch)
            (losses_B * batch.weights).sum().backward()
            for row, loss in zip(batch.rows.tolist(), losses_B.detach().tolist(), strict=True):
                if not torch.isfinite(torch.tensor(loss)):
                    bad_rows.append((split.labeled.index[row], loss, " / ".join(split.labeled.sentences[row])))
    trained = {name: p for name, p in classifier.named_parameters() if p.requires_grad}
    gradients = [name for name, p in trained.items() if p.grad is not None and not p.grad.isfinite().all()]
    largest = max((float(p.detach().abs().max()), name) for name, p in trained.items())
    optimizer: Any = module.optimizers()
    lr = optimizer.param_groups[0]["lr"]
    rows = sum(len(batch.rows) for _, batch in module.batches)
    return Replay(step, lr, bad_rows, rows, first.name, gradients, largest)


class FirstNotFinite:
    """Finds the first module whose output is not finite while its inputs are; to be used as a context."""

    def __init__(self, model: nn.Module):
        self.name: str | None = None
        self._model, self._handles = model, []  # type: ignore[var-annotated]

    def __enter__(self) -> "FirstNotFinite":
        for name, part in self._model.named_modules():
            self._handles.append(part.register_forward_hook(self._look_at(name)))
        return self

    def __exit__(self, *_: Any) -> None:
        for handle in self._handles:
            handle.remove()

    def _look_at(self, name: str) -> Any:
        def look(_: nn.Module, given: tuple[Any, ...], output: Any) -> None:
            if self.name is None and _finite(given) and not _finite(output):
                self.name = name

        return look


def _finite(value: Any) -> bool:
    if isinstance(value, Tensor):
        # Masks of attention have -inf on purpose.
        return not value.is_floating_point() or not (value.isnan().any() or (value == torch.inf).any())
    return not isinstance(value, tuple | list) or all(map(_finite, value))
