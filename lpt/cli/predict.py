"""`lpt predict`: label texts with an adapter."""

import argparse
import json
import sys
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import IO, Any

from lpt.cli.adapters import adapter_options, given_reading, load_classifier, read_texts
from lpt.cli.arguments import Commands
from lpt.errors import LptError
from lpt.files import whole_file

CHUNK = 4096  # rows in memory at a time


def add(commands: Commands) -> None:
    """Add the command."""
    predict = commands.add_parser(
        "predict",
        parents=[adapter_options()],
        help="label texts",
        description="Label texts, and print one JSON object for each. With --glue, write the files that GLUE's server "
        "takes.",
    )
    predict.add_argument(
        "--text",
        nargs="+",
        action="extend",
        help="the texts, instead of --file or stdin; one that begins with -: --text=-meh",
    )
    predict.add_argument(
        "--glue",
        metavar="FOLDER",
        help="label the test set in GLUE's folder, or in that of the task; --output is then a folder",
    )
    predict.add_argument("--output", type=Path, help="the file to write (default: stdout)")
    predict.set_defaults(command=_predict)


def _predict(arguments: argparse.Namespace) -> None:
    if arguments.glue is not None:
        _predict_glue(arguments)
        return
    if arguments.text and arguments.file:
        raise LptError("lpt predict labels --text or --file, not both; remove one")
    if arguments.text:
        _check_texts(arguments.text)
    classifier = load_classifier(arguments)
    rows: Iterable[tuple[str, ...]] = (
        ((text,) for text in arguments.text)
        if arguments.text
        else read_texts(arguments, given_reading(arguments, classifier.config.reading))
    )
    if arguments.output is None:
        _write_predictions(sys.stdout, classifier, rows, arguments.batch_size)
        return
    with whole_file(arguments.output) as file:
        _write_predictions(file, classifier, rows, arguments.batch_size)


def _check_texts(texts: list[str]) -> None:
    """Raises LptError for an argument that is not UTF-8, which Python has read as half characters."""
    from lpt.data.text import text_problem

    for number, text in enumerate(texts, start=1):
        problem = text_problem(text)
        if problem is not None:
            raise LptError(f"--text: text {number} {problem}")


def _predict_glue(arguments: argparse.Namespace) -> None:
    from lpt.glue import answer, glue_task, read_test_sets

    if arguments.text or arguments.file:
        raise LptError("lpt predict --glue labels GLUE's test set; remove --text and --file")
    if arguments.output is None:
        raise LptError("lpt predict --glue needs --output=<folder for the submission files>")
    classifier = load_classifier(arguments)
    task = glue_task(classifier.config)
    test_sets = list(read_test_sets(task, arguments.glue, given_reading(arguments, classifier.config.reading)))
    for name, rows in test_sets:
        with whole_file(arguments.output / name) as file:
            file.write("index\tprediction\n")
            for i, (_, found) in enumerate(_predictions(classifier, rows, arguments.batch_size)):
                file.write(f"{i}\t{answer(task, found)}\n")
        print(f"{len(rows)} rows in {arguments.output / name}")


def _write_predictions(file: IO[str], classifier: Any, rows: Iterable[tuple[str, ...]], batch_size: int) -> None:
    for text, found in _predictions(classifier, rows, batch_size):
        predicted = {"label": found.label} if found.value is None else {"value": round(found.value, 6)}
        line = {"text": text, **predicted, "probabilities": found.probabilities}
        file.write(json.dumps(line, ensure_ascii=False) + "\n")


def _predictions(classifier: Any, rows: Iterable[tuple[str, ...]], batch_size: int) -> Iterator[tuple[Any, Any]]:
    """Yield each text, or pair of texts, with its prediction."""
    rows = iter(rows)
    while chunk := list(islice(rows, CHUNK)):
        texts = [row[0] if len(row) == 1 else row for row in chunk]
        yield from zip(texts, classifier.predict(texts, batch_size), strict=True)
