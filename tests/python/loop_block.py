"""Blocks of an event loop that last until the watch has found them: nothing here depends on how fast the machine is."""

import asyncio
import gc
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from rvh_trace._rvh_trace import LoopWatch

WATCHDOG_S = 20.0
THREAD = "rvh-trace-watch"


def until(condition: Callable[[], object], between: Callable[[], object] = lambda: time.sleep(0.005)) -> None:
    """Holds the calling thread until `condition`; fails after `WATCHDOG_S`."""
    deadline = time.monotonic() + WATCHDOG_S
    while not condition():
        assert time.monotonic() < deadline
        between()


def asleep(watch: LoopWatch) -> None:
    until(lambda: watch.is_blocked)


def computing(watch: LoopWatch) -> None:
    until(lambda: watch.is_blocked, lambda: sum(range(1_000)))


def collecting(watch: LoopWatch) -> None:
    until(lambda: watch.is_blocked, gc.collect)


async def block(watch: LoopWatch) -> None:
    asleep(watch)


async def until_it_is_back(watch: LoopWatch) -> None:
    """Until the loop has beaten again."""
    while watch.is_blocked:  # noqa: ASYNC110 - what is waited for is that the loop runs
        await asyncio.sleep(0.001)


def watching_threads() -> int:
    """How many threads of this process watch."""
    count = 0
    for name in Path("/proc/self/task").glob("*/comm"):
        try:
            count += name.read_text().strip() == THREAD
        except OSError:  # It ended in between.
            pass
    return count


@contextmanager
def no_watch_left() -> Iterator[None]:
    """Within the block every watch ends, and with the last one the thread."""
    yield
    until(lambda: watching_threads() == 0)
