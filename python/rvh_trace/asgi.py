"""The ASGI middleware: one SERVER span a request. The rules are in the native module's `ServerInstrumentation`."""

from __future__ import annotations

import sys

from rvh_trace._rvh_trace import ServerInstrumentation

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from rvh_trace._rvh_trace import ServerSpan
    from rvh_trace._types import ASGIApp, Receive, Scope, Send


class RvhTraceMiddleware:
    """One SERVER span for every HTTP request that passes through an ASGI application.

    The span continues the trace of the request's `traceparent` header, carries the attributes of the HTTP semantic
    conventions 1.44, is current while the application runs, and ends when the last body message (or the last trailers
    message) has been handed to the server. Its name is `{method} {route}` once Starlette, FastAPI, Litestar or Quart
    has dispatched the request, else the method. A 5xx status or an escaping exception makes it an error; a cancelled
    request is marked `rvh_trace.outcome: cancelled` and is not an error.

    Scopes of other types (websocket, lifespan) pass through untouched. The application sees the same messages and
    exceptions with and without it. Added twice to one request path, it makes one span.

    Example:
        >>> from starlette.applications import Starlette
        >>> app = Starlette()
        >>> app.add_middleware(RvhTraceMiddleware)

        Around any other ASGI application: `app = RvhTraceMiddleware(app)`.

    Sources: semantic conventions "HTTP spans"; ASGI specification 3.0, "HTTP & WebSocket"; W3C Trace Context.
    """

    __slots__ = ("_start", "app")

    def __init__(self, app: ASGIApp) -> None:
        self.app: ASGIApp = app
        self._start: Callable[[Scope, Send], ServerSpan | None] = ServerInstrumentation().start
        if "quart.signals" in sys.modules:
            from rvh_trace import _quart

            _quart.connect()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        span = self._start(scope, send)
        if span is None:
            await self.app(scope, receive, send)
            return
        try:
            await self.app(scope, receive, span.send)
        except BaseException as error:
            span.finish(error)
            raise
        span.finish()
