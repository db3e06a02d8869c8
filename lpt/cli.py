"""The command `lpt`: put a trained adapter to work, measure what training costs, report. Training is `train.py`."""

import argparse
import json
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import IO, Any

from lpt.errors import ConfigError, LptError

STREAM = 4096  # rows in memory at a time


def main(argv: Sequence[str] | None = None) -> None:
    """Parse the command line and run one command; bad input ends in its complaints and status 1, bad options in 2."""
    arguments = _parser().parse_args(argv)
    try:
        arguments.command(arguments)
    except (LptError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2 if isinstance(error, ConfigError) else 1) from None


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="lpt", description="Use what train.py has trained.")
    commands = parser.add_subparsers(required=True, metavar="command")

    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("adapter", help="a run's adapter/ folder, or a hub id")
    common.add_argument("--file", type=Path, help="CSV, TSV, JSONL or Parquet; without it, one text per line of stdin")
    common.add_argument("--a", default="text", metavar="COLUMN", help="column of the text (default: text)")
    common.add_argument("--b", metavar="COLUMN", help="column of the second text, for tasks of two")
    common.add_argument("--batch-size", type=_positive, default=32)
    common.add_argument("--accelerator", choices=("auto", "cpu", "gpu"), default="auto")
    common.add_argument("--precision", choices=("auto", "32", "bf16", "16"), default="auto")
    common.add_argument("--quantization", choices=("int8", "nf4"), help="of the backbone's layers")

    predict = commands.add_parser(
        "predict",
        parents=[common],
        help="label texts",
        description="Label texts; one JSON object per text. With --glue, a file for GLUE's server.",
    )
    predict.add_argument("--text", nargs="+", help="texts, instead of --file or stdin")
    predict.add_argument(
        "--glue", metavar="FOLDER", help="GLUE's folder, or the task's: label its test set; --output is a folder then"
    )
    predict.add_argument("--output", type=Path, help="write here instead of to stdout")
    predict.set_defaults(command=_predict)

    evaluate = commands.add_parser(
        "evaluate", parents=[common], help="score labeled rows", description="Score an adapter on a labeled file."
    )
    evaluate.add_argument(
        "--label", default="label", metavar="COLUMN", help="column of the gold label (default: label)"
    )
    evaluate.set_defaults(command=_evaluate)

    cache = commands.add_parser("cache", help="what is cached on disk", description="The trunk states kept on disk.")
    actions = cache.add_subparsers(required=True, metavar="action")
    actions.add_parser("list", help="sizes, and what each entry belongs to").set_defaults(command=_cache_list)
    actions.add_parser("clear", help="remove them all").set_defaults(command=_cache_clear)

    sweep = commands.add_parser(
        "sweep",
        help="look after sweeps",
        description="Look after a sweep that `python train.py -m` has started (docs/sweeps.md).",
    )
    actions = sweep.add_subparsers(required=True, metavar="action")
    status = actions.add_parser("status", help="how far each point has come")
    status.set_defaults(command=_sweep_status)
    resume = actions.add_parser("resume", help="start what is missing, go on with what was cut")
    resume.set_defaults(command=_sweep_resume, failed_too=False)
    retry = actions.add_parser("retry-failed", help="the same, and try again what has failed")
    retry.set_defaults(command=_sweep_resume, failed_too=True)
    results = actions.add_parser("results", help="the metrics of every point")
    results.set_defaults(command=_sweep_results)
    for action in (status, resume, retry, results):
        action.add_argument("folder", type=Path, help="of the sweep (hydra.sweep.dir)")
    for action in (resume, retry):
        action.add_argument("--workers", type=_positive, help="points at a time (default: as it was started)")
        action.add_argument("--retries", type=_count, help="of a point that fails (default: as it was started)")
        action.add_argument(
            "--accept-drift",
            action="store_true",
            help="go on with today's values where defaults have changed since; what is completed stays",
        )
    results.add_argument("--csv", action="store_true", help="as CSV")

    bench = commands.add_parser(
        "bench",
        help="what training steps cost",
        description="Measure steps on random rows, each method in a process of its own: time, memory, arithmetic.",
        epilog="Options are those of train.py (python train.py --help), bench.* above all. Without experiment=, it is "
        "experiment=bench_roberta_base.",
    )
    bench.add_argument(
        "overrides", nargs="*", metavar="option=value", help="such as experiment=bench_smollm2 lpt.layer=8"
    )
    bench.set_defaults(command=_bench)

    report = commands.add_parser(
        "report",
        help="what the runs under a folder say together",
        description="Turn the runs under a folder into one HTML page, a Markdown file, and figures: scores over seeds, "
        "how sure they are, which differences are more than chance, what quality costs, what is missing.",
    )
    report.add_argument("folder", type=Path, help="a folder with runs at any depth, or a single run")
    report.add_argument("--output", type=Path, help="write here (default: report/ in the folder)")
    report.add_argument(
        "--baseline",
        nargs="+",
        default=[],
        metavar="option=value",
        help="compare with this configuration, as in --baseline method=lora (default: with the best)",
    )
    report.set_defaults(command=_report)
    return parser


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 1 on")
    return int(text)


