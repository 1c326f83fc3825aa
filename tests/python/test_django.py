"""`rvh_trace.django`: route, threads and composition of the server span of a Django request."""

import asyncio
import threading
from collections.abc import Awaitable, Callable
from typing import Any

import django_site
import pytest
from asgiref.sync import iscoroutinefunction, markcoroutinefunction
from django.core.signals import request_started
from django.http import HttpRequest, HttpResponse
from django.test import RequestFactory
from django_site import SYNC_ONLY, TRACING, Run, application, body_of, new_gate, status_of, traced, until, visit
from handmade_server import App, Message, Receive, Scope, Send
from interpreter import run_quietly

from rvh_trace import RvhTraceMiddleware, current_span, install_task_factory, span
from rvh_trace.django import TracingMiddleware, wrap_application
from rvh_trace.testing import InMemoryExporter


class Timed:
    """A middleware with a span of its own around the rest."""

    async_capable, sync_capable = True, False

    def __init__(self, get_response: Callable[[HttpRequest], Awaitable[HttpResponse]]) -> None:
        self.get_response = get_response
        markcoroutinefunction(self)

    async def __call__(self, request: HttpRequest) -> HttpResponse:
        with span("middleware"):
            return await self.get_response(request)


class TestTaskFactory:
    """Django makes two tasks of every request, and one of them ends with `RequestAborted`."""

    @pytest.mark.parametrize(
        ("path", "inside"),
        [
            ("/where/", ["in an async view"]),
            ("/where-sync/", ["in a sync view"]),
            ("/stream/news/", ["second part"]),
            ("/gather/", ["branch", "branch"]),
        ],
    )
    def test_makes_no_spans_of_djangos_tasks_and_still_of_those_of_views(
        self, run: Run, spans: InMemoryExporter, path: str, inside: list[str]
    ) -> None:
        app = application()

        async def main() -> None:
            install_task_factory()
            new_gate().opened.set()
            await span("outside").run(visit(app, path))

        run(main())
        (server,) = (one for one in spans if one.kind == "server")
        assert sorted(one.name for one in spans) == sorted([server.name, "outside", *inside])
        assert [one.name for one in spans.children(server)] == inside
        assert server.name.startswith("GET /")
        assert "rvh_trace.outcome" not in server.attributes

    def test_in_a_stack_on_a_thread_the_server_span_is_current_again_too(
        self, run: Run, spans: InMemoryExporter
    ) -> None:
        app = application(MIDDLEWARE=[TRACING, SYNC_ONLY])

        async def main() -> None:
            install_task_factory()
            new_gate().opened.set()
            await visit(app, "/stream/news/")
            await visit(app, "/where-sync/")

        run(main())
        for inside, request in (("second part", "GET /stream/<str:name>/"), ("in a sync view", "GET /where-sync/")):
            assert spans.one(inside).trace_id == spans.one(request).trace_id
        assert not any("ASGIHandler" in one.name for one in spans)

    def test_leaves_what_is_current_outside_as_it_was(self, run: Run, spans: InMemoryExporter) -> None:
        app = application()

        async def main() -> None:
            install_task_factory()
            with span("outside") as outside:
                await visit(app, "/where/")
                assert current_span() is outside
            assert not current_span().context.is_valid

        run(main())

    def test_the_span_of_a_middleware_before_stays_current(self, run: Run, spans: InMemoryExporter) -> None:
        app = application(MIDDLEWARE=[f"{__name__}.Timed", TRACING])

        async def main() -> None:
            install_task_factory()
            await visit(app, "/where/")

        run(main())
        assert spans.one("in an async view").is_child_of(spans.one("middleware"))

    def test_without_the_middleware_the_server_span_is_current_in_views(
        self, run: Run, spans: InMemoryExporter, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(TracingMiddleware, "is_loaded", False)
        with pytest.warns(RuntimeWarning):
            app = application(MIDDLEWARE=[])

        async def main() -> None:
            install_task_factory()
            await visit(app, "/where/")

        run(main())
        assert spans.one("in an async view").trace_id == spans.one("GET").trace_id

    def test_exceptions_are_still_found(self, run: Run, spans: InMemoryExporter) -> None:
        async def main() -> None:
            install_task_factory()
            await visit(application(), "/fail/now/")

        run(main())
        (server,) = spans
        assert (server.name, len(server.events)) == ("GET /fail/<str:why>/", 1)

    def test_with_a_plain_middleware_and_no_wrapper_the_request_is_answered(
        self, run: Run, spans: InMemoryExporter
    ) -> None:
        async def main() -> None:
            install_task_factory()
            assert status_of(await visit(RvhTraceMiddleware(application(wrapped=False)), "/articles/2003/")) == 200

        run(main())
        assert spans.one("GET").kind == "server"


class TestThreads:
    """A middleware that is not `async_capable` moves an asynchronous stack to a thread and back."""

    @staticmethod
    def moves(run: Run, middleware: list[str]) -> list[str]:
        """What a request made the event loop run in a thread."""
        app, moved = application(MIDDLEWARE=middleware, wrapped=False), list[str]()

        async def main() -> None:
            loop = asyncio.get_running_loop()
            run_in_executor = loop.run_in_executor

            def counted(executor: Any, function: Any, *args: Any) -> Any:
                moved.append(repr(function))
                return run_in_executor(executor, function, *args)

            loop.run_in_executor = counted  # type: ignore[method-assign]
            await visit(RvhTraceMiddleware(app), "/articles/2003/")

        run(main())
        return moved

    def test_middleware_without_async_capable_forces_an_async_stack_through_a_thread(self, run: Run) -> None:
        without = self.moves(run, [])
        assert len(self.moves(run, [TRACING])) == len(without)
        assert len(self.moves(run, [SYNC_ONLY])) > len(without), "the count sees such a middleware"

    def test_an_async_view_runs_on_the_loop_with_the_span_current(self, run: Run, spans: InMemoryExporter) -> None:
        assert int(body_of(run(visit(application(), "/where/")))) == threading.get_ident()
        assert spans.one("in an async view").is_child_of(spans.one("GET /where/"))

    @pytest.mark.parametrize("middleware", [[TRACING], [TRACING, SYNC_ONLY]])
    def test_a_sync_view_runs_on_a_thread_with_the_span_current(
        self, run: Run, spans: InMemoryExporter, middleware: list[str]
    ) -> None:
        assert int(body_of(run(visit(application(MIDDLEWARE=middleware), "/where-sync/")))) != threading.get_ident()
        server = spans.one("GET /where-sync/")
        assert spans.one("in a sync view").is_child_of(server)
        assert server.attributes["test.set_in"] == "a sync view"

    @pytest.mark.parametrize("middleware", [[TRACING, SYNC_ONLY], [SYNC_ONLY, TRACING]], ids=["before", "after"])
    def test_beside_a_middleware_that_is_sync_only_it_works_the_same(
        self, run: Run, spans: InMemoryExporter, middleware: list[str]
    ) -> None:
        server, status = traced(run, spans, application(MIDDLEWARE=middleware), "/articles/2003/")
        assert (status, server.name) == (200, "GET /articles/<int:year>/")

    def test_it_tells_django_in_which_mode_it_runs(self) -> None:
        async def asynchronous(request: HttpRequest) -> HttpResponse:
            return HttpResponse()

        assert (TracingMiddleware.sync_capable, TracingMiddleware.async_capable) == (True, True)
        assert iscoroutinefunction(TracingMiddleware(asynchronous))
        assert not iscoroutinefunction(TracingMiddleware(lambda request: HttpResponse()))


class TestComposition:
    def test_inside_a_plain_middleware_the_route_is_found_through_the_current_span(
        self, run: Run, spans: InMemoryExporter
    ) -> None:
        server, _ = traced(run, spans, RvhTraceMiddleware(application(wrapped=False)), "/articles/2003/")
        assert server.name == "GET /articles/<int:year>/"

    def test_without_any_server_span_nothing_happens(self, run: Run, spans: InMemoryExporter) -> None:
        assert status_of(run(visit(application(wrapped=False), "/articles/2003/"))) == 200
        assert status_of(run(visit(application(wrapped=False), "/fail/now/"))) == 500
        assert list(spans) == []

    def test_without_tracing_requests_are_answered(self, run: Run) -> None:
        for path, status in (("/articles/2003/", 200), ("/nothing", 404), ("/fail/now/", 500), ("/where-sync/", 200)):
            assert status_of(run(visit(application(), path))) == status

    def test_a_request_that_is_not_sampled_is_answered(self, run: Run) -> None:
        with InMemoryExporter(sampler="always_off") as spans:
            assert status_of(run(visit(application(), "/articles/2003/"))) == 200
        assert list(spans) == []

    def test_a_request_without_a_scope_is_answered(self, spans: InMemoryExporter) -> None:
        """WSGI, and what the test client makes."""
        seen: list[HttpRequest] = []

        def get_response(request: HttpRequest) -> HttpResponse:
            seen.append(request)
            return HttpResponse("ok")

        request = RequestFactory().get("/articles/2003/")
        response = TracingMiddleware(get_response)(request)
        assert isinstance(response, HttpResponse)
        assert (response.content, seen, list(spans)) == (b"ok", [request], [])

    def test_wrapped_twice_it_is_one_span(self, run: Run, spans: InMemoryExporter) -> None:
        server, _ = traced(run, spans, RvhTraceMiddleware(application()), "/articles/2003/")
        assert (server.name, len(spans)) == ("GET /articles/<int:year>/", 1)

    def test_the_scope_of_the_server_is_left_as_it_was(self, run: Run, spans: InMemoryExporter) -> None:
        scopes: list[tuple[dict[str, Any], dict[str, Any]]] = []
        app = application()

        async def server(scope: Scope, receive: Receive, send: Send) -> None:
            before = dict(scope)
            await app(scope, receive, send)
            scopes.append((before, dict(scope)))

        run(visit(server, "/articles/2003/"))
        ((before, after),) = scopes
        assert before == after

    @pytest.mark.parametrize("kind", ["lifespan", "websocket"])
    def test_what_is_no_request_is_refused_by_django_as_ever(
        self, run: Run, spans: InMemoryExporter, kind: str
    ) -> None:
        errors: list[str] = []
        for wrapped in (True, False):
            with pytest.raises(ValueError, match=kind) as caught:
                run(visit(application(wrapped=wrapped), type=kind))
            errors.append(str(caught.value))
        assert errors[0] == errors[1]
        assert "http.route" not in {key for one in spans for key in one.attributes}

    @pytest.mark.parametrize(
        "path", ["/", "/articles/2003/", "/nothing", "/fail/now/", "/refuse/denied/", "/status/503/"]
    )
    def test_the_client_gets_the_same_messages(self, run: Run, spans: InMemoryExporter, path: str) -> None:
        def messages(app: App) -> list[Message]:
            return run(visit(app, path))

        assert messages(application()) == messages(application(wrapped=False, MIDDLEWARE=[]))

    def test_the_trace_of_the_caller_goes_on(self, run: Run, spans: InMemoryExporter) -> None:
        headers = [(b"traceparent", b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")]
        server, _ = traced(run, spans, application(), "/where-sync/", headers=headers)
        assert (server.trace_id, server.parent_span_id) == ("0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331")
        assert {one.trace_id for one in spans} == {server.trace_id}


def test_the_server_span_is_current_before_the_middleware_is_reached(run: Run, spans: InMemoryExporter) -> None:
    def receiver(sender: object, **_: object) -> None:
        with span("receiver"):
            pass

    request_started.connect(receiver)
    try:
        run(visit(application(), "/articles/2003/"))
    finally:
        request_started.disconnect(receiver)
    assert spans.one("receiver").is_child_of(spans.one("GET /articles/<int:year>/"))


def test_requests_at_the_same_time_keep_what_is_theirs(run: Run, spans: InMemoryExporter) -> None:
    app, count = application(), 40

    async def main() -> list[list[Message]]:
        opening = new_gate()
        visits = [asyncio.create_task(visit(app, f"/overlap/{number}/")) for number in range(count)]
        await until(opening.reached.is_set)
        opening.opened.set()
        return await asyncio.gather(*visits)

    run(main())
    servers = spans.named("GET /overlap/<int:number>/")
    assert len(servers) == len({one.trace_id for one in servers}) == count
    for server in servers:
        number = server.attributes["own"]
        assert server.attributes["url.path"] == f"/overlap/{number}/"
        assert server.attributes["http.response.status_code"] == 200 + int(str(number))
        assert [child.name for child in spans.children(server)] == [f"own {number}"]


def test_nothing_stays_current_after_a_request(run: Run, spans: InMemoryExporter) -> None:
    async def main() -> None:
        for path in ("/where/", "/where-sync/", "/fail/now/", "/nothing"):
            await visit(application(), path)
            assert not current_span().context.is_valid

    run(main())


def test_without_the_middleware_the_wrapper_says_what_to_add(
    run: Run, spans: InMemoryExporter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(TracingMiddleware, "is_loaded", False)
    with pytest.warns(RuntimeWarning, match=r"put 'rvh_trace\.django\.TracingMiddleware' first") as warned:
        app = application(MIDDLEWARE=[])
    assert [warning.filename for warning in warned] == [django_site.__file__]
    server, status = traced(run, spans, app, "/articles/2003/")
    assert (status, server.name, server.attributes["http.response.status_code"]) == (200, "GET", 200)


def test_the_urls_that_are_excluded_for_django_are_not_traced(
    run: Run, spans: InMemoryExporter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_PYTHON_DJANGO_EXCLUDED_URLS", "/articles/")
    app = application()
    for path in ("/articles/2003/", "/where/"):
        assert status_of(run(visit(app, path))) == 200
    assert [one.name for one in spans if one.kind == "server"] == ["GET /where/"]


def test_options_are_those_of_the_middleware() -> None:
    with pytest.raises(TypeError, match="no_such_option"):
        wrap_application(application(wrapped=False), no_such_option=True)


def test_without_django_the_import_says_what_to_install() -> None:
    run_quietly(
        """
        import sys

        sys.modules["django"] = None
        import rvh_trace

        try:
            import rvh_trace.django
        except ImportError as error:
            assert "pip install" in str(error) and "Django" in str(error), error
        else:
            raise AssertionError("imported without Django")
        """
    )


def test_the_package_does_not_import_django() -> None:
    run_quietly("import rvh_trace, sys; assert not {'django', 'asgiref'} & set(sys.modules)")
