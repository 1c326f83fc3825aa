"""The native module. Import from `rvh_trace`; what stands only here is for the package itself."""

import asyncio
import logging
from collections.abc import (
    Awaitable,
    Callable,
    Coroutine,
    Generator,
    Iterable,
    Iterator,
    Mapping,
    MutableMapping,
    Sequence,
)
from contextvars import Token
from os import PathLike
from types import TracebackType
from typing import Any, Final, Literal, ParamSpec, Self, TypedDict, TypeVar, final

from rvh_trace._types import AttributeValue, Carrier, MutableCarrier, SpanKind, SpanStatus

_P = ParamSpec("_P")
_R = TypeVar("_R")

__version__: Final[str]

@final
class SpanContext:
    """What identifies a span to others. Read-only; compares by value.

    Source: OpenTelemetry specification, "SpanContext"; W3C Trace Context.

    Example:
        >>> import rvh_trace
        >>> headers = {"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}
        >>> rvh_trace.extract(headers).span_context.trace_id
        '0af7651916cd43dd8448eb211c80319c'
    """

    @property
    def trace_id(self) -> str:
        """32 lower-case hexadecimal digits; all zero when invalid."""
    @property
    def span_id(self) -> str:
        """16 lower-case hexadecimal digits; all zero when invalid."""
    @property
    def trace_flags(self) -> int:
        """The W3C flags byte: bit 0 sampled, bit 1 random trace id."""
    @property
    def trace_state(self) -> str:
        """The `tracestate` header; empty when there is none."""
    @property
    def is_sampled(self) -> bool:
        """Whether the sampled bit is set."""
    @property
    def is_remote(self) -> bool:
        """Whether it came from another process."""
    @property
    def is_valid(self) -> bool:
        """Whether both ids are valid."""
    def __eq__(self, other: object, /) -> bool: ...
    def __ne__(self, other: object, /) -> bool: ...
    def __hash__(self, /) -> int: ...

@final
class OtlpExporter:
    """One OTLP destination, for `init_tracing(exporter=[...])` and `metrics_exporter`, when there are several.

    Each argument means what it means for `init_tracing`, has the same `OTEL_EXPORTER_OTLP_*` variables and the same
    default, so an `OtlpExporter()` is what `"otlp"` is. Two destinations rarely share an API key: a variable with headers
    or a client certificate counts for every destination that has none of its own; `headers={}` is for one that shall
    have none.

    Args:
        endpoint: Base URL, `http://localhost:4318`, or `unix:///path` of a socket.
        protocol: `http/protobuf` (default), `http/json` or `grpc`.
        headers: Sent with every export.
        timeout_ms: Milliseconds for one attempt; 10,000.
        compression: `gzip` or `none` (default).
        insecure: For grpc endpoints without a scheme: plain text instead of TLS.
        certificate: PEM file of the CA to trust.
        client_certificate: PEM file of the client's certificate.
        client_key: PEM file of the client's key.

    Raises:
        ConfigurationError: An argument has a wrong type or an impossible value.

    Example:
        >>> from rvh_trace import OtlpExporter, init_tracing
        >>> vendor = OtlpExporter("https://otlp.example.com", headers={"api-key": "secret"}, compression="gzip")
        >>> nearby = OtlpExporter("localhost:4317", protocol="grpc", insecure=True, headers={})
        >>> init_tracing("shop", exporter=[vendor, nearby, "console"])  # doctest: +SKIP

    Source: OpenTelemetry specification, "OpenTelemetry Protocol Exporter".
    """

    def __new__(
        cls,
        endpoint: str | None = None,
        *,
        protocol: Literal["http/protobuf", "http/json", "grpc"] | None = None,
        headers: Mapping[str, str] | None = None,
        timeout_ms: float | None = None,
        compression: Literal["gzip", "none"] | None = None,
        insecure: bool | None = None,
        certificate: str | PathLike[str] | None = None,
        client_certificate: str | PathLike[str] | None = None,
        client_key: str | PathLike[str] | None = None,
    ) -> Self: ...

