"""What a layer is told: the span that is exported, as it happens."""

import asyncio
import gc
from collections.abc import Iterator
from typing import Any

import pytest
from asgi.connecting import ACCEPT, connect, text
from asgi.serving import UNSAMPLED, run
from handmade_server import http_scope
from loop_block import asleep, until_it_is_back
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from layers.keeper import Keeper, flushed
from rvh_trace import (
    current_span,
    extract,
    install_task_factory,
    new_span,
    span,
    span_future,
    trace,
    use_context,
    watch_loop,
)
from rvh_trace.layers import ClosedSpan, NewSpan, SpanEvent, SpanRecord
from rvh_trace.testing import InMemoryExporter


class TestWhatItSees:
    def test_a_span_from_its_begin_to_its_end_with_the_state_that_was_returned(self, keeper: Keeper) -> None:
        with span("outer", {"cart.id": 7}, kind="client", shop="here") as outer:
            outer.set_attribute("cart.size", 2)
            outer.set_attributes({"cart.id": 8, "cart.tags": ["a", "b"]})
            outer.add_event("packed", {"boxes": 1}, unix_ns=5)
            with span("inner"):
                pass
            outer.update_name("renamed")
            outer.set_status("error", "too heavy")
        assert flushed(keeper).story == [
            ("new", "outer", None),
            ("record", ("cart.size",), 1),
            ("record", ("cart.id",), 1),
            ("record", ("cart.tags",), 1),
            ("event", "packed", 1),
            ("new", "inner", None),
            ("close", "inner", 2),
            ("close", "renamed", 1),
        ]
        new, inner = keeper.told("new")
        ids = (outer.context.trace_id, outer.context.span_id)
        start = new.start_unix_ns
        assert new == NewSpan("outer", "client", *ids, None, start, {"cart.id": 7, "shop": "here"})
        assert (inner.trace_id, inner.parent_span_id) == ids
        assert inner.attributes == {}
        assert inner.kind == "internal"
        assert keeper.told("record")[1:] == [
            SpanRecord(*ids, {"cart.id": 8}),
            SpanRecord(*ids, {"cart.tags": ["a", "b"]}),
        ]
        assert keeper.told("event") == [SpanEvent("packed", *ids, 5, {"boxes": 1})]
        closed = keeper.told("close")[1]
        assert closed == ClosedSpan("renamed", *ids, start, start + closed.duration_ns, "error", "too heavy")
        assert closed.duration_ns > 0

    def test_what_it_is_told_is_what_is_exported(self, keeper: Keeper, spans: InMemoryExporter) -> None:
        with span("outer", {"a": 1.5}) as outer:
            outer.add_event("event", {"b": True})
            with span("inner", kind="producer"):
                pass
        flushed(keeper)
        exported = {one.span_id: one for one in spans}
        for new, closed in zip(keeper.told("new"), reversed(keeper.told("close")), strict=True):
            one = exported[new.span_id]
            assert (new.name, new.kind, new.trace_id) == (one.name, one.kind, one.trace_id)
            assert (new.parent_span_id, new.start_unix_ns) == (one.parent_span_id, one.start_unix_ns)
            assert new.attributes == one.attributes
            assert (closed.span_id, closed.end_unix_ns, closed.status) == (one.span_id, one.end_unix_ns, one.status)
        (event,) = exported[outer.context.span_id].events
        (told,) = keeper.told("event")
        assert (told.name, told.unix_ns, told.attributes) == (event.name, event.unix_ns, event.attributes)

    def test_records_do_not_change_and_know_their_fields(self, keeper: Keeper) -> None:
        with span("op"):
            pass
        new = flushed(keeper).told("new")[0]
        with pytest.raises(AttributeError):
            new.name = "another"
        assert new._fields[:2] == ("name", "kind")
        assert "name='op'" in repr(new)

    def test_an_exception_is_an_event_and_the_status(self, keeper: Keeper) -> None:
        with pytest.raises(ValueError, match="no such cart"), span("op"):
            raise ValueError("no such cart")
        assert [call[:2] for call in flushed(keeper).story] == [
            ("new", "op"),
            ("record", ("error.type",)),
            ("event", "exception"),
            ("close", "op"),
        ]
        assert keeper.told("event")[0].attributes["exception.message"] == "no such cart"
        assert keeper.told("close")[0][-2:] == ("error", "no such cart")

    def test_an_exception_that_was_handled(self, keeper: Keeper) -> None:
        with span("op") as op:
            op.record_exception(KeyError("k"))
        assert [event.attributes["exception.type"] for event in flushed(keeper).told("event")] == ["KeyError"]

    def test_every_way_to_make_a_span(self, keeper: Keeper) -> None:
        @trace
        def decorated() -> None: ...

        @trace("generator")
        def steps() -> Iterator[int]:
            yield 1

        decorated()
        assert list(steps()) == [1]
        by_hand = new_span("by hand", start_unix_ns=17)
        by_hand.end(end_unix_ns=20)
        new_span("forgotten")
        gc.collect()

        async def main() -> None:
            async with span("async"):
                await span("run").run(asyncio.sleep(0))
            await span_future("future", asyncio.sleep(0))

        asyncio.run(main())
        remote = extract({"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"})
        with use_context(remote), span("remote parent"):
            pass
        flushed(keeper)
        name = f"{decorated.__qualname__}"
        made = {name, "generator", "by hand", "forgotten", "async", "run", "future", "remote parent"}
        assert {told.name for told in keeper.told("new")} == made
        assert sorted(told.name for told in keeper.told("close")) == sorted(made)
        assert keeper.told("new")[-1].parent_span_id == "b7ad6b7169203331"
        (closed,) = (told for told in keeper.told("close") if told.name == "by hand")
        assert (closed.start_unix_ns, closed.duration_ns) == (17, 3)

    def test_a_server_span_begins_with_the_request_and_ends_with_its_route(self, keeper: Keeper) -> None:
        async def cart(request: Request) -> PlainTextResponse:
            current_span().set_attribute("shop", "here")
            with span("inner"):
                pass
            return PlainTextResponse("cart")

        run(Starlette(routes=[Route("/carts/{id}", cart)]), http_scope(path="/carts/7"))
        flushed(keeper)
        server, inner = keeper.told("new")
        assert (server.name, server.kind, server.attributes["url.path"]) == ("GET", "server", "/carts/7")
        assert inner.parent_span_id == server.span_id
        recorded: dict[str, Any] = {}
        for record in keeper.told("record"):
            recorded |= record.attributes
        assert recorded["shop"] == "here"
        assert recorded["http.response.status_code"] == 200
        assert [told.name for told in keeper.told("close")] == ["inner", "GET /carts/{id}"]
        assert keeper.calls[-1][0] == "close", "nothing comes after the end"

    def test_a_server_error(self, keeper: Keeper) -> None:
        async def app(scope: Any, receive: Any, send: Any) -> None:
            raise OSError("disk full")

        with pytest.raises(OSError, match="disk full"):
            run(app)
        (closed,) = flushed(keeper).told("close")
        assert (closed.status, closed.status_description) == ("error", "disk full")
        assert [event.name for event in keeper.told("event")] == ["exception"]

    def test_task_spans(self, keeper: Keeper) -> None:
        async def work(number: int) -> None:
            current_span().set_attribute("number", number)
            await asyncio.sleep(0)

        async def main() -> None:
            install_task_factory()
            with span("parent"):
                await asyncio.gather(*(work(number) for number in range(3)))

        asyncio.run(main())
        flushed(keeper)
        parent, *tasks = keeper.told("new")
        assert [told.parent_span_id for told in tasks] == [parent.span_id] * 3
        by_state = [
            (record.attributes["number"], state)
            for method, record, state in keeper.calls
            if method == "record" and "number" in record.attributes
        ]
        assert by_state == [(0, 2), (1, 3), (2, 4)]
        closed = {told.span_id for told in keeper.told("close")}
        assert closed == {told.span_id for told in keeper.told("new")}

    def test_a_websocket_with_its_handshake_and_its_messages(self, keeper: Keeper) -> None:
        async def app(scope: Any, receive: Any, send: Any) -> None:
            await receive()
            await send(ACCEPT)
            await receive()
            await send({"type": "websocket.send", "text": "hello"})

        connect(app, [text("ping")], websocket_messages=True)
        names = [told.name for told in flushed(keeper).told("new")]
        assert names == ["GET", "websocket.handshake", "websocket.receive", "websocket.send"]
        assert sorted(told.name for told in keeper.told("close")) == sorted(names)
        server, *inside = keeper.told("new")
        assert all(told.parent_span_id == server.span_id for told in inside)

    def test_a_blocked_loop_is_an_event_although_nobody_is_there_to_be_called(self, keeper: Keeper) -> None:
        async def main() -> None:
            with watch_loop(threshold_ms=20) as watch, span("to blame"):
                asleep(watch)
                await until_it_is_back(watch)

        asyncio.run(main())
        (blocked,) = flushed(keeper).told("event")
        assert blocked.name == "rvh_trace.loop.blocked"
        assert "asleep" in blocked.attributes["code.stacktrace"]
        assert [call[:2] for call in keeper.story if call[0] != "record"] == [
            ("new", "to blame"),
            ("event", "rvh_trace.loop.blocked"),
            ("close", "to blame"),
        ]

    def test_a_span_that_is_not_sampled_is_not_seen(self, keeper: Keeper) -> None:
        run(scope=http_scope(headers=[UNSAMPLED]))
        assert flushed(keeper).calls == []

    def test_a_span_over_a_limit_tells_only_what_is_kept(self, keeper: Keeper, spans: InMemoryExporter) -> None:
        with span("op") as op:
            for number in range(200):
                op.set_attribute(f"key.{number}", number)
                op.add_event(f"event {number}")
        (one,) = spans
        assert flushed(keeper).told("record")[-1].attributes == {"key.127": 127}
        assert len(keeper.told("record")) == len(one.attributes) == 128
        assert len(keeper.told("event")) == len(one.events) == 128
