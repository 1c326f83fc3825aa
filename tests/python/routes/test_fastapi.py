"""`http.route` and the span's name after real dispatch by FastAPI: prefixes of included routers, mounts, roots."""

from pathlib import Path
from typing import Any

import pytest
from answered import Traced
from fastapi import APIRouter, FastAPI, HTTPException
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse
from starlette.routing import Host, Mount, Route
from starlette.staticfiles import StaticFiles

from rvh_trace import RvhTraceMiddleware


async def endpoint(request: Request) -> PlainTextResponse:
    return PlainTextResponse("ok")


async def asgi_application(scope: Any, receive: Any, send: Any) -> None:
    await PlainTextResponse("ok")(scope, receive, send)


def sub_app() -> FastAPI:
    sub = FastAPI()

    @sub.get("/items/{item}")
    async def sub_item(item: int) -> int:
        return item

    sub.add_route("/plain/{name}", endpoint)
    return sub


def fastapi_app() -> FastAPI:
    app = FastAPI()
    app.add_middleware(RvhTraceMiddleware)  # type: ignore[arg-type]

    items, users, admin = APIRouter(prefix="/items"), APIRouter(), APIRouter(prefix="/admin")

    @items.get("/{item}")
    async def item(item: int) -> int:
        return item

    @items.get("")
    async def all_items() -> str:
        return "all"

    @items.get("/{item}/files/{name:path}")
    async def file(item: int, name: str) -> str:
        return name

    @users.get("/users/{user}")
    def user(user: str) -> str:
        return user

    @users.get("/{unprocessable}/conflict")
    def conflict(unprocessable: str) -> str:
        raise HTTPException(409)

    admin.include_router(items, prefix="/{tenant}")
    admin.include_router(users)
    # A router's own prefix is for its API routes alone.
    admin.add_route("/plain/{name}", endpoint)
    admin.mount("/mounted/{shop}", sub_app())
    admin.mount("/raw", asgi_application)
    outer = APIRouter(prefix="/outer")
    outer.include_router(admin, prefix="/{zone}")
    app.include_router(items)
    app.include_router(admin, prefix="/api")
    app.include_router(outer)
    app.include_router(users, prefix="/v1")
    app.include_router(users, prefix="/v2")

    @app.get("/")
    async def root() -> str:
        return "root"

    @app.get("/slash/")
    async def slash() -> str:
        return "slash"

    app.add_route("/plain/{name}", endpoint)
    app.add_route("/other/{name}", endpoint)
    app.mount("/sub", sub_app())
    app.mount("/shops/{shop}", sub_app())
    app.mount("/starlette", Starlette(routes=[Route("/items/{item}", endpoint)]))
    app.mount("/raw", asgi_application)
    return app


@pytest.mark.parametrize(
    ("path", "route"),
    [
        ("/", "/"),
        ("/items", "/items"),
        ("/items/7", "/items/{item}"),
        ("/api/admin/acme/items/7", "/api/admin/{tenant}/items/{item}"),
        ("/api/admin/users/me", "/api/admin/users/{user}"),
        ("/api/plain/x", "/api/plain/{name}"),
        ("/outer/eu/admin/acme/items/7", "/outer/{zone}/admin/{tenant}/items/{item}"),
        ("/outer/eu/admin/acme/items/7/files/a/b", "/outer/{zone}/admin/{tenant}/items/{item}/files/{name}"),
        ("/v1/users/me", "/v1/users/{user}"),
        ("/v2/users/me", "/v2/users/{user}"),
        ("/plain/name", "/plain/{name}"),
        ("/other/name", "/other/{name}"),
        ("/docs", "/docs"),
        ("/openapi.json", "/openapi.json"),
        ("/sub/items/7", "/sub/items/{item}"),
        ("/sub/plain/x", "/sub/plain/{name}"),
        ("/sub/docs", "/sub/docs"),
        ("/shops/acme/items/7", "/shops/{shop}/items/{item}"),
        ("/shops/acme/plain/x", "/shops/{shop}/plain/{name}"),
        ("/starlette/items/7", "/starlette/items/{item}"),
        ("/raw/any/thing", "/raw/{path}"),
        ("/api/mounted/acme/items/7", "/api/mounted/{shop}/items/{item}"),
        ("/outer/eu/mounted/acme/plain/x", "/outer/{zone}/mounted/{shop}/plain/{name}"),
        ("/outer/eu/raw/x", "/outer/{zone}/raw/{path}"),
    ],
)
@pytest.mark.parametrize("root", ["", "/prefix"])
def test_routes_are_named_by_their_whole_template(traced: Traced, path: str, route: str, root: str) -> None:
    """With and without a `root_path` that the server strips from nothing (uvicorn `--root-path`)."""
    answered = traced(fastapi_app(), root + path, root_path=root)
    assert (answered.status, answered.route) == (200, root + route)


