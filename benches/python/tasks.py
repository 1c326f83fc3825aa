"""`await create_task(noop())` inside a current span, with and without a span for the task."""

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import AbstractContextManager
from itertools import repeat
from time import perf_counter_ns
from typing import Any

from .measure import Timed


async def noop() -> None:
    """Returns at once."""


def awaited_tasks(
    body: Callable[[], Coroutine[Any, Any, None]],
    parent: Callable[[], AbstractContextManager[Any]],
    loop: asyncio.AbstractEventLoop | None = None,
) -> Timed:
    """Tasks of `body` made and awaited one after the other while the span `parent()` is current."""
    loop = loop or asyncio.new_event_loop()
    create_task = asyncio.create_task

    async def drive(n: int) -> int:
        with parent():
            start = perf_counter_ns()
            for _ in repeat(None, n):
                await create_task(body())
            return perf_counter_ns() - start

    def run(n: int) -> int:
        return loop.run_until_complete(drive(n))

    return run
