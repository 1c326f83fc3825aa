"""Loops that open spans, and the context manager that does nothing to compare them with.

The loop itself (about 10 ns an operation) is part of both sides and is not subtracted.
"""

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from itertools import repeat
from time import perf_counter_ns
from types import TracebackType
from typing import Any

from .measure import Timed

SpanFactory = Callable[..., AbstractContextManager[Any]]


class NoopSpan:
    """The least that a context manager written in Python, called like `span`, can do."""

    def __init__(
        self,
        name: str,
        attributes: dict[str, object] | None = None,
        /,
        *,
        kind: str | None = None,
        links: Iterable[object] | None = None,
        **attrs: object,
    ) -> None:
        pass

    def __enter__(self) -> "NoopSpan":
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        pass

    def set_attribute(self, key: str, value: object) -> None:
        pass


def empty(span: SpanFactory) -> Timed:
    """`with span("op"): pass`."""

    def run(n: int) -> int:
        start = perf_counter_ns()
        for _ in repeat(None, n):
            with span("op"):
                pass
        return perf_counter_ns() - start

    return run


def with_attributes(span: SpanFactory) -> Timed:
    """Five attributes of four types at the start and one more set inside."""

    def run(n: int) -> int:
        start = perf_counter_ns()
        for _ in repeat(None, n):
            with span(
                "op",
                {"cart.id": "c-1729", "cart.size": 3, "cart.total": 12.5, "cart.paid": True, "cart.currency": "EUR"},
            ) as s:
                s.set_attribute("cart.state", "open")
        return perf_counter_ns() - start

    return run


def with_ready_attributes(span: SpanFactory) -> Timed:
    """The same attributes in a dict that exists already: making one costs the caller, whoever reads it."""
    attributes = {"cart.id": "c-1729", "cart.size": 3, "cart.total": 12.5, "cart.paid": True, "cart.currency": "EUR"}

    def run(n: int) -> int:
        start = perf_counter_ns()
        for _ in repeat(None, n):
            with span("op", attributes) as s:
                s.set_attribute("cart.state", "open")
        return perf_counter_ns() - start

    return run


def within(context: Callable[[], AbstractContextManager[Any]], timed: Timed) -> Timed:
    """The same loop with another context current around it."""

    def run(n: int) -> int:
        with context():
            return timed(n)

    return run
