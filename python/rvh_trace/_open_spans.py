"""What is in flight now: the open spans as a tree, with their tasks and where those are suspended.

The spans come from the native module, the tasks from asyncio. Which belongs to which is written down nowhere, that
would cost every span. It is found out here: the token of a span's scope knows its `contextvars.Context`, a task its.
"""

from __future__ import annotations

import os

from rvh_trace._places import StackFrame, first_context, places
from rvh_trace._rvh_trace import list_open_spans

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from rvh_trace._types import AttributeValue, SpanKind


class OpenSpan:
    """A span that has started and not ended, as it was when `open_spans` was called.

    Attributes:
        name: Its name so far.
        kind: `internal`, `server`, `client`, `producer` or `consumer`.
        trace_id: 32 lower-case hexadecimal digits.
        span_id: 16 lower-case hexadecimal digits.
        parent_span_id: The same of its parent; None for a root. The parent may be remote, or have ended.
        start_unix_ns: When it started, in nanoseconds since the Unix epoch.
        age_s: How long it has been open, in seconds.
        attributes: Its attributes so far.
        task: The name of the asyncio task in whose context it is current; None outside of tasks, for spans that are
            current nowhere (`new_span`), and where several tasks share that context.
        stack: Where that task has got to, outermost frame first: the chain of what it awaits, or the calls that it is
            making right now.
        children: The open spans below it, oldest first.
    """

    __slots__ = (
        "age_s",
        "attributes",
        "children",
        "kind",
        "name",
        "parent_span_id",
        "span_id",
        "stack",
        "start_unix_ns",
        "task",
        "trace_id",
    )

    def __init__(
        self,
        name: str,
        kind: SpanKind,
        trace_id: str,
        span_id: str,
        parent_span_id: str | None,
        start_unix_ns: int,
        age_s: float,
        attributes: Mapping[str, AttributeValue],
    ) -> None:
        self.name: str = name
        self.kind: SpanKind = kind
        self.trace_id: str = trace_id
        self.span_id: str = span_id
        self.parent_span_id: str | None = parent_span_id
        self.start_unix_ns: int = start_unix_ns
        self.age_s: float = age_s
        self.attributes: Mapping[str, AttributeValue] = attributes
        self.task: str | None = None
        self.stack: tuple[StackFrame, ...] = ()
        self.children: tuple[OpenSpan, ...] = ()

    @property
    def suspended_at(self) -> StackFrame | None:
        """The innermost frame of `stack`: the last suspension point of the task, or the line that it is running."""
        return self.stack[-1] if self.stack else None

    def __repr__(self) -> str:
        return f"<OpenSpan {self.name!r} span_id='{self.span_id}' age_s={self.age_s:.3f}>"


class OpenSpans(tuple[OpenSpan, ...]):
    """The roots of what is open, oldest first. Prints as a tree that a person can read."""

    __slots__ = ()

    def walk(self) -> Iterator[tuple[int, OpenSpan]]:
        """Every span with its depth (0 for a root), parents before their children."""
        left = [(0, span) for span in reversed(self)]
        while left:
            depth, span = left.pop()
            yield depth, span
            left += [(depth + 1, child) for child in reversed(span.children)]

    def __str__(self) -> str:
        lines = [_line(depth, span) for depth, span in self.walk()]
        count = len(lines)
        return "\n".join([f"{count} open span{'' if count == 1 else 's'}", *lines])


def open_spans() -> OpenSpans:
    """What is in flight now, in this process: every recorded span that has started and not ended, as a tree.

    Spans of every kind are there: `with` spans, `new_span`, tasks, requests, websockets, span futures. Costs nothing
    until it is called; a call takes a few microseconds a span, and as much a task. Call it from any thread.

    Returns:
        The roots, oldest first; a span whose parent is remote, has ended or is not recorded is one. `str()` of it is a
        text, one line a span. It is a picture: it does not change, and keeps no span alive.

    Example:
        >>> from rvh_trace import open_spans, span
        >>> with span("outer"):
        ...     [root.name for root in open_spans()]
        []

        Without `init_tracing` nothing is recorded, so nothing is open. In a service it prints, for example:

            2 open spans
            GET /orders  12.031 s  server  trace 0af7651916cd43dd8448eb211c80319c
              load  12.027 s  task 'Task-7' at /srv/shop.py:12 load, in asyncio/locks.py:213 Event.wait

    Source: `asyncio.Task.get_stack`, `asyncio.all_tasks`.
    """
    told = [(OpenSpan(*facts), token) for facts, token in list_open_spans()]
    told.sort(key=lambda pair: pair[0].start_unix_ns)
    spans = {(span.trace_id, span.span_id): span for span, _ in told}
    by_context, by_span = places()
    below: dict[tuple[str, str], list[OpenSpan]] = {}
    roots: list[OpenSpan] = []
    for span, token in told:
        context = None if token is None else first_context(token)
        place = by_span.get(span.span_id) or (None if context is None else by_context.get(id(context)))
        if place is not None:
            span.task, span.stack = place.name, place.stack
        parent = (span.trace_id, span.parent_span_id or "")
        (below.setdefault(parent, []) if parent in spans else roots).append(span)
    for key, children in below.items():
        spans[key].children = tuple(children)
    return OpenSpans(roots)


def _line(depth: int, span: OpenSpan) -> str:
    parts = [f"{'  ' * depth}{_printable(span.name)}", f"{span.age_s:.3f} s"]
    if span.kind != "internal":
        parts.append(span.kind)
    if span.task is not None:
        # Spans of a task that are one inside the other are suspended at the same place.
        told_below = any(child.task == span.task and child.stack for child in span.children)
        parts.append(f"task {_printable(span.task)!r}{'' if told_below else _place(span.stack)}")
    if depth == 0:
        parts.append(f"trace {span.trace_id}")
    return "  ".join(parts)


def _place(stack: tuple[StackFrame, ...]) -> str:
    """The innermost frame that is the application's own, and the innermost one if that is not."""
    if not stack:
        return ""
    innermost = stack[-1]
    own = next((frame for frame in reversed(stack) if not _is_library(frame.file)), innermost)
    return f" at {own}" if own is innermost else f" at {own}, in {innermost}"


_STANDARD_LIBRARY = os.path.dirname(os.__file__)  # noqa: PTH120 - pathlib is slow to import


def _is_library(file: str) -> bool:
    return "site-packages" in file or file.startswith(("<", _STANDARD_LIBRARY))


def _printable(text: str) -> str:
    return text if text.isprintable() else ascii(text)[1:-1]
