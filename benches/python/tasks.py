"""Tasks inside a current span, with and without spans of their own: one after the other, and many at once."""

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import AbstractContextManager
from itertools import repeat
from time import perf_counter_ns
from typing import Any

from .measure import Timed

CONCURRENT = 10_000


async def noop() -> None:
    """Returns at once."""


async def ten_steps() -> None:
    """Gives the other tasks their turn ten times."""
    for _ in repeat(None, 10):
        await asyncio.sleep(0)


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


def concurrent_tasks(
    body: Callable[[], Coroutine[Any, Any, None]],
    parent: Callable[[], AbstractContextManager[Any]],
    loop: asyncio.AbstractEventLoop,
) -> Timed:
    """Tasks of `body`, all of which are alive at once, made and awaited while the span `parent()` is current."""
    create_task = asyncio.create_task

    async def drive(n: int) -> int:
        with parent():
            start = perf_counter_ns()
            tasks = [create_task(body()) for _ in repeat(None, n)]
            for task in tasks:
                await task
            return perf_counter_ns() - start

    def run(n: int) -> int:
        return loop.run_until_complete(drive(n))

    return run
