"""Layers: objects that see spans while they live. What one may have, and what its methods get.

class Slow:
    def on_close(self, span, state):
        if span.duration_ns > 1_000_000_000:
            print(span.name, span.status)

rvh_trace.add_layer(Slow())
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rvh_trace._types import AttributeValue, SpanKind, SpanStatus

__all__ = (
    "ClosedSpan",
    "Layer",
    "NewSpan",
    "OnClose",
    "OnEvent",
    "OnNewSpan",
    "OnRecord",
    "SpanEvent",
    "SpanRecord",
)


class NewSpan(NamedTuple):
    """A span that has just begun.

    Attributes:
        name: Its name so far.
        kind: `internal`, `server`, `client`, `producer` or `consumer`.
        trace_id: 32 lower-case hexadecimal digits.
        span_id: 16 lower-case hexadecimal digits.
        parent_span_id: The same of its parent; None for a root. The parent may be remote.
        start_unix_ns: When it started, in nanoseconds since the Unix epoch.
        attributes: What it started with. Every layer gets the same mapping: do not change it.
    """

    name: str
    kind: SpanKind
    trace_id: str
    span_id: str
    parent_span_id: str | None
    start_unix_ns: int
    attributes: Mapping[str, AttributeValue]


class SpanEvent(NamedTuple):
    """An event that was added to a span; an exception that was recorded is one, named `exception`.

    Attributes:
        name: Its name.
        trace_id: Of the span.
        span_id: Of the span.
        unix_ns: Its time, in nanoseconds since the Unix epoch.
        attributes: Its attributes. Every layer gets the same mapping: do not change it.
    """

    name: str
    trace_id: str
    span_id: str
    unix_ns: int
    attributes: Mapping[str, AttributeValue]


class SpanRecord(NamedTuple):
    """Attributes that were set on a span after it began.

    Attributes:
        trace_id: Of the span.
        span_id: Of the span.
        attributes: What was set, not what was there before. Every layer gets the same mapping: do not change it.
    """

    trace_id: str
    span_id: str
    attributes: Mapping[str, AttributeValue]


class ClosedSpan(NamedTuple):
    """A span that has ended.

    Attributes:
        name: Its last name: that of a server span has the route by now.
        trace_id: 32 lower-case hexadecimal digits.
        span_id: 16 lower-case hexadecimal digits.
        start_unix_ns: When it started, in nanoseconds since the Unix epoch.
        end_unix_ns: When it ended.
        status: `unset`, `ok` or `error`.
        status_description: What was said with `error`, or the message of the exception; otherwise empty.
    """

    name: str
    trace_id: str
    span_id: str
    start_unix_ns: int
    end_unix_ns: int
    status: SpanStatus
    status_description: str

    @property
    def duration_ns(self) -> int:
        """Nanoseconds from start to end."""
        return self.end_unix_ns - self.start_unix_ns


class OnNewSpan(Protocol):
    """A layer that wants to know when a span begins."""

    def on_new_span(self, span: NewSpan, /) -> Any:
        """Called once a span. What it returns is the `state` of the later calls for that span, until it has ended."""
        ...


class OnEvent(Protocol):
    """A layer that wants to know when an event is added to a span."""

    def on_event(self, event: SpanEvent, state: Any, /) -> object:
        """`state` is what this layer's `on_new_span` returned for the span; None if it has none."""
        ...


class OnRecord(Protocol):
    """A layer that wants to know when attributes are set on a span that has begun."""

    def on_record(self, record: SpanRecord, state: Any, /) -> object:
        """Called once an attribute. A new name is no record: `on_close` gets the last one."""
        ...


class OnClose(Protocol):
    """A layer that wants to know when a span ends."""

    def on_close(self, span: ClosedSpan, state: Any, /) -> object:
        """The last call for a span, exactly once for every `on_new_span`."""
        ...


# What `add_layer` takes: an object with at least one of the methods.
Layer: TypeAlias = OnNewSpan | OnEvent | OnRecord | OnClose
