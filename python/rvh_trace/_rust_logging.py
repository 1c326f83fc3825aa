"""The thread that hands events of Rust code to `logging`.

Rust threads put events into a bounded native queue and go on; this daemon thread alone takes the GIL for them. It waits
in native code, without the GIL, so it costs nothing while nothing is said.
"""

from __future__ import annotations

import atexit
import logging
import os
import sys
import threading
import traceback
from typing import NamedTuple

from rvh_trace._rvh_trace import close_rust_events, extract, take_rust_events, use_context

TRACE = 5
"""The level of Rust's `trace`, which is below `logging.DEBUG`."""

# What a handler that hangs may hold up the end of the process.
_STOP_TIMEOUT_S = 1.0

# What `Formatter.format` adds to a record.
_ADDED_BY_FORMATTERS = frozenset(("message", "asctime"))

_thread: threading.Thread | None = None


class Event(NamedTuple):
    """A `tracing` event or a record of `log`, as the native queue gives it."""

    level: int
    target: str
    message: str
    fields: dict[str, str | bool | int | float]
    trace_id: str | None
    span_id: str | None
    is_sampled: bool
    unix_ns: int
    file: str
    line: int
    thread_id: int
    thread_name: str | None


def start() -> None:
    """Hands over what Rust code says from now on. Later calls do nothing."""
    if _thread is not None:
        return
    if logging.getLevelName(TRACE) == f"Level {TRACE}":
        logging.addLevelName(TRACE, "TRACE")
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=_start_thread)
    atexit.register(_stop)
    _start_thread()


def _start_thread() -> None:
    global _thread
    _thread = threading.Thread(target=_run, name="rvh-trace-rust-events", daemon=True)
    _thread.start()


def _stop() -> None:
    """Before the handlers are shut down and the last spans sent: what was said is handed over."""
    close_rust_events()
    if _thread is not None:
        _thread.join(_STOP_TIMEOUT_S)


def _run() -> None:
    while (events := take_rust_events()) is not None:
        for event in events:
            try:
                handle(Event(*event))
            except Exception:
                # As `Handler.handleError` does it: what the application's filters raise must not end the thread.
                if logging.raiseExceptions and sys.stderr is not None:
                    traceback.print_exc()


def handle(event: Event) -> None:
    """Gives an event to the logger of its target, inside the span that it was said in.

    `shop::stock` is the logger `shop.stock`, so that it is below `shop`. The fields follow the message and are
    attributes of the record; one whose name a record has already gets the prefix `rust_`. The names of the ids are
    those of opentelemetry-instrumentation-logging.
    """
    logger = logging.getLogger(event.target.replace("::", "."))
    if not logger.isEnabledFor(event.level):
        return
    record = _record(logger.name, event)
    if event.trace_id is None:
        logger.handle(record)
        return
    # For handlers and filters that look at the current span.
    traceparent = f"00-{event.trace_id}-{event.span_id}-{event.is_sampled:02x}"
    with use_context(extract({"traceparent": traceparent})):
        logger.handle(record)


def _record(name: str, event: Event) -> logging.LogRecord:
    message = " ".join((event.message, *(f"{key}={value}" for key, value in event.fields.items()))).strip()
    record = logging.getLogRecordFactory()(name, event.level, event.file, event.line, message, (), None)
    created = event.unix_ns / 1e9
    record.relativeCreated += (created - record.created) * 1000
    record.created = created
    record.msecs = float(event.unix_ns // 1_000_000 % 1000)
    record.thread = event.thread_id
    record.threadName = event.thread_name or f"Thread-{event.thread_id}"
    attributes = record.__dict__
    for key, value in event.fields.items():
        taken = key in attributes or key in _ADDED_BY_FORMATTERS
        attributes[f"rust_{key}" if taken else key] = value
    attributes["otelTraceID"] = event.trace_id or "0"
    attributes["otelSpanID"] = event.span_id or "0"
    attributes["otelTraceSampled"] = event.is_sampled
    return record
