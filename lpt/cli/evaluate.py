"""`lpt evaluate`: score an adapter on labeled rows."""

import argparse
from dataclasses import replace
from typing import Any

from lpt.cli.adapters import adapter_options, given_reading, load_classifier, read_columns
from lpt.cli.arguments import Commands, fraction
from lpt.cli.review import CONFIDENCE
from lpt.errors import LptError


def add(commands: Commands) -> None:
    """Add the command."""
    evaluate = commands.add_parser(
        "evaluate",
        parents=[adapter_options()],
        help="score labeled rows",
        description="Score an adapter on a labeled file: each metric with its 95%% interval, and each class alone.",
    )
    evaluate.add_argument("--label", metavar="COLUMN", help="column of the gold label (default: as the run read it)")
    evaluate.add_argument(
        "--values",
        nargs="+",
        metavar="VALUE=LABEL",
        help="the label that each value in the file stands for, or ignore (default: as the run read it)",
    )
    evaluate.add_argument(
        "--confidence",
        type=fraction,
        default=CONFIDENCE,
        metavar="P",
        help=f"tell how many rows are below this probability, and how right they are (default: {CONFIDENCE})",
    )
    evaluate.set_defaults(command=_evaluate)


def _evaluate(arguments: argparse.Namespace) -> None:
    if arguments.input is None:
        raise LptError("lpt evaluate needs --input=<labeled CSV, TSV, JSONL or Parquet>")
    classifier = load_classifier(arguments)
    import numpy as np
    import torch  # from here on, so that a wrong path does not wait for it

    from lpt.calibration import calibration_error, coverage
    from lpt.cli.tables import print_table
    from lpt.data.labels import label_rows
    from lpt.metrics import compute, confusion_counts, interval, usual_metrics
    from lpt.report.prediction_tables import class_scores_table

    config = classifier.config
    reading = given_reading(arguments, config.reading)
    if arguments.values is not None:
        reading = replace(reading, values=_values(arguments.values, config))
    labeled = label_rows(read_columns(arguments.input, reading), reading, config.labels, config.value_range, "--")
    if labeled is None:
        raise LptError(f"--input: no row of {arguments.input} has a label, all are -1; lpt predict needs none")
    if not len(labeled):
        raise LptError(f"--input: {arguments.input} has no row to score")
    rows: list[Any] = [row[0] if len(row) == 1 else row for row in labeled.sentences]
    found = classifier.predict(rows, arguments.batch_size)
    predicted = torch.tensor([config.labels.index(p.label) if p.value is None else p.value for p in found])
    classes = None if config.value_range is not None else len(config.labels)
    names = usual_metrics(classes)
    left_out = "".join(f", {count} left out ({reason})" for reason, count in labeled.dropped.items())
    print(f"{len(found)} rows{left_out}")
    truth = torch.tensor(labeled.labels)
    for name, value in compute(names, predicted, truth, classes).items():
        low, high = interval(name, predicted, truth, classes)
        print(f"{name:<9} {value:.3f}  (95% interval {low:.3f} to {high:.3f})")
    if classes is not None:
        confidence_N = np.array([max(p.probabilities.values()) for p in found])
        right_N = (predicted == truth).numpy()
        print(coverage(confidence_N, right_N, arguments.confidence))
        print(f"expected calibration error {calibration_error(confidence_N, right_N):.3f}\n", flush=True)
        print_table(class_scores_table(confusion_counts(predicted.numpy(), truth.numpy(), classes), config.labels))


def _values(given: list[str], config: Any) -> dict[str, str]:
    """`--values` as a mapping.

    Raises:
        LptError: a part of it is no `value=label`, or its label is not one of the adapter's.
    """
    from lpt.data.reading import check_label

    if config.value_range is not None:
        raise LptError("--values is for classes, and this adapter predicts numbers; remove it")
    values = {}
    for text in given:
        value, equals, name = text.rpartition("=")
        if not equals:
            raise LptError(f"--values {text!r} has no =; write <value in the file>=<label>")
        check_label(name, config.labels, f"--values maps {value!r} to {name!r}")
        values[value] = name
    return values
