"""`http.route` and the span's name after real dispatch by Litestar, which leaves `path_template` in the scope."""

from typing import Any

import pytest
from answered import Traced
from litestar import Controller, Litestar, MediaType, Router, asgi, get, post
from litestar.config.cors import CORSConfig
from litestar.exceptions import ClientException
from litestar.params import FromPath
from litestar.static_files import create_static_files_router
from starlette.applications import Starlette
from starlette.requests import Request as StarletteRequest
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route

from rvh_trace import RvhTraceMiddleware


@get("/", media_type=MediaType.TEXT, sync_to_thread=False)
def root() -> str:
    return "root"


@get("/items/{item:int}", media_type=MediaType.TEXT, sync_to_thread=False)
def item(item: FromPath[int]) -> str:
    return str(item)


@get("/refuse/{why:str}", sync_to_thread=False)
def refuse(why: FromPath[str]) -> str:
    raise ClientException(why)


@get("/files/{name:path}", media_type=MediaType.TEXT, sync_to_thread=False)
def file(name: FromPath[str]) -> str:
    return name


@post("/orders", sync_to_thread=False)
def order() -> str:
    return "ordered"


class Users(Controller):
    path = "/users"

    @get("/{user:str}", media_type=MediaType.TEXT, sync_to_thread=False)
    def user(self, user: FromPath[str]) -> str:
        return user


@asgi(["/mounted", "/also/mounted"], is_mount=True, copy_scope=False)
async def mounted(scope: Any, receive: Any, send: Any) -> None:
    await PlainTextResponse("ok")(scope, receive, send)


async def starlette_endpoint(request: StarletteRequest) -> PlainTextResponse:
    return PlainTextResponse("ok")


starlette_app = Starlette(
    routes=[
        Route("/items/{item}/", starlette_endpoint),
        Mount("/deep/{x}", routes=[Route("/items/", starlette_endpoint)]),
    ]
)


@asgi("/starlette", is_mount=True, copy_scope=False)
async def mounted_starlette(scope: Any, receive: Any, send: Any) -> None:
    await starlette_app(scope, receive, send)


def litestar_app(**options: Any) -> Any:
    api = Router("/api/{tenant:str}", route_handlers=[item, Users])
    under = Router("/under", route_handlers=[mounted_starlette])
    return Litestar([root, item, refuse, file, order, mounted, api, under], **options)


@pytest.mark.parametrize(
    ("path", "route"),
    [
        ("/", "/"),
        ("/items/7", "/items/{item}"),
        ("/items/7/", "/items/{item}"),
        ("/files/a/b", "/files/{name}"),
        ("/api/acme/items/7", "/api/{tenant}/items/{item}"),
        ("/api/acme/users/me", "/api/{tenant}/users/{user}"),
        ("/schema/openapi.json", "/schema/openapi.json"),
        ("/mounted/any/thing", "/mounted"),
        ("/also/mounted/any", "/also/mounted"),
        ("/under/starlette/items/7", "/under/starlette/items/{item}/"),
    ],
)
@pytest.mark.parametrize("root_path", ["", "/prefix"])
def test_routes_are_named_by_their_whole_template(traced: Traced, path: str, route: str, root_path: str) -> None:
    answered = traced(RvhTraceMiddleware(litestar_app()), root_path + path, root_path=root_path)
    assert (answered.status, answered.route) == (200, root_path + route)


def test_mounts_inside_of_what_litestar_mounted_are_part_of_the_route(traced: Traced) -> None:
    answered = traced(RvhTraceMiddleware(litestar_app()), "/under/starlette/deep/1/items")
    assert (answered.status, answered.route) == (200, "/under/starlette/deep/{x}/items/")


def test_litestar_middleware_is_one_span_with_the_route(traced: Traced) -> None:
    app = RvhTraceMiddleware(litestar_app(middleware=[RvhTraceMiddleware]))
    assert traced(app, "/api/acme/items/7").route == "/api/{tenant}/items/{item}"
    assert traced(litestar_app(middleware=[RvhTraceMiddleware]), "/items/7").route == "/items/{item}"


@pytest.mark.parametrize(
    ("path", "method", "status"),
    [("/nothing", "GET", 404), ("/items/no-number", "GET", 404), ("/orders", "GET", 405), ("/items/7", "POST", 405)],
)
def test_what_litestar_dispatched_to_nothing_has_no_route(traced: Traced, path: str, method: str, status: int) -> None:
    answered = traced(RvhTraceMiddleware(litestar_app()), path, method=method)
    assert (answered.status, answered.route, answered.span.status) == (status, None, "unset")


def test_what_the_handler_refuses_is_its_route(traced: Traced) -> None:
    answered = traced(RvhTraceMiddleware(litestar_app()), "/refuse/this")
    assert (answered.status, answered.route) == (400, "/refuse/{why}")


def test_options_are_answered_for_the_route_and_a_preflight_before_it(traced: Traced) -> None:
    assert traced(RvhTraceMiddleware(litestar_app()), "/items/7", method="OPTIONS").route == "/items/{item}"
    app = RvhTraceMiddleware(litestar_app(cors_config=CORSConfig(allow_origins=["*"])))
    headers = [(b"origin", b"http://x"), (b"access-control-request-method", b"GET")]
    answered = traced(app, "/items/7", method="OPTIONS", headers=headers)
    assert (answered.status, answered.route) == (204, None)


def test_static_files_have_the_route_of_their_router(traced: Traced, tmp_path: Any) -> None:
    (tmp_path / "file.txt").write_text("text")
    app: Any = Litestar([create_static_files_router("/static", directories=[tmp_path])])
    answered = traced(RvhTraceMiddleware(app), "/static/file.txt")
    assert (answered.status, answered.route) == (200, "/static/{file_path}")


def test_inside_of_starlette_the_mount_comes_first(traced: Traced) -> None:
    app = RvhTraceMiddleware(Starlette(routes=[Mount("/shops/{shop}", app=litestar_app())]))
    assert traced(app, "/shops/acme/items/7").route == "/shops/{shop}/items/{item}"
    assert traced(app, "/shops/acme/mounted/x").route == "/shops/{shop}/mounted"
    assert traced(app, "/shops/acme/nothing").route is None