@final
class ConsoleExporter:
    """Readable spans on a standard stream or in a file, for `init_tracing(exporter=...)` and `tracing`.

    `ConsoleExporter()` is what `"console"` is. The formats:

    - `pretty`: the waterfall of each trace, once its root in this process has ended.
    - `compact`: a line for each span as it ends, with its attributes as JSON values and its events after bars:
      `2026-11-21T17:36:21.123456Z 12.3ms shop checkout trace_id=... span_id=... cart.id=7 | +3.20ms retry attempt=2`
    - `json`: an object a line for each span as it ends, with the members of `FinishedSpan`, `time` (when it ended, RFC 3339)
      and `service`. What JSON cannot hold is as in OTLP/JSON: bytes in base64, NaN and the infinities as text. For other
      tools, `OtlpFileExporter` writes the standard's form.

    A file is appended to, a batch of lines in one piece, so several processes may share it; its folder must be there. It
    is opened at set-up, and once in each forked child. The exporter thread writes, never the thread that ends a span.
    What cannot be written, to a full disk for example, is counted in `stats()["dropped"]["rejected"]` and said once. A line
    that was cut is completed before the next. A reader that has gone away is not a loss.

    Args:
        output_stream: `stdout` (default), `stderr`, or a path or `file://` URL of a file. A path object is always a file.
        format: `pretty` (default), `compact` or `json`.

    Raises:
        ConfigurationError: An argument has a wrong type or an impossible value. That a file cannot be opened is an error of
            `init_tracing` and of entering the block of `tracing`.

    Example:
        >>> from rvh_trace import ConsoleExporter, init_tracing
        >>> init_tracing("shop", exporter=["otlp", ConsoleExporter("shop.log", format="json")])  # doctest: +SKIP
    """

    def __new__(
        cls,
        output_stream: str | PathLike[str] | None = None,
        *,
        format: Literal["pretty", "compact", "json"] | None = None,  # noqa: A002
    ) -> Self: ...

@final
class OtlpFileExporter:
    """OTLP/JSON on a standard stream or in a file, for `init_tracing(exporter=...)`, its `metrics_exporter`, and `tracing`.

    A line is one JSON object, an `ExportTraceServiceRequest` or `ExportMetricsServiceRequest` with all spans of a batch or
    all metrics of a collection: what the OpenTelemetry Collector's OTLP JSON file receiver reads. Spans and metrics need
    a file each. About the file, as for `ConsoleExporter`; here a reader that has gone away is a loss too.

    Args:
        output_stream: `stdout` (default), `stderr`, or a path or `file://` URL of a file, by custom `*.jsonl`. A path
            object is always a file.

    Raises:
        ConfigurationError: As for `ConsoleExporter`.

    Example:
        >>> from rvh_trace import OtlpFileExporter, init_tracing
        >>> init_tracing("shop", exporter=OtlpFileExporter("spans.jsonl"))  # doctest: +SKIP

    Source: OpenTelemetry specification, "OpenTelemetry Protocol File Exporter".
    """

    def __new__(cls, output_stream: str | PathLike[str] | None = None) -> Self: ...

@final
class Context:
    """What `extract` read from headers: a span context and baggage. Read-only.

    Source: W3C Trace Context; W3C Baggage.

    Example:
        >>> import rvh_trace
        >>> rvh_trace.extract({"baggage": "tenant=acme"}).baggage
        {'tenant': 'acme'}
    """

    @property
    def span_context(self) -> SpanContext:
        """The remote parent; invalid when the headers have none."""
    @property
    def baggage(self) -> dict[str, str]:
        """The baggage members, decoded. A copy."""
    def __eq__(self, other: object, /) -> bool: ...
    def __ne__(self, other: object, /) -> bool: ...
    __hash__: None  # type: ignore[assignment]  # pyright: ignore[reportIncompatibleMethodOverride]

