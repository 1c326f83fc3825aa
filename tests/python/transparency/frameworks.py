"""Starlette and FastAPI with a bit of everything that answers, streams, fails or goes on afterwards."""

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

from fastapi import APIRouter, BackgroundTasks, Depends, FastAPI, HTTPException, WebSocket
from pydantic import BaseModel
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.exceptions import HTTPException as StarletteHTTPException
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware, RequestResponseEndpoint
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import (
    FileResponse,
    JSONResponse,
    PlainTextResponse,
    RedirectResponse,
    Response,
    StreamingResponse,
)
from starlette.routing import Host, Mount, Route, WebSocketRoute
from starlette.websockets import WebSocket as StarletteWebSocket
from starlette.websockets import WebSocketDisconnect

from transparency.script import NOTE

__all__ = ("FASTAPI_PATHS", "STARLETTE_PATHS", "THREADED", "fastapi", "starlette")

# Where the work is done on a thread, and the rounds of the event loop cannot be counted.
THREADED = frozenset({"/sync", "/file", "/api/sync", "/sub/file"})

STARLETTE_PATHS = (
    "/", "/echo", "/json/7", "/json/x", "/stream", "/slow-stream", "/broken-stream", "/background",
    "/broken-background",
    "/error", "/group", "/http-error", "/handled", "/cancelled", "/redirect", "/file", "/sync", "/mounted/deep/7",
    "/mounted/nothing", "/nothing", "/json/7/", "/raw", "/after-response", "/ws", "/ws/deny", "/ws/error", "/state",
)  # fmt: skip
FASTAPI_PATHS = (
    "/", "/api/items/7", "/api/items/x", "/api/items", "/api/stream", "/api/background", "/api/error",
    "/api/dependency",
    "/api/http-error", "/api/sync", "/api/broken-dependency", "/sub/echo", "/sub/file", "/sub/error", "/nothing",
    "/docs",
    "/openapi.json", "/api/ws", "/api/ws-error",
)  # fmt: skip


class HandledError(Exception):
    """Has a handler."""


async def _handled(request: Any, error: Exception) -> Response:
    return PlainTextResponse(f"handled {error}", 503)


async def _home(request: Request) -> Response:
    return PlainTextResponse("home", headers={"server-timing": "db;dur=53"})


async def _echo(request: Request) -> Response:
    return Response(await request.body())


async def _json(request: Request) -> Response:
    return JSONResponse({"item": request.path_params["item"], "query": str(request.query_params)})


async def _state(request: Request) -> Response:
    request.state.visited = True
    return JSONResponse(sorted(request.scope["state"]))


async def _chunks(count: int, failing: bool = False, slow: bool = False) -> AsyncIterator[bytes]:
    for number in range(count):
        if slow:
            await asyncio.sleep(0)
        yield b"chunk %d" % number
    NOTE.get()("stream ends")
    if failing:
        raise ValueError("in the stream")


async def _stream(request: Request) -> Response:
    return StreamingResponse(_chunks(3))


async def _slow_stream(request: Request) -> Response:
    return StreamingResponse(_chunks(3, slow=True), media_type="text/event-stream")


async def _broken_stream(request: Request) -> Response:
    return StreamingResponse(_chunks(2, failing=True))


async def _later(fails: bool) -> None:
    NOTE.get()("background begins")
    await asyncio.sleep(0)
    if fails:
        raise LookupError("in the background")
    NOTE.get()("background ends")


async def _background(request: Request) -> Response:
    return PlainTextResponse("soon", background=BackgroundTask(_later, False))


async def _broken_background(request: Request) -> Response:
    return PlainTextResponse("soon", background=BackgroundTask(_later, True))


async def _error(request: Request) -> Response:
    raise ValueError("from the endpoint")


async def _group(request: Request) -> Response:
    async with asyncio.TaskGroup() as group:
        group.create_task(_later(True))
        group.create_task(_later(True))
    return PlainTextResponse("not reached")


async def _http_error(request: Request) -> Response:
    raise StarletteHTTPException(418, "teapot", {"x-id": "7"})


async def _raise_handled(request: Request) -> Response:
    raise HandledError("here")


async def _cancelled(request: Request) -> Response:
    raise asyncio.CancelledError("by itself")


async def _redirect(request: Request) -> Response:
    return RedirectResponse("/")


async def _file(request: Request) -> Response:
    return FileResponse(Path(__file__).with_name("__init__.py"))


def _sync(request: Request) -> Response:
    return PlainTextResponse("from a thread")


class _Raw:
    """An ASGI application as an endpoint."""

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [], "trailers": True})
        await send({"type": "http.response.body", "body": b"raw"})
        await send({"type": "http.response.trailers", "headers": [(b"t", b"1")]})
        await send({"type": "http.response.body", "body": b"too late"})


async def _after_response(scope: Any, receive: Any, send: Any) -> None:
    await PlainTextResponse("done")(scope, receive, send)
    raise RuntimeError("after the response")


