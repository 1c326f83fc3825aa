"""One request through the middleware, and the span that it made."""

import asyncio
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from handmade_server import LAST_BODY, START, App, Message, Receive, Scope, Send, answering, serve

from rvh_trace import RvhTraceMiddleware
from rvh_trace.testing import FinishedSpan, InMemoryExporter

__all__ = (
    "SAMPLED",
    "SPAN_ID",
    "TRACEPARENT",
    "TRACE_ID",
    "UNSAMPLED",
    "App",
    "Message",
    "Receive",
    "Scope",
    "Send",
    "body",
    "python_path_with_tests",
    "run",
    "server_span",
    "start",
)

TRACE_ID, SPAN_ID = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
TRACEPARENT = f"00-{TRACE_ID}-{SPAN_ID}-01".encode()
SAMPLED, UNSAMPLED = (b"traceparent", TRACEPARENT), (b"traceparent", TRACEPARENT[:-1] + b"0")
TIMEOUT_S = 30


def start(status: int = 200, **more: Any) -> Message:
    """The message that starts a response."""
    return START | {"status": status} | more


def body(content: bytes = b"ok", *, more: bool = False) -> Message:
    """A part of the body of a response."""
    return LAST_BODY | {"body": content, "more_body": more}


def run(
    app: App | None = None, scope: Scope | None = None, received: Iterable[Message] = (), **options: Any
) -> list[Message]:
    """What an application, by default one that answers 200, sends behind a middleware with these options."""

    async def main() -> list[Message]:
        async with asyncio.timeout(TIMEOUT_S):
            return await serve(RvhTraceMiddleware(app or answering(), **options), scope, received)

    return asyncio.run(main())


def server_span(
    spans: InMemoryExporter, app: App | None = None, scope: Scope | None = None, **options: Any
) -> FinishedSpan:
    """The one SERVER span of such a request."""
    spans.clear()
    run(app, scope, **options)
    (server,) = (one for one in spans if one.kind == "server")
    return server


def python_path_with_tests() -> str:
    """`PYTHONPATH` for scripts that drive applications by hand."""
    return os.pathsep.join(filter(None, [str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH")]))
