"""`http.route` and the span's name after real dispatch by Starlette: the whole template, never a path."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
from answered import Traced
from handmade_server import http_scope, serve
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.middleware.cors import CORSMiddleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Host, Mount, Route, Router
from starlette.staticfiles import StaticFiles

from rvh_trace import RvhTraceMiddleware, _mounts
from rvh_trace._routes import route_template
from rvh_trace.testing import InMemoryExporter

TRACING = Middleware(RvhTraceMiddleware)  # type: ignore[arg-type]


async def endpoint(request: Request) -> PlainTextResponse:
    return PlainTextResponse("ok")


async def fail(request: Request) -> PlainTextResponse:
    raise LookupError("none")


async def asgi_application(scope: Any, receive: Any, send: Any) -> None:
    await PlainTextResponse("ok")(scope, receive, send)


class HandsThrough(BaseHTTPMiddleware):
    async def dispatch(self, request: Request, call_next: Any) -> Response:
        return await call_next(request)


class Opaque:
    """Middleware that keeps its application to itself."""

    def __init__(self, app: Any) -> None:
        self._inside = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await self._inside(scope, receive, send)


def items() -> list[Route]:
    return [Route("/items/{item}", endpoint)]


def starlette_app(*middleware: Middleware) -> Starlette:
    inner = Starlette(routes=[*items(), Route("/", endpoint), Route("/slash/", endpoint)])
    return Starlette(
        routes=[
            Route("/", endpoint),
            Route("/items/{item:int}", endpoint),
            Route("/files/{path:path}", endpoint),
            Route("/post", endpoint, methods=["POST"]),
            Route("/slash/", endpoint),
            Mount("/mounted", routes=items()),
            Mount("/shops/{shop}", routes=[*items(), Mount("/deep", routes=[Route("/", endpoint)])]),
            Mount("/sub", app=inner),
            Mount("/raw", app=asgi_application),
        ],
        middleware=[*middleware, TRACING],
    )


@pytest.mark.parametrize(
    ("path", "route"),
    [
        ("/", "/"),
        ("/items/7", "/items/{item}"),
        ("/files/a/b/c", "/files/{path}"),
        ("/mounted/items/7", "/mounted/items/{item}"),
        ("/shops/acme/items/7", "/shops/{shop}/items/{item}"),
        ("/shops/acme/deep/", "/shops/{shop}/deep/"),
        ("/sub/items/7", "/sub/items/{item}"),
        ("/sub/", "/sub/"),
    ],
)
def test_routes_are_named_by_their_whole_template(traced: Traced, path: str, route: str) -> None:
    answered = traced(starlette_app(), path)
    assert (answered.status, answered.route) == (200, route)


@pytest.mark.parametrize("added", ["around", "inside", "both"])
def test_it_is_one_span_wherever_the_middleware_stands(traced: Traced, added: str) -> None:
    app: Any = Starlette(
        routes=[Mount("/shops/{shop}", routes=items())], middleware=[] if added == "around" else [TRACING]
    )
    if added != "inside":
        app = RvhTraceMiddleware(app)
    assert traced(app, "/shops/acme/items/7").route == "/shops/{shop}/items/{item}"


@pytest.mark.parametrize("parent_too", [False, True])
@pytest.mark.parametrize("sub", ["inside", "around"])
def test_a_mounted_application_with_its_own_middleware_is_one_span(traced: Traced, parent_too: bool, sub: str) -> None:
    mounted: Any = Starlette(routes=items(), middleware=[TRACING] if sub == "inside" else [])
    if sub == "around":
        mounted = RvhTraceMiddleware(mounted)
    app = Starlette(routes=[Mount("/sub/{name}", app=mounted)], middleware=[TRACING] if parent_too else [])
    assert traced(app, "/sub/x/items/7").route == "/sub/{name}/items/{item}"


@pytest.mark.parametrize("wrap", [GZipMiddleware, HandsThrough, Opaque])
def test_mounts_are_seen_through_middleware(traced: Traced, wrap: Any) -> None:
    inner = Starlette(routes=items())
    for mount in (Mount("/a/{x}", app=wrap(inner)), Mount("/a/{x}", routes=items(), middleware=[Middleware(wrap)])):
        assert traced(Starlette(routes=[mount], middleware=[TRACING]), "/a/1/items/7").route == "/a/{x}/items/{item}"


def test_mounts_inside_of_mounted_middleware_are_part_of_the_route(traced: Traced) -> None:
    inner = Starlette(routes=[Mount("/b/{y}", routes=items())])
    app = Starlette(routes=[Mount("/a/{x}", app=GZipMiddleware(GZipMiddleware(inner)))], middleware=[TRACING])
    assert traced(app, "/a/1/b/2/items/7").route == "/a/{x}/b/{y}/items/{item}"
    # What cannot be looked into has no route: half of one would be wrong.
    app = Starlette(routes=[Mount("/a/{x}", app=Opaque(inner))], middleware=[TRACING])
    assert traced(app, "/a/1/b/2/items/7").route is None


@pytest.mark.parametrize("at", ["", "/"])
def test_a_mount_at_the_root_adds_nothing(traced: Traced, at: str) -> None:
    app = Starlette(routes=[Mount(at, routes=[*items(), Mount("/deep/{x}", routes=items())])], middleware=[TRACING])
    assert traced(app, "/items/7").route == "/items/{item}"
    assert traced(app, "/deep/1/items/7").route == "/deep/{x}/items/{item}"
    assert traced(app, "/nothing").route is None


def test_an_application_that_is_mounted_twice_has_the_mount_of_the_request(traced: Traced) -> None:
    shared = Starlette(routes=items())
    mounts = [Mount("/v1", app=shared), Mount("/v2", app=shared), Mount("/{tenant}", app=shared)]
    app = Starlette(routes=mounts, middleware=[TRACING])
    for _ in range(2):  # the second time from memory
        assert traced(app, "/v1/items/7").route == "/v1/items/{item}"
        assert traced(app, "/v2/items/7").route == "/v2/items/{item}"
        assert traced(app, "/acme/items/7").route == "/{tenant}/items/{item}"


def test_mounts_are_taken_in_their_order(traced: Traced) -> None:
    app = Starlette(routes=[Mount("/{tenant}", routes=items()), Mount("/acme", routes=items())], middleware=[TRACING])
    assert traced(app, "/acme/items/7").route == "/{tenant}/items/{item}"


@pytest.mark.parametrize(
    ("host", "path", "route"),
    [
        (b"eu.shop.example", "/items/7", "/items/{item}"),
        (b"eu.shop.example", "/api/items/7", "/api/items/{item}"),
        (b"eu.shop.example:8000", "/v1/acme/items/7", "/v1/{tenant}/items/{item}"),
        (b"eu.shop.example", "/nothing", None),
        (b"api.example", "/api/items/7", "/{version}/items/{item}"),
        (b"raw.example", "/api/items/7", None),
        (b"other.example", "/items/7", "/items/{item}"),
    ],
)
def test_hosts_and_what_is_mounted_in_them(traced: Traced, host: bytes, path: str, route: str | None) -> None:
    app = Starlette(
        routes=[
            Host("api.example", app=Router([Mount("/{version}", routes=items())])),
            Host("raw.example", app=asgi_application),
            Host(
                "{region}.shop.example",
                app=Router([*items(), Mount("/api", routes=items()), Mount("/v1/{tenant}", routes=items())]),
            ),
            Route("/items/{item:int}", endpoint),
        ],
        middleware=[TRACING],
    )
    answered = traced(app, path, headers=[(b"host", host)])
    assert answered.route == route
    assert answered.status == (404 if path == "/nothing" else 200)


@pytest.mark.parametrize(
    ("at", "route"), [("/static", "/static/{path}"), ("/", "/{path}"), ("/{a}/b", "/{a}/b/{path}")]
)
def test_static_files_have_the_route_of_their_mount(traced: Traced, tmp_path: Path, at: str, route: str) -> None:
    (tmp_path / "file.txt").write_text("text")
    app = Starlette(routes=[Mount(at, app=StaticFiles(directory=tmp_path))], middleware=[TRACING])
    prefix = at.replace("{a}", "x").rstrip("/")
    for path, status in ((f"{prefix}/file.txt", 200), (f"{prefix}/none.txt", 404)):
        answered = traced(app, path)
        assert (answered.status, answered.route) == (status, route)


def test_a_mounted_asgi_application_has_the_route_of_its_mount(traced: Traced) -> None:
    assert traced(starlette_app(), "/raw/any/thing").route == "/raw/{path}"


@pytest.mark.parametrize("path", ["/nothing", "/sub/nothing", "/shops/acme/nothing", "/items/no-number", "/mounted/"])
def test_what_no_route_matches_has_none(traced: Traced, path: str) -> None:
    answered = traced(starlette_app(), path)
    assert (answered.status, answered.route) == (404, None)


@pytest.mark.parametrize("path", ["/slash", "/items/7/", "/sub", "/sub/slash"])
def test_a_slash_redirect_was_dispatched_to_no_route(traced: Traced, path: str) -> None:
    answered = traced(starlette_app(), path)
    assert (answered.status, answered.route, answered.span.status) == (307, None, "unset")


@pytest.mark.parametrize(("path", "route"), [("/post", "/post"), ("/mounted/items/7", "/mounted/items/{item}")])
def test_405_comes_from_the_route(traced: Traced, path: str, route: str) -> None:
    answered = traced(starlette_app(), path, method="DELETE")
    assert (answered.status, answered.route, answered.span.status) == (405, route, "unset")


def test_head_is_dispatched_to_the_route_of_get(traced: Traced) -> None:
    answered = traced(starlette_app(), "/shops/acme/items/7", method="HEAD")
    assert (answered.status, answered.span.name) == (200, "HEAD /shops/{shop}/items/{item}")


@pytest.mark.parametrize("outermost", [True, False])
def test_a_preflight_is_answered_and_has_no_route(traced: Traced, outermost: bool) -> None:
    """Route look-ups of others turned every CORS preflight into a 500 (opentelemetry-python-contrib#4699)."""
    app = starlette_app()
    app.add_middleware(CORSMiddleware, allow_origins=["*"])
    app.add_middleware(RvhTraceMiddleware)  # type: ignore[arg-type]
    headers = [(b"origin", b"http://x"), (b"access-control-request-method", b"GET")]
    answered = traced(app if outermost else RvhTraceMiddleware(app), "/items/7", method="OPTIONS", headers=headers)
    assert (answered.status, answered.span.name, answered.route) == (200, "OPTIONS", None)


def test_a_host_that_is_not_trusted_is_refused_before_routing(traced: Traced) -> None:
    app = RvhTraceMiddleware(starlette_app(Middleware(TrustedHostMiddleware, allowed_hosts=["shop.example"])))
    refused = traced(app, "/items/7", headers=[(b"host", b"evil.example")])
    assert (refused.status, refused.route) == (400, None)
    assert traced(app, "/items/7").route == "/items/{item}"


@pytest.mark.parametrize("middleware", [Middleware(GZipMiddleware, minimum_size=1), Middleware(HandsThrough)])
@pytest.mark.parametrize("around", [False, True])
def test_middleware_on_either_side_does_not_hide_the_route(
    traced: Traced, middleware: Middleware, around: bool
) -> None:
    app = Starlette(
        routes=[Mount("/shops/{shop}", routes=items())],
        middleware=[TRACING, middleware] if around else [middleware, TRACING],
    )
    answered = traced(app, "/shops/acme/items/7", headers=[(b"accept-encoding", b"gzip")])
    assert (answered.status, answered.route) == (200, "/shops/{shop}/items/{item}")


def test_exception_handlers_answer_for_the_route(traced: Traced) -> None:
    async def refuse(request: Request) -> PlainTextResponse:
        raise HTTPException(418)

    async def answer(request: Request, exception: Exception) -> PlainTextResponse:
        return PlainTextResponse("handled", 409 if isinstance(exception, LookupError) else 404)

    app = Starlette(
        routes=[Route("/fail/{why}", fail), Route("/refuse/{why}", refuse)],
        exception_handlers={LookupError: answer, 404: answer},
        middleware=[TRACING],
    )
    for path, status, route in (
        ("/fail/x", 409, "/fail/{why}"),
        ("/refuse/x", 418, "/refuse/{why}"),
        ("/nothing", 404, None),
    ):
        answered = traced(app, path)
        assert (answered.status, answered.route, answered.span.status) == (status, route, "unset")


def test_an_unhandled_exception_keeps_the_route(spans: InMemoryExporter) -> None:
    for app in (
        Starlette(routes=[Route("/fail/{why}", fail)], middleware=[TRACING]),
        RvhTraceMiddleware(Starlette(routes=[Route("/fail/{why}", fail)])),
    ):
        spans.clear()
        with pytest.raises(LookupError):
            asyncio.run(serve(app, http_scope("/fail/now")))  # type: ignore[arg-type]
        (one,) = spans
        assert (one.name, one.status) == ("GET /fail/{why}", "error")
        assert one.events[0].attributes["exception.type"] == "LookupError"


def test_a_streamed_response_has_its_route(traced: Traced) -> None:
    async def stream(request: Request) -> StreamingResponse:
        return StreamingResponse(iter([b"a", b"b"]))

    app = Starlette(routes=[Route("/stream/{name}", stream)], middleware=[TRACING])
    assert traced(app, "/stream/x").route == "/stream/{name}"


def test_the_root_path_of_the_server_is_part_of_the_route(traced: Traced) -> None:
    for path, route in (
        ("/prefix/items/7", "/prefix/items/{item}"),
        ("/prefix/shops/acme/items/7", "/prefix/shops/{shop}/items/{item}"),
        ("/prefix/nothing", None),
    ):
        answered = traced(starlette_app(), path, root_path="/prefix")
        assert answered.route == route
        assert answered.span.attributes["url.path"] == path


def test_what_is_remembered_of_an_application_dies_with_it() -> None:
    """Identities are used again: an application must not get the mounts of one that had its identity before."""

    class HasRoutes:
        def __init__(self, *routes: Mount) -> None:
            self.routes = [*routes]

    def template(router: HasRoutes) -> str | None:
        scope = {"router": router, "route": route, "endpoint": endpoint, "root_path": "/x", "app_root_path": ""}
        return route_template(scope)

    route = Route("/items/{item}", endpoint)
    gone, present = HasRoutes(Mount("/x", routes=[route])), HasRoutes(Mount("/{y}", routes=[route]))
    assert template(gone) == "/x/items/{item}"
    remembered = _mounts._remembered
    remembered[id(present), id(route), "/x"] = remembered[id(gone), id(route), "/x"]
    del gone
    assert template(present) == "/{y}/items/{item}"


def test_a_scope_that_pretends_to_be_routed_harms_nothing(traced: Traced) -> None:
    class Odd:
        @property
        def path(self) -> str:
            raise AttributeError

    for route in (None, 7, "text", Odd(), object()):

        async def app(scope: Any, receive: Any, send: Any, route: Any = route) -> None:
            scope |= {"route": route, "endpoint": object(), "router": object(), "root_path": "/x"}
            scope |= {"path_template": 7, "rvh_trace.http.route": 7}
            await asgi_application(scope, receive, send)

        assert traced(RvhTraceMiddleware(app), "/x").route is None


def test_a_prefix_that_is_no_utf_8_is_in_the_route_as_far_as_it_can_be_written(spans: InMemoryExporter) -> None:
    application = Starlette(routes=[Route("/", endpoint)], middleware=[TRACING])
    asyncio.run(serve(application, http_scope(path="\ud800/", root_path="\ud800")))
    assert [span.attributes["http.route"] for span in spans] == ["\ufffd\ufffd\ufffd/"]