async def _websocket(websocket: StarletteWebSocket) -> None:
    await websocket.accept()
    try:
        while True:
            await websocket.send_text(await websocket.receive_text())
    except WebSocketDisconnect as gone:
        NOTE.get()("disconnected", gone.code)


async def _websocket_denied(websocket: StarletteWebSocket) -> None:
    await websocket.send_denial_response(PlainTextResponse("no", 401))


async def _websocket_error(websocket: StarletteWebSocket) -> None:
    await websocket.accept()
    raise ValueError("in the socket")


class _Passing(BaseHTTPMiddleware):
    async def dispatch(self, request: Request, call_next: RequestResponseEndpoint) -> Response:
        response = await call_next(request)
        response.headers["x-passed"] = "1"
        return response


def starlette(middleware: Callable[[Any], Any] | None = None, *, wrapped: bool = False) -> Any:
    """A Starlette application.

    Args:
        middleware: Added to it as a user adds one.
        wrapped: Whether one of Starlette's own middlewares, which runs what it wraps in another task, is around it all.
    """

    async def after_response(request: Request) -> Response:
        raise AssertionError("replaced below")

    route = Route("/after-response", after_response)
    route.app = _after_response
    endpoints: dict[str, Any] = {
        "/": _home, "/echo": _echo, "/json/{item:int}": _json, "/stream": _stream, "/slow-stream": _slow_stream,
        "/broken-stream": _broken_stream, "/background": _background, "/broken-background": _broken_background,
        "/error": _error, "/group": _group, "/http-error": _http_error, "/handled": _raise_handled,
        "/cancelled": _cancelled, "/redirect": _redirect, "/file": _file, "/sync": _sync,
        "/raw": _Raw(), "/state": _state,
    }  # fmt: skip
    routes = [Route(path, endpoint, methods=["GET", "POST"]) for path, endpoint in endpoints.items()]
    deep = Mount("/deep", routes=[Route("/{item}", _json)])
    sockets = [
        WebSocketRoute("/ws", _websocket),
        WebSocketRoute("/ws/deny", _websocket_denied),
        WebSocketRoute("/ws/error", _websocket_error),
    ]
    host = Host("other.example", Starlette(routes=[Route("/", _echo)]))
    layers = [Middleware(_Passing), Middleware(CORSMiddleware, allow_origins=["*"])] if wrapped else []
    if middleware is not None:
        layers.insert(len(layers) // 2, Middleware(middleware))
    return Starlette(
        routes=[host, *routes, route, Mount("/mounted", routes=[deep]), *sockets],
        middleware=layers,
        exception_handlers={HandledError: _handled},
    )


class Item(BaseModel):
    """A body that is validated."""

    name: str
    price: float = 1.0


async def _resource() -> AsyncIterator[str]:
    NOTE.get()("opened")
    yield "resource"
    NOTE.get()("closed")


async def _broken_resource() -> AsyncIterator[str]:
    yield "resource"
    raise OSError("while closing")


def _router() -> APIRouter:
    router = APIRouter(prefix="/api")

    @router.get("/items/{item}")
    async def read(item: int, limit: int = 10) -> dict[str, int]:
        return {"item": item, "limit": limit}

    @router.post("/items", status_code=201)
    async def create(item: Item) -> Item:
        return item

    @router.get("/stream")
    async def stream() -> StreamingResponse:
        return StreamingResponse(_chunks(3, slow=True))

    @router.get("/background")
    async def background(tasks: BackgroundTasks) -> str:
        tasks.add_task(_later, False)
        return "soon"

    @router.get("/error")
    async def error() -> str:
        raise ValueError("from the endpoint")

    @router.get("/http-error")
    async def http_error() -> str:
        raise HTTPException(409, {"reason": "taken"})

    @router.get("/dependency")
    async def dependency(resource: str = Depends(_resource)) -> str:
        raise HandledError(resource)

    @router.get("/broken-dependency")
    async def broken_dependency(resource: str = Depends(_broken_resource)) -> str:
        return resource

    @router.get("/sync")
    def sync() -> str:
        return "from a thread"

    @router.websocket("/ws")
    async def websocket(websocket: WebSocket, resource: str = Depends(_resource)) -> None:
        await websocket.accept()
        await websocket.send_json({"resource": resource, "received": await websocket.receive_text()})
        await websocket.close(1001)

    @router.websocket("/ws-error")
    async def websocket_error(websocket: WebSocket) -> None:
        raise HTTPException(403, "no")

    return router


def fastapi(middleware: Callable[[Any], Any] | None = None, *, wrapped: bool = False) -> Any:
    """A FastAPI application; the arguments are those of `starlette`."""
    application = FastAPI(exception_handlers={HandledError: _handled})
    application.include_router(_router())

    @application.get("/")
    async def home() -> dict[str, str]:
        return {"at": "home"}

    application.mount("/sub", starlette())
    if wrapped:
        application.add_middleware(CORSMiddleware, allow_origins=["*"])
    if middleware is not None:
        application.add_middleware(middleware)
    if wrapped:
        application.add_middleware(_Passing)
    return application
