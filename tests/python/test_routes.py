"""`http.route` and the span's name after real dispatch, for Starlette and FastAPI."""

import asyncio
from typing import Any

import pytest
from fastapi import APIRouter, FastAPI
from handmade_server import Message, http_scope, serve
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, StreamingResponse
from starlette.routing import Host, Mount, Route, Router
from starlette.staticfiles import StaticFiles

from rvh_trace import RvhTraceMiddleware
from rvh_trace.testing import FinishedSpan, InMemoryExporter


async def endpoint(request: Request) -> PlainTextResponse:
    return PlainTextResponse("ok")


class Endpoint:
    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await PlainTextResponse("ok")(scope, receive, send)


def starlette_app() -> Starlette:
    inner = Starlette(routes=[Route("/items/{item}", endpoint), Route("/", endpoint)])
    return Starlette(
        routes=[
            Route("/", endpoint),
            Route("/items/{item:int}", endpoint),
            Route("/files/{path:path}", endpoint),
            Route("/post", endpoint, methods=["POST"]),
            Route("/slash/", endpoint),
            Mount("/mounted", routes=[Route("/items/{item}", endpoint)]),
            Mount(
                "/shops/{shop}",
                routes=[Route("/items/{item}", endpoint), Mount("/deep", routes=[Route("/", endpoint)])],
            ),
            Mount("/sub", app=inner),
            Mount("/static", app=StaticFiles(directory=".")),
            Mount("/raw", app=Endpoint()),
        ],
        middleware=[Middleware(RvhTraceMiddleware)],  # type: ignore[arg-type]
    )


def fastapi_app(**options: Any) -> FastAPI:
    app = FastAPI(**options)
    app.add_middleware(RvhTraceMiddleware)  # type: ignore[arg-type]

    items, users, admin = APIRouter(prefix="/items"), APIRouter(), APIRouter(prefix="/admin")

    @items.get("/{item}")
    async def item(item: int) -> int:
        return item

    @items.get("")
    async def all_items() -> str:
        return "all"

    @users.get("/users/{user}")
    def user(user: str) -> str:
        return user

    admin.include_router(items, prefix="/{tenant}")
    admin.include_router(users)
    app.include_router(items)
    app.include_router(admin, prefix="/api")
    app.include_router(users, prefix="/v1")
    app.include_router(users, prefix="/v2")

    @app.get("/")
    async def root() -> str:
        return "root"

    @app.get("/slash/")
    async def slash() -> str:
        return "slash"

    app.add_route("/plain/{name}", endpoint)
    app.mount("/sub", sub_app())
    app.mount("/shops/{shop}", sub_app())
    app.mount("/starlette", Starlette(routes=[Route("/items/{item}", endpoint)]))
    return app


def sub_app() -> FastAPI:
    sub = FastAPI()

    @sub.get("/items/{item}")
    async def sub_item(item: int) -> int:
        return item

    return sub


def traced(spans: InMemoryExporter, app: Any, path: str, **scope: Any) -> tuple[FinishedSpan, int]:
    """The one span of a request for `path`, and the status that was sent."""
    spans.clear()
    sent: list[Message] = asyncio.run(serve(app, http_scope(path, **scope)))
    (one,) = spans
    return one, next(message["status"] for message in sent if message["type"] == "http.response.start")


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
def test_starlette_routes_are_named_by_their_whole_template(spans: InMemoryExporter, path: str, route: str) -> None:
    one, status = traced(spans, starlette_app(), path)
    assert status == 200
    # Starlette keeps a convertor in `path` and takes it out of `path_format`; either is a template of the route.
    assert str(one.attributes["http.route"]).replace(":int", "").replace(":path", "") == route
    assert one.name == f"GET {one.attributes['http.route']}"


@pytest.mark.parametrize(
    ("path", "route"),
    [
        ("/", "/"),
        ("/items", "/items"),
        ("/items/7", "/items/{item}"),
        ("/api/admin/acme/items/7", "/api/admin/{tenant}/items/{item}"),
        ("/api/admin/users/me", "/api/admin/users/{user}"),
        ("/v1/users/me", "/v1/users/{user}"),
        ("/v2/users/me", "/v2/users/{user}"),
        ("/plain/name", "/plain/{name}"),
        ("/sub/items/7", "/sub/items/{item}"),
        ("/shops/acme/items/7", "/shops/{shop}/items/{item}"),
        ("/starlette/items/7", "/starlette/items/{item}"),
        ("/docs", "/docs"),
        ("/openapi.json", "/openapi.json"),
    ],
)
def test_fastapi_routes_are_named_by_their_whole_template(spans: InMemoryExporter, path: str, route: str) -> None:
    one, status = traced(spans, fastapi_app(), path)
    assert status == 200
    assert (one.name, one.attributes["http.route"]) == (f"GET {route}", route)


@pytest.mark.parametrize("make", [starlette_app, fastapi_app])
@pytest.mark.parametrize("path", ["/nothing", "/sub/nothing", "/shops/acme/nothing", "/items/"])
def test_what_no_route_matches_has_none_and_is_named_by_the_method(
    spans: InMemoryExporter, make: Any, path: str
) -> None:
    one, status = traced(spans, make(), path)
    assert status in (404, 307)
    assert one.name == "GET"
    assert "http.route" not in one.attributes
    assert path not in one.name


def test_a_path_that_fails_validation_is_still_its_route(spans: InMemoryExporter) -> None:
    one, status = traced(spans, fastapi_app(), "/items/no-number")
    assert status == 422
    assert one.name == "GET /items/{item}"


