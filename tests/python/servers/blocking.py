"""An application that blocks its loop. Apart: the other tests have applications that do not."""

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

import rvh_trace
from rvh_trace import RvhTraceMiddleware, span

from .application import Settling

BLOCKED_S = 0.5


async def block(request: Request) -> Response:
    time.sleep(BLOCKED_S)  # noqa: ASYNC251
    return PlainTextResponse("blocked")


async def block_in_span(request: Request) -> Response:
    with span("to blame"):
        time.sleep(BLOCKED_S)  # noqa: ASYNC251
    return PlainTextResponse("blocked")


@asynccontextmanager
async def lifespan(app: Starlette) -> AsyncIterator[None]:
    rvh_trace.install_task_factory()
    with rvh_trace.watch_loop():
        yield
    await rvh_trace.ashutdown()


app = Settling(
    Starlette(
        routes=[Route("/block", block), Route("/block-in-span", block_in_span)],
        middleware=[Middleware(RvhTraceMiddleware)],
        lifespan=lifespan,
    )
)
