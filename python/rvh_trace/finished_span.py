"""Spans as they are exported, decoded from their OTLP bytes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from rvh_trace._rvh_trace import decode_spans

if TYPE_CHECKING:
    from rvh_trace._types import AttributeValue, SpanKind


@dataclass(frozen=True, slots=True)
class Event:
    """An event of a finished span; `unix_ns` is nanoseconds since the Unix epoch."""

    name: str
    unix_ns: int
    attributes: Mapping[str, AttributeValue]


@dataclass(frozen=True, slots=True)
class Link:
    """A link of a finished span; ids are lower-case hexadecimal."""

    trace_id: str
    span_id: str
    attributes: Mapping[str, AttributeValue]


@dataclass(frozen=True, slots=True)
class FinishedSpan:
    """A span as it was exported, decoded from its OTLP bytes.

    Ids are lower-case hexadecimal, times nanoseconds since the Unix epoch. `parent_span_id` is None for a root.
    """

    name: str
    kind: SpanKind
    trace_id: str
    span_id: str
    parent_span_id: str | None
    trace_state: str
    flags: int
    start_unix_ns: int
    end_unix_ns: int
    attributes: Mapping[str, AttributeValue]
    events: Sequence[Event]
    links: Sequence[Link]
    status: Literal["unset", "ok", "error"]
    status_description: str
    dropped_attributes: int
    dropped_events: int
    dropped_links: int
    resource: Mapping[str, AttributeValue]

    @property
    def duration_ns(self) -> int:
        """Nanoseconds from start to end."""
        return self.end_unix_ns - self.start_unix_ns

    def is_child_of(self, parent: FinishedSpan) -> bool:
        """Whether `parent` is the parent, in the same trace."""
        return (self.trace_id, self.parent_span_id) == (parent.trace_id, parent.span_id)


def decode(request: bytes) -> list[FinishedSpan]:
    """The spans of an encoded OTLP `ExportTraceServiceRequest`.

    Raises:
        ValueError: The bytes are no such message.

    Example:
        >>> decode(b"")
        []
    """
    return [finished_span(span) for span in decode_spans(request)]


def finished_span(span: dict[str, Any]) -> FinishedSpan:
    """The span of a dict of `decode_spans`, which is used up."""
    events = tuple(Event(**event) for event in span.pop("events"))
    links = tuple(Link(**link) for link in span.pop("links"))
    return FinishedSpan(**span, events=events, links=links)
