"""A client of websockets made by hand, and the span that its connection made."""

import asyncio
from collections.abc import Iterable
from typing import Any

from handmade_server import http_scope

from asgi.serving import TIMEOUT_S, App, Message, Receive, Scope, Send
from rvh_trace import RvhTraceMiddleware
from rvh_trace.testing import FinishedSpan, InMemoryExporter

CONNECT = {"type": "websocket.connect"}
ACCEPT = {"type": "websocket.accept"}
CLOSE = {"type": "websocket.close"}
WS = "rvh_trace.websocket."


def websocket_scope(path: str = "/ws/kitchen", **overrides: Any) -> Scope:
    scope = http_scope(path, scheme="ws", type="websocket", subprotocols=[], **overrides)
    del scope["method"]
    return scope


def text(content: str) -> Message:
    return {"type": "websocket.receive", "text": content}


def sent_text(content: str) -> Message:
    return {"type": "websocket.send", "text": content}


def gone(code: int = 1001, **more: Any) -> Message:
    return {"type": "websocket.disconnect", "code": code} | more


def connect(app: App, received: Iterable[Message] = (), scope: Scope | None = None, **options: Any) -> list[Message]:
    """What an application sends to a client that connects and sends these messages."""
    sent: list[Message] = []

    async def main() -> None:
        messages = iter([CONNECT, *received])

        async def receive() -> Message:
            await asyncio.sleep(0)
            for message in messages:
                return message
            return await asyncio.Event().wait()  # type: ignore[return-value]

        async def send(message: Message) -> None:
            await asyncio.sleep(0)
            sent.append(message)

        async with asyncio.timeout(TIMEOUT_S):
            await RvhTraceMiddleware(app, **options)(scope or websocket_scope(), receive, send)

    asyncio.run(main())
    return sent


def sending(*messages: Message) -> App:
    """Accepts nothing by itself: takes the connect, sends these, and returns."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        for message in messages:
            await send(message)

    return app


async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    """Accepts, and sends back what it gets until the client leaves."""
    await receive()
    await send(ACCEPT)
    while (message := await receive())["type"] == "websocket.receive":
        await send({**message, "type": "websocket.send"})


def connection(spans: InMemoryExporter) -> FinishedSpan:
    (server,) = (one for one in spans if one.kind == "server")
    return server


def of_socket(sent: FinishedSpan) -> dict[str, object]:
    """Our own attributes, without their prefix."""
    return {name.removeprefix(WS): value for name, value in sent.attributes.items() if name.startswith(WS)}
