"""Log records beside the traces: a handler that exports them over OTLP, and trace ids for lines of text.

import logging
import rvh_trace
from rvh_trace.logging import LoggingHandler

rvh_trace.init_tracing("shop")                      # OTEL_LOGS_EXPORTER and its like are honoured
logging.getLogger().addHandler(LoggingHandler())    # without a handler nothing starts and nothing is sent
logging.warning("the cart is empty", extra={"cart.id": 7})

or, with `logging.config.dictConfig`:

{
    "version": 1,
    "handlers": {"otlp": {"class": "rvh_trace.logging.LoggingHandler", "level": "INFO"}},
    "root": {"handlers": ["otlp"], "level": "INFO"},
}
"""

from __future__ import annotations

import logging

from rvh_trace._rvh_trace import emit_log_record, log_trace_context

TYPE_CHECKING = False
if TYPE_CHECKING:
    from threading import Lock

__all__ = ("LoggingHandler", "TraceContextFilter")


class LoggingHandler(logging.Handler):
    """Exports log records over OTLP, beside the spans of `init_tracing` and by the same thread.

    A record is encoded on the spot and appended to a bounded queue: the call never waits for a collector and takes no
    lock but that of the queue. It goes where `init_tracing(logs_exporter=...)`, `OTEL_LOGS_EXPORTER`,
    `OTEL_EXPORTER_OTLP_LOGS_ENDPOINT` or the endpoint of the spans say; before `init_tracing`, or where none of them
    does, a record is passed over. `rvh_trace.stats()["logs"]` counts what became of them, and `force_flush`,
    `shutdown`, the exit of the process and forks treat them as they treat spans. `OTEL_BLRP_SCHEDULE_DELAY` (1,000 ms)
    and the other `OTEL_BLRP_*` variables set their pace.

    What becomes of the fields of a record:

    - The message, formatted, is the body. With a formatter (`setFormatter`), its text is.
    - The level gives the severity: DEBUG 5, INFO 9, WARNING 13, ERROR 17, CRITICAL 21; up to three levels above one of
      them count on, those below DEBUG are TRACE. The level's name is the severity's text, as it is.
    - The logger's name is the name of the instrumentation scope.
    - `created` is the time; the observed time is that of the call.
    - The current span gives trace id, span id and flags, also if it is not sampled.
    - `code.file.path`, `code.function.name`, `code.line.number`; `code.stacktrace` with `stack_info=True`;
      `exception.type`, `exception.message` and `exception.stacktrace` with `exc_info`.
    - What `extra=` adds is an attribute, of the same types as those of spans; a `None` is left out. `otel.event.name`
      is no attribute but the name of the event that the record is.

    A record that cannot be formatted is told by `handleError`, as by every handler. Records that are made while another
    one is read on the same thread, by a `__str__` that logs, are not exported: there might be no end to them.

    Args:
        level: The least level that is exported, a number or a name; everything by default.

    Example:
        >>> logger = logging.getLogger("shop.cart")
        >>> logger.addHandler(LoggingHandler(logging.WARNING))
        >>> logger.warning("%d items are too many", 1_000, extra={"cart.id": 7})

    Source: OpenTelemetry specification, "Logs Data Model"; semantic conventions, "Exceptions in logs" and "Code
    attributes".
    """

    def createLock(self) -> None:  # noqa: N802
        """None is needed: a lock would be one more thing for a fork or a signal handler to meet held."""
        self.lock: Lock | None = None

    def handle(self, record: logging.LogRecord) -> bool:
        """Exports the record if the filters of this handler let it pass; whether they do."""
        passed = self.filter(record)
        # From Python 3.12 on a filter may give another record in its place.
        if isinstance(passed, logging.LogRecord):  # pyright: ignore[reportUnnecessaryIsInstance]
            record = passed
        if passed:
            self.emit(record)
        return bool(passed)

    def emit(self, record: logging.LogRecord) -> None:
        """Exports the record, whatever the filters say. Never raises but for a program that is too deep in calls."""
        try:
            emit_log_record(record, self.formatter)
        except RecursionError:
            raise
        except Exception:
            self.handleError(record)


class TraceContextFilter(logging.Filter):
    """Gives every record that passes the ids of the current span, for format strings.

    `%(otelTraceID)s` and `%(otelSpanID)s` are hexadecimal, and "0" outside of a span; `%(otelTraceSampled)s` is True or
    False; `%(otelServiceName)s` is the service's name, and empty before `init_tracing`. The names are those of
    opentelemetry-instrumentation-logging. Add it to handlers: a filter of a logger does not see the records of the
    loggers beneath it.

    Example:
        >>> handler = logging.StreamHandler()
        >>> handler.addFilter(TraceContextFilter())
        >>> handler.setFormatter(logging.Formatter("%(levelname)s trace=%(otelTraceID)s %(message)s"))
    """

    def filter(self, record: logging.LogRecord) -> bool:
        """Sets the four fields and lets the record pass."""
        # Not as attributes: type checkers know a record's own alone.
        fields = vars(record)
        (
            fields["otelTraceID"],
            fields["otelSpanID"],
            fields["otelServiceName"],
            fields["otelTraceSampled"],
        ) = log_trace_context()
        return True
