"""What background tasks do is outside of the request's span and duration, in traces of its own that link the request.

As children they would hang on a span that has ended, with no link (open-telemetry/opentelemetry-python-contrib#4251).
"""

import asyncio

import pytest
from handmade_server import answering, http_scope, serve
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from asgi.serving import TIMEOUT_S, Receive, Scope, Send, body, run, server_span, start
from rvh_trace import RvhTraceMiddleware, new_span, span
from rvh_trace.testing import InMemoryExporter

ok = answering()


def test_their_spans_are_roots_that_link_the_request(spans: InMemoryExporter) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await ok(scope, receive, send)
        assert [one.kind for one in spans] == ["server"]
        with span("background"), span("inner"):
            await asyncio.sleep(0)

    server = server_span(spans, app)
    background, inner = spans.one("background"), spans.one("inner")
    assert background.parent_span_id is None
    assert background.trace_id != server.trace_id
    assert [(link.trace_id, link.span_id) for link in background.links] == [(server.trace_id, server.span_id)]
    assert inner.is_child_of(background)
    assert inner.links == ()
    assert server.end_unix_ns <= background.start_unix_ns


def test_under_starlette(spans: InMemoryExporter) -> None:
    async def work() -> None:
        with span("mail"):
            await asyncio.sleep(0)

    async def endpoint(request: Request) -> PlainTextResponse:
        with span("handler"):
            return PlainTextResponse("ok", background=BackgroundTask(work))

    app = Starlette(routes=[Route("/orders", endpoint)])
    app.add_middleware(RvhTraceMiddleware)
    asyncio.run(serve(app, http_scope("/orders")))
    server, mail = spans.one("GET /orders"), spans.one("mail")
    assert spans.one("handler").is_child_of(server)
    assert (mail.parent_span_id, [link.span_id for link in mail.links]) == (None, [server.span_id])
    assert server.end_unix_ns <= mail.start_unix_ns


def test_tasks_started_by_them_and_new_spans_link_it_too(spans: InMemoryExporter) -> None:
    async def work(name: str) -> None:
        with span(name):
            await asyncio.sleep(0)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await ok(scope, receive, send)
        await asyncio.gather(work("a"), work("b"))
        new_span("by hand").end()

    server = server_span(spans, app)
    for name in ("a", "b", "by hand"):
        one = spans.one(name)
        assert (one.parent_span_id, [link.span_id for link in one.links]) == (None, [server.span_id]), name


def test_a_task_that_outlives_the_request_links_it(spans: InMemoryExporter) -> None:
    async def main() -> None:
        tasks: list[asyncio.Task[None]] = []
        over = asyncio.Event()

        async def later() -> None:
            await over.wait()
            with span("later"):
                pass

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            tasks.append(asyncio.create_task(later()))
            await ok(scope, receive, send)

        await serve(RvhTraceMiddleware(app))
        over.set()
        await asyncio.wait_for(tasks[0], TIMEOUT_S)

    asyncio.run(main())
    server, later = spans.one("GET"), spans.one("later")
    assert (later.parent_span_id, [link.span_id for link in later.links]) == (None, [server.span_id])


def test_a_span_opened_before_the_end_stays_the_requests_child(spans: InMemoryExporter) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        with span("around"):
            await ok(scope, receive, send)
            with span("inner"):
                pass

    server = server_span(spans, app)
    assert spans.one("around").is_child_of(server)
    assert spans.one("inner").is_child_of(spans.one("around"))


def test_after_a_5xx_too(spans: InMemoryExporter) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await answering(start(503), body())(scope, receive, send)
        with span("background"):
            await asyncio.sleep(0)

    server, background = server_span(spans, app), spans.one("background")
    assert [link.span_id for link in background.links] == [server.span_id]
    assert (background.parent_span_id, server.end_unix_ns <= background.start_unix_ns) == (None, True)


def test_one_that_raises_does_not_change_the_request(spans: InMemoryExporter) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await ok(scope, receive, send)
        raise LookupError("in the background")

    with pytest.raises(LookupError):
        run(app)
    (sent,) = spans
    assert (sent.status, sent.events, sent.attributes["http.response.status_code"]) == ("unset", (), 200)
    assert "error.type" not in sent.attributes
