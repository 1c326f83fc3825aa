"""`tracing`: a configuration for the time of a block."""

from __future__ import annotations

from rvh_trace._processes import flush_at_exit
from rvh_trace._rvh_trace import ScopedTracer

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from os import PathLike
    from types import TracebackType
    from typing import Literal

    from rvh_trace._rvh_trace import (
        ConsoleExporter,
        OtlpExporter,
        OtlpFileExporter,
        _Stats,  # pyright: ignore[reportPrivateUsage]
    )
    from rvh_trace._types import AttributeValue
    from rvh_trace.exporter import SpanExporter


class Tracing:
    """A block that is traced by a configuration of its own; see `tracing`, which makes it.

    It can be entered again after it was left, and is then a new start: counters begin at zero, files are opened again
    and appended to.

    Example:
        >>> import rvh_trace
        >>> with rvh_trace.tracing("job", exporter="none") as block:
        ...     with rvh_trace.span("work"):
        ...         pass
        >>> block.delivered
        True
    """

    __slots__ = ("_check", "_delivered", "_tracer")

    def __init__(self, tracer: ScopedTracer, check: bool) -> None:
        self._tracer = tracer
        self._check = check
        self._delivered: bool | None = None

    @property
    def delivered(self) -> bool | None:
        """Whether every span that ended in the block was delivered; None until the block has ended."""
        return self._delivered

    def stats(self) -> _Stats:
        """`rvh_trace.stats()` of this block alone, also after its end. All zero before it has begun."""
        return self._tracer.stats()

    def __enter__(self) -> Tracing:
        self._tracer.enter()
        self._delivered = None
        flush_at_exit()
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._tracer.leave()
        self._shutdown(exc)

    async def __aenter__(self) -> Tracing:
        return self.__enter__()

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        from rvh_trace.lifecycle import off_loop

        # Before the wait: what other tasks begin from here on is none of the block's.
        self._tracer.leave()
        await off_loop(lambda: self._shutdown(exc))

    def _shutdown(self, error: BaseException | None) -> None:
        # An exception that leaves the block goes before one about its spans, which is a line on standard error then.
        check = self._check and error is None
        self._delivered = False
        self._delivered = self._tracer.shutdown(check=check)


def tracing(
    service_name: str | None = None,
    *,
    check: bool = False,
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
    spool_directory: str | PathLike[str] | None = None,
    spool_max_bytes: int | None = None,
    metric_export_interval_ms: float | None = None,
    metric_cardinality_limit: int | None = None,
    self_metrics: bool | None = None,
    attribute_count_limit: int | None = None,
    attribute_value_length_limit: int | None = None,
    event_count_limit: int | None = None,
    link_count_limit: int | None = None,
    event_attribute_count_limit: int | None = None,
    link_attribute_count_limit: int | None = None,
) -> Tracing:
    """A block, `with` or `async with`, whose spans go where this says and nowhere else.

        with rvh_trace.tracing("job", exporter=[ConsoleExporter("job.log"), OtlpFileExporter("spans.jsonl")]) as block:
            work()
        assert block.delivered, block.stats()

    At the end of the block its spans are sent, within `exit_timeout_ms`, and what was before is back: the tracing that
    `init_tracing` set up, an outer block, or none. A destination that is down gets one last attempt. `init_tracing`
    need not have been called, and may be called in the block; it counts after it. `async with` does not block the event
    loop while it sends. A block is for a job, a test or a command, not for each request: it has a queue, from its first
    span on a thread, and some kilobytes of it stay for good, because a span may outlive it.

    The block is the process's, not the thread's or the task's: while it runs, all threads and tasks are traced by it,
    and of several that run at once, by the one that was entered last. What decides is where a span is created:

    - Created before the block, it goes where it would have gone without it, also if it ends inside.
    - Created in the block and not ended by its end, it is lost and counted: `block.stats()["dropped"]["exit"]`.
    - Created in the block below a span from before it, it is that span's child, in the same trace, and goes where the
      block says.

    A forked child that begins in the block is in it too, and sends its own spans: at the end of its block, at its exit,
    or by `force_flush` before `os._exit`. A process that exits in the middle of a block sends what is left as it exits.

    The arguments are those of `init_tracing`, with their `OTEL_*` variables and defaults, but for these. Metrics are
    exported only if `metrics_exporter` is given: the series of a service would begin anew with every block. There is no
    `open_span_interval_ms`, `rust_log` and `rust_events`: the thread that looks for open spans and what listens to Rust
    code are the process's.

    Args:
        service_name: `service.name`. `OTEL_SERVICE_NAME`.
        exporter: Where the spans go, as for `init_tracing`.
        exit_timeout_ms: Milliseconds that the end of the block may wait for what is left to be sent; 5,000.
        check: Raise at the end of the block if spans were lost, instead of a line on standard error and
            `delivered = False`. Not if an exception leaves the block: that one passes through untouched.
        **arguments: As for `init_tracing`.

    Raises:
        ConfigurationError: An argument has a wrong type. As the block is entered: it has an impossible value, or a file
            cannot be opened; the message says what would be right.
        RuntimeError: The block is entered while it is running.
        ExportTimeout: With `check`, at the end of the block: `exit_timeout_ms` passed.
        ExportError: With `check`, at the end of the block: spans were lost.

    Example:
        >>> import rvh_trace
        >>> with rvh_trace.tracing("job", exporter=rvh_trace.ConsoleExporter("/dev/null", format="json")) as block:
        ...     with rvh_trace.span("work"):
        ...         pass
        >>> block.stats()["exported"]
        1
    """
    arguments = {name: value for name, value in locals().items() if value is not None and name != "check"}
    return Tracing(ScopedTracer(**arguments), check)
