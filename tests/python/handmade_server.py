"""An ASGI server made by hand: it gives an application one request and keeps what it sends."""

from collections.abc import Iterable
from typing import Any

from rvh_trace._types import ASGIApp as App
from rvh_trace._types import Message, Receive, Scope, Send

__all__ = (
    "LAST_BODY",
    "START",
    "App",
    "Message",
    "Receive",
    "Scope",
    "Send",
    "answering",
    "http_scope",
    "serve",
    "with_headers",
)

START: dict[str, Any] = {"type": "http.response.start", "status": 200, "headers": []}
LAST_BODY: dict[str, Any] = {"type": "http.response.body", "body": b"ok"}


def http_scope(path: str = "/items/7", **overrides: Any) -> dict[str, Any]:
    """The scope of a GET request as uvicorn makes it; every call gives a new one."""
    scope: dict[str, Any] = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.4"},
        "http_version": "1.1",
        "method": "GET",
        "scheme": "http",
        "path": path,
        "raw_path": path.encode("utf-8", "surrogatepass"),
        "query_string": b"",
        "root_path": "",
        "headers": [(b"host", b"shop.example")],
        "client": ("192.0.2.1", 4711),
        "server": ("127.0.0.1", 8000),
        "state": {},
    }
    return scope | overrides


def with_headers(*headers: tuple[bytes, bytes], **overrides: Any) -> dict[str, Any]:
    """A request with these headers and no others."""
    return http_scope(headers=list(headers), **overrides)


async def serve(app: App, scope: Scope | None = None, received: Iterable[Message] = ()) -> list[Message]:
    """Runs `app` for one request; the messages that it sent. Exceptions pass through."""
    sent: list[Message] = []
    messages = iter([*received, {"type": "http.request", "body": b"", "more_body": False}])

    async def receive() -> Message:
        return next(messages, {"type": "http.disconnect"})

    async def send(message: Message) -> None:
        sent.append(message)

    await app(http_scope() if scope is None else scope, receive, send)
    return sent


def answering(*messages: Message) -> App:
    """An application that sends these messages, by default a small 200."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        for message in messages or (START, LAST_BODY):
            await send(message)

    return app
