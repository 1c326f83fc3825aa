"""Set-up and the awaitable flushes. Nothing here starts a thread or imports asyncio before it is called."""

from __future__ import annotations

import sys

from rvh_trace import _rvh_trace
from rvh_trace._processes import flush_at_exit

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from os import PathLike
    from typing import Any, Literal, TypeVar

    from rvh_trace._rvh_trace import ConsoleExporter, OtlpExporter, OtlpFileExporter
    from rvh_trace._types import AttributeValue
    from rvh_trace.exporter import SpanExporter

    _R = TypeVar("_R")


def init_tracing(
    service_name: str | None = None,
    *,
    endpoint: str | None = None,
    protocol: Literal["http/protobuf", "http/json", "grpc"] | None = None,
    headers: Mapping[str, str] | None = None,
    timeout_ms: float | None = None,
    compression: Literal["gzip", "none"] | None = None,
    insecure: bool | None = None,
    certificate: str | PathLike[str] | None = None,
    client_certificate: str | PathLike[str] | None = None,
    client_key: str | PathLike[str] | None = None,
    exporter: str
    | OtlpExporter
    | ConsoleExporter
    | OtlpFileExporter
    | SpanExporter
    | Sequence[str | OtlpExporter | ConsoleExporter | OtlpFileExporter | SpanExporter]
    | None = None,
    metrics_exporter: str
    | OtlpExporter
    | OtlpFileExporter
    | Sequence[str | OtlpExporter | OtlpFileExporter]
    | None = None,
    logs_exporter: str
    | OtlpExporter
    | OtlpFileExporter
    | Sequence[str | OtlpExporter | OtlpFileExporter]
    | None = None,
    sampler: str | None = None,
    sampler_ratio: float | None = None,
    propagators: str | Sequence[str] | None = None,
    resource_attributes: Mapping[str, AttributeValue] | None = None,
    schedule_delay_ms: float | None = None,
    max_queue_size: int | None = None,
    max_queue_bytes: int | None = None,
    max_export_batch_size: int | None = None,
    max_request_bytes: int | None = None,
    export_timeout_ms: float | None = None,
    exit_timeout_ms: float | None = None,
    open_span_interval_ms: float | None = None,
    spool_directory: str | PathLike[str] | None = None,
    spool_max_bytes: int | None = None,
    metric_export_interval_ms: float | None = None,
    metric_cardinality_limit: int | None = None,
    self_metrics: bool | None = None,
    rust_log: str | None = None,
    rust_events: Literal["error", "warning", "info", "debug", "trace", "none"] | None = None,
    attribute_count_limit: int | None = None,
    attribute_value_length_limit: int | None = None,
    event_count_limit: int | None = None,
    link_count_limit: int | None = None,
    event_attribute_count_limit: int | None = None,
    link_attribute_count_limit: int | None = None,
) -> None:
    """Sets tracing up for this process. Call it once, where the process starts.

    Nearly every argument has an `OTEL_*` variable that is used when the argument is absent, and the OTLP ones a form
    for one signal (`OTEL_EXPORTER_OTLP_TRACES_TIMEOUT`, `..._METRICS_TIMEOUT`, `..._LOGS_TIMEOUT`) that goes before it;
    see the OpenTelemetry specification, "Environment Variable Specification". With neither an endpoint nor an exporter,
    spans carry context to other services and nothing is sent. The exporter thread starts with the first span, log
    record or measurement. A second call with the same arguments does nothing; with others it says so and changes
    nothing.

    What is queued is sent when the interpreter exits, within `exit_timeout_ms`, and at the end of a child of
    `multiprocessing`. A server that ends by a signal (uvicorn on SIGTERM) does not get that far: there
    `RvhTraceMiddleware` sends it when the application's lifespan ends. Without a lifespan (Django, or `--lifespan off`)
    await `aflush` where the application learns of its end; before `os._exit` or `os.exec*` call `force_flush`.

    Args:
        service_name: `service.name` of this service. `OTEL_SERVICE_NAME`.
        endpoint: Base URL of an OTLP receiver, `http://localhost:4318`; `/v1/traces`, `/v1/metrics` and `/v1/logs` are
            appended for http, and one that ends so is for that signal alone. `OTEL_EXPORTER_OTLP_TRACES_ENDPOINT`,
            `OTEL_EXPORTER_OTLP_METRICS_ENDPOINT` and `OTEL_EXPORTER_OTLP_LOGS_ENDPOINT` (used as they are),
            `OTEL_EXPORTER_OTLP_ENDPOINT`. With any protocol,
            `unix:///run/otel.sock` is a Unix domain socket. `HTTPS_PROXY`, `HTTP_PROXY`, `ALL_PROXY` and `NO_PROXY`
            count, also with grpc, except for a receiver on this machine.
        protocol: `http/protobuf` (default), `http/json` or `grpc`. `OTEL_EXPORTER_OTLP_PROTOCOL`.
        headers: Sent with every export, for example an API key. `OTEL_EXPORTER_OTLP_HEADERS`.
        timeout_ms: Milliseconds for one attempt to export; 10,000. `OTEL_EXPORTER_OTLP_TIMEOUT`.
        compression: `gzip` or `none` (default). `OTEL_EXPORTER_OTLP_COMPRESSION`.
        insecure: For grpc endpoints without a scheme: plain text instead of TLS. `OTEL_EXPORTER_OTLP_INSECURE`.
        certificate: PEM file of the CA to trust. `OTEL_EXPORTER_OTLP_CERTIFICATE`.
        client_certificate: PEM file of the client's certificate. `OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE`.
        client_key: PEM file of the client's key. `OTEL_EXPORTER_OTLP_CLIENT_KEY`.
        exporter: Where spans go: `otlp`, which is what the arguments and variables of this list describe, `console`,
            `none`, an `OtlpExporter`, a `ConsoleExporter` or an `OtlpFileExporter`, which write to a stream or a file,
            an object of your own with a method `export` (see `rvh_trace.exporter.SpanExporter`), or a list of these. Of
            several destinations each has a queue and a pace of its own: one that is slow or dead takes nothing from the
            others. `OTEL_TRACES_EXPORTER`, for names.
        metrics_exporter: The same for metrics, without a `ConsoleExporter` and objects of your own.
            `OTEL_METRICS_EXPORTER`.
        logs_exporter: The same for log records, without a `ConsoleExporter` and objects of your own; there are none
            without a `rvh_trace.logging.LoggingHandler`. `OTEL_LOGS_EXPORTER`.
        sampler: `always_on`, `always_off`, `traceidratio`, `parentbased_always_on` (default), `parentbased_always_off`
            or `parentbased_traceidratio`. `OTEL_TRACES_SAMPLER`.
        sampler_ratio: Share of traces kept by the ratio samplers, 0 to 1. Alone it selects `parentbased_traceidratio`.
            `OTEL_TRACES_SAMPLER_ARG`.
        propagators: How context travels between services: `tracecontext` and `baggage` (both by default), `b3` (one
            header), `b3multi`, `jaeger`, `xray` and `datadog`, a list of these, or `none`. All of them are written; of
            several that name a caller the last one listed counts. Where a caller leaves the sampling decision open, as
            B3, X-Ray and Datadog can, the sampler decides as for a new trace. `OTEL_PROPAGATORS`.
        resource_attributes: What describes this process, beside what is detected. `OTEL_RESOURCE_ATTRIBUTES`.
        schedule_delay_ms: Longest wait of a finished span; 5,000. `OTEL_BSP_SCHEDULE_DELAY`.
        max_queue_size: Spans that may wait; bounded by `max_queue_bytes` alone by default. `OTEL_BSP_MAX_QUEUE_SIZE`.
        max_queue_bytes: Bytes of spans that may wait; 4 MiB. What is over it is dropped and counted in `stats()`. As
            many again for log records, which have the variables `OTEL_BLRP_*` for what `OTEL_BSP_*` are to spans.
        max_export_batch_size: Spans in one export; 512. `OTEL_BSP_MAX_EXPORT_BATCH_SIZE`.
        max_request_bytes: Bytes of spans, or log records, in one export; 2 MiB. A larger one goes alone.
        export_timeout_ms: Milliseconds for one export with its retries; 30,000. `OTEL_BSP_EXPORT_TIMEOUT`.
        exit_timeout_ms: Milliseconds that the end of the process may wait for what is left to be sent; 5,000.
            `RVH_TRACE_EXIT_TIMEOUT`.
        open_span_interval_ms: A span that is open for longer than this is shown before it ends, and again as often: a
            marker is exported, a span of its own below it, named `pending <name>`, of length zero, with the attributes
            so far and `rvh_trace.pending.age`. For long websockets and workers. 0 (default): none.
            `RVH_TRACE_OPEN_SPAN_INTERVAL`.
        spool_directory: Folder in which spans wait on disk while the receiver does not take them; they are sent when it
            does, also by a later process. None by default. Only for this user's eyes, and of a local disk.
            `RVH_TRACE_SPOOL_DIRECTORY`.
        spool_max_bytes: Bytes of all spool files in that folder; 64 MiB. What is over it is dropped and counted.
            `RVH_TRACE_SPOOL_MAX_BYTES`.
        metric_export_interval_ms: Milliseconds between two exports of metrics; 60,000. `OTEL_METRIC_EXPORT_INTERVAL`.
        metric_cardinality_limit: Combinations of attributes that a metric tells apart; 2,000. Further ones are measured
            together, under `otel.metric.overflow`.
        self_metrics: Exports what `stats()` counts as the standard `otel.sdk.*` metrics too, with the others; False by
            default. `RVH_TRACE_SELF_METRICS`.
        rust_log: Which `tracing` spans, `tracing` events and `log` records of Rust code become spans, and events of
            spans, by target and level: `info`, or `info,hyper=warn,shop::stock=trace`. The syntax is that of
            `RUST_LOG`, without filters by span or field. None by default; `RUST_LOG` itself is not read. It is about
            Rust code that is built into this package's native module. `RVH_TRACE_RUST_LOG`.
        rust_events: The least severe of these events and records that go to `logging` too, from a thread of their own:
            `shop::stock` says it as the logger `shop.stock`, `trace` as level 5. The record has the fields as
            attributes, and `otelTraceID` and `otelSpanID`. Alone it lets through what is as severe. `none` by default.
            `RVH_TRACE_RUST_EVENTS`.
        attribute_count_limit: Attributes of a span; 128. `OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT`.
        attribute_value_length_limit: Characters of a string value; unlimited. `OTEL_SPAN_ATTRIBUTE_VALUE_LENGTH_LIMIT`.
        event_count_limit: Events of a span; 128. `OTEL_SPAN_EVENT_COUNT_LIMIT`.
        link_count_limit: Links of a span; 128. `OTEL_SPAN_LINK_COUNT_LIMIT`.
        event_attribute_count_limit: Attributes of an event; 128. `OTEL_EVENT_ATTRIBUTE_COUNT_LIMIT`.
        link_attribute_count_limit: Attributes of a link; 128. `OTEL_LINK_ATTRIBUTE_COUNT_LIMIT`.

    Raises:
        ConfigurationError: An argument has a wrong type or an impossible value; the message names it and says what
            would be right. A wrong environment variable is a warning instead, and its default is used.

    Example:
        >>> init_tracing("shop", exporter="none")
    """
    arguments = {name: value for name, value in locals().items() if value is not None}
    _rvh_trace.init_tracing(**arguments)
    flush_at_exit()
    if _rvh_trace.has_rust_events():
        from rvh_trace import _rust_logging

        _rust_logging.start()
    interval_s = _rvh_trace.open_span_interval()
    if interval_s is not None:
        from rvh_trace import _heartbeat

        _heartbeat.start(interval_s)


