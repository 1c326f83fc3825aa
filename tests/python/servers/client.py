"""Requests on one connection, as a client sends them, and whether they were answered."""

from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from .connection import Response, connect
from .request import Request

# The `run` fixture: `asyncio.run` that wants silence from the loop.
Run = Callable[[Coroutine[Any, Any, Any]], Any]


async def one_after_the_other(port: int, requests: Sequence[Request]) -> None:
    """Keep-alive: each request is sent when the last one was answered."""
    async with connect(port) as connection:
        for request in requests:
            assert_answered(request, await connection.exchange(request))


async def all_at_once(port: int, requests: Sequence[Request]) -> None:
    """Pipelining: every request is sent before the first answer is read."""
    async with connect(port) as connection:
        connection.write(*requests)
        for request in requests:
            assert_answered(request, await connection.read())


def assert_answered(request: Request, response: Response) -> None:
    assert response.status == request.status, request.target
    if request.method == "POST":
        assert response.body == request.body, request.target
