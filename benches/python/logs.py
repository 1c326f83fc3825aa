"""Log records: a logger with one handler, called in a current span."""

import logging
from collections.abc import Callable
from contextlib import AbstractContextManager
from itertools import repeat
from time import perf_counter_ns
from typing import Any

from .measure import Timed


def logged(handler: logging.Handler, parent: Callable[[], AbstractContextManager[Any]]) -> Timed:
    """Records with an argument and an attribute, while the span `parent()` is current."""
    logger = logging.Logger("bench.logs", logging.INFO)
    logger.addHandler(handler)
    extra = {"cart.id": "c-1729"}

    def run(n: int) -> int:
        with parent():
            start = perf_counter_ns()
            for _ in repeat(None, n):
                logger.info("%d items", 3, extra=extra)
            return perf_counter_ns() - start

    return run
