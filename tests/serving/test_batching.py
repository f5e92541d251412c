"""Images that wait are computed together; none waits for others to come."""

import asyncio
import queue
import threading
import time

import pytest
from starlette.exceptions import HTTPException
from starlette.requests import Request

from kerasft.serving.app import Serving
from kerasft.serving.batching import Batcher
from kerasft.serving.limits import Bodies, Limits
from kerasft.serving.meters import Meters

SMALL = Limits(batch=4, queue=10, pixels=100)


class Recorder:
    """A signature that keeps its batches, and computes only while it is let."""

    def __init__(self):
        self.batches = []
        self.let = threading.Event()
        self.began = threading.Event()

    def __call__(self, given):
        self.began.set()
        assert self.let.wait(10)
        self.batches.append(list(given))
        if "fails" in given:
            raise RuntimeError("a fault")
        return [{"out": one} for one in given]


def run(test):
    """Runs a coroutine function of a batcher and a recorder."""

    async def inside():
        batcher = Batcher(SMALL, Meters())
        batcher.start()
        recorder = Recorder()
        try:
            await test(batcher, recorder)
        finally:
            recorder.let.set()
            batcher.stop()

    asyncio.run(inside())


def send(batcher, recorder, *given, pixels=1, seconds=10):
    items = [(one, pixels) for one in given]
    return asyncio.ensure_future(batcher.submit(recorder, items, seconds))


async def first_is_computed(recorder):
    while not recorder.began.is_set():
        await asyncio.sleep(0.001)


def test_an_image_alone_does_not_wait_and_those_that_come_meanwhile_share_a_batch():
    async def test(batcher, recorder):
        alone = send(batcher, recorder, "a")
        await first_is_computed(recorder)
        others = [send(batcher, recorder, name) for name in "bcdefg"]
        await asyncio.sleep(0.01)
        recorder.let.set()
        assert await alone == [{"out": "a"}]
        assert [(await one)[0]["out"] for one in others] == list("bcdefg")
        assert recorder.batches == [["a"], ["b", "c", "d", "e"], ["f", "g"]]

    run(test)


def test_a_request_gets_its_rows_in_order_whatever_batches_they_were_in():
    async def test(batcher, recorder):
        recorder.let.set()
        rows = await send(batcher, recorder, *range(10))
        assert [row["out"] for row in rows] == list(range(10))
        assert [len(batch) for batch in recorder.batches] == [4, 4, 2]

    run(test)


def test_large_images_share_no_batch():
    async def test(batcher, recorder):
        first = send(batcher, recorder, "a")
        await first_is_computed(recorder)
        large = send(batcher, recorder, "b", "c", "d", pixels=40)
        huge = send(batcher, recorder, "e", "f", pixels=100)
        await asyncio.sleep(0.01)
        recorder.let.set()
        await asyncio.gather(first, large, huge)
        assert recorder.batches == [["a"], ["b", "c"], ["d"], ["e"], ["f"]]

    run(test)


def test_other_signatures_and_versions_have_batches_of_their_own():
    async def test(batcher, recorder):
        other = Recorder()
        other.let.set()
        first = send(batcher, recorder, "a")
        await first_is_computed(recorder)
        waiting = [send(batcher, one, "b") for one in (recorder, recorder, other, recorder)]
        await asyncio.sleep(0.01)
        recorder.let.set()
        await asyncio.gather(first, *waiting)
        assert (recorder.batches, other.batches) == ([["a"], ["b", "b"], ["b"]], [["b"]])

    run(test)


def test_too_many_are_refused_and_those_that_wait_are_kept():
    async def test(batcher, recorder):
        first = send(batcher, recorder, "a")
        await first_is_computed(recorder)
        waiting = send(batcher, recorder, *range(8))
        await asyncio.sleep(0)
        with pytest.raises(queue.Full):
            await send(batcher, recorder, *range(3))
        fits = send(batcher, recorder, *range(2))
        await asyncio.sleep(0)
        recorder.let.set()
        assert len(await waiting) == 8 and len(await fits) == 2 and await first

    run(test)


def test_images_that_are_given_up_are_not_computed_and_leave_room():
    async def test(batcher, recorder):
        first = send(batcher, recorder, "a")
        await first_is_computed(recorder)
        late = send(batcher, recorder, *range(10), seconds=0.01)
        with pytest.raises(TimeoutError):
            await late
        gone = send(batcher, recorder, *range(10))
        await asyncio.sleep(0)
        gone.cancel()
        await asyncio.sleep(0)
        fits = send(batcher, recorder, *"bcdefghijk")
        await asyncio.sleep(0)
        recorder.let.set()
        assert len(await fits) == 10 and await first
        assert [one for batch in recorder.batches for one in batch] == list("abcdefghijk")

    run(test)


def test_images_of_a_client_that_has_gone_are_not_computed():
    async def test(batcher, recorder):
        first = send(batcher, recorder, "a")
        await first_is_computed(recorder)
        serving = Serving("pets", None, batcher, Bodies(SMALL), SMALL, Meters())
        gone = asyncio.Event()

        async def receive():
            await gone.wait()
            return {"type": "http.disconnect"}

        request = Request({"type": "http"}, receive)
        waiting = asyncio.ensure_future(serving.compute(request, recorder, [("b", 1)]))
        await asyncio.sleep(0.01)
        assert not waiting.done()
        gone.set()
        with pytest.raises(HTTPException, match="The client went away"):
            await waiting
        recorder.let.set()
        await first
        await send(batcher, recorder, "c")
        assert recorder.batches == [["a"], ["c"]]

    run(test)


def test_a_batch_that_fails_does_not_stop_the_thread():
    async def test(batcher, recorder):
        recorder.let.set()
        with pytest.raises(RuntimeError, match="a fault"):
            await send(batcher, recorder, "fails")
        assert await send(batcher, recorder, "a") == [{"out": "a"}]
        assert batcher.works

    run(test)


def test_time_to_wait_is_that_of_the_images_that_wait():
    async def test(batcher, recorder):
        assert batcher.seconds_to_wait() == 1
        first = send(batcher, recorder, "a")
        await first_is_computed(recorder)
        await asyncio.sleep(2)
        recorder.let.set()
        await first
        recorder.let.clear()
        waiting = send(batcher, recorder, *range(10))
        await asyncio.sleep(0.05)
        assert 1 <= batcher.seconds_to_wait() <= 3  # 2 s counted by an eighth, 6 that wait
        recorder.let.set()
        await waiting

    start = time.perf_counter()
    run(test)
    assert time.perf_counter() - start < 5