@pytest.mark.parametrize(("make", "path"), [(starlette_app, "/post"), (fastapi_app, "/v1/users/me")])
def test_405_is_answered_and_its_span_never_named_by_the_path(spans: InMemoryExporter, make: Any, path: str) -> None:
    one, status = traced(spans, make(), path, method="DELETE")
    assert status == 405
    assert one.name in ("DELETE", "DELETE /post", "DELETE /v1/users/{user}")
    assert one.status == "unset"


@pytest.mark.parametrize("make", [starlette_app, fastapi_app])
def test_slash_redirects_are_answered(spans: InMemoryExporter, make: Any) -> None:
    one, status = traced(spans, make(), "/slash")
    assert status == 307
    assert (one.name, one.status) == ("GET", "unset")


def test_static_files_and_raw_applications_are_served(spans: InMemoryExporter) -> None:
    for path, expected in (("/static/pyproject.toml", (200, 404)), ("/raw/anything", (200,))):
        one, status = traced(spans, starlette_app(), path)
        assert status in expected
        assert path not in one.name


@pytest.mark.parametrize("path", ["/prefix/items/7", "/prefix/sub/items/7", "/prefix/shops/acme/items/7"])
def test_the_root_path_of_the_server_is_part_of_the_route(spans: InMemoryExporter, path: str) -> None:
    one, status = traced(spans, fastapi_app(), path, root_path="/prefix")
    assert status == 200
    expected = path.replace("acme", "{shop}").replace("/7", "/{item}")
    assert one.attributes["http.route"] == expected
    assert one.attributes["url.path"] == path


@pytest.mark.parametrize("added", ["inside", "around"])
def test_the_root_path_of_the_application_is_part_of_the_route(spans: InMemoryExporter, added: str) -> None:
    app = fastapi_app()
    app.root_path = "/proxied"  # the application puts it in the scope, after a middleware around it has seen that
    one, status = traced(spans, app if added == "inside" else RvhTraceMiddleware(app), "/proxied/items/7")  # type: ignore[arg-type]
    assert status == 200
    assert one.attributes["http.route"] == "/proxied/items/{item}"


def test_a_preflight_is_answered_and_has_no_route(spans: InMemoryExporter) -> None:
    """Route look-ups of others turned every CORS preflight into a 500 (opentelemetry-python-contrib#4699)."""
    app = fastapi_app()
    app.add_middleware(CORSMiddleware, allow_origins=["*"])
    app.add_middleware(RvhTraceMiddleware)  # type: ignore[arg-type]
    headers = [(b"origin", b"http://x"), (b"access-control-request-method", b"GET")]
    one, status = traced(spans, app, "/items/7", method="OPTIONS", headers=headers)
    assert (status, one.name) == (200, "OPTIONS")


def test_around_the_application_it_sees_the_same_routes(spans: InMemoryExporter) -> None:
    app = RvhTraceMiddleware(Starlette(routes=[Mount("/shops/{shop}", routes=[Route("/items/{item}", endpoint)])]))
    one, _ = traced(spans, app, "/shops/acme/items/7")
    assert one.name == "GET /shops/{shop}/items/{item}"


def test_a_host_route_is_served(spans: InMemoryExporter) -> None:
    inner = Router(routes=[Route("/items/{item}", endpoint)])
    app = RvhTraceMiddleware(Starlette(routes=[Host("{sub}.example", app=inner)]))
    one, status = traced(spans, app, "/items/7")
    assert (status, one.name) == (200, "GET /items/{item}")


def test_an_unhandled_exception_keeps_the_route(spans: InMemoryExporter) -> None:
    async def fail(request: Request) -> PlainTextResponse:
        raise LookupError("none")

    for app in (
        Starlette(routes=[Route("/fail/{why}", fail)], middleware=[Middleware(RvhTraceMiddleware)]),  # type: ignore[arg-type]
        RvhTraceMiddleware(Starlette(routes=[Route("/fail/{why}", fail)])),
    ):
        spans.clear()
        with pytest.raises(LookupError):
            asyncio.run(serve(app, http_scope("/fail/now")))  # type: ignore[arg-type]
        (one,) = spans
        assert (one.name, one.status) == ("GET /fail/{why}", "error")
        assert one.events[0].attributes["exception.type"] == "LookupError"


def test_a_streamed_response_has_its_route_and_everything_inside(spans: InMemoryExporter) -> None:
    async def stream(request: Request) -> StreamingResponse:
        return StreamingResponse(iter([b"a", b"b"]))

    app = Starlette(routes=[Route("/stream/{name}", stream)], middleware=[Middleware(RvhTraceMiddleware)])  # type: ignore[arg-type]
    one, status = traced(spans, app, "/stream/x")
    assert (status, one.name) == (200, "GET /stream/{name}")


def test_a_scope_that_pretends_to_be_routed_harms_nothing(spans: InMemoryExporter) -> None:
    class Odd:
        @property
        def path(self) -> str:
            raise AttributeError

    routes: list[Any] = [None, 7, "text", Odd(), object()]

    async def app(scope: Any, receive: Any, send: Any) -> None:
        scope["route"] = routes.pop()
        scope["endpoint"] = object()
        scope["router"] = object()
        await PlainTextResponse("ok")(scope, receive, send)

    while routes:
        one, status = traced(spans, RvhTraceMiddleware(app), "/x")
        assert (status, one.name) == (200, "GET")