def _count(text: str) -> int:
    return 0 if text == "0" else _positive(text)


def _load(arguments: argparse.Namespace) -> Any:
    from lpt.classifier import LatePromptClassifier  # here, so that --help does not wait for torch

    return LatePromptClassifier.from_pretrained(
        arguments.adapter, arguments.accelerator, arguments.precision, quantization=arguments.quantization
    )


def _rows(arguments: argparse.Namespace) -> Iterator[tuple[str, ...]]:
    if arguments.file is None:
        yield from ((line.rstrip("\n"),) for line in sys.stdin)
        return
    columns = _read(arguments.file)
    sentences = [columns.column("--a", arguments.a)]
    if arguments.b is not None:
        sentences.append(columns.column("--b", arguments.b))
    yield from zip(*sentences, strict=True)


def _read(path: Path) -> Any:
    from lpt.data.readers import read_file

    if not path.is_file():
        raise LptError(f"--file: {path} does not exist")
    return read_file(path)


def _predict(arguments: argparse.Namespace) -> None:
    if arguments.glue is not None:
        _predict_glue(arguments)
        return
    rows = ((text,) for text in arguments.text) if arguments.text else _rows(arguments)
    classifier = _load(arguments)
    if arguments.output is None:
        _write_predictions(sys.stdout, classifier, rows, arguments.batch_size)
        return
    with _whole(arguments.output) as file:
        _write_predictions(file, classifier, rows, arguments.batch_size)


def _predict_glue(arguments: argparse.Namespace) -> None:
    from lpt.glue import answer, glue_task, read_test_sets

    if arguments.text or arguments.file:
        raise LptError("lpt predict --glue labels GLUE's test set; leave out --text and --file")
    if arguments.output is None:
        raise LptError("lpt predict --glue needs --output=<folder for the submission files>")
    classifier = _load(arguments)
    task = glue_task(classifier.config)
    test_sets = list(read_test_sets(task, arguments.glue))
    arguments.output.mkdir(parents=True, exist_ok=True)
    for name, rows in test_sets:
        with _whole(arguments.output / name) as file:
            file.write("index\tprediction\n")
            for i, (_, found) in enumerate(_answers(classifier, rows, arguments.batch_size)):
                file.write(f"{i}\t{answer(task, found)}\n")
        print(f"{len(rows)} rows in {arguments.output / name}")


@contextmanager
def _whole(path: Path) -> Iterator[IO[str]]:
    """To write the whole file or none."""
    partial = path.with_name(path.name + ".partial")
    with partial.open("w", encoding="utf-8") as file:
        yield file
    partial.replace(path)


def _write_predictions(file: IO[str], classifier: Any, rows: Iterable[tuple[str, ...]], batch_size: int) -> None:
    for text, found in _answers(classifier, rows, batch_size):
        said = {"label": found.label} if found.value is None else {"value": round(found.value, 6)}
        answer = {"text": text, **said, "probabilities": found.probabilities}
        file.write(json.dumps(answer, ensure_ascii=False) + "\n")


def _answers(classifier: Any, rows: Iterable[tuple[str, ...]], batch_size: int) -> Iterator[tuple[Any, Any]]:
    """Each text, or pair of texts, and its prediction."""
    rows = iter(rows)
    while chunk := list(islice(rows, STREAM)):
        texts = [row[0] if len(row) == 1 else row for row in chunk]
        yield from zip(texts, classifier.predict(texts, batch_size), strict=True)


