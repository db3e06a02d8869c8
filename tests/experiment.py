"""A whole experiment in miniature for end-to-end tests: a tiny backbone in hub layout, a CSV, and the real command."""

import csv
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from subprocess import PIPE

import numpy as np
from places import REPOSITORY
from tiny import tiny_model, tiny_tokenizer

from lpt.config.compose import compose_points
from lpt.config.resolve import resolve
from lpt.config.schema import Config
from lpt.training.run import run


@dataclass(frozen=True)
class Experiment:
    """Where the miniature lives, and how to run it."""

    folder: Path

    @property
    def options(self) -> list[str]:
        return [
            f"backbone.path='{self.folder}/backbone'",
            "backbone.name=tiny",
            "task=custom",
            f"task.files.train='{self.folder}/reviews.csv'",
            "task.labels=[bad,good]",
            "task.label_words={bad: terrible, good: great}",
            "task.template.encoder='{a} It was {mask}'",
            "fewshot.k=44",
            "fewshot.k_dev=30",
            "optim.batch_size=8",
            "optim.lr=3e-2",
            "trainer.max_epochs=3",
            "trainer.log_every=1",
            "trainer.precision=32",
            "trainer.accelerator=cpu",
            "lpt.layer=3",
            "lpt.bottleneck=8",
            "lpt.dropout=true",
        ]

    def options_but(self, *names: str) -> list[str]:
        """`options` without those of these names."""
        return [option for option in self.options if option.partition("=")[0] not in names]

    def options_for(self, given: Sequence[str]) -> list[str]:
        """The options without those of a late prompt, where `given` chooses a method that writes none."""
        method = next((text for text in given if text.startswith("method=")), "method=lpt")
        late_prompt = method in ("method=lpt", "method=lpt_lora")
        return [text for text in self.options if late_prompt or not text.startswith("lpt.")]

    def train(self, name: str, *options: str, check: bool = True, **environment: str) -> subprocess.CompletedProcess:
        """`python train.py` in a process of its own, into the run folder `name`."""
        return self.command(
            *self.options_for(options), f"hydra.run.dir='{self.run_dir(name)}'", *options, check=check, **environment
        )

    def resume(self, name: str, *options: str) -> subprocess.CompletedProcess:
        """`python train.py resume=<run folder>`."""
        return self.command(f"resume='{self.run_dir(name)}'", *options)

    def command(self, *arguments: str, check: bool = True, **environment: str) -> subprocess.CompletedProcess:
        """`python train.py` with these arguments, from the repository's folder."""
        (done,) = self.together([environment], *arguments, check=check, cwd=REPOSITORY)
        return done

    def together(
        self, environments: Sequence[dict[str, str]], *arguments: str, check: bool = True, cwd: Path | None = None
    ) -> list[subprocess.CompletedProcess]:
        """The same command at once in each of these environments, from the experiment's folder or `cwd`."""
        command = [sys.executable, str(REPOSITORY / "train.py"), *arguments]
        plain = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
        with ExitStack() as ends:
            started = [
                subprocess.Popen(
                    command, cwd=cwd or self.folder, env={**plain, **own}, stdout=PIPE, stderr=PIPE, text=True
                )
                for own in environments
            ]
            for process in started:
                ends.callback(process.kill)  # those that wait for one that has failed
            ended = [(process, *process.communicate(timeout=300)) for process in started]
        done = [subprocess.CompletedProcess(command, process.returncode, *said) for process, *said in ended]
        if check:
            assert not any(one.returncode for one in done), "\n".join(one.stdout + one.stderr for one in done)
        return done

    def config(self, *options: str) -> Config:
        (cfg,) = compose_points([[*self.options_for(options), *options]])
        return resolve(cfg)

    def run(self, name: str, *options: str) -> dict:
        """The same as `train` without a process of its own."""
        config = self.config(*options)
        self.run_dir(name).mkdir(parents=True, exist_ok=True)
        run(config, self.run_dir(name))
        return self.result(name)

    def run_dir(self, name: str) -> Path:
        return self.folder / "runs" / name

    def result(self, name: str) -> dict:
        return json.loads((self.run_dir(name) / "result.json").read_text())

    def curve(self, name: str, column: str) -> dict[int, float]:
        """Step -> value of one column of metrics.csv."""
        with (self.run_dir(name) / "metrics.csv").open(newline="") as file:
            return {int(row["step"]): float(row[column]) for row in csv.DictReader(file) if row.get(column)}


def write_scores(folder: Path) -> list[str]:
    """A file of texts with a number from 0 to 5 each, and the options that make it the task."""
    random = np.random.default_rng(1)
    with (folder / "scores.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "score"])
        for i in range(200):
            good = i % 6  # of five words that tell it
            text = ["good"] * good + ["bad"] * (5 - good) + [*random.choice(["the", "film", "plot", "is"], 5)]
            writer.writerow([" ".join(random.permutation(text)), f"{good:.3f}"])
    return [
        f"task.files.train='{folder}/scores.csv'",
        "task.files.label=score",
        "task.value_range=[0,5]",
        "task.metrics=[pearson,spearman]",
    ]


def make_experiment(folder: Path, family: str = "gpt2") -> Experiment:
    """GPT-2 has dropout, so that resumption has something to get wrong."""
    tiny_model(family).save_pretrained(folder / "backbone")
    tiny_tokenizer().save_pretrained(folder / "backbone")
    random = np.random.default_rng(0)
    words = ["it", "was", "is", "a", "the", "film", "plot"]
    with (folder / "reviews.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "label"])
        for i in range(150):
            label = int(i % 2)
            hint = ("bad", "dull", "never") if label == 0 else ("good", "fine", "again")
            text = [*random.choice(words, random.integers(2, 9)), *random.choice(hint, 3), random.choice(words)]
            writer.writerow([" ".join(text), label])
    return Experiment(folder)
