"""All that a run has computed, to be compared bit for bit with what another has."""

import csv
import json

import torch

from lpt.training.checkpoints import read_checkpoint

TIMES = {"train/examples_per_second", "train/peak_memory_gb"}


def traces(folder):
    """All that a run has computed: trained tensors, optimizer, lines of metrics.csv, predictions, scores."""
    with (folder / "metrics.csv").open(newline="") as file:
        lines = [{k: v for k, v in line.items() if k not in TIMES} for line in csv.DictReader(file)]
    predictions = {path.name: path.read_text() for path in (folder / "predictions").iterdir()}
    checkpoints = {name: read_checkpoint(folder / "checkpoints" / f"{name}.ckpt") for name in ("best", "last")}
    kept = ("state_dict", "optimizer_states", "lr_schedulers", "global_step")
    return {
        "metrics.csv": lines,
        "predictions": predictions,
        **{f"{name}: {key}": flat(content[key]) for name, content in checkpoints.items() for key in kept},
        "scores": json.loads((folder / "result.json").read_text())["metrics"],
    }


def differences(found, expected):
    return [key for key in expected if found[key] != expected[key]]


def flat(value):
    """The same with lists of bits for tensors, so that == compares them."""
    if isinstance(value, torch.Tensor):
        return value.numpy().tobytes()
    if isinstance(value, dict):
        return {key: flat(item) for key, item in value.items()}
    return [flat(item) for item in value] if isinstance(value, list | tuple) else value
