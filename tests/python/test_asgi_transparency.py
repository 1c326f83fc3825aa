"""An application cannot tell whether `RvhTraceMiddleware` is there: same messages, exceptions and objects."""

import asyncio
import inspect
from types import MappingProxyType
from typing import Any

import pytest
from handmade_server import App, Message, Receive, Scope, Send, answering, http_scope, serve
from hypothesis import given
from hypothesis import strategies as st

from rvh_trace import RvhTraceMiddleware
from rvh_trace.testing import InMemoryExporter

MESSAGES = st.one_of(
    st.fixed_dictionaries(
        {"type": st.just("http.response.start"), "status": st.integers(100, 999)},
        optional={"trailers": st.booleans(), "headers": st.just([(b"a", b"b")])},
    ),
    st.fixed_dictionaries(
        {"type": st.just("http.response.body")},
        optional={"body": st.binary(max_size=5), "more_body": st.booleans() | st.none() | st.integers(0, 1)},
    ),
    st.fixed_dictionaries({"type": st.just("http.response.trailers")}, optional={"more_trailers": st.booleans()}),
    st.dictionaries(st.text(max_size=5), st.none() | st.integers() | st.text(max_size=5)),
    st.fixed_dictionaries({"type": st.text() | st.none() | st.integers(), "status": st.text()}),
    st.fixed_dictionaries({"type": st.just("http.response.start"), "status": st.none() | st.text(max_size=3)}),
)
ERRORS = st.sampled_from([None, ValueError, KeyboardInterrupt, asyncio.CancelledError, StopAsyncIteration, SystemExit])


@given(messages=st.lists(MESSAGES, max_size=6), error=ERRORS, received=st.lists(MESSAGES, max_size=2))
def test_messages_and_exceptions_are_identical_with_and_without_it(
    messages: list[Message], error: type[BaseException] | None, received: list[Message]
) -> None:
    raised = error("from the application") if error else None

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        for expected in received:
            assert await receive() is expected
        for message in messages:
            assert await send(message) is None
        if raised:
            raise raised

    async def outcome(served: App) -> tuple[list[Message], BaseException | None]:
        sent: list[Message] = []

        async def collecting(scope: Scope, receive: Receive, send: Send) -> None:
            async def keep(message: Message) -> None:
                sent.append(message)
                await send(message)

            await served(scope, receive, keep)

        try:
            await serve(collecting, http_scope(), received)
        except BaseException as caught:
            return sent, caught
        return sent, None

    async def main() -> None:
        with InMemoryExporter() as spans:
            (plain, without), (traced, within) = await outcome(app), await outcome(RvhTraceMiddleware(app))
            assert len(spans) == 1
        assert within is without is raised
        assert len(plain) == len(traced) == len(messages)
        assert all(one is another is message for one, another, message in zip(plain, traced, messages, strict=True))

    asyncio.run(main())


@pytest.mark.parametrize("kind", ["websocket", "lifespan", "something.else"])
def test_other_scopes_pass_through_with_the_very_same_objects(spans: InMemoryExporter, kind: str) -> None:
    seen: list[Any] = []

    async def app(*arguments: Any) -> None:
        seen.extend(arguments)

    async def receive() -> Message:
        return {}

    async def send(message: Message) -> None: ...

    scope = {"type": kind}
    asyncio.run(RvhTraceMiddleware(app)(scope, receive, send))
    assert [one is another for one, another in zip(seen, (scope, receive, send), strict=True)] == [True] * 3
    assert scope == {"type": kind}
    assert list(spans) == []


def test_scope_and_receive_of_a_request_are_the_very_same_objects(spans: InMemoryExporter) -> None:
    seen: list[Any] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.extend((scope, receive))

    async def receive() -> Message:
        return {}

    async def send(message: Message) -> None: ...

    scope = http_scope()
    before = dict(scope)
    asyncio.run(RvhTraceMiddleware(app)(scope, receive, send))
    assert seen[0] is scope
    assert seen[1] is receive
    assert scope == before


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
