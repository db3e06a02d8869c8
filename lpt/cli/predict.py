"""`lpt predict`: label texts with one adapter or with several."""

import argparse
import os
import re
import sys
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lpt.adapter import AdapterConfig, adapter_folder, load_adapter_config
from lpt.cli.adapters import adapter_options, add_plugins, check_input, given_reading, load_adapter, named_adapters
from lpt.cli.arguments import Commands, fraction, positive
from lpt.cli.review import CONFIDENCE
from lpt.data.reading import Reading
from lpt.errors import LptError
from lpt.files import whole_file

if TYPE_CHECKING:
    from lpt.scoring.answers import Answer
    from lpt.scoring.score import Job

Adapters = dict[str, tuple[Path, AdapterConfig]]
SLURM = "slurm"
STDIN_FORMATS = ("csv", "tsv", "jsonl")


def add(commands: Commands) -> None:
    """Add the command."""
    predict = commands.add_parser(
        "predict",
        parents=[adapter_options(several=True)],
        help="label texts",
        description="Label texts with an adapter, or with several, which read each text once. The columns of the input "
        "are kept, and the label, its probability and that of each class added. Without --output, prints a JSON object "
        "for each row as soon as it is there. With --glue, writes the files that GLUE's server takes.",
    )
    predict.add_argument(
        "--text",
        nargs="+",
        action="extend",
        help="the texts, instead of --input or stdin; one that begins with -: --text=-meh",
    )
    predict.add_argument("--stdin", choices=STDIN_FORMATS, help="what stdin has (default: one text per line)")
    predict.add_argument(
        "--output", type=Path, metavar="FILE", help="a .csv, .tsv, .jsonl or .parquet to write (default: stdout)"
    )
    _add_options_of_files(predict.add_argument_group("large files"))
    predict.add_argument(
        "--glue",
        metavar="FOLDER",
        help="label the test set in GLUE's folder, or in that of the task; --output is then a folder",
    )
    predict.set_defaults(command=_predict)


