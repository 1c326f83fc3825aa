"""The cases that one wants to read: the same objects, one span however often it is added, `send` kept and wrapped."""

import asyncio
import inspect
from contextlib import nullcontext
from types import MappingProxyType
from typing import Any

import pytest
from handmade_server import Message, Receive, Scope, Send, answering, http_scope, serve

from rvh_trace import RvhTraceMiddleware
from rvh_trace.testing import InMemoryExporter


@pytest.mark.parametrize(
    ("kind", "options"), [("something.else", {}), ("lifespan", {"flush_at_shutdown": False})], ids=lambda one: str(one)
)
def test_other_scopes_pass_through_with_the_very_same_objects(
    spans: InMemoryExporter, kind: str, options: dict[str, Any]
) -> None:
    seen: list[Any] = []

    async def app(*arguments: Any) -> None:
        seen.extend(arguments)

    async def receive() -> Message:
        return {}

    async def send(message: Message) -> None: ...

    scope = {"type": kind}
    asyncio.run(RvhTraceMiddleware(app, **options)(scope, receive, send))
    assert [one is another for one, another in zip(seen, (scope, receive, send), strict=True)] == [True] * 3
    assert scope == {"type": kind}
    assert list(spans) == []


@pytest.mark.parametrize("kind", ["http", "websocket"])
def test_the_scope_of_a_request_is_the_very_same_object(spans: InMemoryExporter, kind: str) -> None:
    seen: list[Any] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(scope)

    scope = http_scope(type=kind)
    before = dict(scope)
    asyncio.run(serve(RvhTraceMiddleware(app), scope))
    assert seen[0] is scope
    assert scope == before
    assert len(spans) == 1


@pytest.mark.parametrize("sampler", [None, "always_off"])
def test_where_nothing_is_recorded_send_and_receive_are_the_very_same_objects(sampler: str | None) -> None:
    seen: list[Any] = []

    async def app(*arguments: Any) -> None:
        seen.extend(arguments)

    async def receive() -> Message:
        return {}

    async def send(message: Message) -> None: ...

    with InMemoryExporter(sampler=sampler) if sampler else nullcontext():
        asyncio.run(RvhTraceMiddleware(app)(http_scope(), receive, send))
    assert seen[1] is receive
    assert seen[2] is send


def test_a_scope_that_is_no_dict_is_served(spans: InMemoryExporter) -> None:
    scope: Any = MappingProxyType(http_scope())
    assert len(asyncio.run(serve(RvhTraceMiddleware(answering()), scope))) == 2


def test_added_twice_it_makes_one_span(spans: InMemoryExporter) -> None:
    asyncio.run(serve(RvhTraceMiddleware(RvhTraceMiddleware(answering()))))
    assert len(spans) == 1


def test_added_twice_around_a_middleware_that_copies_the_scope_it_makes_one_span(spans: InMemoryExporter) -> None:
    inner = RvhTraceMiddleware(answering())

    async def strip_prefix(scope: Scope, receive: Receive, send: Send) -> None:
        await inner(dict(scope, path=scope["path"].removeprefix("/items")), receive, send)

    asyncio.run(serve(RvhTraceMiddleware(strip_prefix)))
    assert len(spans) == 1


def test_servers_take_it_for_an_asgi_3_application() -> None:
    traced = RvhTraceMiddleware(answering())
    assert inspect.iscoroutinefunction(traced.__call__)
    assert not inspect.isclass(traced)


def test_send_may_be_kept_wrapped_and_called_from_another_task(spans: InMemoryExporter) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        for message in ({"type": "http.response.start", "status": 201}, {"type": "http.response.body"}):
            await asyncio.create_task(forward(send, message))

    asyncio.run(serve(RvhTraceMiddleware(app)))
    assert spans[0].attributes["http.response.status_code"] == 201


def test_send_after_the_request_does_not_raise(spans: InMemoryExporter) -> None:
    kept: list[Send] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        kept.append(send)
        await answering()(scope, receive, send)

    async def main() -> None:
        await serve(RvhTraceMiddleware(app))
        await kept[0]({"type": "http.response.body"})

    asyncio.run(main())
    assert len(spans) == 1


async def forward(send: Send, message: Message) -> None:
    await send(message)