@pytest.mark.parametrize("path", ["/nothing", "/sub/nothing", "/shops/acme/nothing", "/api/mounted/x/nothing"])
def test_what_no_route_matches_has_none(traced: Traced, path: str) -> None:
    answered = traced(fastapi_app(), path)
    assert (answered.status, answered.route) == (404, None)


@pytest.mark.parametrize("path", ["/slash", "/items/", "/v1/users/me/", "/sub"])
def test_a_slash_redirect_was_dispatched_to_no_route(traced: Traced, path: str) -> None:
    answered = traced(fastapi_app(), path)
    assert (answered.status, answered.route) == (307, None)


def test_what_fails_validation_or_is_refused_is_still_its_route(traced: Traced) -> None:
    for path, status, route in (
        ("/items/no-number", 422, "/items/{item}"),
        ("/v2/x/conflict", 409, "/v2/{unprocessable}/conflict"),
    ):
        answered = traced(fastapi_app(), path)
        assert (answered.status, answered.route) == (status, route)


@pytest.mark.parametrize(
    ("path", "route"),
    [
        ("/v1/users/me", "/v1/users/{user}"),
        ("/slash/", "/slash/"),
        ("/plain/x", "/plain/{name}"),
        ("/shops/acme/items/7", "/shops/{shop}/items/{item}"),
    ],
)
def test_405_comes_from_the_route(traced: Traced, path: str, route: str) -> None:
    """Others raised here after a release of FastAPI (opentelemetry-python-contrib#4732)."""
    answered = traced(fastapi_app(), path, method="DELETE")
    assert (answered.status, answered.route, answered.span.status) == (405, route, "unset")


def test_head_is_405_where_fastapi_has_get_alone(traced: Traced) -> None:
    answered = traced(fastapi_app(), "/items/7", method="HEAD")
    assert (answered.status, answered.route) == (405, "/items/{item}")


@pytest.mark.parametrize("around", [False, True])
@pytest.mark.parametrize("path", ["/items/7", "/proxied/items/7"])
def test_the_root_path_of_a_proxy_is_part_of_the_route(traced: Traced, around: bool, path: str) -> None:
    """Whether the proxy strips the prefix or not; the application puts it in the scope after a middleware around it."""
    app: Any = fastapi_app()
    app.root_path = "/proxied"
    answered = traced(RvhTraceMiddleware(app) if around else app, path)
    assert (answered.status, answered.route) == (200, "/proxied/items/{item}")


def test_a_sub_application_that_knows_its_root_path_has_it_once(traced: Traced) -> None:
    app, sub = FastAPI(), sub_app()
    sub.root_path = "/sub"
    app.mount("/sub", sub)
    assert traced(RvhTraceMiddleware(app), "/sub/items/7").route == "/sub/items/{item}"


@pytest.mark.parametrize("parent_too", [False, True])
@pytest.mark.parametrize("around", [False, True])
def test_a_sub_application_with_its_own_middleware_is_one_span(traced: Traced, parent_too: bool, around: bool) -> None:
    sub: Any = sub_app()
    if not around:
        sub.add_middleware(RvhTraceMiddleware)
    app = FastAPI()
    app.mount("/sub/{name}", RvhTraceMiddleware(sub) if around else sub)
    if parent_too:
        app.add_middleware(RvhTraceMiddleware)  # type: ignore[arg-type]
    assert traced(app, "/sub/x/items/7").route == "/sub/{name}/items/{item}"
    assert traced(app, "/sub/x/plain/y").route == "/sub/{name}/plain/{name}"


