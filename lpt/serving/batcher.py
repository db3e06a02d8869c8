"""One thread that owns the model, and answers together whatever requests are waiting.

There is no pause in which requests are collected: while some are answered others come in, and those are the next batch.
So a single request waits for nothing, and many share their passes.

The thread loads the model too: OpenMP gives every thread that computes helpers of its own, and where there are more of
them than processors each of its many small steps takes ten times as long.
"""

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from itertools import accumulate
from queue import Empty, SimpleQueue
from threading import Lock, Thread
from typing import Any, TypeVar

from lpt.classifier import Prediction, Text
from lpt.errors import LptError

T = TypeVar("T")
Rows = Sequence[tuple[str, Text]]  # task and text


class BusyError(LptError):
    """More rows are waiting than there may be."""


class ClosedError(LptError):
    """The server is ending and takes nothing new."""


class Batcher:
    """Answers rows in the order that they come, several requests at a time.

    Args:
        answer: rows -> predictions, in their order; called by one thread alone.
        batch_rows: the most rows that requests are put together to; a single request may have more.
        waiting_rows: the most rows that may wait.
    """

    def __init__(self, answer: Callable[[Rows], list[Prediction]], batch_rows: int, waiting_rows: int):
        self.answer, self.batch_rows, self.waiting_rows = answer, batch_rows, waiting_rows
        self.waiting = 0
        self.batches: list[Callable[[int], None]] = []  # told how many rows each batch has
        self._closed, self._lock = False, Lock()
        self._queue: SimpleQueue[tuple[Rows, Callable[[], Any] | None, Future[Any]] | None] = SimpleQueue()
        self._thread = Thread(target=self._work, name="lpt-serve", daemon=True)
        self._thread.start()

    async def predict(self, rows: Rows) -> list[Prediction]:
        """Wait for the answers to these rows.

        Raises:
            BusyError: too many are waiting.
            ClosedError: the server is ending.
            LptError: the rows cannot be answered.
        """
        found: list[Prediction] = await asyncio.wrap_future(self._put(rows, None))
        return found

    async def call(self, work: Callable[[], T]) -> T:
        """Have the thread that owns the model do something else in between."""
        done: T = await asyncio.wrap_future(self._put((), work))
        return done

    def do(self, work: Callable[[], T]) -> T:
        """The same, and wait for it here."""
        done: T = self._put((), work).result()
        return done

    def close(self) -> None:
        """Take nothing new, and end when all that was taken is answered."""
        with self._lock:
            if not self._closed:
                self._closed = True
                self._queue.put(None)
        self._thread.join()

    @property
    def closed(self) -> bool:
        """Whether nothing new is taken."""
        return self._closed

    def _put(self, rows: Rows, work: Callable[[], Any] | None) -> "Future[Any]":
        future: Future[Any] = Future()
        with self._lock:
            if self._closed:
                raise ClosedError("the server is ending")
            if self.waiting and self.waiting + len(rows) > self.waiting_rows:
                raise BusyError(f"{self.waiting} rows are waiting, and {self.waiting_rows} may; try again in a moment")
            self.waiting += len(rows)
            self._queue.put((rows, work, future))
        return future

    def _work(self) -> None:
        taken = self._queue.get()
        while taken is not None:
            if taken[1] is not None:
                self._do(taken[1], taken[2])
                taken = self._queue.get()
                continue
            batch = [taken]
            taken = self._collect(batch)
            self._answer([(rows, future) for rows, _, future in batch])
            if taken is _NOTHING:
                taken = self._queue.get()

    def _collect(self, batch: list[Any]) -> Any:
        """Add what is waiting to a batch; what comes behind it, `_NOTHING` if nothing does."""
        rows = len(batch[0][0])
        while True:
            try:
                following = self._queue.get_nowait()
            except Empty:
                return _NOTHING
            if following is None or following[1] is not None or rows + len(following[0]) > self.batch_rows:
                return following
            batch.append(following)
            rows += len(following[0])

    def _answer(self, batch: list[tuple[Rows, "Future[Any]"]]) -> None:
        every = [row for rows, _ in batch for row in rows]
        for told in self.batches:
            told(len(every))
        done: list[list[Prediction] | Exception]
        try:
            found = self.answer(every)
        except Exception as error:
            # One of several is at fault: each alone, so that the others have their answers.
            done = [_tried(self.answer, rows) for rows, _ in batch] if len(batch) > 1 else [error]
        else:
            ends = list(accumulate(len(rows) for rows, _ in batch))
            done = [found[end - len(rows) : end] for end, (rows, _) in zip(ends, batch, strict=True)]
        with self._lock:
            self.waiting -= len(every)
        for one, (_, future) in zip(done, batch, strict=True):
            if isinstance(one, Exception):
                future.set_exception(one)
            else:
                future.set_result(one)

    def _do(self, work: Callable[[], Any], future: "Future[Any]") -> None:
        try:
            future.set_result(work())
        except Exception as error:
            future.set_exception(error)


def _tried(answer: Callable[[Rows], list[Prediction]], rows: Rows) -> list[Prediction] | Exception:
    try:
        return answer(rows)
    except Exception as error:
        return error


_NOTHING: Any = object()
