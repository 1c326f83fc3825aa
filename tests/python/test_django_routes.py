"""`http.route` of Django requests, from the resolver that dispatched them."""

from collections.abc import Callable
from typing import Any

import pytest
from django.http import HttpRequest, HttpResponse
from django.test import override_settings
from django_site import TRACING, Run, application, traced
from handmade_server import LAST_BODY, START, App, Receive, Scope, Send, answering
from hypothesis import given
from hypothesis import strategies as st
from interpreter import run_script
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route

from rvh_trace import RvhTraceMiddleware, current_span
from rvh_trace.django import _template
from rvh_trace.testing import InMemoryExporter


def short_cut(get_response: Callable[[HttpRequest], HttpResponse]) -> Callable[[HttpRequest], HttpResponse]:
    """A middleware that answers instead of the view."""
    return lambda request: HttpResponse("short")


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


@pytest.mark.parametrize("strict", [False, True])
def test_an_outer_framework_that_is_not_understood_costs_the_route_and_not_the_response(
    run: Run, spans: InMemoryExporter, monkeypatch: pytest.MonkeyPatch, strict: bool
) -> None:
    class Router:
        """A router of another version."""

        @property
        def routes(self) -> list[object]:
            raise RuntimeError("moved elsewhere")

    monkeypatch.setenv("RVH_TRACE_STRICT", str(int(strict)))
    outer = {"root_path": "/shop", "app_root_path": "", "router": Router()}
    server, status = traced(run, spans, application(), "/shop/articles/2003/", **outer)
    assert (status, server.name) == (500 if strict else 200, "GET")


@given(st.text(alphabet=st.sampled_from("ab/<>:()[]?P^$\\\\.|*+-"), max_size=30) | st.text(max_size=20))
def test_any_pattern_gives_a_template_and_nothing_raises(pattern: str) -> None:
    template = _template(pattern)
    assert template.startswith("/")
    if not any(sign in pattern for sign in ("^", "$", "\\", "(?")):
        assert template == f"/{pattern}"


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
