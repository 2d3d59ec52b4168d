"""Work done ahead by threads, handed out in order. Used by the latents and the loader."""

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def in_order(
    function: Callable[[Item], Result], items: Iterable[Item], *, workers: int, ahead: int = 0
) -> Generator[Result, None, None]:
    """`function` of every item, in the order of the items, from `workers` threads, or from this one if that is 0.

    They work on at most `ahead` items that were not asked for yet (at least on two each). What `function` raises
    comes out where its result would. Closing the iterator ends the threads.
    """
    if workers == 0:
        yield from map(function, items)
        return
    waiting: deque[Future[Result]] = deque()
    pool = ThreadPoolExecutor(max_workers=workers, thread_name_prefix="prefetch")
    try:
        for item in items:
            waiting.append(pool.submit(function, item))
            if len(waiting) > max(ahead, 2 * workers):
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)