def test_inside_of_starlette_what_fastapi_dispatched_to_counts(traced: Traced) -> None:
    """Starlette leaves its mount as the route, and FastAPI leaves it there for a plain route."""
    mounted: Any = Middleware(RvhTraceMiddleware)  # type: ignore[arg-type]
    app = Starlette(
        routes=[Mount("/a/{b}", sub_app()), Host("api.example", Mount("", sub_app()))], middleware=[mounted]
    )
    assert traced(app, "/a/1/plain/x").route == "/a/{b}/plain/{name}"
    assert traced(app, "/a/1/items/7").route == "/a/{b}/items/{item}"
    assert traced(app, "/a/1/nothing").route is None


def test_an_endpoint_that_no_weak_reference_can_be_made_to_has_its_mount(traced: Traced) -> None:
    class Slotted:
        __slots__ = ()

        async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
            await asgi_application(scope, receive, send)

    app, sub = fastapi_app(), sub_app()
    sub.router.routes.append(Route("/slotted/{name}", Slotted()))
    app.mount("/mounted", sub)
    assert [traced(app, "/mounted/slotted/x").route for _ in range(2)] == ["/mounted/slotted/{name}"] * 2


@pytest.mark.parametrize(("at", "route"), [("/static", "/static/{path}"), ("/", "/{path}")])
def test_static_files_have_the_route_of_their_mount(traced: Traced, tmp_path: Path, at: str, route: str) -> None:
    (tmp_path / "file.txt").write_text("text")
    app = fastapi_app()
    app.mount(at, StaticFiles(directory=tmp_path))
    answered = traced(app, f"{at.rstrip('/')}/file.txt")
    assert (answered.status, answered.route) == (200, route)
    assert traced(app, "/items/7").route == "/items/{item}"


@pytest.mark.parametrize(
    ("path", "route"),
    [
        ("/ui/file.txt", "/ui/{path}"),
        ("/ui/deep/file.txt", "/ui/{path}"),
        ("/sub/front/file.txt", "/sub/front/{path}"),
        ("/router/files/file.txt", "/router/files/{path}"),
        ("/items/7", "/items/{item}"),
    ],
)
def test_a_frontend_has_the_route_of_its_prefix(traced: Traced, tmp_path: Path, path: str, route: str) -> None:
    (tmp_path / "deep").mkdir()
    for name in ("file.txt", "deep/file.txt"):
        (tmp_path / name).write_text("text")
    app, sub, router = fastapi_app(), FastAPI(), APIRouter(prefix="/router")
    app.frontend("/ui", directory=tmp_path)
    sub.frontend("/front", directory=tmp_path)
    router.frontend("/files", directory=tmp_path)
    app.include_router(router)
    app.routes.insert(0, Mount("/sub", sub))
    answered = traced(app, path)
    assert (answered.status, answered.route) == (200, route)


@pytest.mark.parametrize("around", [False, True])
def test_a_preflight_is_answered_and_has_no_route(traced: Traced, around: bool) -> None:
    """Route look-ups of others turned every CORS preflight into a 500 (opentelemetry-python-contrib#4699)."""
    app: Any = fastapi_app()
    app.add_middleware(CORSMiddleware, allow_origins=["*"])
    app.add_middleware(RvhTraceMiddleware)
    headers = [(b"origin", b"http://x"), (b"access-control-request-method", b"GET")]
    answered = traced(RvhTraceMiddleware(app) if around else app, "/items/7", method="OPTIONS", headers=headers)
    assert (answered.status, answered.route) == (200, None)


def test_exception_handlers_answer_for_the_route(traced: Traced) -> None:
    app = fastapi_app()

    @app.get("/fail/{why}")
    async def fail(why: str) -> None:
        raise LookupError(why)

    async def answer(request: Request, exception: Exception) -> JSONResponse:
        return JSONResponse({}, 409)

    app.add_exception_handler(LookupError, answer)
    answered = traced(app, "/fail/x")
    assert (answered.status, answered.route, answered.span.status) == (409, "/fail/{why}", "unset")
