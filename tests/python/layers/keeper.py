"""A layer that keeps every call."""

import threading
from collections.abc import Callable
from typing import Any

from rvh_trace import LayerHandle, force_flush
from rvh_trace.layers import ClosedSpan, NewSpan, SpanEvent, SpanRecord

__all__ = ("Add", "Keeper", "flushed")

Add = Callable[..., LayerHandle]


class Keeper:
    """Keeps every call; the state of a span is its number."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, Any, Any]] = []
        self.threads: set[int] = set()
        self.spans = 0

    def keep(self, method: str, told: Any, state: Any) -> None:
        self.calls.append((method, told, state))
        self.threads.add(threading.get_ident())

    def on_new_span(self, span: NewSpan) -> int:
        self.keep("new", span, None)
        self.spans += 1
        return self.spans

    def on_event(self, event: SpanEvent, state: int) -> None:
        self.keep("event", event, state)

    def on_record(self, record: SpanRecord, state: int) -> None:
        self.keep("record", record, state)

    def on_close(self, span: ClosedSpan, state: int) -> None:
        self.keep("close", span, state)

    def told(self, method: str) -> list[Any]:
        return [told for called, told, _ in self.calls if called == method]

    @property
    def story(self) -> list[tuple[Any, ...]]:
        """The method, what of the record tells it from others, and the state."""
        return [
            (method, tuple(told.attributes) if method == "record" else told.name, state)
            for method, told, state in self.calls
        ]


def flushed(keeper: Keeper) -> Keeper:
    """The layer, when everything so far was delivered."""
    assert force_flush()
    return keeper
