"""A tracing library under a server: what it adds to the application, and how to see what it exported."""

from collections.abc import Callable
from dataclasses import dataclass

from starlette.applications import Starlette

from ..python.contender import SAMPLED, UNSAMPLED


@dataclass(frozen=True)
class Contender:
    """A library, configured and exporting, in the process of the server."""

    version: str
    """Names and versions of what is measured."""
    install: Callable[[Starlette], object]
    """Adds the middleware."""
    drain: Callable[[], object]
    """Exports what is queued and returns when it is done. Called on a thread of its own."""
    exported: Callable[[], int] | None
    """Spans that reached the collector so far; None when the library does not count them."""


@dataclass(frozen=True)
class Entry:
    """A line of the table."""

    name: str
    who: str
    module: str
    """The module that opens the contender, and its function there."""
    function: str
    spans: int = 1
    """Spans that a request has to export."""
    traceparent: str = SAMPLED
    """What every request carries."""


UNTRACED = "untraced"
OURS = "rvh_trace"
PEERS = ".opentelemetry_python"
ENTRIES = (
    Entry(UNTRACED, "untraced", ".untraced", "open_contender", spans=0),
    Entry(OURS, "rvh_trace", ".ours", "open_contender"),
    Entry("rvh_trace-unsampled", "rvh_trace, not sampled", ".ours", "open_contender", 0, UNSAMPLED),
    Entry("pytracingx", "pytracingx, by hand", ".pytracingx_by_hand", "open_contender"),
    Entry("starlette", "Starlette's OpenTelemetry middleware", PEERS, "open_starlette"),
    Entry("opentelemetry-one-span", "opentelemetry-instrumentation-asgi, one span", PEERS, "open_one_span"),
    Entry("opentelemetry", "opentelemetry-instrumentation-asgi, as it comes", PEERS, "open_default", spans=3),
)
NAMES = tuple(entry.name for entry in ENTRIES)
