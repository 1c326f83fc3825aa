# pyright: basic, reportMissingImports=false
"""opentelemetry-sdk with the OTLP exporter, default batch processor, no metrics, and the middlewares on top of it."""

from importlib.metadata import version
from typing import Any

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

from ..python.peers.opentelemetry_python import CountingExporter
from .contender import Contender


def _contender(package: str, middleware: Any, endpoint: str, **options: Any) -> Contender:
    provider = TracerProvider(resource=Resource.create({"service.name": "bench"}))
    exporter = CountingExporter(endpoint=f"{endpoint}/v1/traces")
    provider.add_span_processor(BatchSpanProcessor(exporter))
    return Contender(
        f"opentelemetry-sdk {version('opentelemetry-sdk')}, {package} {version(package)}",
        lambda app: app.add_middleware(middleware, tracer_provider=provider, **options),
        provider.force_flush,
        lambda: exporter.exported,
    )


def _instrumentation(endpoint: str, **options: Any) -> Contender:
    from opentelemetry.instrumentation.asgi import OpenTelemetryMiddleware

    return _contender("opentelemetry-instrumentation-asgi", OpenTelemetryMiddleware, endpoint, **options)


def open_default(endpoint: str) -> Contender:
    """A server span, and a span for each of the two messages that are sent."""
    return _instrumentation(endpoint)


def open_one_span(endpoint: str) -> Contender:
    """The server span alone."""
    return _instrumentation(endpoint, exclude_spans=["send", "receive"])


def open_starlette(endpoint: str) -> Contender:
    """Starlette's own middleware."""
    from starlette.middleware.opentelemetry import OpenTelemetryMiddleware

    return _contender("starlette", OpenTelemetryMiddleware, endpoint)
