"""What a person sees while a run goes on and when it ends."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback, RichProgressBar
from pytorch_lightning.callbacks.progress.rich_progress import RichProgressBarTheme
from pytorch_lightning.utilities.rank_zero import rank_zero_only
from rich.table import Table

from lpt.console import console
from lpt.console import say as say_anyway
from lpt.training.result import CompletedRun

say = rank_zero_only(say_anyway)  # from the first process only


def progress(wanted: bool) -> Callback:
    """A live bar on a terminal; elsewhere, in a log file for one, a line per evaluation."""
    if wanted and console.is_terminal:
        theme = RichProgressBarTheme(metrics_text_delimiter="  ", metrics_format=".3f")
        return Bar(leave=False, theme=theme)
    return EvaluationLines()


class Bar(RichProgressBar):
    """Shows the training loss too, as it was a few steps ago: reading it waits for the GPU."""

    READ_EVERY = 10  # steps
    loss: float | None = None

    def get_metrics(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> dict[str, Any]:
        latest = trainer.callback_metrics.get("train/loss")
        if latest is not None and (self.loss is None or trainer.global_step % self.READ_EVERY == 0):
            self.loss = float(latest)
        shown = {} if self.loss is None else {"train/loss": self.loss}
        return shown | super().get_metrics(trainer, pl_module)


class EvaluationLines(Callback):
    """Prints step, loss and metrics after each evaluation."""

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.state.fn != "fit":
            return
        metrics = trainer.callback_metrics
        shown = [name for name in metrics if name == "train/loss" or name.startswith("validation/")]
        seen = {name: float(metrics[name]) for name in shown}
        width = len(str(trainer.max_steps))
        say(
            f"step {trainer.global_step:>{width}}/{trainer.max_steps}  "
            + "  ".join(f"{n} {v:.3f}" for n, v in seen.items())
        )


@rank_zero_only
def show_result(result: CompletedRun, run_dir: Path) -> None:
    """The table at the end of a run."""
    table = Table(show_header=False, box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column(style="dim")
    table.add_column()
    for name, value in _rows(result):
        table.add_row(name, value)
    console.print()
    console.print(table)
    console.print(f"[dim]run folder[/dim]            {run_dir}", soft_wrap=True)


def _rows(result: CompletedRun) -> list[tuple[str, str]]:
    lpt, train, sizes = result.lpt, result.train, result.data.sizes
    trained, whole = result.trainable_parameters, result.backbone_parameters
    rows = [
        (
            "task",
            f"{result.task}  ({', '.join(f'{size} {split}' for split, size in sizes.items())})",
        ),
        ("backbone", f"{result.backbone}  ({_millions(whole)} parameters, {result.precision})"),
    ]
    if result.method != "lpt":
        # What the line of the prompt does not say, the layer first.
        said = asdict(lpt) if lpt.generator is not None else {}
        own = {name: value for name, value in result.settings.items() if name not in said and value}
        described = ", ".join(f"{name} {own[name]}" for name in sorted(own, key=lambda name: name != "layer"))
        rows.append(("method", f"{result.method}  ({described})" if described else result.method))
    if lpt.generator is not None:
        rows.append(("prompt", f"{lpt.generator}, {lpt.prompt_length} rows, entering layer {lpt.layer}"))
    if trained:
        rows.append(("trained parameters", f"{trained:,}  ({trained / whole:.3%} of the backbone)"))
    for split, metrics in result.metrics.items():
        for name, value in metrics.items():
            if name != "loss":
                low, high = result.intervals[split][name]
                rows.append((f"{split} {name}", f"[bold]{value:.3f}[/bold]  (95% interval {low:.3f} to {high:.3f})"))
    if train.steps:
        rows.append(("best step", f"{result.best_step} of {train.steps}"))
        speed = f"{train.steps_per_second:.2f} steps/s, {train.tokens_per_second:,.0f} tokens/s"
        rows.append(("training", f"{train.seconds:.0f} s, {speed}"))
    rows.append(("peak memory", f"{train.peak_memory_bytes / 1e9:.2f} GB"))
    rows.append(("wall time", f"{result.wall_seconds:.0f} s"))
    return rows


def _millions(count: int) -> str:
    return f"{count / 1e6:.1f}M" if count < 1e9 else f"{count / 1e9:.2f}B"
