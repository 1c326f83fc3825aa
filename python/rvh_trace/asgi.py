"""The ASGI middleware: one SERVER span a request. The rules are in the native module's `ServerInstrumentation`."""

from __future__ import annotations

import sys

from rvh_trace import _lifespan
from rvh_trace._rvh_trace import ServerInstrumentation, call_directly

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from rvh_trace._rvh_trace import Span
    from rvh_trace._types import ASGIApp, Message, Receive, Scope, Send


class RvhTraceMiddleware(ServerInstrumentation):
    """One SERVER span for every HTTP request and websocket that passes through an ASGI application.

    The span continues the trace of the request's `traceparent` header, or of those that `propagators` of `init_tracing`
    has read, carries the attributes of the HTTP semantic conventions 1.44, is current while the application runs, and
    ends when the last body message (or the last trailers message) has been handed to the server. Its name is
    `{method} {route}` once the framework has dispatched the request, else the method. A websocket's span lasts until
    either side closes; a child, `websocket.handshake`, is exported as soon as the application has accepted.

    How a request ended is kept apart: a 5xx or an exception makes the span an error; a client that went away is marked
    `rvh_trace.outcome: disconnected` and a cancelled request `rvh_trace.outcome: cancelled`, neither of which is one.
    What background tasks do after the response is in traces of its own, linked to the request's span.

    `http.server.request.duration` is recorded with the same duration, whether the span is sampled or not.

    At the end of the lifespan the last spans are sent before `lifespan.shutdown.complete` is, because some servers
    (uvicorn on SIGTERM) end without the interpreter's exit. Scopes of other types pass through untouched. The
    application sees the same messages and exceptions with and without it. Added twice to one request path, it makes one
    span; around it, so does opentelemetry-sdk's instrumentation.

    Args:
        app: The ASGI 3 application.
        excluded_urls: Regular expressions; a request in whose URL (`https://host/path`) one is found is not traced.
            `OTEL_PYTHON_EXCLUDED_URLS`.
        capture_request_headers: Regular expressions of whole header names, in any case, to record as
            `http.request.header.<name>`. `OTEL_INSTRUMENTATION_HTTP_CAPTURE_HEADERS_SERVER_REQUEST`.
        capture_response_headers: The same for `http.response.header.<name>`.
            `OTEL_INSTRUMENTATION_HTTP_CAPTURE_HEADERS_SERVER_RESPONSE`.
        sanitize_headers: Regular expressions; a captured header in whose name one is found shows `[REDACTED]`. Unset,
            well-known headers with credentials do. `OTEL_INSTRUMENTATION_HTTP_CAPTURE_HEADERS_SANITIZE_FIELDS`.
        known_methods: What `http.request.method` may be, in place of the standard methods; anything else is `_OTHER`.
            `OTEL_INSTRUMENTATION_HTTP_KNOWN_METHODS`.
        trusted_proxies: Addresses or networks (`10.0.0.0/8`), `unix`, or `*`, whose `Forwarded` and `X-Forwarded-*` are
            believed; none by default. `RVH_TRACE_TRUSTED_PROXIES`.
        public_endpoint: True, or a function of the scope: anybody may call, so the caller's context becomes a link of a
            new trace and its baggage is dropped. A function that raises is called no more: every request then counts as
            public. `RVH_TRACE_PUBLIC_ENDPOINT`.
        trace_response_headers: `server-timing`, `traceresponse`, or both: headers that tell the client the trace, with
            `Access-Control-Expose-Headers`. `RVH_TRACE_RESPONSE_HEADERS`.
        error_outcomes: What makes the span an error, of `4xx`, `5xx`, `exception`, `disconnected` and `cancelled`;
            `5xx` and `exception` by default. `RVH_TRACE_ERROR_OUTCOMES`.
        opt_in: Names of opt-in attributes and metrics to record: `client.port`, `user_agent.synthetic.type`,
            `http.request.body.size`, `http.response.body.size`, `http.server.active_requests`,
            `http.server.request.body.size`, `http.server.response.body.size`, `server.address` (on metrics).
            `RVH_TRACE_OPT_IN`.
        phases: Record on the span where the time went: time to the first byte, seconds awaiting `send` and `receive`,
            chunks. The span then ends when the server has taken the last message. `RVH_TRACE_PHASES`.
        websocket_messages: A span for each websocket message. `RVH_TRACE_WEBSOCKET_MESSAGES`.
        flush_at_shutdown: Send what waits when the application has shut down, before the server hears of it; True. At
            most the `exit_timeout_ms` of `init_tracing`, off the event loop. `RVH_TRACE_FLUSH_AT_SHUTDOWN`.
        task_spans: A span for every task that is created in a recorded one: `install_task_factory`, called for the
            running loop with the first request or lifespan event. A factory of the application's own call keeps its
            options. `RVH_TRACE_TASK_SPANS`.
        request_hook: Called with the span and the scope when the request has arrived.
        response_hook: Called with the span and the message that starts the response.
        span_name: Called with the scope when the response is over; the name to give the span, or None.
        framework: `fastapi`, `starlette` or `django`: `OTEL_PYTHON_<framework>_EXCLUDED_URLS` is then read first.

    A hook that raises is logged once and called no more.

    Raises:
        ConfigurationError: An argument has a wrong type or an impossible value; the message names it and says what
            would be right. A wrong environment variable is a warning instead.

    Example:
        >>> from starlette.applications import Starlette
        >>> app = Starlette()
        >>> app.add_middleware(RvhTraceMiddleware, excluded_urls=["/health$"])

        Around any other ASGI application: `app = RvhTraceMiddleware(app)`.

    Sources: semantic conventions "HTTP spans" and "HTTP metrics"; ASGI specification 3.0, "HTTP & WebSocket"; W3C Trace
    Context.
    """

    __slots__ = ("app",)

    def __init__(
        self,
        app: ASGIApp,
        *,
        excluded_urls: str | Iterable[str] | None = None,
        capture_request_headers: str | Iterable[str] | None = None,
        capture_response_headers: str | Iterable[str] | None = None,
        sanitize_headers: str | Iterable[str] | None = None,
        known_methods: str | Iterable[str] | None = None,
        trusted_proxies: str | Iterable[str] | None = None,
        public_endpoint: bool | Callable[[Scope], bool] | None = None,
        trace_response_headers: str | Iterable[str] | None = None,
        error_outcomes: str | Iterable[str] | None = None,
        opt_in: str | Iterable[str] | None = None,
        phases: bool | None = None,
        websocket_messages: bool | None = None,
        flush_at_shutdown: bool | None = None,
        task_spans: bool | None = None,
        request_hook: Callable[[Span, Scope], object] | None = None,
        response_hook: Callable[[Span, Message], object] | None = None,
        span_name: Callable[[Scope], str | None] | None = None,
        framework: str | None = None,
    ) -> None:
        self.app: ASGIApp = app
        self._configure(
            excluded_urls=excluded_urls,
            capture_request_headers=capture_request_headers,
            capture_response_headers=capture_response_headers,
            sanitize_headers=sanitize_headers,
            known_methods=known_methods,
            trusted_proxies=trusted_proxies,
            public_endpoint=public_endpoint,
            trace_response_headers=trace_response_headers,
            error_outcomes=error_outcomes,
            opt_in=opt_in,
            phases=phases,
            websocket_messages=websocket_messages,
            flush_at_shutdown=flush_at_shutdown,
            task_spans=task_spans,
            request_hook=request_hook,
            response_hook=response_hook,
            span_name=span_name,
            framework=framework,
        )
        if "quart.signals" in sys.modules:
            from rvh_trace import _quart

            _quart.connect()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        # A local first: CPython specialises loading a slot, not calling one.
        app = self.app
        started = self._start(scope, receive, send)
        if started is None:
            if self._flushes(scope):
                send = _lifespan.flushing(send)
            return await app(scope, receive, send)
        span, receive, send = started
        try:
            result = await app(scope, receive, send)
        except BaseException as error:
            span.finish(error)
            raise
        span.finish()
        return result


call_directly(RvhTraceMiddleware)
