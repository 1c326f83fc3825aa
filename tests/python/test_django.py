"""`rvh_trace.django`: route, threads and composition of the server span of a Django request."""

import asyncio
import threading
from collections.abc import Callable, Coroutine
from typing import Any

import django_site
import pytest
from django.http import HttpRequest, HttpResponse
from django.test import RequestFactory, override_settings
from django_site import SYNC_ONLY, TRACING, application, body_of, new_gate, status_of, until, visit
from handmade_server import LAST_BODY, START, App, Message, Receive, Scope, Send, answering
from interpreter import run_quietly, run_script
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route

from rvh_trace import RvhTraceMiddleware, current_span, install_task_factory
from rvh_trace.django import TracingMiddleware, wrap_application
from rvh_trace.testing import FinishedSpan, InMemoryExporter

Run = Callable[[Coroutine[Any, Any, Any]], Any]


def short_cut(get_response: Callable[[HttpRequest], HttpResponse]) -> Callable[[HttpRequest], HttpResponse]:
    """A middleware that answers instead of the view."""
    return lambda request: HttpResponse("short")


def traced(run: Run, spans: InMemoryExporter, app: App, path: str, **scope: Any) -> tuple[FinishedSpan, int]:
    """The one SERVER span of a request for `path`, and the status that was sent."""
    spans.clear()
    sent = run(visit(app, path, **scope))
    (server,) = (one for one in spans if one.kind == "server")
    return server, status_of(sent)


class TestRoute:
    @pytest.mark.parametrize(
        ("path", "route"),
        [
            ("/", "/"),
            ("/articles/2003/", "/articles/<int:year>/"),
            ("/archive/2003/", "/archive/<year>/"),
            ("/api/items/tea/", "/api/items/<slug:slug>/"),
            ("/api/v2/users.json", "/api/v<var>/users.<format>"),
            ("/api/labels/x)y", "/api/(?:tags|labels)/<tag>"),
            ("/legacy-acme/items/tea/", "/legacy-<tenant>/items/<slug:slug>/"),
            ("/legacy-acme/v2/users.json", "/legacy-<tenant>/v<var>/users.<format>"),
        ],
    )
    def test_is_the_whole_template_with_includes(
        self, run: Run, spans: InMemoryExporter, path: str, route: str
    ) -> None:
        server, status = traced(run, spans, application(), path)
        assert status == 200
        assert (server.name, server.attributes["http.route"]) == (f"GET {route}", route)
        assert server.attributes["url.path"] == path

    @pytest.mark.parametrize("path", ["/nothing", "/articles/none/", "/admin/2003"])
    def test_is_absent_when_nothing_matches_and_never_the_path(
        self, run: Run, spans: InMemoryExporter, path: str
    ) -> None:
        server, status = traced(run, spans, application(), path)
        assert (status, server.name, server.status) == (404, "GET", "unset")
        assert "http.route" not in server.attributes

    def test_is_absent_when_a_redirect_comes_before_the_match(self, run: Run, spans: InMemoryExporter) -> None:
        app = application(MIDDLEWARE=[TRACING, "django.middleware.common.CommonMiddleware"])
        server, status = traced(run, spans, app, "/articles/2003")
        assert (status, server.name) == (301, "GET")
        assert "http.route" not in server.attributes

    def test_is_absent_when_a_middleware_answers_instead(self, run: Run, spans: InMemoryExporter) -> None:
        server, status = traced(run, spans, application(MIDDLEWARE=[TRACING, f"{__name__}.short_cut"]), "/")
        assert (status, server.name) == (200, "GET")

    def test_of_a_view_that_finds_nothing_is_kept(self, run: Run, spans: InMemoryExporter) -> None:
        server, status = traced(run, spans, application(), "/refuse/missing/")
        assert (status, server.name) == (404, "GET /refuse/<str:how>/")

    @pytest.mark.parametrize(
        ("path", "route"), [("/shop/", "/shop/"), ("/shop/archive/2003/", "/shop/archive/<year>/")]
    )
    def test_has_the_root_path_of_the_server_before_it(
        self, run: Run, spans: InMemoryExporter, path: str, route: str
    ) -> None:
        server, status = traced(run, spans, application(), path, root_path="/shop")
        assert (status, server.attributes["http.route"]) == (200, route)

    def test_has_the_forced_script_name_before_it(self, run: Run, spans: InMemoryExporter) -> None:
        with override_settings(FORCE_SCRIPT_NAME="/forced"):
            server, status = traced(run, spans, application(), "/articles/2003/", root_path="/ignored")
        assert (status, server.attributes["http.route"]) == (200, "/forced/articles/<int:year>/")

    def test_has_the_forced_script_name_instead_of_an_outer_mount(self, run: Run, spans: InMemoryExporter) -> None:
        app: Any = Starlette(routes=[Mount("/articles", app=application())])
        with override_settings(FORCE_SCRIPT_NAME="/forced"):
            server, status = traced(run, spans, RvhTraceMiddleware(app), "/articles/2003/")
        assert (status, server.attributes["http.route"]) == (200, "/forced/articles/<int:year>/")

    @pytest.mark.parametrize("outside", [True, False])
    def test_has_the_template_of_an_outer_mount_before_it_and_no_value(
        self, run: Run, spans: InMemoryExporter, outside: bool
    ) -> None:
        app: Any = Starlette(routes=[Mount("/shops/{shop}", app=application())])
        server, status = traced(run, spans, RvhTraceMiddleware(app) if outside else app, "/shops/acme/articles/2003/")
        assert (status, server.name) == (200, "GET /shops/{shop}/articles/<int:year>/")

    def test_is_known_while_a_task_factory_makes_the_span_of_djangos_task_current(
        self, run: Run, spans: InMemoryExporter
    ) -> None:
        app = application()

        async def main() -> None:
            install_task_factory()
            await visit(app, "/articles/2003/")

        run(main())
        assert spans.one("GET /articles/<int:year>/").kind == "server"


