"""Websockets under frameworks: the route in the name, and which of what they raise is an error."""

import asyncio
from typing import Any

import pytest
from fastapi import APIRouter, FastAPI, WebSocket, WebSocketDisconnect
from litestar import Litestar
from litestar import WebSocket as LitestarWebSocket
from litestar.handlers import websocket as litestar_websocket
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.routing import Mount, Route, WebSocketRoute
from starlette.websockets import WebSocket as StarletteWebSocket

from asgi.connecting import CONNECT, connect, connection, gone, of_socket, text, websocket_scope
from asgi.serving import TIMEOUT_S, Message
from rvh_trace import RvhTraceMiddleware
from rvh_trace.testing import InMemoryExporter


def starlette_app(endpoint: Any) -> Any:
    return Starlette(
        routes=[
            WebSocketRoute("/ws/{room}", endpoint),
            Mount("/api", routes=[WebSocketRoute("/ws/{room}", endpoint)]),
            Route("/plain", lambda request: None),
        ]
    )


def fastapi_app(endpoint: Any) -> Any:
    app = FastAPI()
    router = APIRouter(prefix="/api")
    app.websocket("/ws/{room}")(endpoint)
    router.websocket("/ws/{room}")(endpoint)
    app.include_router(router)
    return app


class TestFrameworks:
    @staticmethod
    async def chat(websocket: WebSocket) -> None:
        await websocket.accept()
        try:
            while True:
                await websocket.send_text(await websocket.receive_text())
        except WebSocketDisconnect:
            pass

    @pytest.mark.parametrize("framework", [starlette_app, fastapi_app], ids=["starlette", "fastapi"])
    @pytest.mark.parametrize("prefix", ["", "/api"])
    @pytest.mark.parametrize("inside", [True, False])
    def test_the_route_is_in_the_name(self, spans: InMemoryExporter, framework: Any, prefix: str, inside: bool) -> None:
        app = framework(self.chat)
        if inside:
            app.add_middleware(RvhTraceMiddleware)
        outer: dict[str, Any] = {"excluded_urls": "."} if inside else {}
        connect(app, [text("hi"), gone()], websocket_scope(f"{prefix}/ws/kitchen"), **outer)
        sent = connection(spans)
        assert (sent.name, sent.attributes["http.route"]) == (f"GET {prefix}/ws/{{room}}", f"{prefix}/ws/{{room}}")
        assert sent.attributes["http.response.status_code"] == 101
        assert of_socket(sent)["messages.received"] == 1

    @pytest.mark.parametrize("framework", [starlette_app, fastapi_app], ids=["starlette", "fastapi"])
    def test_a_disconnect_that_nobody_catches_is_no_error(self, spans: InMemoryExporter, framework: Any) -> None:
        """Most handlers are written as an endless loop."""

        async def chat(websocket: WebSocket) -> None:
            await websocket.accept()
            while True:
                await websocket.receive_text()

        with pytest.raises(WebSocketDisconnect):
            connect(framework(chat), [text("hi"), gone(1001)])
        sent = connection(spans)
        assert (sent.status, sent.events, of_socket(sent)["close_code"]) == ("unset", (), 1001)

    def test_a_client_that_is_gone_when_something_is_sent_is_no_error(self, spans: InMemoryExporter) -> None:
        async def main() -> None:
            async def chat(websocket: StarletteWebSocket) -> None:
                await websocket.accept()
                await websocket.send_text("hello?")

            received = iter([CONNECT])

            async def receive() -> Message:
                return next(received)

            async def send(message: Message) -> None:
                if message["type"] == "websocket.send":
                    raise OSError("the client has gone")

            async with asyncio.timeout(TIMEOUT_S):
                await RvhTraceMiddleware(starlette_app(chat))(websocket_scope(), receive, send)

        with pytest.raises(WebSocketDisconnect):
            asyncio.run(main())
        sent = connection(spans)
        assert (sent.status, sent.attributes["rvh_trace.outcome"], sent.events) == ("unset", "disconnected", ())

    @pytest.mark.parametrize("framework", [starlette_app, fastapi_app], ids=["starlette", "fastapi"])
    def test_no_route_is_refused_without_one(self, spans: InMemoryExporter, framework: Any) -> None:
        connect(framework(self.chat), scope=websocket_scope("/nowhere"))
        sent = connection(spans)
        assert (sent.name, sent.attributes["http.response.status_code"]) == ("GET", 403)
        assert "http.route" not in sent.attributes

    def test_a_denial_response_is_the_status(self, spans: InMemoryExporter) -> None:
        async def chat(websocket: StarletteWebSocket) -> None:
            raise HTTPException(401)

        scope = websocket_scope(extensions={"websocket.http.response": {}})
        connect(starlette_app(chat), scope=scope)
        sent = connection(spans)
        assert (sent.name, sent.attributes["http.response.status_code"]) == ("GET /ws/{room}", 401)

    def test_litestar(self, spans: InMemoryExporter) -> None:
        @litestar_websocket("/ws/{room:str}")
        async def chat(socket: LitestarWebSocket) -> None:
            await socket.accept()
            await socket.send_text(await socket.receive_text())
            await socket.close(4001, "spilled")

        connect(Litestar([chat]), [text("hi")])  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
        sent = connection(spans)
        assert (sent.name, sent.attributes["http.response.status_code"]) == ("GET /ws/{room}", 101)
        of = of_socket(sent)
        assert (of["close_code"], of["close_reason"], of["messages.sent"]) == (4001, "spilled", 1)
