# pyright: basic, reportMissingImports=false
"""opentelemetry-sdk with the OTLP exporter, and the two ASGI middlewares that stand on it.

Everything as it comes: default batch processor, default attributes, no metrics.
"""

import asyncio
import logging
from collections.abc import Generator
from contextlib import AbstractContextManager, contextmanager, suppress
from importlib.metadata import PackageNotFoundError, version
from itertools import repeat
from time import perf_counter_ns
from typing import Any

from opentelemetry import context, propagate
from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import BatchLogRecordProcessor, LogRecordExportResult
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExportResult
from opentelemetry.trace import Tracer

from ..contender import SAMPLED, UNSAMPLED, Contender
from ..logs import logged
from ..measure import Case, Timed
from ..server import bare, requests
from ..spans import NoopSpan, empty, with_attributes, within
from ..tasks import awaited_tasks, noop


class CountingExporter(OTLPSpanExporter):
    """Counts what the collector took."""

    exported = 0

    def export(self, spans: list[ReadableSpan]) -> SpanExportResult:
        result = super().export(spans)
        if result is SpanExportResult.SUCCESS:
            self.exported += len(spans)
        return result


class CountingLogExporter(OTLPLogExporter):
    """Counts what the collector took."""

    exported = 0

    def export(self, batch: Any) -> LogRecordExportResult:
        result = super().export(batch)
        if result is LogRecordExportResult.SUCCESS:
            self.exported += len(batch)
        return result


def _with_attributes(tracer: Tracer) -> Timed:
    span = tracer.start_as_current_span

    def run(n: int) -> int:
        start = perf_counter_ns()
        for _ in repeat(None, n):
            with span(
                "op",
                attributes={
                    "cart.id": "c-1729",
                    "cart.size": 3,
                    "cart.total": 12.5,
                    "cart.paid": True,
                    "cart.currency": "EUR",
                },
            ) as s:
                s.set_attribute("cart.state", "open")
        return perf_counter_ns() - start

    return run


def _with_ready_attributes(tracer: Tracer) -> Timed:
    span = tracer.start_as_current_span
    attributes = {"cart.id": "c-1729", "cart.size": 3, "cart.total": 12.5, "cart.paid": True, "cart.currency": "EUR"}

    def run(n: int) -> int:
        start = perf_counter_ns()
        for _ in repeat(None, n):
            with span("op", attributes=attributes) as s:
                s.set_attribute("cart.state", "open")
        return perf_counter_ns() - start

    return run


@contextmanager
def _remote(traceparent: str) -> Generator[None, None, None]:
    token = context.attach(propagate.extract({"traceparent": traceparent}))
    try:
        yield
    finally:
        context.detach(token)


def _task_case(tracer: Tracer) -> Case:
    span = tracer.start_as_current_span

    async def traced() -> None:
        with span("noop"):
            pass

    loop = asyncio.new_event_loop()

    def parent() -> AbstractContextManager[Any]:
        return span("parent")

    return Case(awaited_tasks(traced, parent, loop), awaited_tasks(noop, parent, loop), parents=1)


def _instrumentation_cases(provider: TracerProvider) -> dict[str, Case]:
    try:
        from opentelemetry.instrumentation.asgi import OpenTelemetryMiddleware
    except ImportError:
        return {}
    one = OpenTelemetryMiddleware(bare, tracer_provider=provider, exclude_spans=["send", "receive"])
    # The two messages sent are a span each; nothing is received.
    three = OpenTelemetryMiddleware(bare, tracer_provider=provider)
    return {
        "server": Case(requests(one), requests(bare)),
        "server-three-spans": Case(requests(three), requests(bare), 3),
        "server-unsampled": Case(requests(one, UNSAMPLED), requests(bare, UNSAMPLED), 0),
    }


def _starlette_cases(provider: TracerProvider) -> dict[str, Case]:
    try:
        from starlette.middleware.opentelemetry import OpenTelemetryMiddleware
    except ImportError:
        return {}
    server = OpenTelemetryMiddleware(bare, tracer_provider=provider)
    return {
        "server-starlette": Case(requests(server), requests(bare)),
        "server-starlette-unsampled": Case(requests(server, UNSAMPLED), requests(bare, UNSAMPLED), 0),
    }


def _log_cases(tracer: Tracer, provider: LoggerProvider) -> dict[str, Case]:
    try:
        from opentelemetry.instrumentation.logging.handler import LoggingHandler
    except ImportError:
        return {}

    def parent() -> AbstractContextManager[Any]:
        return tracer.start_as_current_span("parent")

    # With the place in the source, as ours always has it.
    handler = LoggingHandler(logger_provider=provider, log_code_attributes=True)
    return {"log": Case(logged(handler, parent), logged(logging.NullHandler(), parent), parents=1)}


def _versions() -> str:
    found: list[str] = []
    for package in (
        "opentelemetry-sdk",
        "opentelemetry-instrumentation-asgi",
        "opentelemetry-instrumentation-logging",
        "starlette",
    ):
        with suppress(PackageNotFoundError):
            found.append(f"{package} {version(package)}")
    return ", ".join(found)


def open_contender(endpoint: str) -> Contender:
    """Every case; those whose package is missing are left out."""
    provider = TracerProvider(resource=Resource.create({"service.name": "bench"}))
    exporter = CountingExporter(endpoint=f"{endpoint}/v1/traces")
    provider.add_span_processor(BatchSpanProcessor(exporter))
    logger_provider = LoggerProvider(resource=provider.resource)
    log_exporter = CountingLogExporter(endpoint=f"{endpoint}/v1/logs")
    logger_provider.add_log_record_processor(BatchLogRecordProcessor(log_exporter))
    tracer = provider.get_tracer("bench")
    span = tracer.start_as_current_span
    attributes, ready_attributes = _with_attributes(tracer), _with_ready_attributes(tracer)

    def child_of(traceparent: str, timed: Timed) -> Timed:
        return within(lambda: _remote(traceparent), timed)

    cases = {
        "span": Case(empty(span), empty(NoopSpan)),
        "attributes": Case(attributes, with_attributes(NoopSpan)),
        "task": _task_case(tracer),
        "unsampled": Case(child_of(UNSAMPLED, empty(span)), child_of(SAMPLED, empty(span)), 0, 1),
        "unsampled-attributes": Case(child_of(UNSAMPLED, ready_attributes), child_of(SAMPLED, ready_attributes), 0, 1),
        **_log_cases(tracer, logger_provider),
        **_instrumentation_cases(provider),
        **_starlette_cases(provider),
    }

    def drain() -> None:
        provider.force_flush()
        logger_provider.force_flush()

    def close() -> None:
        provider.shutdown()
        logger_provider.shutdown()

    def exported() -> int:
        return exporter.exported + log_exporter.exported

    return Contender(_versions(), cases, drain, exported, close)
