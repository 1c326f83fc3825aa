"""An application that does nothing for its last spans: no lifespan of its own, no flush."""

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

import rvh_trace
from rvh_trace import RvhTraceMiddleware, span

rvh_trace.init_tracing("ending")


async def work(request: Request) -> Response:
    with span("work"):
        return PlainTextResponse("done")


app = Starlette(routes=[Route("/work", work)], middleware=[Middleware(RvhTraceMiddleware)])
