"""An application that says which process it runs in: `app`, for servers with several workers.

It makes a span when it is imported, which with `--preload` happens in the process that the workers are forked from.
"""

import os
from typing import Any

import rvh_trace
from rvh_trace import RvhTraceMiddleware, span

rvh_trace.init_tracing("workers")

with span("import"):
    pass


async def answer(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] == "lifespan":
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await rvh_trace.ashutdown()
        await send({"type": "lifespan.shutdown.complete"})
        return
    body = str(os.getpid()).encode()
    with span("answer"):
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]})
        await send({"type": "http.response.body", "body": body})


app = RvhTraceMiddleware(answer)
