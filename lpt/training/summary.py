"""The table that a person sees when a run ends."""

import shlex
from dataclasses import asdict
from pathlib import Path

from rich.table import Table

from lpt.config.schema import Config, TrainerConfig
from lpt.console import console
from lpt.training.expected import expected_accuracy
from lpt.training.first_process import only_first_process, say
from lpt.training.result import CompletedRun

GIGABYTE = 1e9


@only_first_process
def show_result(result: CompletedRun, run_dir: Path, config: Config) -> None:
    """Print what was run, its scores and its costs, what others have got, and what may do better."""
    table = Table(show_header=False, box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column(style="dim")
    table.add_column()
    lines = summary_lines(result, expected_accuracy(config))
    for name, value in lines:
        table.add_row(name, value)
    console.print()
    console.print(table)
    # Outside the table, which would wrap it: a path is copied in one piece.
    width = max(len(name) for name, _ in lines)
    console.print(f"[dim]{'run folder':<{width}}[/dim]  {run_dir}", soft_wrap=True)
    if result.trainable_parameters:
        command = shlex.join(["lpt", "predict", str(run_dir), "--input"])
        console.print(f"[dim]{'to use it':<{width}}[/dim]  {command} <file>", soft_wrap=True)
    if result.train.still_improving:
        say(f"\nstill improving at the last step: {_twice_as_long(config.trainer, result.train.steps)} may do better")


def summary_lines(result: CompletedRun, expected: tuple[float, float] | None = None) -> list[tuple[str, str]]:
    """Name and value of each line, in rich's markup.

    Args:
        result: of the run.
        expected: lowest and highest test accuracy that runs like this one have.
    """
    usual = (
        [] if expected is None else [("to be expected", f"{expected[0]:.2f} to {expected[1]:.2f}, by seed and machine")]
    )
    return [*_what_was_run(result), *_scores(result), *usual, *_costs(result)]


def _what_was_run(result: CompletedRun) -> list[tuple[str, str]]:
    sizes = ", ".join(f"{size} {split}" for split, size in result.data.sizes.items())
    lines = [
        ("task", f"{result.task}  ({sizes})"),
        ("backbone", f"{result.backbone}  ({_millions(result.backbone_parameters)} parameters, {result.precision})"),
    ]
    lpt = result.lpt
    if result.method != "lpt":
        lines.append(("method", _method(result)))
    if lpt.generator is not None:
        tokens = f"{lpt.prompt_length} prompt token{'' if lpt.prompt_length == 1 else 's'}"
        seen = "read-only" if lpt.read_only else "seen by the text"
        lines.append(("prompt", f"{lpt.generator}, {tokens} entering layer {lpt.layer}, {seen}"))
    if result.trainable_parameters:
        share = result.trainable_parameters / result.backbone_parameters
        lines.append(("trained parameters", f"{result.trainable_parameters:,}  ({share:.3%} of the backbone)"))
    return lines


def _method(result: CompletedRun) -> str:
    """The method with those of its settings that the line of the prompt does not have, the layer first."""
    shown = asdict(result.lpt) if result.lpt.generator is not None else {}
    own = {name: value for name, value in result.settings.items() if name not in shown and value}
    words = {name: "read-only" if name == "read_only" else f"{name} {value}" for name, value in own.items()}
    described = ", ".join(words[name] for name in sorted(own, key=lambda name: name != "layer"))
    return f"{result.method}  ({described})" if described else result.method


def _scores(result: CompletedRun) -> list[tuple[str, str]]:
    lines = []
    for split, metrics in result.metrics.items():
        for name, value in metrics.items():
            if name != "loss":
                low, high = result.intervals[split][name]
                lines.append((f"{split} {name}", f"[bold]{value:.3f}[/bold]  (95% interval {low:.3f} to {high:.3f})"))
    return lines


def _costs(result: CompletedRun) -> list[tuple[str, str]]:
    train, lines = result.train, []
    if result.lr_scores:
        scores = ", ".join(f"{lr}: {score:.3f}" for lr, score in result.lr_scores.items())
        lines.append(("learning rates tried", scores))
    if train.steps:
        speed = f"{train.steps_per_second:.2f} steps/s, {train.tokens_per_second:,.0f} tokens/s"
        lines.append(("best step", f"{result.best_step} of {train.steps}"))
        lines.append(("training", f"{train.seconds:.0f} s, {speed}"))
    lines.append(("peak memory", f"{train.peak_memory_bytes / GIGABYTE:.2f} GB"))
    lines.append(("wall time", f"{result.wall_seconds:.0f} s, loading included"))
    return lines


def _twice_as_long(trainer: TrainerConfig, steps: int) -> str:
    """The option that trains for twice as many steps."""
    if trainer.max_steps is not None or trainer.max_epochs is None:
        return f"trainer.max_steps={2 * steps}"
    return f"trainer.max_epochs={2 * trainer.max_epochs}"


def _millions(count: int) -> str:
    return f"{count / 1e6:.1f}M" if count < 1e9 else f"{count / 1e9:.2f}B"
