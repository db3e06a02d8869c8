"""A whole `result.json` to change for a test."""

import json
from dataclasses import asdict
from typing import Any

from lpt.cache.facts import CacheFacts
from lpt.training.result import (
    FORMAT,
    CompletedRun,
    DataFacts,
    FailedRun,
    Fewshot,
    GitState,
    Hardware,
    LatePromptFacts,
    TrainFacts,
)

IDENTITY: dict[str, Any] = {
    "task": "reviews",
    "backbone": "tiny",
    "method": "lpt",
    "head": "label_words",
    "seed": 13,
    "fewshot": Fewshot("total", 400, 200, 13),
}
COMPLETED = CompletedRun(
    **IDENTITY,
    lpt=LatePromptFacts(16, 5, "npg", 128),
    settings={},
    data=DataFacts(
        sizes={"train": 400, "validation": 200, "test": 300},
        sizes_per_class={},
        fingerprint={"train": "t", "validation": "v", "test": "e"},
        test_split="test",
        truncated={},
    ),
    metrics={split: {"accuracy": 0.8, "loss": 0.5} for split in ("validation", "test")},
    intervals={},
    primary_metric="accuracy",
    best_step=75,
    trainable_parameters=445_376,
    backbone_parameters=134_515_008,
    train=TrainFacts(75, 1, 30.0, 2.5, 900.0, 1_760_000_000),
    cache=CacheFacts("off", 0, [], []),
    precision="bfloat16",
    quantization=None,
    attention="eager",
    backbone_commit=None,
    wall_seconds=90.0,
    hardware=Hardware("NVIDIA H200", 1, None),
    versions={"torch": "2.13.0", "transformers": "5.23.0", "lpt": "0.1.0"},
    git=GitState("0123456789abcdef", False),
)


def content_of(result: CompletedRun | FailedRun) -> dict[str, Any]:
    """What the file holds."""
    return json.loads(json.dumps({"format": FORMAT, **asdict(result)}))


def completed(**changes: Any) -> dict[str, Any]:
    """The file of a completed run; a change to a mapping is merged into it."""
    content = content_of(COMPLETED)
    for name, value in changes.items():
        content[name] = content[name] | value if isinstance(content[name], dict) else value
    return content


def failed(error: str, **changes: Any) -> dict[str, Any]:
    """The file of a failed run."""
    return content_of(FailedRun(**IDENTITY, error=error)) | changes