class Span:
    """A span. Made by `span`, `new_span` and `current_span`, never by calling the class.

    None of its methods raises: what cannot be recorded is counted in `rvh_trace.stats()` and said once. On a span that
    is not recorded (not sampled, ended, or tracing is off) they do nothing.

    An exception that leaves the span is recorded and goes on untouched: the status becomes Error with the exception's
    message, `error.type` its class, and an `exception` event carries type, message and stack trace, one more for each
    member of an exception group. `asyncio.CancelledError` is not an error: it sets `rvh_trace.outcome` to `cancelled`.

    Source: OpenTelemetry specification, "Span operations"; semantic conventions, "Exceptions on spans".

    Example:
        >>> from rvh_trace import span
        >>> with span("checkout", {"cart.id": 7}) as checkout:
        ...     checkout.set_attribute("cart.size", 3)
        ...     checkout.add_event("paid", {"amount": 12.5})
    """

    @property
    def context(self) -> SpanContext:
        """What identifies it to others; invalid before it has started."""
    @property
    def is_recording(self) -> bool:
        """Whether what is set on it will be exported."""
    def set_attribute(self, key: str, value: AttributeValue) -> None:
        """Sets an attribute; one with the same key is replaced.

        Args:
            key: A name, best one of the semantic conventions.
            value: See `AttributeValue`.
        """
    def set_attributes(self, attributes: Mapping[str, AttributeValue]) -> None:
        """Sets several attributes."""
    def add_event(
        self, name: str, attributes: Mapping[str, AttributeValue] | None = None, *, unix_ns: int | None = None
    ) -> None:
        """Adds an event.

        Args:
            name: What happened.
            attributes: Its details.
            unix_ns: When, in nanoseconds since the Unix epoch; now by default.
        """
    def add_link(
        self, context: SpanContext | Span | Context, attributes: Mapping[str, AttributeValue] | None = None
    ) -> None:
        """Links a span of this or another trace."""
    def set_status(self, status: SpanStatus, description: str | None = None) -> None:
        """Sets the status. `ok` is final, `unset` is ignored, and only `error` keeps a description."""
    def record_exception(self, exception: BaseException) -> None:
        """Adds the `exception` event of an exception that was handled inside. The status stays."""
    def update_name(self, name: str) -> None:
        """Replaces the name."""
    def end(self, end_unix_ns: int | None = None) -> None:
        """Ends the span; later calls do nothing. Its scope, if it has one, stays open.

        Args:
            end_unix_ns: When, in nanoseconds since the Unix epoch; now by default.
        """
    def finish(self, error: BaseException | None = None, /) -> None:
        """Ends the span as leaving its scope would: with `error` recorded, or as cancelled."""
    def run(self, awaitable: Awaitable[_R]) -> Coroutine[Any, Any, _R]:
        """Awaits `awaitable` inside the span: it starts with the first step and ends with the outcome.

        Args:
            awaitable: What to await, for example a called coroutine function.

        Returns:
            A coroutine with the result of `awaitable`; await it once.

        Raises:
            TypeError: `awaitable` is not awaitable.

        Example:
            >>> import asyncio
            >>> from rvh_trace import span
            >>> asyncio.run(span("load").run(asyncio.sleep(0, "row")))
            'row'
        """
    def activate(self) -> UseContext:
        """Makes the span current for a `with` block that does not end it."""
    def __enter__(self) -> Self: ...
    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None, /
    ) -> Literal[False]: ...
    async def __aenter__(self) -> Self: ...
    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None, /
    ) -> None: ...
    def __call__(self, function: Callable[_P, _R]) -> Callable[_P, _R]:
        """Decorates a function: every call gets a new span of this name and these attributes."""

def span(
    name: str,
    attributes: Mapping[str, AttributeValue] | None = None,
    /,
    *,
    kind: SpanKind | None = None,
    links: Iterable[SpanContext | Span | Context | tuple[SpanContext | Span | Context, Mapping[str, AttributeValue]]]
    | None = None,
    **attrs: AttributeValue,
) -> Span:
    """A span to use with `with`, `async with`, as a decorator, or with `.run(awaitable)`.

    It starts when it is entered, as a child of the span that is current there, and is current until it is left.

    Args:
        name: What the operation is; few different values.
        attributes: Attributes from the start.
        kind: `internal` by default.
        links: Other spans that led to this one, each alone or with attributes.
        attrs: More attributes, for names that are Python identifiers.

    Example:
        >>> from rvh_trace import span
        >>> with span("checkout", {"cart.id": 7}):
        ...     pass
        >>> @span("price", kind="client")
        ... def price(item): ...

    Source: OpenTelemetry specification, "Span Creation".
    """

