"""Read rows, answer them, write them: a chunk at a time, in order."""

import time
from collections.abc import Iterable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from queue import Empty, Queue
from threading import Thread
from typing import TYPE_CHECKING, Any

from lpt.bars import Bar
from lpt.console import say_on_stderr, stderr
from lpt.data.reading import Reading
from lpt.data.text import text_problem
from lpt.errors import LptError
from lpt.scoring.answers import Answer, Columns, by_row, confidence
from lpt.scoring.records import Record, Records
from lpt.scoring.unfinished import Progress, note, unfinished
from lpt.scoring.writers import Writer, output_kind, writer_of

if TYPE_CHECKING:
    from lpt.classifier import Text

CHUNK = 512  # rows answered, written and noted together; those of a cache entry


@dataclass(frozen=True)
class Answering:
    """How rows are answered.

    Attributes:
        reading: which columns have the texts.
        columns: what the answers are written in.
        answer: gives them.
        sure: rows whose least sure label is below this are counted.
        blank: whether a row that cannot be answered gets no answer, instead of ending all.
    """

    reading: Reading
    columns: Columns
    answer: Answer
    sure: float
    blank: bool

    def answered(self, chunk: list[Record], progress: Progress) -> list[dict[str, Any]]:
        """The rows with their answers, and the progress with them counted.

        Raises:
            LptError: a row lacks a text, or has a column of the name of one that is added.
        """
        asked: list[tuple[int, Text]] = []
        for i, record in enumerate(chunk):
            text, problem = self._text(record)
            if problem is None:
                asked.append((i, text))
            elif not self.blank:
                raise LptError(f"{problem}; or have such rows stay without an answer: --on-error blank")
        found = by_row(self.answer([text for _, text in asked]), len(asked)) if asked else []
        answers = dict(zip((i for i, _ in asked), found, strict=True))
        progress.rows += len(chunk)
        progress.blank += len(chunk) - len(asked)
        progress.unsure += sum(confidence(one) < self.sure for one in found)
        return [record.values | self.columns.row(answers.get(i)) for i, record in enumerate(chunk)]

    def _text(self, record: Record) -> "tuple[Text, str | None]":
        texts = []
        for name in filter(None, (self.reading.a, self.reading.b)):
            if name not in record.values:
                return "", f"{record.place} has no column {name!r}"
            problem = text_problem(record.values[name])
            if problem is not None:
                return "", f"{record.place}: column {name!r} {problem}"
            texts.append(record.values[name])
        taken = [name for name in self.columns.names if name in record.values]
        if taken:
            return "", f"{record.place} {taken_column(taken[0])}"
        return (texts[0] if len(texts) == 1 else (texts[0], texts[1])), None


@dataclass(frozen=True)
class Job:
    """What is to be answered.

    Attributes:
        records: the rows.
        answering: how.
        part: of the rows, first and end; None: all.
        wanted: how many rows there are; None where nobody knows.
    """

    records: Records
    answering: Answering
    part: tuple[int, int] | None = None
    wanted: int | None = None

    def rows(self, skip: int) -> Iterator[Record]:
        """The rows that are to be answered, but for the first ones, which are."""
        first, end = self.part or (0, None)
        return islice(iter(self.records), first + skip, end)


def taken_column(name: str) -> str:
    """Complain of an input that has a column named like one that is added, as the end of a sentence."""
    return f"has a column {name!r} already; name those that are added otherwise: --prefix predicted_"


def score_file(job: Job, output: Path, command: dict[str, Any] | None, restart: bool, overwrite: bool) -> None:
    """Write all answers into a file, which has its name when it is complete.

    Args:
        job: what to answer.
        output: the file.
        command: what an unfinished output depends on; None: it cannot be continued.
        restart: begin anew where there is an unfinished one.
        overwrite: replace a finished one.

    Raises:
        LptError: a row that cannot be answered, or the file cannot be written; what was written stays to be continued.
    """
    kind, names = output_kind(output), job.records.columns()
    columns = None if names is None else [*names, *job.answering.columns.names]
    with unfinished(output, command, restart, overwrite) as (file, progress):
        writer = writer_of(file, kind, columns, job.records.schema())
        done = progress.rows
        if done:
            say_on_stderr(f"continuing after {done:,} rows")
        started = time.monotonic()
        total = job.wanted
        bar: Any = Bar("answering", total, done, on=stderr) if total is not None else nullcontext()
        with bar:
            try:
                for chunk in _chunks(job.rows(done)):
                    _write(writer, job.answering.answered(chunk, progress), job, chunk)
                    note(output, file, progress)
                    if total is not None:
                        bar.update(progress.rows, _speed(progress.rows - done, started))
            except KeyboardInterrupt:
                hint = "; the same command continues" if command is not None else ""
                raise KeyboardInterrupt(f"{progress.rows:,} rows are in {file.name}{hint}") from None
        file.flush()
        writer.finish(Path(file.name))
    say_on_stderr(_summary(job, progress, progress.rows - done, started))


def score_stream(job: Job, writer: Writer) -> None:
    """Write answers as they come, without waiting for rows that are not there yet.

    Raises:
        LptError: a row that cannot be answered; those before it are written.
    """
    progress, started = Progress(None), time.monotonic()
    for chunk in _as_they_come(job.rows(0)):
        _write(writer, job.answering.answered(chunk, progress), job, chunk)
    if stderr.is_terminal:
        say_on_stderr(_summary(job, progress, progress.rows, started))


def _write(writer: Writer, rows: list[dict[str, Any]], job: Job, chunk: list[Record]) -> None:
    if writer.columns is not None:
        known = set(writer.columns)
        for record in chunk:
            more = next((name for name in record.values if name not in known), None)
            if more is not None:
                raise LptError(f"{record.place} has the key {more!r}, which the first row lacks; write .jsonl")
    writer.write(rows)


def _chunks(rows: Iterable[Record]) -> Iterator[list[Record]]:
    rows = iter(rows)
    while chunk := list(islice(rows, CHUNK)):
        yield chunk


def _as_they_come(rows: Iterable[Record]) -> Iterator[list[Record]]:
    """Chunks of what is there: one row, where the next has not come yet."""
    waiting: Queue[Record | BaseException | None] = Queue(2 * CHUNK)

    def read() -> None:
        try:
            for row in rows:
                waiting.put(row)
            waiting.put(None)
        except BaseException as error:  # told where the rows are answered
            waiting.put(error)

    Thread(target=read, daemon=True).start()
    ended: BaseException | None = None
    more = True
    while more:
        chunk, found = [], waiting.get()
        while True:
            if not isinstance(found, Record):
                more, ended = False, found
                break
            chunk.append(found)
            if len(chunk) == CHUNK:
                break
            try:
                found = waiting.get_nowait()
            except Empty:
                break
        if chunk:
            yield chunk
    if ended is not None:
        raise ended


def _speed(rows: int, started: float) -> str:
    return f"{rows / max(time.monotonic() - started, 1e-9):,.0f} rows/s"


def _summary(job: Job, progress: Progress, rows: int, started: float) -> str:
    parts = [f"{progress.rows:,} rows", _speed(rows, started)]
    if any(config.value_range is None for config in job.answering.columns.tasks.values()):
        parts.append(f"{progress.unsure:,} below {job.answering.sure:g}")
    if progress.blank:
        parts.append(f"{progress.blank:,} without an answer")
    return ", ".join(parts)
