"""`lpt evaluate`: score an adapter on labeled rows."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lpt.cli.adapters import adapter_options, load_classifier, read_columns, read_rows
from lpt.cli.arguments import Commands
from lpt.errors import LptError

if TYPE_CHECKING:
    from torch import Tensor


def add(commands: Commands) -> None:
    """Add the command."""
    evaluate = commands.add_parser(
        "evaluate",
        parents=[adapter_options()],
        help="score labeled rows",
        description="Score an adapter on a labeled file: each metric with its 95% interval.",
    )
    evaluate.add_argument(
        "--label", default="label", metavar="COLUMN", help="column of the gold label (default: label)"
    )
    evaluate.set_defaults(command=_evaluate)


def _evaluate(arguments: argparse.Namespace) -> None:
    import torch

    from lpt.metrics import compute, interval

    if arguments.file is None:
        raise LptError("lpt evaluate needs --file=<labeled CSV, TSV, JSONL or Parquet>")
    columns = read_columns(arguments.file)
    gold = [value.strip() for value in columns.column("--label", arguments.label)]
    classifier = load_classifier(arguments)
    labels = classifier.config.labels
    truth, names, classes = _truth(columns, gold, classifier.config, arguments.file)
    rows: list[Any] = [row[0] if len(row) == 1 else row for row in read_rows(arguments)]
    found = classifier.predict(rows, arguments.batch_size)
    predicted = torch.tensor([labels.index(p.label) if p.value is None else p.value for p in found])
    print(f"{len(found)} rows")
    for name, value in compute(names, predicted, truth, classes).items():
        low, high = interval(name, predicted, truth, classes)
        print(f"{name:<9} {value:.3f}  (95% interval {low:.3f} to {high:.3f})")


def _truth(columns: Any, gold: list[str], config: Any, file: Path) -> tuple["Tensor", list[str], int | None]:
    """The gold labels `[N]`, the metrics that they allow, and the number of classes; None for numbers.

    Raises:
        LptError: a value is not a label, or not a number in range.
    """
    import torch

    from lpt.data.labels import default_values, numbers
    from lpt.metrics import NUMBER_METRICS

    if config.value_range is not None:
        return torch.tensor(numbers(columns, gold, config.value_range)), list(NUMBER_METRICS), None
    labels, meaning = config.labels, default_values(config.labels)
    for row, value in enumerate(gold):
        if value not in meaning:
            raise LptError(f"{file}, row {row}: label {value!r} is not one of {', '.join(labels)}")
    metrics = ["accuracy", "matthews", *(["f1"] if len(labels) == 2 else [])]
    return torch.tensor([labels.index(meaning[value]) for value in gold]), metrics, len(labels)