def _evaluate(arguments: argparse.Namespace) -> None:
    import torch

    from lpt.data.labels import default_values, numbers
    from lpt.metrics import NUMBER_METRICS, compute, interval

    if arguments.file is None:
        raise LptError("lpt evaluate needs --file=<labeled CSV, TSV, JSONL or Parquet>")
    columns = _read(arguments.file)
    gold = [value.strip() for value in columns.column("--label", arguments.label)]
    classifier = _load(arguments)
    labels, value_range = classifier.config.labels, classifier.config.value_range
    if value_range is None:
        meaning = default_values(labels)
        for row, value in enumerate(gold):
            if value not in meaning:
                raise LptError(f"{arguments.file}, row {row}: label {value!r} is not one of {', '.join(labels)}")
        truth = torch.tensor([labels.index(meaning[value]) for value in gold])
        names, classes = ["accuracy", "matthews", *(["f1"] if len(labels) == 2 else [])], len(labels)
    else:
        truth, names, classes = torch.tensor(numbers(columns, gold, value_range)), list(NUMBER_METRICS), None
    rows = [row[0] if len(row) == 1 else row for row in _rows(arguments)]
    found = classifier.predict(rows, arguments.batch_size)
    predicted = torch.tensor([labels.index(p.label) if p.value is None else p.value for p in found])
    print(f"{len(found)} rows")
    for name, value in compute(names, predicted, truth, classes).items():
        low, high = interval(name, predicted, truth, classes)
        print(f"{name:<9} {value:.3f}  (95% interval {low:.3f} to {high:.3f})")


def _cache_list(arguments: argparse.Namespace) -> None:
    from rich.table import Table

    from lpt.cache.trunk import entries, human_bytes, trunk_folder
    from lpt.console import console

    found = entries(trunk_folder())
    names = ("backbone", "task", "split", "rows", "layer")
    table = Table(box=None, pad_edge=False)
    for heading in ("entry", "size", *names, "used last"):
        table.add_column(heading, no_wrap=True)
    for entry in sorted(found, key=lambda entry: -entry.used):
        used = time.strftime("%Y-%m-%d %H:%M", time.localtime(entry.used)) if entry.facts else "unfinished"
        facts = [str(entry.facts.get(name, "?")) for name in names]
        table.add_row(entry.place.name[:8], human_bytes(entry.bytes), *facts, used)
    if found:
        console.width = max(console.width, 110)  # whole, also in a pipe
        console.print(table)
    total = human_bytes(sum(entry.bytes for entry in found))
    console.print(f"{len(found)} entries, {total} in {trunk_folder()}", soft_wrap=True)


def _cache_clear(arguments: argparse.Namespace) -> None:
    from lpt.cache.trunk import clear, human_bytes, trunk_folder

    print(f"{human_bytes(clear(trunk_folder()))} removed from {trunk_folder()}")


def _sweep_status(arguments: argparse.Namespace) -> None:
    from lpt.sweep.commands import show_status

    show_status(arguments.folder)


def _sweep_resume(arguments: argparse.Namespace) -> None:
    from lpt.sweep.commands import resume

    resume(arguments.folder, arguments.workers, arguments.retries, arguments.accept_drift, arguments.failed_too)


def _sweep_results(arguments: argparse.Namespace) -> None:
    from lpt.sweep.commands import show_results

    show_results(arguments.folder, arguments.csv)


def _bench(arguments: argparse.Namespace) -> None:
    from lpt.bench.run import run_bench
    from lpt.config.command_line import compose_config

    overrides = arguments.overrides
    if not any(override.startswith("experiment=") for override in overrides):
        overrides = ["experiment=bench_roberta_base", *overrides]
    run_bench(compose_config(overrides))


def _report(arguments: argparse.Namespace) -> None:
    from lpt.report.words import findings, headline
    from lpt.report.write import write_report

    study, page = write_report(arguments.folder, arguments.output, arguments.baseline)
    print("\n".join([headline(study), *findings(study)]))
    if study.gaps:
        print(f"missing or failed: {len(study.gaps)}, listed on the page")
    for caution in study.cautions:
        print(f"take care: {caution}", file=sys.stderr)
    print(f"in {page}")