def new_span(
    name: str,
    attributes: Mapping[str, AttributeValue] | None = None,
    /,
    *,
    kind: SpanKind | None = None,
    links: Iterable[SpanContext | Span | Context | tuple[SpanContext | Span | Context, Mapping[str, AttributeValue]]]
    | None = None,
    start_unix_ns: int | None = None,
    **attrs: AttributeValue,
) -> Span:
    """Starts a span that is not current and is ended by hand, as a child of the span that is current here.

    Args:
        name: What the operation is.
        attributes: Attributes from the start.
        kind: `internal` by default.
        links: Other spans that led to this one.
        start_unix_ns: When it started, in nanoseconds since the Unix epoch; now by default.
        attrs: More attributes.

    Example:
        >>> from rvh_trace import new_span
        >>> upload = new_span("upload")
        >>> with upload.activate():
        ...     pass
        >>> upload.end()
    """

def current_span() -> Span:
    """The span that is current here; one that records nothing and has an invalid context when there is none.

    Example:
        >>> from rvh_trace import current_span
        >>> current_span().set_attribute("user.id", 7)
    """

def span_future(
    name: str,
    awaitable: Awaitable[_R],
    attributes: Mapping[str, AttributeValue] | None = None,
    /,
    *,
    kind: SpanKind | None = None,
    links: Iterable[SpanContext | Span | Context | tuple[SpanContext | Span | Context, Mapping[str, AttributeValue]]]
    | None = None,
    **attrs: AttributeValue,
) -> asyncio.Future[_R]:
    """A Rust future, made awaitable, that awaits `awaitable` inside a span.

    The awaitable runs as a task of its own on the running loop, with the caller's context and the span current in it.
    Result, exception and cancellation pass both ways. For work that lives in Rust: the way through Tokio costs about
    100 us, so use `span(name).run(awaitable)` for the rest. The first call starts Tokio's threads.

    Raises:
        RuntimeError: No event loop is running, or Tokio was started before this process was forked.
        TypeError: `awaitable` is not awaitable.

    Example:
        >>> import asyncio
        >>> from rvh_trace import span_future
        >>> async def main():
        ...     return await span_future("load", asyncio.sleep(0, "row"))
        >>> asyncio.run(main())
        'row'
    """

def inject(carrier: MutableCarrier, context: Context | SpanContext | Span | None = None) -> None:
    """Writes the current context (`traceparent`, `tracestate`, `baggage`) into headers to send.

    Other headers, or none, are written where `propagators` of `init_tracing` says so.

    Args:
        carrier: Headers to write to.
        context: What to write instead of what is current.

    Example:
        >>> from rvh_trace import inject
        >>> headers = {}
        >>> inject(headers)

    Source: W3C Trace Context, W3C Baggage.
    """

def extract(carrier: Carrier) -> Context:
    """Reads a context from headers that came in. Never raises: what is malformed is not there.

    Args:
        carrier: Headers to read; names in any case.

    Example:
        >>> from rvh_trace import extract
        >>> extract([(b"traceparent", b"nonsense")]).span_context.is_valid
        False

    Source: W3C Trace Context, W3C Baggage.
    """

def use_context(context: Context | SpanContext | Span | None) -> UseContext:
    """Makes a context current for a `with` block: spans that start inside are children of it.

    Args:
        context: What `extract` gave, a span (it is not ended), or None for a new root.

    Example:
        >>> from rvh_trace import extract, span, use_context
        >>> with use_context(extract({"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"})):
        ...     with span("handle message", kind="consumer"):
        ...         pass
    """

