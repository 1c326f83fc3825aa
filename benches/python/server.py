"""A bare ASGI application, the requests it gets, and the loop that hands them over.

No server and no sockets: what is measured is what a middleware adds, nothing else.
"""

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from itertools import repeat
from time import perf_counter_ns
from typing import Any

from .contender import SAMPLED
from .measure import Timed

Message = MutableMapping[str, Any]
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
ASGIApp = Callable[[Scope, Receive, Send], Awaitable[None]]


async def bare(scope: Scope, receive: Receive, send: Send) -> None:
    """Answers 200 with a short body."""
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]})
    await send({"type": "http.response.body", "body": b"hello"})


def request(traceparent: str) -> dict[str, Any]:
    """An HTTP scope as uvicorn makes it from a browser behind a proxy: eleven headers."""
    headers = [
        (b"host", b"shop.example.com:8000"),
        (b"user-agent", b"Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0"),
        (b"accept", b"application/json, text/plain, */*"),
        (b"accept-language", b"en-US,en;q=0.5"),
        (b"accept-encoding", b"gzip, deflate, br, zstd"),
        (b"referer", b"https://shop.example.com/cart"),
        (b"cookie", b"session=5f2b1c0a9d8e7f6a5b4c3d2e1f0a9b8c; theme=dark"),
        (b"x-request-id", b"8f14e45f-ceea-467f-a9f0-2b6f0c0c1d11"),
        (b"x-forwarded-for", b"203.0.113.7"),
        (b"traceparent", traceparent.encode()),
        (b"connection", b"keep-alive"),
    ]
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "server": ("127.0.0.1", 8000),
        "client": ("127.0.0.1", 51234),
        "scheme": "http",
        "method": "GET",
        "root_path": "",
        "path": "/items/42",
        "raw_path": b"/items/42",
        "query_string": b"limit=10&sort=price",
        "headers": headers,
        "state": {},
    }


async def _receive() -> Message:
    return {"type": "http.request", "body": b"", "more_body": False}


async def _send(message: Message) -> None:
    pass


def requests(app: ASGIApp, traceparent: str = SAMPLED) -> Timed:
    """Requests to `app` one after the other, in a running event loop; each gets its own copy of the scope."""
    scope = request(traceparent)
    loop = asyncio.new_event_loop()

    async def drive(n: int) -> int:
        start = perf_counter_ns()
        for _ in repeat(None, n):
            await app(scope.copy(), _receive, _send)
        return perf_counter_ns() - start

    def run(n: int) -> int:
        return loop.run_until_complete(drive(n))

    return run
