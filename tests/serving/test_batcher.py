import asyncio
from threading import Event, current_thread

import pytest

from lpt.errors import LptError
from lpt.serving.batcher import Batcher, BusyError, ClosedError


def upper(rows):
    return [f"{task}: {text.upper()}" for task, text in rows]


def test_requests_that_come_together_are_answered_together_each_with_its_own():
    gate, batches = Event(), []

    def answer(rows):
        gate.wait(10)
        batches.append(len(rows))
        return upper(rows)

    async def ask():
        batcher = Batcher(answer, batch_rows=6, waiting_rows=100)
        asked = [asyncio.create_task(batcher.predict([("t", f"{i}{j}") for j in range(2)])) for i in range(8)]
        await asyncio.sleep(0.05)
        gate.set()
        found = await asyncio.gather(*asked)
        batcher.close()
        return found

    assert asyncio.run(ask()) == [[f"t: {i}{j}" for j in range(2)] for i in range(8)]
    assert sum(batches) == 16
    assert max(batches) == 6
    assert len(batches) < 8


def test_more_than_may_wait_is_refused_at_once_and_the_rest_answered():
    gate = Event()

    def answer(rows):
        gate.wait(10)
        return upper(rows)

    async def ask():
        batcher = Batcher(answer, batch_rows=1, waiting_rows=3)
        asked = [asyncio.create_task(batcher.predict([("t", str(i))])) for i in range(5)]
        await asyncio.sleep(0.05)
        assert batcher.waiting == 3
        gate.set()
        found = await asyncio.gather(*asked, return_exceptions=True)
        assert batcher.waiting == 0
        big = await batcher.predict([("t", "a")] * 9)  # where nothing waits, a large request is taken
        batcher.close()
        return found, big

    found, big = asyncio.run(ask())
    assert [isinstance(one, BusyError) for one in found] == [False] * 3 + [True] * 2
    assert len(big) == 9


def test_a_request_that_fails_does_not_take_others_with_it():
    def answer(rows):
        if any(text == "bad" for _, text in rows):
            raise LptError("no")
        return upper(rows)

    async def ask():
        batcher = Batcher(answer, batch_rows=10, waiting_rows=100)
        found = await asyncio.gather(
            *(batcher.predict([("t", text)]) for text in ("a", "bad", "b", "bad", "c")), return_exceptions=True
        )
        batcher.close()
        return found

    found = asyncio.run(ask())
    assert [one if isinstance(one, list) else str(one) for one in found] == [["t: A"], "no", ["t: B"], "no", ["t: C"]]


def test_closing_answers_all_that_was_taken_and_takes_nothing_new():
    async def ask():
        batcher = Batcher(upper, batch_rows=2, waiting_rows=1000)
        asked = [asyncio.create_task(batcher.predict([("t", str(i))])) for i in range(50)]
        await asyncio.sleep(0)
        await asyncio.to_thread(batcher.close)
        with pytest.raises(ClosedError):
            await batcher.predict([("t", "late")])
        return await asyncio.gather(*asked)

    assert asyncio.run(ask()) == [[f"t: {i}"] for i in range(50)]


def test_other_work_is_done_by_the_thread_that_owns_the_model():
    async def ask():
        batcher = Batcher(lambda rows: [current_thread().name] * len(rows), 4, 100)
        (one,) = await batcher.predict([("t", "a")])
        other = await batcher.call(lambda: current_thread().name)
        with pytest.raises(ZeroDivisionError):
            await batcher.call(lambda: 1 / 0)
        batcher.close()
        return one, other

    one, other = asyncio.run(ask())
    assert one == other == "lpt-serve"
