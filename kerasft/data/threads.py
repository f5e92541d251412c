"""Reads many files at once, in threads, and gives the results in order."""

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def in_order(
    read: Callable[[Item], Result], items: Iterable[Item], *, workers: int, ahead: int
) -> Generator[Result, None, None]:
    """Yields `read(item)` of each item, in the order of the items.

    Args:
        read: called in several threads at once.
        items: what to read.
        workers: number of threads.
        ahead: how many items are read, or wait to be read, before the first result is taken.
            Bounded, because a hundred thousand futures would take 200 MB.

    Raises:
        Exception: what `read` raised, when the turn of that item comes.
    """
    waiting: deque[Future[Result]] = deque()
    pool = ThreadPoolExecutor(workers, "kerasft-images")
    try:
        for number, item in enumerate(items):
            if number == 1:  # so that what the first one compiles is not compiled in every thread
                wait(waiting)
            if len(waiting) == ahead:
                yield waiting.popleft().result()
            waiting.append(pool.submit(read, item))
        while waiting:
            yield waiting.popleft().result()
    finally:  # after Ctrl-C, or when the caller stops: nobody waits for the rest
        pool.shutdown(cancel_futures=True)
