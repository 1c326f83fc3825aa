"""Beside other instrumentation: one SERVER span a request, wherever it can be told."""

import asyncio
from typing import Any

import pytest
from fastapi import FastAPI
from handmade_server import LAST_BODY, START, answering, http_scope, serve, with_headers
from opentelemetry.instrumentation.asgi import OpenTelemetryMiddleware as ContribMiddleware
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind
from starlette.applications import Starlette
from starlette.middleware.opentelemetry import OpenTelemetryMiddleware as StarletteMiddleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route

from asgi.serving import SAMPLED, SPAN_ID, TRACE_ID, UNSAMPLED, App, Receive, Scope, Send
from rvh_trace import RvhTraceMiddleware, current_span, inject, span
from rvh_trace.testing import InMemoryExporter


@pytest.fixture
def theirs() -> tuple[TracerProvider, InMemorySpanExporter]:
    """opentelemetry-sdk, exporting into memory."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    return provider, exporter


async def working(scope: Scope, receive: Receive, send: Send) -> None:
    """An application with a span of its own."""
    with span("work"):
        await answering()(scope, receive, send)


def in_a_span(inner: App) -> App:
    """A middleware of the application's that traces what it surrounds."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        with span("between"):
            await inner(scope, receive, send)

    return app


def server_spans(exporter: InMemorySpanExporter) -> list[ReadableSpan]:
    return [one for one in exporter.get_finished_spans() if one.kind is SpanKind.SERVER]


Theirs = tuple[TracerProvider, InMemorySpanExporter]


class TestTheirsAroundOurs:
    @pytest.mark.parametrize("outer", [ContribMiddleware, StarletteMiddleware], ids=["contrib", "starlette"])
    def test_makes_one_server_span_and_our_spans_are_in_its_trace(
        self, spans: InMemoryExporter, theirs: Theirs, outer: Any
    ) -> None:
        provider, exporter = theirs
        app = outer(RvhTraceMiddleware(working), tracer_provider=provider)
        sent = asyncio.run(serve(app, with_headers((b"host", b"shop.example"), SAMPLED)))
        assert [message["type"] for message in sent] == ["http.response.start", "http.response.body"]
        (server,) = server_spans(exporter)
        (work,) = spans
        assert (work.name, work.kind) == ("work", "internal")
        assert server.context is not None
        assert (work.trace_id, work.parent_span_id) == (
            f"{server.context.trace_id:032x}",
            f"{server.context.span_id:016x}",
        )
        assert work.trace_id == TRACE_ID

    def test_of_fastapi_is_the_one_server_span_too(self, spans: InMemoryExporter, theirs: Theirs) -> None:
        provider, exporter = theirs
        app = FastAPI(telemetry={"tracer_provider": provider})

        @app.get("/items/{item_id}")
        async def item(item_id: int) -> int:
            with span("work"):
                return item_id

        app.add_middleware(RvhTraceMiddleware)
        asyncio.run(serve(app, http_scope("/items/7")))
        (server,) = server_spans(exporter)
        assert server.name == "GET /items/{item_id}"
        assert server.context is not None
        (work,) = spans
        assert (work.name, work.trace_id) == ("work", f"{server.context.trace_id:032x}")

    @pytest.mark.parametrize("sampled", [True, False])
    def test_the_sampling_of_theirs_is_that_of_ours(self, theirs: Theirs, sampled: bool) -> None:
        provider, _ = theirs
        scope = with_headers(SAMPLED if sampled else UNSAMPLED)
        with InMemoryExporter() as spans:
            asyncio.run(serve(StarletteMiddleware(RvhTraceMiddleware(working), tracer_provider=provider), scope))
            assert sorted(one.kind for one in spans) == (["internal"] if sampled else [])

    def test_an_error_passes_through_both(self, spans: InMemoryExporter, theirs: Theirs) -> None:
        provider, exporter = theirs
        error = LookupError("tea")

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            raise error

        with pytest.raises(LookupError) as caught:
            asyncio.run(serve(StarletteMiddleware(RvhTraceMiddleware(app), tracer_provider=provider)))
        assert caught.value is error
        assert (len(server_spans(exporter)), list(spans)) == (1, [])

    def test_what_we_inject_is_theirs(self, spans: InMemoryExporter, theirs: Theirs) -> None:
        provider, exporter = theirs
        seen: dict[str, str] = {}

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            inject(seen)
            await answering()(scope, receive, send)

        asyncio.run(serve(StarletteMiddleware(RvhTraceMiddleware(app), tracer_provider=provider)))
        (server,) = server_spans(exporter)
        assert server.context is not None
        assert seen["traceparent"].split("-")[1:3] == [
            f"{server.context.trace_id:032x}",
            f"{server.context.span_id:016x}",
        ]
        assert list(spans) == []

    def test_one_that_is_not_recorded_does_not_stop_ours(self, spans: InMemoryExporter, theirs: Theirs) -> None:
        provider, exporter = theirs
        app = StarletteMiddleware(RvhTraceMiddleware(working), tracer_provider=provider, excluded_urls="/items")
        asyncio.run(serve(app))
        assert server_spans(exporter) == []
        assert sorted(one.kind for one in spans) == ["internal", "server"]

    def test_a_span_of_theirs_that_is_no_server_span_does_not_stop_ours(
        self, spans: InMemoryExporter, theirs: Theirs
    ) -> None:
        """uvicorn can leak one through keep-alive and pipelining (Kludex/uvicorn#2167)."""
        provider, _ = theirs

        async def main() -> None:
            with provider.get_tracer("test").start_as_current_span("leaked"):
                await serve(RvhTraceMiddleware(answering()), with_headers(SAMPLED))

        asyncio.run(main())
        (server,) = spans
        assert (server.kind, server.trace_id, server.parent_span_id) == ("server", TRACE_ID, SPAN_ID)

    def test_a_server_span_of_theirs_that_has_ended_does_not_stop_ours(
        self, spans: InMemoryExporter, theirs: Theirs
    ) -> None:
        provider, _ = theirs

        async def main() -> None:
            tracer = provider.get_tracer("test")
            with tracer.start_as_current_span("leaked", kind=SpanKind.SERVER) as leaked:
                leaked.end()
                await serve(RvhTraceMiddleware(answering()))

        asyncio.run(main())
        assert [one.kind for one in spans] == ["server"]

    def test_messages_pass_as_they_are(self, spans: InMemoryExporter, theirs: Theirs) -> None:
        provider, _ = theirs
        app = StarletteMiddleware(RvhTraceMiddleware(answering(START, LAST_BODY)), tracer_provider=provider)
        assert asyncio.run(serve(app)) == [START, LAST_BODY]


