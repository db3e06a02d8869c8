"""Which weights of a run to keep: those of a step that validation rows choose, of the last one, or an average.

    python experiments/averages.py seed=13,21,42 cache=disk [other options of train.py]

`seed` varies the draw of rows and the start, `fewshot.seed` the draw alone, and `seed` with a `fewshot.seed` among the
other options the start alone. One JSON line for each: test accuracy of the step with the best validation accuracy of
five, of the one with the lowest validation loss, of the last step, of an exponential moving average (0.98) and of the
mean over the second half of training.
"""

import json
import math
import sys
import tempfile

import pytorch_lightning as pl
import torch
from torch import Tensor

from lpt.config.from_python import compose_run
from lpt.console import quietly
from lpt.training.experiment import prepare
from lpt.training.run import build_cache, build_data, build_module, evaluate
from lpt.training.trainer import build_trainer, quiet_lightning

Weights = dict[str, Tensor]
DECAY = 0.98
EVALUATED = 5  # steps


class Averages(pl.Callback):
    """Keeps weights of some steps, and averages over steps."""

    def __init__(self, total_steps: int):
        self.total, self.steps = total_steps, {}
        self.moving: Weights = {}
        self.second_half: Weights = {}

    def on_train_batch_end(self, trainer: pl.Trainer, module: pl.LightningModule, *_: object) -> None:
        step = trainer.global_step
        now = {name: p.detach().clone() for name, p in module.named_parameters() if p.requires_grad}
        decay = min(DECAY, (1 + step) / (10 + step))  # the start is soon forgotten
        moving = self.moving or now
        self.moving = {name: decay * moving[name] + (1 - decay) * value for name, value in now.items()}
        if step > self.total // 2:
            share = 1 / (step - self.total // 2)
            mean = self.second_half or now
            self.second_half = {name: mean[name] + share * (value - mean[name]) for name, value in now.items()}
        if step % (self.total // EVALUATED) == 0:
            self.steps[step] = now


def measure(options: list[str]) -> dict[str, float]:
    """Train once, and test every way to choose."""
    with tempfile.TemporaryDirectory() as folder, quietly():
        config, run_dir = compose_run([*options, "logger=none", f"hydra.run.dir={folder}/run"])
        quiet_lightning()
        experiment = prepare(config, None)
        data, module = build_data(experiment, build_cache(config)), build_module(experiment)
        trainer = build_trainer(config, experiment.placement, experiment.plan, [], None, False, run_dir)
        kept = Averages(experiment.plan.total_steps)
        trainer.callbacks.append(kept)
        trainer.fit(module, data)

        def score(weights: Weights, split: str) -> tuple[float, float]:
            """Accuracy and loss of these weights on a split."""
            module.load_state_dict(weights, strict=False)
            found = evaluate(trainer, module, data, False, [split])[split]
            return found.metrics(["accuracy"])["accuracy"], found.loss

        validation = {step: score(weights, "validation") for step, weights in kept.steps.items()}
        chosen = {
            "best accuracy": kept.steps[max(validation, key=lambda step: (validation[step][0], -step))],
            "lowest loss": kept.steps[min(validation, key=lambda step: validation[step][1])],
            "last": kept.steps[max(validation)],
            "moving average": kept.moving,
            "mean of second half": kept.second_half,
        }
        return {name: score(weights, "test")[0] for name, weights in chosen.items()}


def main() -> None:
    varied, options = sys.argv[1], sys.argv[2:]
    option, _, values = varied.partition("=")
    every = []
    for value in values.split(","):
        every.append(measure([*options, f"{option}={value}"]))
        print(json.dumps({option: int(value)} | every[-1]), flush=True)
    for name in every[0]:
        scores = torch.tensor([found[name] for found in every], dtype=torch.float64)
        deviation = float(scores.std()) if len(scores) > 1 else math.nan
        print(f"{name}: mean {scores.mean():.3f}, deviation {deviation:.3f}, {scores.min():.3f} to {scores.max():.3f}")


if __name__ == "__main__":
    main()
