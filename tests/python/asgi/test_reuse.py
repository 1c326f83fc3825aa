"""The objects of a request serve the next one: nothing of a request may show on another."""

from typing import Any

from asgi.serving import Message, Receive, Scope, Send, body, run, start
from rvh_trace import current_span
from rvh_trace.testing import InMemoryExporter


def test_a_route_that_is_told_after_the_response_is_not_the_next_requests(spans: InMemoryExporter) -> None:
    kept: list[Any] = []

    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        kept.append(current_span())
        await send(start())
        await send(body())

    for _ in range(4):
        run(answer)
        kept.pop().set_route("/late")
    assert [one.name for one in spans] == ["GET"] * 4


def test_a_response_that_was_not_complete_leaves_nothing_to_the_next_request(spans: InMemoryExporter) -> None:
    async def leave(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send(start(503, trailers=True))

    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        await send(start(204))
        await send(body(b""))

    gone: list[Message] = [{"type": "http.disconnect"}]
    for _ in range(3):
        run(leave, received=gone, phases=True, opt_in="http.response.body.size")
        run(answer)
    for first, second in zip(spans[::2], spans[1::2], strict=True):
        assert first.attributes["http.response.status_code"] == 503
        assert second.attributes["http.response.status_code"] == 204
        own = {"rvh_trace.outcome", "error.type", "http.response.body.size", "rvh_trace.http.response.chunks"}
        assert not own & set(second.attributes)
        assert second.status == "unset"


def test_messages_that_are_sent_late_are_of_no_later_request(spans: InMemoryExporter) -> None:
    kept: list[Any] = []

    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        kept.append(send)
        await send(start())
        await send(body())

    async def late(scope: Scope, receive: Receive, send: Send) -> None:
        await kept[0](start(500))
        await kept[0](body())
        await send(start(204))
        await send(body(b""))

    run(answer)
    run(late)
    assert [one.attributes["http.response.status_code"] for one in spans] == [200, 204]
