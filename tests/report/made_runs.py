"""Run folders as train.py leaves them, made up: what was run, and how often it was right."""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from results import completed, failed

LABELS = ["bad", "good"]


def options(
    *, method: str = "lpt", task: str = "reviews", backbone: str = "tiny", seed: int = 13, **changed: Any
) -> dict[str, Any]:
    """A configuration, nested; `changed` by option, with `__` for the dot."""
    config: dict[str, Any] = {
        "backbone": {"name": backbone, "path": backbone},
        "task": {"name": task, "labels": LABELS, "max_length": 256},
        "fewshot": {"protocol": "total", "k": 400, "k_dev": 200, "seed": "${seed}"},
        "method": {"name": method},
        "lpt": {"layer": None, "prompt_length": 5, "bottleneck": 128},
        "generator": {"name": "npg"},
        "head": {"name": "label_words"},
        "optim": {"lr": 0.003 if "lpt" in method else 0.0004, "batch_size": 16},
        "trainer": {"precision": "auto"},
        "logger": {"name": "csv"},
        "seed": seed,
    }
    for name, value in changed.items():
        group, _, key = name.partition("__")
        config[group][key] = value
    return config


def write_run(
    folder: Path,
    right: float = 0.8,
    *,
    rows: int = 300,
    error: str | None = None,
    unfinished: bool = False,
    predicted: np.ndarray | None = None,
    result: dict[str, Any] | None = None,
    **chosen: Any,
) -> Path:
    """One run folder.

    Args:
        right: share of its test rows that are predicted rightly, unless `predicted` says which class each gets.
        error: it failed so.
        unfinished: it has no result.
        result: changes to result.json.
        chosen: see `options`.
    """
    config = options(**chosen)
    (folder / ".hydra").mkdir(parents=True)
    (folder / ".hydra" / "config.yaml").write_text(yaml.safe_dump(config))
    overrides = [f"seed={config['seed']}", f"method={config['method']['name']}", "trainer.max_epochs=3"]
    (folder / ".hydra" / "overrides.yaml").write_text(yaml.safe_dump(overrides))
    if unfinished:
        return folder
    identity = {name: config[name]["name"] for name in ("task", "backbone", "method", "head")}
    identity |= {"seed": config["seed"], "fewshot": config["fewshot"] | {"seed": config["seed"]}}
    if error is not None:
        _write(folder, failed(error, **identity))
        return folder
    gold = np.arange(rows) % 2
    if predicted is None:
        # Which rows are hard is a matter of the row, a little of the run: as in life, runs err on the same rows.
        run = np.random.default_rng(len(folder.name) + config["seed"] * 7)
        ease = np.random.default_rng(0).random(rows) + 0.2 * run.random(rows)
        predicted = np.where(ease < np.quantile(ease, right), gold, 1 - gold)
    accuracy = {"accuracy": float((predicted == gold).mean()), "loss": 0.5}
    content = completed(**identity, **_achieved(config, rows, accuracy))
    for name, value in (result or {}).items():
        content[name] = (content[name] or {}) | value if isinstance(value, dict) else value
    _write(folder, content)
    _write_predictions(folder, gold, predicted)
    (folder / "metrics.csv").write_text(
        "epoch,lr,step,test/accuracy,test/loss,train/loss,validation/accuracy,validation/loss\n"
        "0,0.003,9,,,0.7,,\n0,,24,,,,0.6,0.62\n1,0.002,29,,,0.5,,\n1,,49,,,,0.7,0.5\n2,0.001,59,,,0.4,,\n"
        "2,,74,,,,0.8,0.45\n2,,74,0.8,0.46,,,\n"
    )
    return folder


def older(folder: Path, seconds: float) -> None:
    """As if the run had ended that much earlier."""
    path = folder / "result.json"
    then = path.stat().st_mtime - seconds
    os.utime(path, (then, then))


def _write(folder: Path, content: dict[str, Any]) -> None:
    (folder / "result.json").write_text(json.dumps(content))


def _achieved(config: dict[str, Any], rows: int, accuracy: dict[str, float]) -> dict[str, Any]:
    """What result.json says besides the run's identity."""
    late = "lpt" in config["method"]["name"]
    return {
        "lpt": {
            "layer": config["lpt"]["layer"] or (16 if late else 1),
            "generator": config["generator"]["name"] if late else None,
            **{name: config["lpt"][name] if late else None for name in ("prompt_length", "bottleneck")},
        },
        "data": {
            "sizes": {"train": 400, "validation": 200, "test": rows},
            "fingerprint": {"train": f"train{config['seed']}", "validation": "v", "test": f"{config['task']['name']}"},
        },
        "metrics": {"validation": accuracy, "test": accuracy},
        "trainable_parameters": 445_376 if late else 912_384,
        "train": {"steps_per_second": 2.5 if late else 1.25},
    }


def _write_predictions(folder: Path, gold: np.ndarray, predicted: np.ndarray) -> None:
    (folder / "predictions").mkdir()
    sure = 0.5 + 0.5 * np.random.default_rng(1).random(len(gold))
    with (folder / "predictions" / "test.jsonl").open("w") as file:
        for i in range(len(gold)):
            said = LABELS[predicted[i]]
            other = LABELS[1 - predicted[i]]
            probabilities = {name: {said: sure[i], other: 1 - sure[i]}[name] for name in LABELS}
            row = {"index": 10 + i, "gold": LABELS[gold[i]], "predicted": said, "probabilities": probabilities}
            file.write(json.dumps(row) + "\n")