def _add_options_of_files(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--prefix", default="", metavar="TEXT", help="what the names of the added columns begin with")
    group.add_argument(
        "--on-error",
        choices=("stop", "blank"),
        default="stop",
        help="what becomes of a row without a text: stop there, or leave its answers blank (default: stop)",
    )
    group.add_argument("--overwrite", action="store_true", help="replace an --output that is there")
    group.add_argument(
        "--restart", action="store_true", help="begin anew instead of continuing an interrupted --output"
    )
    group.add_argument(
        "--engine",
        choices=("local", "ray"),
        default="local",
        help="local: this process; ray: workers of Ray Data, perhaps of a cluster, and --output is a folder of parts",
    )
    group.add_argument(
        "--workers",
        type=positive,
        default=1,
        help="of Ray, each with the model, and a GPU if there are any (default: 1)",
    )
    group.add_argument(
        "--shard",
        type=_shard,
        default=(),
        metavar="I/N",
        help=f"answer the I-th of N equal parts of the rows alone; {SLURM}: as the job of an array",
    )
    group.add_argument(
        "--cache", action="store_true", help="keep what was read of the texts on disk, for the next adapter over them"
    )
    group.add_argument(
        "--confidence",
        type=fraction,
        default=CONFIDENCE,
        metavar="P",
        help=f"tell at the end how many rows are below this probability (default: {CONFIDENCE})",
    )


def _shard(text: str) -> tuple[int, int] | None:
    """Part and number of parts; None: those of the Slurm array that this is a job of."""
    if text == SLURM:
        return None
    found = re.fullmatch(r"(\d+)/(\d+)", text, re.ASCII)
    if found is None or not 1 <= int(found[1]) <= int(found[2]):
        raise argparse.ArgumentTypeError(f"{text!r} must be such as 1/8, from 1/8 to 8/8, or {SLURM}")
    return int(found[1]), int(found[2])


def _predict(arguments: argparse.Namespace) -> None:
    if arguments.glue is not None:
        _predict_glue(arguments)
        return
    _check(arguments)
    adapters = named_adapters(arguments.adapters)
    if arguments.output is not None:
        from lpt.scoring.writers import output_kind

        output_kind(arguments.output)
    if arguments.engine == "ray":
        _score_with_ray(arguments, adapters)
        return
    job = _job(arguments, adapters)
    if arguments.output is None:
        from lpt.scoring.score import score_stream
        from lpt.scoring.writers import Writer

        score_stream(job, Writer(sys.stdout.buffer))
        return
    from lpt.scoring.score import score_file

    command = None if str(job.records.path) == "-" else _depends_on(arguments, job, adapters)
    score_file(job, arguments.output, command, arguments.restart, arguments.overwrite)


def _check(arguments: argparse.Namespace) -> None:
    """Raises LptError for options that do not go together, before torch is imported."""
    check_input(arguments)
    if arguments.text and arguments.input:
        raise LptError("lpt predict labels --text or --input, not both; remove one")
    if arguments.text:
        from lpt.data.text import text_problem

        # An argument that is not UTF-8 has been read by Python as half characters.
        for number, text in enumerate(arguments.text, start=1):
            problem = text_problem(text)
            if problem is not None:
                raise LptError(f"--text: text {number} {problem}")
    from_file = arguments.input is not None and str(arguments.input) != "-"
    if arguments.stdin and (from_file or arguments.text):
        raise LptError(f"--stdin {arguments.stdin} says what stdin has; the extension says it of a file")
    if arguments.shard is None:
        arguments.shard = _of_slurm()
    if arguments.shard and not from_file:
        raise LptError("--shard divides the rows of a file; name it with --input")
    if arguments.cache and len(arguments.adapters) > 1:
        raise LptError("--cache goes with one adapter; several read each text once as it is")


def _of_slurm() -> tuple[int, int]:
    try:
        number, first, count = (int(os.environ[f"SLURM_ARRAY_TASK_{name}"]) for name in ("ID", "MIN", "COUNT"))
        step = int(os.environ.get("SLURM_ARRAY_TASK_STEP", "1"))
    except (KeyError, ValueError):
        raise LptError(
            f"--shard {SLURM} is for a job of a Slurm array (sbatch --array=1-8), and SLURM_ARRAY_TASK_ID, _MIN and "
            "_COUNT are not set here; give --shard 1/8"
        ) from None
    return (number - first) // step + 1, count


def _job(arguments: argparse.Namespace, adapters: Adapters) -> "Job":
    """What the options ask for; the input's columns are looked at before the model is loaded."""
    from lpt.scoring.records import STDIN, TEXT, Given, Records

    reading = given_reading(arguments, next(iter(adapters.values()))[1].reading)
    records: Any
    if arguments.text:
        records = Given(arguments.text)
    elif arguments.input is None or str(arguments.input) == "-":
        records = Records(STDIN, f".{arguments.stdin}" if arguments.stdin else "", reading.format)
    else:
        records = Records.of(arguments.input, reading.format)
    if not records.kind:
        reading = Reading(a=TEXT)
    known = records.columns()
    if known is not None and records.kind:
        _check_columns(records.name, known, reading)
    tasks, answer = _answers(arguments, adapters)
    from lpt.scoring.answers import Columns
    from lpt.scoring.score import Answering, Job, taken_column

    flat = arguments.output is not None and arguments.output.suffix != ".jsonl"
    columns = Columns(tasks, arguments.prefix, flat)
    taken = [name for name in columns.names if name in (known or ())]
    if taken:
        raise LptError(f"{records.name} {taken_column(taken[0])}")
    total = records.count() if arguments.output is not None or arguments.shard else None
    part = None
    if arguments.shard:
        assert total is not None
        number, parts = arguments.shard
        part = (total * (number - 1) // parts, total * number // parts)
    wanted = total if part is None else part[1] - part[0]
    answering = Answering(reading, columns, answer, arguments.confidence, arguments.on_error == "blank")
    return Job(records, answering, part, wanted)


def _check_columns(name: str, known: list[str], reading: Reading) -> None:
    from lpt.data.readers import Columns

    columns = Columns(known, [], name)
    for option, column in (("--a", reading.a), ("--b", reading.b)):
        if column is not None:
            columns.cells(option, column)


def _score_with_ray(arguments: argparse.Namespace, adapters: Adapters) -> None:
    """Have Ray answer the rows of a file."""
    for option, given in (("--shard", arguments.shard), ("--cache", arguments.cache), ("--restart", arguments.restart)):
        if given:
            raise LptError(f"{option} goes with --engine local; remove it: Ray divides and repeats by itself")
    if arguments.input is None or arguments.output is None:
        raise LptError("--engine ray needs --input <file> and --output <folder of parts>, such as answers.parquet")
    if find_spec("ray") is None:
        raise LptError("--engine ray needs ray, not installed here: pip install 'lpt[ray]'")
    from lpt.scoring.ray_engine import score_with_ray

    worker = {
        "load": partial(_answers, arguments, adapters),
        "reading": given_reading(arguments, next(iter(adapters.values()))[1].reading),
        "prefix": arguments.prefix,
        "flat": arguments.output.suffix != ".jsonl",
        "blank": arguments.on_error == "blank",
    }
    score_with_ray(arguments.input, arguments.output, arguments.overwrite, worker, arguments.workers)


def _answers(arguments: argparse.Namespace, adapters: Adapters) -> "tuple[dict[str, AdapterConfig], Answer]":
    """The tasks, and what answers for them."""
    if len(adapters) == 1:
        ((name, (folder, _)),) = adapters.items()
        classifier = load_adapter(folder, arguments)
        cache = None
        if arguments.cache:
            from lpt.cache.trunk import TrunkCache

            belongs_to = {"backbone": classifier.config.backbone, "task": classifier.config.task}
            cache = TrunkCache("disk", belongs_to=belongs_to, say=lambda _: None)
        return {name: classifier.config}, lambda texts: {
            name: classifier.predict(texts, arguments.batch_size, cache=cache)
        }
    add_plugins(arguments)
    from lpt.many_tasks import MultiTaskClassifier

    folders = {name: folder for name, (folder, _) in adapters.items()}
    many = MultiTaskClassifier(
        folders, arguments.accelerator, arguments.precision, arguments.quantization, arguments.backbone
    )
    return many.tasks, lambda texts: many.predict(texts, batch_size=arguments.batch_size)


def _depends_on(arguments: argparse.Namespace, job: "Job", adapters: Adapters) -> dict[str, Any]:
    """What an unfinished output is continued for, and for nothing else."""
    path, reading = job.records.path, job.answering.reading
    facts = path.stat()
    return {
        "input": [str(path.absolute()), facts.st_size, facts.st_mtime_ns],
        "adapters": {name: [config.tensors, config.temperature] for name, (_, config) in adapters.items()},
        "columns": [reading.a, reading.b, *job.answering.columns.names],
        "shard": arguments.shard and list(arguments.shard),
        "precision and quantization": [arguments.precision, arguments.quantization],
        "confidence": arguments.confidence,
        "on-error": arguments.on_error,
    }


def _predict_glue(arguments: argparse.Namespace) -> None:
    from lpt.glue import answer, glue_task, read_test_sets

    if arguments.text or arguments.input or len(arguments.adapters) > 1:
        raise LptError("lpt predict --glue labels GLUE's test set with one adapter; remove --text, --input and others")
    if arguments.output is None:
        raise LptError("lpt predict --glue needs --output=<folder for the submission files>")
    folder = adapter_folder(arguments.adapters[0])
    config = load_adapter_config(folder)
    task = glue_task(config)
    classifier = load_adapter(folder, arguments)
    for name, rows in read_test_sets(task, arguments.glue, given_reading(arguments, config.reading)):
        texts: list[Any] = [row[0] if len(row) == 1 else row for row in rows]
        with whole_file(arguments.output / name) as file:
            file.write("index\tprediction\n")
            for i, found in enumerate(classifier.predict(texts, arguments.batch_size)):
                file.write(f"{i}\t{answer(task, found)}\n")
        print(f"{len(rows)} rows in {arguments.output / name}")