@final
class UseContext:
    """What `use_context` returns: a context manager."""

    @property
    def span_context(self) -> SpanContext:
        """The span context that it makes current."""
    def __enter__(self) -> Span: ...
    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None, /
    ) -> Literal[False]: ...

@final
class LoopWatch:
    """The watch over an event loop, from `watch_loop`. As a context manager it ends with its `with` block."""

    @property
    def is_blocked(self) -> bool:
        """Whether the loop is blocked now and that was found: for a health check in another thread."""

    def stop(self) -> None:
        """Ends the watch, from any thread; later calls do nothing. A block that is not over is reported as it is."""
    def __enter__(self) -> Self: ...
    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None, /
    ) -> Literal[False]: ...
    def _beat(self) -> bool: ...

class _Dropped(TypedDict):
    queue_full: int
    rejected: int
    failed: int
    exit: int
    spool_full: int
    spool_damaged: int

class _DroppedLogs(TypedDict):
    queue_full: int
    rejected: int
    unsupported: int
    failed: int
    exit: int

class _LogStats(TypedDict):
    created: int
    pending: int
    queued: int
    queued_bytes: int
    in_flight: int
    exported: int
    exported_bytes: int
    dropped: _DroppedLogs

class _Stats(TypedDict):
    started: int
    ended: int
    not_sampled: int
    pending: int
    queued: int
    queued_bytes: int
    in_flight: int
    exported: int
    dropped: _Dropped
    spooled: int
    spooled_bytes: int
    recovered: int
    damaged_spool_files: int
    retries: int
    exported_bytes: int
    metric_exports: int
    metric_exports_failed: int
    logs: _LogStats
    worker_alive: bool
    swallowed_errors: int
    rust_events_dropped: int
    last_error: str | None

def stats() -> _Stats:
    """What this process has counted, in spans unless a name says otherwise.

    One moment: `ended` is exported + dropped + spooled + pending in every answer, whatever other threads do.

    Returns:
        `started`: recorded spans that started; what exceeds `ended` is open, or was never ended. `ended`: recorded spans that
        ended. `not_sampled`: spans that were not recorded. `pending`: `queued` and `in_flight` to a destination together;
        `queued_bytes`: what the queue holds. `exported`: taken by every destination. `dropped`, by reason: `queue_full`,
        that of the process or of one of several destinations; `rejected` by a destination, or by an exception of a Python
        exporter; `failed` to be sent in the export timeout; lost at `exit`; without room on disk (`spool_full`); on disk and
        not found there again (`spool_damaged`). A span that several destinations lost is counted once. `spooled`: on disk, to be sent later, as are
        `spooled_bytes`, of which earlier processes may have left some. `recovered`: theirs, sent by this one.
        `damaged_spool_files`: torn or foreign files that were met. `retries`: repeated attempts. `exported_bytes`: bytes of
        the requests, before compression. `metric_exports`: requests of metrics that were taken; `metric_exports_failed`:
        that were not, or not whole. `logs`: the same of log records, where `created` is `exported` + `dropped` + `pending`;
        `unsupported` were for a collector that takes no logs. `worker_alive`: whether the exporter thread runs; it starts with the first span, log
        record or measurement. `swallowed_errors`: errors that were kept from user code. `rust_events_dropped`:
        events of Rust code that found the queue to `logging` full. `last_error`: the last export error, or None.

    Example:
        >>> from rvh_trace import stats
        >>> stats()["dropped"]["queue_full"]
        0
    """

def force_flush(timeout_ms: float = 30_000.0, *, check: bool = False) -> bool:
    """Sends every span that ended before the call, and waits. Releases the GIL; in a coroutine use `aflush`.

    Args:
        timeout_ms: Longest wait in milliseconds.
        check: Raise instead of returning False.

    Returns:
        Whether everything was delivered.

    Raises:
        ConfigurationError: `timeout_ms` is no duration.
        ExportTimeout: With `check`: the deadline passed.
        ExportError: With `check`: spans were lost.

    Example:
        >>> from rvh_trace import force_flush
        >>> force_flush(timeout_ms=2_000)
        True

    Source: OpenTelemetry specification, "ForceFlush".
    """

