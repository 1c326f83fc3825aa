"""Starlette and FastAPI, with the middleware around the application and among its own: nobody can tell."""

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import pytest
from hypothesis import strategies as st

from rvh_trace import RvhTraceMiddleware
from transparency.comparison import Options, compare
from transparency.drive import Wrap, on_loop
from transparency.frameworks import FASTAPI_PATHS, STARLETTE_PATHS, THREADED, fastapi, starlette
from transparency.messages import RECEIVED, RECEIVED_BY_WEBSOCKET
from transparency.observation import Observation
from transparency.rounds import draw_round
from transparency.scopes import HTTP_SCOPES, WEBSOCKET_SCOPES
from transparency.script import Example

pytestmark = pytest.mark.usefixtures("quiet")


@dataclass(frozen=True)
class Served:
    """A request to an application, which may have other middlewares and ours among them."""

    example: Example
    wrapped: bool
    inside: bool


_BODIES = st.sampled_from([b"{}", b'{"name": "tea", "price": 2.5}', b"[", b"", b"\xff", b"x" * 2000])
_REQUESTS = st.one_of(
    _BODIES.map(lambda body: [{"type": "http.request", "body": body, "more_body": False}]),
    st.tuples(_BODIES, _BODIES).map(
        lambda bodies: [
            {"type": "http.request", "body": bodies[0], "more_body": True},
            {"type": "http.request", "body": bodies[1], "more_body": False},
        ]
    ),
    RECEIVED,
)
_SENDS = [("coroutine", None)] * 5 + [("slowly", None), ("future", None), *[("coroutine", n) for n in range(4)]]


@st.composite
def _served(draw: st.DrawFn, paths: tuple[str, ...]) -> Served:
    path = draw(st.sampled_from(paths))
    threaded = path in THREADED
    websocket = "/ws" in path
    scope: dict[str, Any] = draw(WEBSOCKET_SCOPES if websocket else HTTP_SCOPES)
    scope = {
        **scope,
        "path": scope.get("root_path", "") + path if isinstance(scope.get("root_path", ""), str) else path,
    }
    if not websocket:
        scope["method"] = draw(st.sampled_from(["GET"] * 6 + ["POST", "POST", "HEAD", "OPTIONS", "PUT"]))
    send, fails_at = draw(st.sampled_from(_SENDS))
    interrupted = not threaded and draw(st.integers(0, 4)) == 4
    example = Example(
        scope=scope,
        received=draw(RECEIVED_BY_WEBSOCKET if websocket else _REQUESTS),
        script=[],
        send=send,
        suspensions=draw(st.integers(0, 1)),
        fails_at=fails_at,
        interruptions=((draw(st.integers(1, 6)), "cancel"),) if interrupted else (),
        count_rounds=not threaded,
    )
    return Served(example, wrapped=draw(st.booleans()), inside=draw(st.booleans()))


@pytest.fixture(scope="module")
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    loop = asyncio.new_event_loop()
    yield loop
    loop.run_until_complete(loop.shutdown_default_executor())
    loop.close()


def check(family: str, framework: Callable[..., Any], number: int, paths: tuple[str, ...], loop: Any) -> None:
    complaints: list[object] = []
    loop.set_exception_handler(lambda _, context: complaints.append(context))
    plain = {wrapped: framework(wrapped=wrapped) for wrapped in (False, True)}

    @cache
    def traced(wrapped: bool, options: Options) -> Any:
        return framework(partial(RvhTraceMiddleware, **options.arguments), wrapped=wrapped)

    def check_one(served: Served, options: Options) -> None:
        def drive(wrap: Wrap) -> Observation:
            return on_loop(loop, served.example, lambda _: wrap(plain[served.wrapped]))

        def inside(options: Options) -> Wrap:
            return lambda _: traced(served.wrapped, options)

        compare(family, drive, served.example.scope, options, inside=inside if served.inside else None)

    draw_round(number, _served(paths), check_one)
    assert complaints == []


@pytest.mark.family("starlette")
def test_starlette(round_number: int, loop: asyncio.AbstractEventLoop) -> None:
    check("starlette", starlette, round_number, STARLETTE_PATHS, loop)


@pytest.mark.family("fastapi")
def test_fastapi(round_number: int, loop: asyncio.AbstractEventLoop) -> None:
    check("fastapi", fastapi, round_number, FASTAPI_PATHS, loop)
