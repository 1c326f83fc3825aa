"""Rust futures that another extension module makes and Python awaits: `rvh_trace_client::python`.

The module is that of the tests, released: `tools/extension_build.py` builds it, `make bench` does so first.
"""

import asyncio
import sys
from collections.abc import Awaitable, Callable
from importlib import import_module
from itertools import repeat
from time import perf_counter_ns
from typing import Any

import rvh_trace
from tools.extension_build import FUTURES_EXTENSION, directory_of

from .contender import Contender
from .measure import Case, Timed

# Of which a batch and its warm-up are multiples.
AT_ONCE = 50


def awaited(start: Callable[[], Awaitable[Any]], loop: asyncio.AbstractEventLoop) -> Timed:
    """What `start()` returns, awaited."""

    async def drive(n: int) -> int:
        start_ns = perf_counter_ns()
        for _ in repeat(None, n):
            await start()
        return perf_counter_ns() - start_ns

    return lambda n: loop.run_until_complete(drive(n))


def gathered(start: Callable[[], Awaitable[Any]], loop: asyncio.AbstractEventLoop) -> Timed:
    """What `start()` returns, `AT_ONCE` of them awaited together."""

    async def drive(n: int) -> int:
        start_ns = perf_counter_ns()
        for _ in repeat(None, n // AT_ONCE):
            await asyncio.gather(*(start() for _ in repeat(None, AT_ONCE)))
        return perf_counter_ns() - start_ns

    return lambda n: loop.run_until_complete(drive(n))


def open_contender(endpoint: str) -> Contender:
    """Recorded and exported."""
    sys.path.insert(0, str(directory_of(FUTURES_EXTENSION, "release")))
    module = import_module("futures_extension")
    rvh_trace.init_tracing("bench", endpoint=endpoint)
    loop = asyncio.new_event_loop()
    bare = awaited(module.bare, loop)
    all_bare = gathered(module.bare, loop)
    cases = {
        "future": Case(awaited(lambda: module.ready("load"), loop), bare),
        "future-without-span": Case(awaited(lambda: module.without_span(None), loop), bare, 0),
        "futures-at-once": Case(gathered(lambda: module.ready("load"), loop), all_bare),
    }
    return Contender(
        f"rvh_trace {rvh_trace.__version__}",
        cases,
        lambda: rvh_trace.force_flush(10_000),
        lambda: int(rvh_trace.stats()["exported"]),
        lambda: rvh_trace.shutdown(5_000),
    )
