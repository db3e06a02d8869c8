"""The Lightning trainer of a run: devices, number format, when to evaluate, log and stop."""

import logging
import warnings
from pathlib import Path

import pytorch_lightning as pl
import torch
from pytorch_lightning.loggers import Logger
from pytorch_lightning.plugins.precision import MixedPrecision, Precision
from pytorch_lightning.strategies import DDPStrategy, Strategy

from lpt.backbones.placement import Placement
from lpt.config.schema import Config
from lpt.training.checkpoints import Checkpoints
from lpt.training.patience import Patience
from lpt.training.plan import TrainingPlan
from lpt.training.progress import Progress

# Notes on what was chosen on purpose.
NOTES = (
    "does not have many workers",  # rows are in memory
    "GPU available but not used",
    "Found .* module\\(s\\) in eval mode",  # the trunk
    "Experiment logs directory",
    "It is recommended to use .self.log",  # every rank logs what it has gathered from all
    "`isinstance\\(treespec, LeafSpec\\)` is deprecated",
    "`broadcast_buffers` is deprecated",  # in favor of what older releases of torch do not know
)


def build_trainer(
    config: Config,
    placement: Placement,
    plan: TrainingPlan,
    loggers: list[Logger],
    checkpoints: Checkpoints | None,
    validates: bool,
    run_dir: Path,
) -> pl.Trainer:
    """The trainer that fits and evaluates.

    Args:
        config: the run's.
        placement: device and number format.
        plan: steps, counted.
        loggers: from `lpt.training.loggers.build_loggers`.
        checkpoints: None where nothing is trained.
        validates: whether there are validation rows.
        run_dir: where Lightning would write what it writes by default; it has nothing to.
    """
    trainer = config.trainer
    callbacks: list[pl.Callback] = [Progress(checkpoints, trainer.progress, trainer.compile)]
    if checkpoints is not None:
        callbacks.append(checkpoints)
        if trainer.patience is not None and validates:
            callbacks.append(Patience(config.task.metrics[0], trainer.patience))
    return pl.Trainer(
        accelerator=placement.accelerator,
        devices=trainer.devices,
        num_nodes=trainer.nodes,
        strategy=_strategy(trainer.processes),
        plugins=[precision_plugin(placement), *([] if checkpoints is None else [checkpoints.files])],
        max_epochs=plan.epochs,
        max_steps=plan.total_steps,
        # In micro-batches, and across epochs: evaluation is a matter of steps.
        val_check_interval=plan.eval_every * plan.gradient_accumulation,
        check_val_every_n_epoch=None,
        num_sanity_val_steps=0,
        accumulate_grad_batches=plan.gradient_accumulation,
        gradient_clip_val=config.optim.max_grad_norm,
        logger=loggers,
        log_every_n_steps=plan.log_every,
        limit_val_batches=1.0 if validates else 0,
        callbacks=callbacks,
        enable_checkpointing=checkpoints is not None,
        enable_progress_bar=False,  # `Progress` has one for the whole run
        use_distributed_sampler=False,  # batches are dealt to processes by `lpt.data.batches`
        enable_model_summary=False,
        default_root_dir=run_dir,
    )


def _strategy(processes: int) -> Strategy | str:
    # The frozen part has no buffers that change: nothing to broadcast at every step.
    return DDPStrategy(broadcast_buffers=False) if processes > 1 else "auto"


def precision_plugin(placement: Placement) -> Precision:
    """How Lightning computes: as it finds the weights, unless they are computed in another format or need scaling.

    The backbone already has its number format, and what is trained is float32; only fp16 needs loss scaling.
    """
    if placement.compute_dtype is torch.float16:
        return MixedPrecision("16-mixed", "cuda")
    if placement.autocast:
        return MixedPrecision("bf16-mixed", placement.device.type)
    return Precision()


def quiet_lightning() -> None:
    """Keep what a person should read: Lightning's tips, and its notes on what was chosen on purpose, are dropped."""
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    logging.getLogger("lightning_fabric").setLevel(logging.ERROR)
    for note in NOTES:
        warnings.filterwarnings("ignore", message=f".*{note}")
