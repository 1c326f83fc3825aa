"""A call through an executor's queue: `submit`, and what a worker thread does with what it finds there.

The thread itself is left out: handing over between two threads takes twenty times as long as what is measured, and
varies by more.
"""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager
from itertools import repeat
from time import perf_counter_ns
from typing import Any

from .measure import Timed

Submit = Callable[..., Future[Any]]


class ThreadlessExecutor(ThreadPoolExecutor):
    """Starts no thread: what was submitted is run by `work`."""

    def _adjust_thread_count(self) -> None:
        pass

    def work(self) -> None:
        """Takes the next call from the queue and makes it, as a worker thread does."""
        queue: Any = self._work_queue  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType, reportUnknownVariableType]
        queue.get_nowait().run()


def nothing() -> None:
    """Returns at once."""


def submitted(submit: Submit, parent: Callable[[], AbstractContextManager[Any]]) -> Timed:
    """Calls sent with `submit` and made one after the other while the span `parent()` is current."""
    executor = ThreadlessExecutor(1)
    work = executor.work

    def run(n: int) -> int:
        with parent():
            start = perf_counter_ns()
            for _ in repeat(None, n):
                submit(executor, nothing)
                work()
            return perf_counter_ns() - start

    return run