def shutdown(timeout_ms: float = 30_000.0, *, check: bool = False) -> bool:
    """Sends what is left, waits, and stops. Spans that end later are dropped and counted. In a coroutine use `ashutdown`.

    At exit of the interpreter this happens by itself, with at most five seconds; not when a signal ends the process, as
    uvicorn lets SIGTERM do.

    Args:
        timeout_ms: Longest wait in milliseconds.
        check: Raise instead of returning False.

    Returns:
        Whether everything was delivered.

    Raises:
        ConfigurationError: `timeout_ms` is no duration.
        ExportTimeout: With `check`: the deadline passed.
        ExportError: With `check`: spans were lost.

    Example:
        >>> from rvh_trace import shutdown
        >>> shutdown(timeout_ms=2_000)
        True

    Source: OpenTelemetry specification, "Shutdown".
    """

# What the package itself uses.

@final
class ScopedTracer:
    def __new__(cls, **kwargs: Any) -> Self: ...
    def enter(self) -> None: ...
    def leave(self) -> None: ...
    def shutdown(self, *, check: bool = False) -> bool: ...
    def stats(self) -> _Stats: ...

def init_tracing(**kwargs: Any) -> None: ...
def at_exit() -> None: ...
def flush_before_exit() -> None: ...
def after_fork_in_child() -> None: ...
def watch_loop(event_loop: asyncio.AbstractEventLoop, threshold_ms: float) -> tuple[LoopWatch, float | None]: ...
def has_rust_events() -> bool: ...
def take_rust_events() -> list[tuple[Any, ...]] | None: ...
def close_rust_events() -> None: ...
def call_instrumented(*, in_thread: bool = False) -> None: ...
def call_suppressed() -> None: ...
def log_instrumented(count: int, level: Literal["error", "warn", "info", "debug", "trace"] = "warn") -> None: ...
def static_max_level() -> str: ...
def await_instrumented() -> asyncio.Future[None]: ...
def time_instrumented(kind: Literal["bare", "recorded", "filtered"], count: int) -> int: ...
def step_in(inside: Span | None) -> object: ...
def step_out(token: object) -> Span | None: ...
def decode_spans(request: bytes) -> list[dict[str, Any]]:
    """The spans of an encoded `ExportTraceServiceRequest` as dicts. Raises ValueError for other bytes."""

@final
class SpanBatch(Iterator[dict[str, Any]]):
    def __iter__(self) -> Self: ...
    def __next__(self) -> dict[str, Any]: ...

@final
class SpanQueue:
    @property
    def unsampled(self) -> SpanContext: ...
    def next(self) -> tuple[str, SpanBatch | None] | None: ...
    def done(self) -> None: ...
    def failed(self, error: str, details: str | None) -> None: ...

def set_layers(batched: int, immediate: int) -> None: ...
def layer_records() -> tuple[list[tuple[int, int, tuple[Any, ...]]], int]: ...
def read_layer_counts() -> tuple[int, int]: ...
def log_layer(problem: str) -> None: ...
def render_waterfall(requests: Sequence[bytes], *, width: int | None = None, color: bool = False) -> str:
    """The traces in encoded `ExportTraceServiceRequest` messages as a text that a person can read.

    Args:
        requests: The messages; a trace may be spread over several, and over several services.
        width: Columns of the text.
        color: Use terminal colours.

    Raises:
        ValueError: The bytes are no such message.
    """

def carry(function: Callable[_P, _R]) -> Callable[_P, _R]: ...
def time_wait(function: Callable[_P, _R]) -> Callable[_P, _R]: ...

@final
class CarriedCall:
    def __call__(self, *args: Any, **kwargs: Any) -> Any: ...

