"""Exporters written in Python: what one must have, and the thread that calls it.

class Slow:
    def export(self, spans):
        for span in spans:
            if span.duration_ns > 1_000_000_000:
                print(span.name, span.attributes.get("http.route"))

rvh_trace.init_tracing("shop", exporter=["otlp", Slow()])
"""

from __future__ import annotations

import traceback
from collections.abc import Sequence
from typing import Any, Protocol

from rvh_trace._exceptions import type_name
from rvh_trace._rvh_trace import SpanQueue, use_context
from rvh_trace.finished_span import Event, FinishedSpan, Link, decode, finished_span

__all__ = ("Event", "FinishedSpan", "Link", "SpanExporter", "decode")


class SpanExporter(Protocol):
    """What `init_tracing(exporter=[...])` takes beside names and `OtlpExporter`: any object with a method `export`.

    Its methods are called one at a time on a thread of its own, never on an event loop. While one runs, finished spans
    wait in a queue of this destination's own, bounded by `max_queue_bytes` and `max_queue_size`; what finds no room is
    dropped for this destination and counted in `stats()`. A call that raises, whatever it raises, loses its spans
    (`dropped["rejected"]`); one that takes longer than `export_timeout_ms` loses them in the count alone
    (`dropped["failed"]`), for it cannot be stopped. Either way it is called again with the next spans. Each kind of
    exception is logged once.

    A method `force_flush()` and a method `shutdown()` are called when there is one: on `rvh_trace.force_flush`, and as
    the last call on `rvh_trace.shutdown` and at exit, which wait for them within their deadline. A forked child calls
    its copy of the object, on a thread of its own.

    Spans that start on the thread are not sampled under the parent-based samplers, which are the default, so that an
    exporter that sends with a traced client does not export itself.

    Example:
        >>> class Names:
        ...     def export(self, spans):
        ...         print([span.name for span in spans])

    Source: OpenTelemetry specification, "Span Exporter".
    """

    def export(self, spans: Sequence[FinishedSpan], /) -> object:
        """Takes finished spans, in the order in which they ended. What it returns means nothing."""
        ...


def run(queue: SpanQueue, exporter: Any) -> None:
    """Calls `exporter` as `queue` says until it is empty for good. The body of the thread."""
    told: set[str] = set()
    with use_context(queue.unsampled):
        while (job := queue.next()) is not None:
            method, batch = job
            try:
                if batch is not None:
                    exporter.export([finished_span(span) for span in batch])
                elif (call := getattr(exporter, method, None)) is not None:
                    call()
            except BaseException as error:
                problem = " ".join("".join(traceback.format_exception_only(error)).split())
                cause = f"{type_name(error)} from {method}"
                details = None if cause in told else "".join(traceback.format_exception(error))
                told.add(cause)
                queue.failed(f"{method}: {problem}", details)
            else:
                queue.done()
            # Nothing of the last batch stays while the next one is waited for.
            del job, batch
