"""The in-memory exporter and the spans that it gives."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import overload

from rvh_trace._rvh_trace import MemoryTracer, render_waterfall
from rvh_trace.finished_span import Event, FinishedSpan, Link, decode

__all__ = ("Event", "FinishedSpan", "InMemoryExporter", "Link", "decode")


class InMemoryExporter(Sequence[FinishedSpan]):
    """Keeps what is traced while it is installed, in the order in which spans end.

    It is a sequence of `FinishedSpan`. While it is installed it takes the place of what `init_tracing` has set up;
    installed inside another one, the inner one gets the spans.

    Args:
        sampler: As for `init_tracing`; everything is sampled by default.
        sampler_ratio: As for `init_tracing`.
        propagators: As for `init_tracing`; `tracecontext` and `baggage` by default.

    Example:
        >>> from rvh_trace import span
        >>> with InMemoryExporter() as spans:
        ...     with span("work", {"items": 3}):
        ...         pass
        >>> spans.one("work").attributes["items"]
        3
    """

    def __init__(
        self,
        *,
        sampler: str | None = None,
        sampler_ratio: float | None = None,
        propagators: str | Sequence[str] | None = None,
    ) -> None:
        self._tracer = MemoryTracer(sampler=sampler, sampler_ratio=sampler_ratio, propagators=propagators)
        self._requests: list[bytes] = []
        self._spans: list[FinishedSpan] = []

    def install(self) -> None:
        """Sends the spans of this process here until `uninstall`."""
        self._tracer.install()

    def uninstall(self) -> None:
        """Gives tracing back to whoever had it. What was kept stays."""
        self._collect()
        self._tracer.uninstall()

    def __enter__(self) -> InMemoryExporter:
        self.install()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.uninstall()

    def clear(self) -> None:
        """Forgets the spans ended so far."""
        self._collect()
        self._requests.clear()
        self._spans.clear()

    @property
    def requests(self) -> Sequence[bytes]:
        """The encoded OTLP requests that the spans came in."""
        self._collect()
        return tuple(self._requests)

    def named(self, name: str) -> list[FinishedSpan]:
        """The spans of this name."""
        return [span for span in self if span.name == name]

    def one(self, name: str) -> FinishedSpan:
        """The only span of this name.

        Raises:
            LookupError: There is none, or more than one; the message lists what there is.
        """
        found = self.named(name)
        if len(found) != 1:
            raise LookupError(f"{len(found)} spans are named {name!r}; there are: {[span.name for span in self]}")
        return found[0]

    def children(self, parent: FinishedSpan) -> list[FinishedSpan]:
        """The spans whose parent is `parent`, in order of their start."""
        return sorted((span for span in self if span.is_child_of(parent)), key=lambda span: span.start_unix_ns)

    def waterfall(self) -> str:
        """The traces as a text that a person can read."""
        return render_waterfall(list(self.requests))

    @overload
    def __getitem__(self, index: int) -> FinishedSpan: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[FinishedSpan]: ...
    def __getitem__(self, index: int | slice) -> FinishedSpan | Sequence[FinishedSpan]:
        self._collect()
        return self._spans[index]

    def __len__(self) -> int:
        self._collect()
        return len(self._spans)

    def __iter__(self) -> Iterator[FinishedSpan]:
        self._collect()
        return iter(tuple(self._spans))

    def __repr__(self) -> str:
        return f"<InMemoryExporter: {[span.name for span in self]}>"

    def _collect(self) -> None:
        for request in self._tracer.take():
            self._requests.append(request)
            self._spans.extend(decode(request))
