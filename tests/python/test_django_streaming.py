"""Django responses that take their time: streamed to the last byte, or cut off by a client that leaves."""

import asyncio
import gc
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest
from django_site import SYNC_ONLY, TRACING, Run, application, body_of, new_gate, serving, until, visit
from handmade_server import http_scope

from rvh_trace import current_span
from rvh_trace.testing import InMemoryExporter


@pytest.fixture
def body_left_open() -> Iterator[None]:
    """Django leaves the file with the request's body to the garbage collector when its handler raises."""
    yield
    gc.collect()


async def get(port: int, path: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A connection to a real server with a request for `path` sent."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(f"GET {path} HTTP/1.1\r\nhost: shop.example\r\n\r\n".encode())
    await writer.drain()
    return reader, writer


@pytest.mark.parametrize("server", ["by hand", "uvicorn"])
def test_streaming_bodies_outside_the_span(run: Run, spans: InMemoryExporter, server: str) -> None:
    """Others close the span when the view has returned (opentelemetry-python-contrib#4681)."""
    app = application()

    async def by_hand() -> None:
        between = new_gate()
        visiting = asyncio.create_task(visit(app, "/stream/news/"))
        await until(between.reached.is_set)
        assert list(spans) == []
        between.opened.set()
        assert body_of(await visiting) == b"first second"

    async def by_a_server() -> None:
        between = new_gate()
        async with serving(app) as port:
            reader, writer = await get(port, "/stream/news/")
            with closing(writer):
                assert b"first " in await reader.readuntil(b"first ")
                await until(between.reached.is_set)
                assert list(spans) == []
                between.opened.set()
                assert b"second" in await reader.readuntil(b"0\r\n\r\n")
            await until(lambda: len(spans) == 2)

    run(by_hand() if server == "by hand" else by_a_server())
    request, part = spans.one("GET /stream/<str:name>/"), spans.one("second part")
    assert part.is_child_of(request)
    assert request.start_unix_ns < part.start_unix_ns < part.end_unix_ns < request.end_unix_ns
    assert request.attributes["http.response.status_code"] == 200
    assert "rvh_trace.outcome" not in request.attributes


@pytest.mark.filterwarnings("ignore:StreamingHttpResponse must consume synchronous iterators")
def test_a_sync_iterator_is_inside_the_span_too(run: Run, spans: InMemoryExporter) -> None:
    assert body_of(run(visit(application(), "/stream-sync/"))) == b"012"
    server = spans.one("GET /stream-sync/")
    parts = [spans.one(f"part {number}") for number in range(3)]
    assert all(part.trace_id == server.trace_id for part in parts)
    assert parts[0].is_child_of(server)
    assert parts[-1].end_unix_ns < server.end_unix_ns


class TestCancelledRequestsLeakTheSpan:
    """Elsewhere the span of such a request stays open for ever (opentelemetry-python-contrib#3848, #4102)."""

    @pytest.mark.parametrize("path", ["/wait/long/", "/stream/news/"])
    @pytest.mark.parametrize("server", ["by hand", "uvicorn"])
    def test_a_client_that_leaves_ends_the_span(
        self, run: Run, spans: InMemoryExporter, path: str, server: str
    ) -> None:
        app = application()

        async def by_hand() -> None:
            waiting, leave = new_gate(), asyncio.Event()
            visiting = asyncio.create_task(visit(app, path, leave=leave))
            await until(waiting.reached.is_set)
            leave.set()
            await visiting
            assert waiting.cancelled == 1
            assert not current_span().context.is_valid

        async def by_a_server() -> None:
            waiting = new_gate()
            async with serving(app) as port:
                _, writer = await get(port, path)
                await until(waiting.reached.is_set)
                assert list(spans) == []
                writer.close()
                await until(lambda: len(spans) == 1)
            assert waiting.cancelled == 1

        run(by_hand() if server == "by hand" else by_a_server())
        (one,) = spans
        assert one.name == f"GET {path.replace('long', '<str:name>').replace('news', '<str:name>')}"
        assert one.attributes["rvh_trace.outcome"] == "disconnected"
        assert (one.status, one.events) == ("unset", ())
        assert "error.type" not in one.attributes
        assert one.attributes.get("http.response.status_code") == (200 if "stream" in path else None)

    def test_a_client_that_leaves_a_stack_on_a_thread_ends_the_span(self, run: Run, spans: InMemoryExporter) -> None:
        app = application(MIDDLEWARE=[TRACING, SYNC_ONLY])

        async def main() -> None:
            waiting, leave = new_gate(), asyncio.Event()
            visiting = asyncio.create_task(visit(app, "/stream/news/", leave=leave))
            await until(waiting.reached.is_set)
            leave.set()
            await visiting

        run(main())
        (one,) = spans
        assert (one.name, one.attributes["rvh_trace.outcome"]) == ("GET /stream/<str:name>/", "disconnected")

    @pytest.mark.filterwarnings("ignore::ResourceWarning")
    @pytest.mark.usefixtures("body_left_open")
    def test_a_server_that_cancels_ends_the_span(self, run: Run, spans: InMemoryExporter) -> None:
        """Django then leaves the view running: the span must not wait for it."""
        app = application()

        async def main() -> None:
            waiting = new_gate()
            visiting = asyncio.create_task(visit(app, "/wait/long/"))
            await until(waiting.reached.is_set)
            visiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await visiting
            assert len(spans) == 1
            waiting.opened.set()

        run(main())
        (one,) = spans
        assert (one.attributes["rvh_trace.outcome"], one.status) == ("cancelled", "unset")

    def test_a_client_that_leaves_before_the_body_came_has_a_span(self, run: Run, spans: InMemoryExporter) -> None:
        async def main() -> None:
            async def receive() -> dict[str, Any]:
                return {"type": "http.disconnect"}

            async def send(message: Any) -> None:
                raise AssertionError(message)

            await application()(http_scope("/articles/2003/"), receive, send)

        run(main())
        (one,) = spans
        assert (one.name, one.status, one.attributes["rvh_trace.outcome"]) == ("GET", "unset", "disconnected")

    def test_a_response_that_was_complete_is_not_cancelled_when_the_client_leaves(
        self, run: Run, spans: InMemoryExporter
    ) -> None:
        """Servers report a disconnect after every response; a 5xx is written only after it."""
        for path in ("/articles/2003/", "/status/503/", "/fail/now/", "/nothing"):
            spans.clear()
            run(visit(application(), path))
            assert "rvh_trace.outcome" not in spans[0].attributes

    def test_a_sync_view_goes_on_and_its_spans_keep_their_parent(self, run: Run, spans: InMemoryExporter) -> None:
        async def main() -> None:
            leave = asyncio.Event()
            leave.set()
            await visit(application(), "/where-sync/", leave=leave)
            await until(lambda: any(one.kind == "server" for one in spans))

        run(main())
        (server,) = (one for one in spans if one.kind == "server")
        assert {one.trace_id for one in spans} == {server.trace_id}


def test_keep_alive_requests_are_traces_of_their_own(run: Run, spans: InMemoryExporter) -> None:
    """A server may start the next request of a connection in the context of the last (Kludex/uvicorn#2167)."""

    async def main() -> None:
        async with serving(application()) as port:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            with closing(writer):
                writer.write(b"GET /articles/2003/ HTTP/1.1\r\nhost: shop.example\r\n\r\n" * 5)
                for _ in range(5):
                    await reader.readuntil(b"ok\r\n0\r\n\r\n")
            await until(lambda: len(spans) == 5)

    run(main())
    assert len({one.trace_id for one in spans}) == 5
    assert {(one.name, one.parent_span_id) for one in spans} == {("GET /articles/<int:year>/", None)}
