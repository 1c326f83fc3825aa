"""rvh_trace: distributed tracing for asyncio and ASGI services, at the cost of an empty `with` statement.

    import rvh_trace
    from rvh_trace import RvhTraceMiddleware, install_task_factory, span, trace

    rvh_trace.init_tracing("shop")           # OTEL_* variables are honoured
    app.add_middleware(RvhTraceMiddleware)   # one SERVER span a request

    with span("checkout", {"cart.id": 7}) as checkout:
        checkout.set_attribute("cart.size", 3)

Importing it starts nothing: no thread, no event loop, no connection.
"""

from __future__ import annotations

from rvh_trace import _processes
from rvh_trace._decorator_api import trace
from rvh_trace._layers import LayerHandle, add_layer, remove_layer
from rvh_trace._loop import watch_loop
from rvh_trace._open_spans import OpenSpan, OpenSpans, open_spans
from rvh_trace._places import StackFrame
from rvh_trace._rvh_trace import (
    ConsoleExporter,
    Context,
    OtlpExporter,
    OtlpFileExporter,
    Span,
    SpanContext,
    __version__,
    current_span,
    extract,
    force_flush,
    inject,
    new_span,
    shutdown,
    span,
    span_future,
    stats,
    use_context,
)
from rvh_trace.asgi import RvhTraceMiddleware
from rvh_trace.errors import ConfigurationError, ExportError, ExportTimeout, RvhTraceError
from rvh_trace.executors import instrument_executors, uninstrument_executors
from rvh_trace.lifecycle import aflush, ashutdown, init_tracing
from rvh_trace.scoped import Tracing, tracing
from rvh_trace.signals import dump_on_signal
from rvh_trace.tasks import install_task_factory, uninstall_task_factory

__all__ = (
    "ConfigurationError",
    "ConsoleExporter",
    "Context",
    "ExportError",
    "ExportTimeout",
    "LayerHandle",
    "OpenSpan",
    "OpenSpans",
    "OtlpExporter",
    "OtlpFileExporter",
    "RvhTraceError",
    "RvhTraceMiddleware",
    "Span",
    "SpanContext",
    "StackFrame",
    "Tracing",
    "__version__",
    "add_layer",
    "aflush",
    "ashutdown",
    "current_span",
    "dump_on_signal",
    "extract",
    "force_flush",
    "init_tracing",
    "inject",
    "install_task_factory",
    "instrument_executors",
    "new_span",
    "open_spans",
    "remove_layer",
    "shutdown",
    "span",
    "span_future",
    "stats",
    "trace",
    "tracing",
    "uninstall_task_factory",
    "uninstrument_executors",
    "use_context",
    "watch_loop",
)

# Error messages, documentation tools and pickles name an object by where users import it from.
for _name in __all__:
    _object = globals()[_name]
    if getattr(_object, "__module__", __name__) != __name__:
        _object.__module__ = __name__

# Ids must differ in every process, whether or not tracing was set up before the fork.
_processes.watch_forks()