async def aflush(timeout_ms: float = 30_000, *, check: bool = False) -> bool:
    """`force_flush` without blocking the event loop.

    Args:
        timeout_ms: Longest wait in milliseconds.
        check: Raise instead of returning False.

    Returns:
        Whether everything that ended before the call was delivered.

    Raises:
        ExportTimeout: With `check`: the deadline passed.
        ExportError: With `check`: spans were lost.

    Example:
        >>> import asyncio
        >>> asyncio.run(aflush(timeout_ms=2_000))
        True
    """
    return await in_thread(lambda: _rvh_trace.force_flush(timeout_ms, check=check))


async def ashutdown(timeout_ms: float = 30_000, *, check: bool = False) -> bool:
    """`shutdown` without blocking the event loop.

    Args:
        timeout_ms: Longest wait in milliseconds.
        check: Raise instead of returning False.

    Returns:
        Whether everything was delivered.

    Raises:
        ExportTimeout: With `check`: the deadline passed.
        ExportError: With `check`: spans were lost.

    Example:
        >>> import asyncio
        >>> asyncio.run(ashutdown(timeout_ms=2_000))
        True
    """
    return await in_thread(lambda: _rvh_trace.shutdown(timeout_ms, check=check))


async def in_thread(call: Callable[[], _R]) -> _R:
    """`call` in a thread of its own: the loop's default executor may be full of the application's work."""
    import asyncio
    import threading

    loop = asyncio.get_running_loop()
    done: asyncio.Future[_R] = loop.create_future()

    def set_result(result: _R) -> None:
        if not done.done():
            done.set_result(result)

    def set_exception(error: BaseException) -> None:
        if not done.done():
            done.set_exception(error)

    def run() -> None:
        try:
            try:
                result = call()
            except BaseException as error:
                loop.call_soon_threadsafe(set_exception, error)
            else:
                loop.call_soon_threadsafe(set_result, result)
        except RuntimeError:
            pass  # The loop was closed under the flush: nobody waits any more.

    threading.Thread(target=run, name="rvh-trace-flush", daemon=True).start()
    return await done


async def off_loop(call: Callable[[], object]) -> None:
    """Calls what blocks without blocking the event loop, asyncio's or trio's; in its place, where there is none."""
    try:
        if (trio := _running_trio()) is not None:
            await trio.to_thread.run_sync(call, abandon_on_cancel=True)
        else:
            await in_thread(call)
    except RuntimeError:
        # No event loop that is known here, or no thread to be had. Nothing else is going on any more.
        call()


def _running_trio() -> Any:
    """The trio module, if it runs this code: hypercorn can serve with it."""
    trio: Any = sys.modules.get("trio")
    return trio if trio is not None and trio.lowlevel.in_trio_run() else None
