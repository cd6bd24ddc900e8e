"""Work on many files by threads in bounded memory, with results in the order of the files."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def in_order(
    items: Iterable[Item],
    work: Callable[[Item], Result],
    *,
    need: Callable[[Item], float],
    budget: float,
    most: int = 64,
) -> Iterator[tuple[Item, Result]]:
    """Each item with `work(item)`, computed by as many threads as there are cores.

    Large items wait: what is in work or waits to be taken never needs more than `budget`, unless
    one item alone does. Nothing depends on the threads but the time it takes.

    Args:
        items: what to work on. work: called in a thread; it must not raise.
        need: bytes that an item holds from its start until its result is taken.
        budget: bytes for all of them together.
        most: items at once, at most.
    """
    waiting: deque[tuple[Item, float, Future[Result]]] = deque()
    used = 0.0
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for item in items:
            size = need(item)
            while waiting and (used + size > budget or len(waiting) >= most):
                first, held, future = waiting.popleft()
                yield first, future.result()
                used -= held
            used += size
            waiting.append((item, size, pool.submit(work, item)))
        while waiting:
            first, held, future = waiting.popleft()
            yield first, future.result()