class TestSetRoute:
    """`ServerSpan.set_route`, which the middleware stands on."""

    @staticmethod
    def setting(*routes: Any, after: bool = False) -> App:
        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            server: Any = current_span()
            messages = [START, LAST_BODY] if after else []
            for message in messages:
                await send(message)
            for route in routes:
                server.set_route(route)
            if not after:
                await answering()(scope, receive, send)

        return RvhTraceMiddleware(app)

    @pytest.mark.parametrize("route", ["/", "/shops/{shop}", "/größe/<int:größe>/"])
    def test_the_last_one_counts_and_names_the_span(self, run: Run, spans: InMemoryExporter, route: str) -> None:
        server, _ = traced(run, spans, self.setting("/first", route), "/x", method="POST")
        assert (server.name, server.attributes["http.route"]) == (f"POST {route}", route)

    def test_after_the_response_it_changes_nothing(self, run: Run, spans: InMemoryExporter) -> None:
        server, _ = traced(run, spans, self.setting("/late", after=True), "/x")
        assert server.name == "GET"
        assert "http.route" not in server.attributes

    def test_a_lone_surrogate_is_replaced(self, run: Run, spans: InMemoryExporter) -> None:
        server, _ = traced(run, spans, self.setting("/a\udcffb"), "/x")
        assert str(server.attributes["http.route"]).startswith("/a\N{REPLACEMENT CHARACTER}")

    def test_it_wins_over_what_the_framework_left(self, run: Run, spans: InMemoryExporter) -> None:
        async def endpoint(request: Request) -> PlainTextResponse:
            span: Any = request.scope["span"]
            span.set_route("/given")
            return PlainTextResponse("ok")

        starlette = Starlette(routes=[Route("/found", endpoint)])

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await starlette({**scope, "span": current_span()}, receive, send)

        server, _ = traced(run, spans, RvhTraceMiddleware(app), "/found")
        assert server.name == "GET /given"

    def test_what_is_no_text_is_counted_and_raises_only_in_strict_mode(self) -> None:
        script = """
        import asyncio, rvh_trace
        from rvh_trace.testing import InMemoryExporter

        async def app(scope, receive, send):
            rvh_trace.current_span().set_route(7)
            await send({"type": "http.response.start", "status": 200})
            await send({"type": "http.response.body"})

        async def send(message): ...

        scope = {"type": "http", "method": "GET", "path": "/", "headers": []}
        with InMemoryExporter() as spans:
            asyncio.run(rvh_trace.RvhTraceMiddleware(app)(scope, None, send))
        assert [span.name for span in spans] == ["GET"]
        assert rvh_trace.stats()["swallowed_errors"] == 1
        """
        finished = run_script(script)
        assert (finished.returncode, len(finished.warnings)) == (0, 1), finished.stderr
        assert "setting the route of a server span was ignored" in finished.warnings[0]
        assert run_script(script, RVH_TRACE_STRICT="1").returncode == 1


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
        assert server.attributes["set.in"] == "a sync view"

    @pytest.mark.parametrize("middleware", [[TRACING, SYNC_ONLY], [SYNC_ONLY, TRACING]], ids=["before", "after"])
    def test_beside_a_middleware_that_is_sync_only_it_works_the_same(
        self, run: Run, spans: InMemoryExporter, middleware: list[str]
    ) -> None:
        server, status = traced(run, spans, application(MIDDLEWARE=middleware), "/articles/2003/")
        assert (status, server.name) == (200, "GET /articles/<int:year>/")

    def test_it_tells_django_in_which_mode_it_runs(self) -> None:
        from asgiref.sync import iscoroutinefunction

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
