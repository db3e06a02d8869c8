"""Answers by Ray Data, on the processors of one machine or of a cluster: `lpt predict --engine ray`.

Ray reads the input, divides it, restarts what fails, and writes the output as a folder of parts; each worker holds the
adapters and answers batches, as the command does by itself. Needs `ray[data]`.
"""

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lpt.console import say_on_stderr, stderr
from lpt.data.reading import Reading
from lpt.errors import LptError
from lpt.scoring.answers import Answer, Columns
from lpt.scoring.records import Record
from lpt.scoring.score import CHUNK, Answering
from lpt.scoring.unfinished import Progress

if TYPE_CHECKING:
    from collections.abc import Callable

    from lpt.adapter import AdapterConfig

READERS = {".csv": "read_csv", ".jsonl": "read_json", ".parquet": "read_parquet"}
WRITERS = {".csv": "write_csv", ".jsonl": "write_json", ".parquet": "write_parquet"}


class Worker:
    """Holds the adapters and answers batches of rows.

    Args:
        load: gives the tasks, and what answers for them.
        reading: which columns have the texts.
        prefix: of the added columns.
        flat: whether each class has a column.
        blank: whether a row that cannot be answered gets no answer, instead of ending all.
    """

    def __init__(
        self,
        load: "Callable[[], tuple[dict[str, AdapterConfig], Answer]]",
        reading: Reading,
        prefix: str,
        flat: bool,
        blank: bool,
    ):
        tasks, answer = load()
        self.answering = Answering(reading, Columns(tasks, prefix, flat), answer, 0.0, blank)

    def __call__(self, table: Any) -> Any:
        """An Arrow table of rows -> the same with their answers."""
        import pyarrow

        rows = [Record(values, f"a row {values!r:.60}") for values in table.to_pylist()]
        return pyarrow.Table.from_pylist(self.answering.answered(rows, Progress(None)))


def score_with_ray(path: Path, output: Path, overwrite: bool, worker: dict[str, Any], workers: int) -> None:
    """Answer a file, and write the answers as a folder of parts.

    Args:
        path: `.csv`, `.jsonl` or `.parquet`.
        output: the folder; its extension says what the parts are.
        overwrite: replace it if it is there.
        worker: the arguments of `Worker`.
        workers: how many answer at a time, each with a GPU of its own if the cluster has any.

    Raises:
        LptError: a kind of file that Ray does not read or write here, or the output is there.
    """
    import ray

    for option, place, kinds in (("--input", path, READERS), ("--output", output, WRITERS)):
        if place.suffix not in kinds:
            raise LptError(f"{option} {place}: --engine ray takes {', '.join(kinds)}")
    if output.exists() and not overwrite:
        raise LptError(f"--output {output} is there already; name another folder, or replace it with --overwrite")
    if not ray.is_initialized():
        ray.init(include_dashboard=False, log_to_driver=False, configure_logging=False)
    for name in ("ray.data", "ray"):
        logging.getLogger(name).setLevel(logging.WARNING)
    context = ray.data.DataContext.get_current()
    context.execution_options.preserve_order = True
    context.enable_progress_bars = stderr.is_terminal
    options = {"lines": True} if path.suffix == ".jsonl" else {}
    gpus = ray.cluster_resources().get("GPU")  # type: ignore[no-untyped-call, unused-ignore]
    rows = getattr(ray.data, READERS[path.suffix])(str(path.absolute()), **options)
    answered = rows.map_batches(
        Worker,
        fn_constructor_kwargs=worker,
        batch_size=CHUNK,
        batch_format="pyarrow",
        compute=ray.data.ActorPoolStrategy(size=workers),
        num_gpus=1 if gpus else 0,
    )
    getattr(answered, WRITERS[output.suffix])(str(output.absolute()), mode="overwrite")
    say_on_stderr(f"{rows.count():,} rows in {output}")