def list_open_spans() -> list[
    tuple[tuple[str, SpanKind, str, str, str | None, int, float, dict[str, AttributeValue]], Token[Span] | None]
]: ...
def open_span_interval() -> float | None: ...
def export_pending(seconds: float) -> int: ...
def emit_log_record(record: logging.LogRecord, formatter: logging.Formatter | None) -> None: ...
def log_trace_context() -> tuple[str, str, str, bool]: ...

@final
class MessageCoroutine(Coroutine[Any, Any, Any]):
    def send(self, value: Any) -> Any: ...
    def throw(self, *args: Any) -> Any: ...  # type: ignore[override]
    def close(self) -> None: ...
    def __await__(self) -> Generator[Any, Any, Any]: ...
    def __iter__(self) -> Self: ...
    def __next__(self) -> Any: ...
    @property
    def __name__(self) -> str: ...  # type: ignore[override]  # pyright: ignore[reportIncompatibleVariableOverride]
    @property
    def __qualname__(self) -> str: ...  # type: ignore[override]

@final
class SpanTemplate:
    def span(self) -> Span: ...
    def start(self) -> Span: ...

@final
class SpanCoroutine(Coroutine[Any, Any, Any]):
    def send(self, value: Any) -> Any: ...
    def throw(self, *args: Any) -> Any: ...  # type: ignore[override]
    def close(self) -> None: ...
    def __await__(self) -> Generator[Any, Any, Any]: ...
    def __iter__(self) -> Self: ...
    def __next__(self) -> Any: ...
    @property
    def __name__(self) -> str: ...  # type: ignore[override]  # pyright: ignore[reportIncompatibleVariableOverride]
    @property
    def __qualname__(self) -> str: ...  # type: ignore[override]

@final
class TaskCoroutine(Coroutine[Any, Any, Any]):
    def send(self, value: Any) -> Any: ...
    def throw(self, *args: Any) -> Any: ...  # type: ignore[override]
    def close(self) -> None: ...
    def __await__(self) -> Generator[Any, Any, Any]: ...
    def __iter__(self) -> Self: ...
    def __next__(self) -> Any: ...
    @property
    def __name__(self) -> str: ...  # type: ignore[override]  # pyright: ignore[reportIncompatibleVariableOverride]
    @property
    def __qualname__(self) -> str: ...  # type: ignore[override]

@final
class TaskFactory:
    def __new__(cls, inner: Callable[..., Any] | None = None) -> Self: ...
    @property
    def inner(self) -> Callable[..., Any] | None: ...
    def configure(
        self,
        *,
        name: Callable[[Coroutine[Any, Any, Any]], str] | None,
        filter: Callable[[Coroutine[Any, Any, Any]], bool] | None,  # noqa: A002
        root_tasks: bool,
        timings: bool,
    ) -> None: ...
    def disable(self) -> None: ...
    def create_task(
        self,
        event_loop: asyncio.AbstractEventLoop,
        coroutine: Coroutine[Any, Any, _R] | Generator[Any, None, _R],
        /,
        **kwargs: Any,
    ) -> asyncio.Future[_R]: ...

_Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
_Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

@final
class ServerSpan(Span):
    def set_route(self, route: str, /) -> None: ...
    def finish(self, error: BaseException | None = None, /) -> None: ...

class ServerInstrumentation:
    def __new__(cls, *_args: Any, **_kwargs: Any) -> Self: ...
    def _configure(self, **kwargs: Any) -> None: ...
    def _start(
        self, scope: MutableMapping[str, Any], receive: _Receive, send: _Send, /
    ) -> tuple[ServerSpan, _Receive, _Send] | None: ...
    def _flushes(self, scope: MutableMapping[str, Any]) -> bool: ...

def call_directly(class_: type[ServerInstrumentation], /) -> None: ...

@final
class MemoryTracer:
    def __new__(
        cls,
        *,
        sampler: str | None = None,
        sampler_ratio: float | None = None,
        propagators: str | Sequence[str] | None = None,
        logs: bool = False,
    ) -> Self: ...
    def install(self) -> None: ...
    def uninstall(self) -> None: ...
    def take(self) -> list[bytes]: ...
    def take_logs(self) -> list[bytes]: ...
