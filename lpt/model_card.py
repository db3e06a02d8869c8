"""An adapter for people: the `README.md` of its folder, a model card in the form that the Hugging Face hub reads."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lpt.backbones.names import is_hub_id

if TYPE_CHECKING:
    from lpt.adapter import AdapterConfig

MANY_LABELS = 30  # of more, the card says how many there are, and adapter_config.json which


def model_card(config: "AdapterConfig", parameters: int) -> str:
    """The card, from what the adapter's configuration says.

    Args:
        config: of the adapter.
        parameters: how many numbers were trained.
    """
    return "\n\n".join([_front_matter(config), *_sections(config, parameters)]) + "\n"


def _sections(config: "AdapterConfig", parameters: int) -> Iterator[str]:
    training = config.training
    yield f"# {config.task}: {config.method} over {_backbone(config)}"
    what = "gives a value to" if config.value_range else "classifies"
    of = "a pair of texts" if config.reading.b else "a text"
    yield (
        f"A small trained part ({parameters:,} numbers) that {what} {of}, over a frozen language model that is not in "
        "this folder. It was trained with `lpt` (Late Prompt Tuning, https://arxiv.org/abs/2210.11292)."
    )
    yield f"## Use\n\n{_use(config)}"
    yield f"## Answers\n\n{_answers(config)}"
    if training:
        yield f"## Scores\n\n{_scores(training)}"
        if training.get("classes"):
            yield f"Each class, {training['judged_on']} rows:\n\n{_classes(training)}"
        yield f"## Training\n\n{_training(config)}"
    yield (
        "## Before you rely on it\n\nThe scores are those of rows like the ones that it was trained on. Of other "
        "texts, other languages, or labels that are given for other reasons they say nothing: try it on rows of your "
        "own first (`lpt evaluate`)."
    )
    yield (
        "## License\n\nNot stated here; `license` above is for whoever shares this adapter to fill in. The backbone "
        "has a license of its own."
    )


def _front_matter(config: "AdapterConfig") -> str:
    lines = ["library_name: lpt", "pipeline_tag: text-classification", "license: unknown"]
    if is_hub_id(config.backbone):
        lines.append(f"base_model: {json.dumps(config.backbone)}")
    lines += ["tags:", "- late-prompt-tuning", "- parameter-efficient-fine-tuning", f"- {config.method}"]
    scores = _judging_scores(config)
    if scores:
        lines += ["metrics:", *(f"- {name}" for name in scores), *_model_index(config, scores)]
    return "\n".join(["---", *lines, "---"])


def _model_index(config: "AdapterConfig", scores: dict[str, float]) -> Iterator[str]:
    """The scores as the hub's leaderboards read them."""
    task = json.dumps(config.task, ensure_ascii=False)
    yield "model-index:"
    yield f"- name: {task}"
    yield "  results:"
    yield "  - task:\n      type: text-classification"
    yield f"    dataset:\n      name: {task}\n      type: {task}\n      split: {config.training['judged_on']}"
    yield "    metrics:"
    for name, value in scores.items():
        yield f"    - type: {name}\n      value: {value:.4f}"


def _judging_scores(config: "AdapterConfig") -> dict[str, float]:
    """Metric -> value on the rows that the run is judged by; empty where there are none."""
    training = config.training
    found = training["metrics"].get(training["judged_on"], {}) if training else {}
    return {name: value for name, value in found.items() if name != "loss"}


def _backbone(config: "AdapterConfig") -> str:
    """Where the backbone is to be had; of a folder the name alone, since a card is for other people."""
    path = config.backbone
    if path.startswith("wheel://"):
        return path.removeprefix("wheel://").partition("/")[0]
    return path if "://" in path or is_hub_id(path) else Path(path).name


def _use(config: "AdapterConfig") -> str:
    text = '("a text", "another")' if config.reading.b else '"a text"'
    command = "--input rows.csv" if config.reading.b else '--text "a text"'
    return (
        "```python\nfrom lpt import LatePromptClassifier\n\n"
        'classifier = LatePromptClassifier.from_pretrained("path/to/this/folder")\n'
        f"print(classifier.predict([{text}]))\n```\n\n"
        f"```sh\nlpt predict path/to/this/folder {command}\n```\n\n"
        "Where the backbone is elsewhere, name it: `backbone=` in Python, `--backbone` on the command line; other "
        "weights are refused."
    )


def _answers(config: "AdapterConfig") -> str:
    if config.value_range:
        low, high = config.value_range
        return f"A value from {low:g} to {high:g}."
    labels = config.labels
    if len(labels) > MANY_LABELS:
        return f"One of {len(labels)} labels; `adapter_config.json` lists them."
    listed = "\n".join(f"- {label}" for label in labels)
    return f"{listed}\n\nProbabilities are calibrated with temperature {config.temperature:g}."


def _scores(training: dict[str, Any]) -> str:
    rows = []
    for split, metrics in training["metrics"].items():
        for name, value in metrics.items():
            low_high = training["intervals"].get(split, {}).get(name)
            span = "" if low_high is None else "{:.3f} to {:.3f}".format(*low_high)
            rows.append([split, name, f"{value:.3f}", span])
    return _table(["split", "metric", "value", "95% interval"], rows)


def _classes(training: dict[str, Any]) -> str:
    rows = [
        [name, *(f"{score:.3f}" for score in scores[:3]), f"{scores[3]:,}"]
        for name, scores in training["classes"].items()
    ]
    return _table(["class", "precision", "recall", "F1", "rows"], rows)


def _training(config: "AdapterConfig") -> str:
    training = config.training
    sizes = ", ".join(f"{rows:,} {split}" for split, rows in training["rows"].items())
    settings = ", ".join(f"{name}={value}" for name, value in config.settings.items())
    rows = [
        ["rows", sizes],
        ["backbone", f"{_backbone(config)} ({config.architecture}), {training['precision']}"],
        ["method", f"{config.method} ({settings})" if settings else config.method],
        ["head", config.head],
        ["learning rate", f"{training['lr']:g}"],
        ["steps", f"{training['best_step']} of {training['steps']} kept"],
        ["seed", str(training["seed"])],
        ["versions", ", ".join(f"{name} {version}" for name, version in config.versions.items())],
    ]
    return _table(["", ""], rows)


def _table(headings: list[str], rows: list[list[str]]) -> str:
    cells = [headings, ["---"] * len(headings), *rows]
    return "\n".join("| " + " | ".join(str(cell).replace("|", "\\|") for cell in row) + " |" for row in cells)
