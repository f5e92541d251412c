"""Batches of the images that wait, computed by one thread.

The thread takes what waits, up to a largest batch, computes it and takes again what has come
meanwhile. So an image alone is computed at once, and under load batches grow by themselves.
"""

import asyncio
import logging
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from kerasft.serving.limits import Limits
from kerasft.serving.meters import Meters

log = logging.getLogger("kerasft")

Row = Mapping[str, Any]
"""Outputs of a signature for one image, by name; only "error" for an image that is refused."""

Compute = Callable[[Sequence[Any]], Sequence[Row]]
"""A function from inputs, at least one, to a row for each."""


@dataclass(eq=False)
class _Job:
    """The images of a request.

    Attributes:
        compute: function that computes them.
        loop: event loop that waits for them.
        done: future of their rows.
        rows: rows by position; None until they are computed.
        left: number of rows that are None.
    """

    compute: Compute
    loop: asyncio.AbstractEventLoop
    done: asyncio.Future[Sequence[Row]]
    rows: list[Row | None]
    left: int


@dataclass(eq=False)
class _Item:
    """An image that waits: the job and the position in it, what is computed, its pixels."""

    job: _Job
    position: int
    given: Any
    pixels: int
    since: float = field(default_factory=time.perf_counter)


class Batcher:
    """The images that wait, and the thread that computes them."""

    def __init__(self, limits: Limits, meters: Meters) -> None:
        self._limits = limits
        self._meters = meters
        self._waiting: deque[_Item] = deque()
        self._changed = threading.Condition()
        self._stopping = False
        self._pace = 0.0  # seconds for an image, lately
        self._thread = threading.Thread(target=self._work, name="kerasft-serve", daemon=True)

    def start(self) -> None:
        """Starts the thread."""
        self._meters.waiting.set_function(lambda: len(self._waiting))
        self._thread.start()

    def stop(self) -> None:
        """Ends the thread after its batch; what still waits is not computed."""
        with self._changed:
            self._stopping = True
            self._changed.notify()
        if self._thread.is_alive():
            self._thread.join()

    @property
    def works(self) -> bool:
        """Whether the thread is there."""
        return self._thread.is_alive()

    def seconds_to_wait(self) -> int:
        """Returns after how many seconds there may be room again, 1 to 60."""
        return max(1, min(60, round(len(self._waiting) * self._pace)))

    async def submit(
        self, compute: Compute, items: Sequence[tuple[Any, int]], seconds: float
    ) -> Sequence[Row]:
        """Computes the rows of some images, together with those of other requests.

        Args:
            compute: function that computes them; images of one function share batches.
            items: what is computed, and the number of its pixels, at least one.
            seconds: time after which they are given up.

        Raises:
            queue.Full: too many images wait.
            TimeoutError: the time is over.
            Exception: what `compute` raised.
        """
        loop = asyncio.get_running_loop()
        job = _Job(compute, loop, loop.create_future(), [None] * len(items), len(items))
        with self._changed:
            if len(self._waiting) + len(items) > self._limits.queue:
                raise queue.Full
            self._waiting += [_Item(job, i, *item) for i, item in enumerate(items)]
            self._changed.notify()
        try:
            async with asyncio.timeout(seconds):
                return await job.done
        finally:
            if job.left:  # given up
                with self._changed:
                    self._waiting = deque(item for item in self._waiting if item.job is not job)

    def _work(self) -> None:
        while batch := self._take():
            start = time.perf_counter()
            self._compute(batch)
            seconds = time.perf_counter() - start
            self._pace += (seconds / len(batch) - self._pace) / 8
            self._meters.batch(len(batch), seconds, start - batch[0].since)

    def _take(self) -> list[_Item]:
        """Waits for images, and takes those of the next batch; none when the thread is to end."""
        with self._changed:
            while not self._waiting and not self._stopping:
                self._changed.wait()
            if self._stopping:
                return []
            batch, pixels = [self._waiting.popleft()], 0
            pixels = batch[0].pixels
            while self._waiting and len(batch) < self._limits.batch:
                following = self._waiting[0]
                pixels += following.pixels
                if following.job.compute != batch[0].job.compute or pixels > self._limits.pixels:
                    break
                batch.append(self._waiting.popleft())
            return batch

    def _compute(self, batch: list[_Item]) -> None:
        rows: Sequence[Row | Exception]
        try:
            rows = batch[0].job.compute([item.given for item in batch])
        except Exception as error:  # whatever it is, the thread goes on
            log.exception("a batch failed")
            rows = [error] * len(batch)
        finished: dict[asyncio.AbstractEventLoop, list[tuple[_Job, Exception | None]]] = {}
        for item, row in zip(batch, rows, strict=True):
            job = item.job
            if isinstance(row, Exception):
                finished.setdefault(job.loop, []).append((job, row))
                continue
            job.rows[item.position] = row
            job.left -= 1
            if not job.left:
                finished.setdefault(job.loop, []).append((job, None))
        for loop, jobs in finished.items():
            if not loop.is_closed():
                loop.call_soon_threadsafe(_finish, jobs)


def _finish(jobs: list[tuple[_Job, Exception | None]]) -> None:
    """Hands rows, or an error, to those that wait for them."""
    for job, error in jobs:
        if job.done.done():
            continue
        if error is not None:
            job.done.set_exception(error)
        else:
            job.done.set_result([row for row in job.rows if row is not None])
