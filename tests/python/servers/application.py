"""The application that every server serves, `app`, and the environment it is set up from.

Each request names itself in its query, `?request=17`. The server span has that as `url.query`, and every span made
inside has it as `test.request`, so that a span says by itself which request it belongs to.
"""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from http import HTTPStatus

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

import rvh_trace
from rvh_trace import RvhTraceMiddleware, current_span, inject, span

CHUNK = b"x" * 16 * 1024
CHUNKS = 8
MEETING_TIMEOUT_S = 20.0

rvh_trace.init_tracing("servers")

meetings: dict[int, asyncio.Barrier] = {}


def mark(request: Request) -> dict[str, str]:
    return {"test.request": request.query_params["request"]}


async def plain(request: Request) -> Response:
    return PlainTextResponse("hello")


async def echo(request: Request) -> Response:
    with span("read body", mark(request)):
        body = await request.body()
    return Response(body)


async def stream(request: Request) -> Response:
    async def produce() -> AsyncIterator[bytes]:
        with span("produce", mark(request)):
            for _ in range(CHUNKS):
                yield CHUNK

    return StreamingResponse(produce())


async def nested(request: Request) -> Response:
    async def look_up() -> None:
        current_span().set_attributes(mark(request))
        async with span("query", mark(request)):
            await asyncio.sleep(0)

    async with span("outer", mark(request)):
        task = asyncio.create_task(look_up())
        with span("inner", mark(request)):
            await asyncio.sleep(0)
        await task
    return PlainTextResponse("nested")


async def meet(request: Request) -> Response:
    """Answers when `parties` requests are here: proof that they are served at the same time."""
    parties = int(request.query_params["parties"])
    meeting = meetings.setdefault(parties, asyncio.Barrier(parties))
    async with asyncio.timeout(MEETING_TIMEOUT_S):
        with span("wait", mark(request)):
            await meeting.wait()
    return PlainTextResponse("met")


async def fail(request: Request) -> Response:
    with span("doomed", mark(request)):
        raise LookupError("nothing here")


async def unavailable(request: Request) -> Response:
    return PlainTextResponse("later", HTTPStatus.SERVICE_UNAVAILABLE)


async def context(request: Request) -> Response:
    """Answers what a request to another service would carry from here."""
    headers: dict[str, str] = {}
    inject(headers)
    return JSONResponse(headers)


async def endless(request: Request) -> Response:
    async def produce() -> AsyncIterator[bytes]:
        while True:
            yield CHUNK
            await asyncio.sleep(0)

    return StreamingResponse(produce())


class Mirror:
    """Sends each part of the body back as it comes, the first before it has seen the rest."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        more_body = True
        while more_body:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            more_body = message.get("more_body", False)
            await send({"type": "http.response.body", "body": message.get("body", b""), "more_body": more_body})


class Held:
    """Begins a response and holds it until the client goes away."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"begun", "more_body": True})
        with span("hold", mark(Request(scope))):
            while (await receive())["type"] != "http.disconnect":
                pass


class SentInSpan:
    """Hands the last message to the server while a span is still open."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with span("respond", mark(Request(scope))):
            await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
            await send({"type": "http.response.body", "body": b"ok"})


class Settling:
    """Counts the requests that pass through; `/settle` waits for their end and answers with `rvh_trace.stats()`.

    It stands outside the middleware: `/settle` itself is not traced.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app
        self.under_way = 0
        self.idle = asyncio.Event()
        self.idle.set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
        elif scope["path"] == "/settle":
            await self.settle(scope, receive, send)
        else:
            self.under_way += 1
            self.idle.clear()
            try:
                await self.app(scope, receive, send)
            finally:
                self.under_way -= 1
                if self.under_way == 0:
                    self.idle.set()

    async def settle(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.idle.wait()
        await rvh_trace.aflush()
        await Response(json.dumps(rvh_trace.stats()))(scope, receive, send)


@asynccontextmanager
async def lifespan(app: Starlette) -> AsyncIterator[None]:
    rvh_trace.install_task_factory()
    yield
    await rvh_trace.ashutdown()


app = Settling(
    Starlette(
        routes=[
            Route("/plain", plain),
            Route("/echo", echo, methods=["POST"]),
            Route("/stream", stream),
            Route("/nested", nested),
            Route("/meet", meet),
            Route("/fail", fail),
            Route("/unavailable", unavailable),
            Route("/context", context),
            Route("/endless", endless),
            Route("/held", Held()),
            Route("/mirror", Mirror(), methods=["POST"]),
            Route("/sent-in-span", SentInSpan()),
        ],
        middleware=[Middleware(RvhTraceMiddleware)],
        lifespan=lifespan,
    )
)