class TestOursTwice:
    def assert_one(self, spans: InMemoryExporter, app: App, path: str, name: str) -> None:
        asyncio.run(serve(app, http_scope(path)))
        (server,) = (one for one in spans if one.kind == "server")
        assert server.name == name
        assert all(one.trace_id == server.trace_id for one in spans)

    def test_directly(self, spans: InMemoryExporter) -> None:
        app = RvhTraceMiddleware(RvhTraceMiddleware(working))
        self.assert_one(spans, app, "/items/7", "GET")

    def test_around_and_inside_starlette(self, spans: InMemoryExporter) -> None:
        async def endpoint(request: Request) -> PlainTextResponse:
            return PlainTextResponse("ok")

        app = Starlette(routes=[Route("/items/{id}", endpoint)])
        app.add_middleware(RvhTraceMiddleware)
        app.add_middleware(RvhTraceMiddleware)
        self.assert_one(spans, RvhTraceMiddleware(app), "/items/7", "GET /items/{id}")

    @pytest.mark.parametrize("mounted", [Starlette, FastAPI])
    def test_parent_and_mounted_application(self, spans: InMemoryExporter, mounted: Any) -> None:
        async def endpoint(request: Request) -> PlainTextResponse:
            with span("work"):
                return PlainTextResponse("ok")

        inner = mounted(routes=[Route("/items/{id}", endpoint)])
        inner.add_middleware(RvhTraceMiddleware)
        outer = Starlette(routes=[Mount("/shop", inner)])
        outer.add_middleware(RvhTraceMiddleware)
        self.assert_one(spans, outer, "/shop/items/7", "GET /shop/items/{id}")

    def test_a_mounted_application_alone(self, spans: InMemoryExporter) -> None:
        async def endpoint(request: Request) -> PlainTextResponse:
            return PlainTextResponse("ok")

        inner = Starlette(routes=[Route("/items/{id}", endpoint)])
        inner.add_middleware(RvhTraceMiddleware)
        outer = Starlette(routes=[Mount("/shop", inner)])
        self.assert_one(spans, outer, "/shop/items/7", "GET /shop/items/{id}")

    @pytest.mark.parametrize("depth", [1, 3])
    def test_with_spans_of_the_application_between_them(self, spans: InMemoryExporter, depth: int) -> None:
        app: App = RvhTraceMiddleware(working)
        for _ in range(depth):
            app = in_a_span(app)
        self.assert_one(spans, RvhTraceMiddleware(app), "/items/7", "GET")
        assert len(spans) == depth + 2

    def test_with_a_task_and_a_copy_of_the_scope_between_them(self, spans: InMemoryExporter) -> None:
        inner = RvhTraceMiddleware(working)

        async def between(scope: Scope, receive: Receive, send: Send) -> None:
            with span("between"):
                await asyncio.create_task(inner(dict(scope), receive, send))

        self.assert_one(spans, RvhTraceMiddleware(between), "/items/7", "GET")

    def test_requests_inside_a_request_are_requests(self, spans: InMemoryExporter) -> None:
        """An application that calls another one, with a scope of its own, as test clients in handlers do."""
        inner = RvhTraceMiddleware(answering())

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await serve(inner, http_scope("/inner"))
            assert current_span().is_recording
            await answering()(scope, receive, send)

        asyncio.run(serve(RvhTraceMiddleware(app), http_scope("/outer")))
        assert len({one.trace_id for one in spans if one.kind == "server"}) == 2


class TestLateTraffic:
    """What a server leaves in the context of a connection is not the next request's parent."""

    def test_requests_after_one_another_are_roots_each(self, spans: InMemoryExporter) -> None:
        async def main() -> None:
            app = RvhTraceMiddleware(working)
            for number in range(5):
                await serve(app, http_scope(f"/{number}"))

        asyncio.run(main())
        servers = [one for one in spans if one.kind == "server"]
        assert len({one.trace_id for one in servers}) == 5
        assert {one.parent_span_id for one in servers} == {None}

    def test_the_next_request_in_a_task_of_the_last_is_a_root(self, spans: InMemoryExporter) -> None:
        """As uvicorn does with what arrives while a response is on its way (Kludex/uvicorn#2912, contrib#2852)."""
        tasks: list[asyncio.Task[Any]] = []

        async def main() -> None:
            async def app(scope: Scope, receive: Receive, send: Send) -> None:
                await answering()(scope, receive, send)
                if scope["path"] == "/first":
                    # The context of this task still holds the first request's span, which has ended.
                    tasks.append(asyncio.create_task(serve(traced, http_scope("/second"))))

            traced = RvhTraceMiddleware(app)
            await serve(traced, http_scope("/first"))
            await tasks[0]

        asyncio.run(main())
        first, second = spans
        assert first.trace_id != second.trace_id
        assert (second.parent_span_id, second.links) == (None, ())
