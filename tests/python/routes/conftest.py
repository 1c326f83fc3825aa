"""One request to an application, and the one span that it made."""

import asyncio
from typing import Any

import pytest
from answered import Answered, Traced
from handmade_server import Message, http_scope

from rvh_trace.testing import InMemoryExporter


@pytest.fixture
def traced(spans: InMemoryExporter) -> Traced:
    """`traced(app, path, **scope)`: serves one request; the client stays until it is answered."""

    async def request(app: Any, scope: dict[str, Any]) -> list[Message]:
        sent: list[Message] = []
        answered = asyncio.Event()
        received = iter([{"type": "http.request", "body": b"", "more_body": False}])

        async def receive() -> Message:
            for message in received:
                return message
            await answered.wait()
            return {"type": "http.disconnect"}

        async def send(message: Message) -> None:
            sent.append(message)
            if message["type"] == "http.response.body" and not message.get("more_body"):
                answered.set()

        async with asyncio.timeout(30):
            await app(scope, receive, send)
        return sent

    def traced(app: Any, path: str, **scope: Any) -> Answered:
        spans.clear()
        sent = asyncio.run(request(app, http_scope(path, **scope)))
        (one,) = spans
        assert one.kind == "server"
        return Answered(one, next(message["status"] for message in sent if message["type"] == "http.response.start"))

    return traced
