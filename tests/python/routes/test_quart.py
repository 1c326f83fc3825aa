"""`http.route` and the span's name after real dispatch by Quart, whose signals say what the scope does not."""

import asyncio
import subprocess
import sys
from typing import Any

import pytest
from answered import Traced
from quart import Blueprint, Quart, abort, request
from starlette.applications import Starlette
from starlette.routing import Mount

from rvh_trace import RvhTraceMiddleware
from rvh_trace.testing import InMemoryExporter


def quart_app() -> Any:
    app, users = Quart(__name__), Blueprint("users", __name__, url_prefix="/users/<tenant>")

    @app.route("/")
    async def root() -> str:
        return "root"

    @app.route("/items/<int:item>")
    async def item(item: int) -> str:
        return str(item)

    @app.route("/threads/<name>")
    def thread(name: str) -> str:
        return request.path

    @app.route("/slash/")
    async def slash() -> str:
        return "slash"

    @app.route("/stream/<path:name>")
    async def stream(name: str) -> Any:
        async def parts() -> Any:
            yield b"a"
            await asyncio.sleep(0)
            yield b"b"

        return parts()

    @app.route("/refuse/<int:status>")
    async def refuse(status: int) -> str:
        abort(status)

    @app.route("/fail/<why>")
    async def fail(why: str) -> str:
        raise LookupError(why)

    @users.route("/<user>", methods=["POST", "GET"])
    async def user(tenant: str, user: str) -> str:
        return user

    app.register_blueprint(users)
    return app


def traced_app() -> Any:
    app = quart_app()
    app.asgi_app = RvhTraceMiddleware(app.asgi_app)
    return app


@pytest.mark.parametrize(
    ("path", "route"),
    [
        ("/", "/"),
        ("/items/7", "/items/<int:item>"),
        ("/threads/x", "/threads/<name>"),
        ("/stream/a/b", "/stream/<path:name>"),
        ("/users/acme/me", "/users/<tenant>/<user>"),
    ],
)
@pytest.mark.parametrize("root_path", ["", "/prefix"])
def test_routes_are_named_by_their_whole_template(traced: Traced, path: str, route: str, root_path: str) -> None:
    answered = traced(traced_app(), root_path + path, root_path=root_path)
    assert (answered.status, answered.route) == (200, root_path + route)


def test_it_is_one_span_wherever_the_middleware_stands(traced: Traced) -> None:
    assert traced(RvhTraceMiddleware(traced_app()), "/items/7").route == "/items/<int:item>"
    assert traced(RvhTraceMiddleware(quart_app()), "/items/7").route == "/items/<int:item>"


@pytest.mark.parametrize(
    ("path", "method", "status"),
    [("/nothing", "GET", 404), ("/items/no-number", "GET", 404), ("/items/7", "DELETE", 405), ("/slash", "GET", 308)],
)
def test_what_quart_dispatched_to_nothing_has_no_route(traced: Traced, path: str, method: str, status: int) -> None:
    answered = traced(traced_app(), path, method=method)
    assert (answered.status, answered.route, answered.span.status) == (status, None, "unset")


@pytest.mark.parametrize(
    ("path", "method", "status", "route"),
    [
        ("/refuse/418", "GET", 418, "/refuse/<int:status>"),
        ("/fail/x", "GET", 500, "/fail/<why>"),
        ("/items/7", "HEAD", 200, "/items/<int:item>"),
        ("/items/7", "OPTIONS", 200, "/items/<int:item>"),
    ],
)
def test_however_it_is_answered_the_route_is_known(
    traced: Traced, path: str, method: str, status: int, route: str
) -> None:
    answered = traced(traced_app(), path, method=method)
    assert (answered.status, answered.route) == (status, route)


def test_inside_of_starlette_the_mount_comes_first(traced: Traced) -> None:
    app = RvhTraceMiddleware(Starlette(routes=[Mount("/shops/{shop}", app=quart_app())]))
    assert traced(app, "/shops/acme/items/7").route == "/shops/{shop}/items/<int:item>"
    # Starlette dispatched to its mount, whatever Quart made of it.
    assert traced(app, "/shops/acme/nothing").route == "/shops/{shop}/{path}"


def test_requests_at_the_same_time_have_their_own_routes(spans: InMemoryExporter) -> None:
    app = traced_app()

    async def requests() -> None:
        client = app.test_client()
        paths = ["/items/7", "/users/acme/me", "/stream/a", "/nothing"] * 8
        await asyncio.gather(*(client.get(path) for path in paths))

    asyncio.run(requests())
    names = [span.name for span in spans]
    for name in ("GET /items/<int:item>", "GET /users/<tenant>/<user>", "GET /stream/<path:name>", "GET"):
        assert names.count(name) == 8
    assert len(names) == 32


def test_quart_is_not_imported_for_its_route() -> None:
    code = "import sys, rvh_trace; rvh_trace.RvhTraceMiddleware(None); assert 'quart' not in sys.modules, 1"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
