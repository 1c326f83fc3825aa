"""`RvhTraceMiddleware(app, task_spans=True)`: task spans without a lifespan."""

import asyncio
import gc
import threading
import weakref
from collections.abc import Callable
from typing import Any

import pytest
import uvloop
from handmade_server import LAST_BODY, START, Receive, Scope, Send, answering, http_scope, serve
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from rvh_trace import ConfigurationError, RvhTraceMiddleware, install_task_factory, uninstall_task_factory
from rvh_trace.testing import InMemoryExporter

LOOPS = pytest.mark.parametrize("new_loop", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
NewLoop = Callable[[], asyncio.AbstractEventLoop]


async def work() -> None:
    await asyncio.sleep(0)


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "http":
        await asyncio.gather(work(), asyncio.create_task(work()))
        await send(START)
        await send(LAST_BODY)


@LOOPS
def test_tasks_of_the_first_request_have_spans(spans: InMemoryExporter, new_loop: NewLoop) -> None:
    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(serve(RvhTraceMiddleware(app, task_spans=True), http_scope()))
    (server,) = [one for one in spans if one.kind == "server"]
    assert [one.name for one in spans.children(server)] == ["work", "work"]


def test_off_is_what_it_is_without_a_word(spans: InMemoryExporter) -> None:
    async def main() -> None:
        await serve(RvhTraceMiddleware(app), http_scope())
        assert asyncio.get_running_loop().get_task_factory() is None

    asyncio.run(main())
    assert spans.named("work") == []


@pytest.mark.parametrize(("value", "argument", "expected"), [("true", None, 2), ("true", False, 0), ("false", True, 2)])
def test_the_variable_switches_it_on_and_the_argument_wins(
    spans: InMemoryExporter, monkeypatch: pytest.MonkeyPatch, value: str, argument: bool | None, expected: int
) -> None:
    monkeypatch.setenv("RVH_TRACE_TASK_SPANS", value)
    asyncio.run(serve(RvhTraceMiddleware(app, task_spans=argument), http_scope()))
    assert len(spans.named("work")) == expected


def test_a_wrong_type_is_an_error() -> None:
    with pytest.raises(ConfigurationError, match="task_spans: must be True or False, not str"):
        RvhTraceMiddleware(answering(), task_spans="yes")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


def test_the_lifespan_installs_it_before_the_first_request() -> None:
    async def main() -> None:
        async def nothing(*_: object) -> Any:
            raise AssertionError("not called")

        await RvhTraceMiddleware(app, task_spans=True)({"type": "lifespan"}, nothing, nothing)
        assert asyncio.get_running_loop().get_task_factory() is not None

    asyncio.run(main())


def test_what_the_application_installed_keeps_its_options(spans: InMemoryExporter) -> None:
    async def main() -> None:
        install_task_factory(name=lambda coroutine: "named")
        await serve(RvhTraceMiddleware(app, task_spans=True), http_scope())

    asyncio.run(main())
    assert len(spans.named("named")) == 2


def test_what_the_application_uninstalled_stays_away(spans: InMemoryExporter) -> None:
    async def uninstall() -> None:
        uninstall_task_factory()

    traced = RvhTraceMiddleware(app, task_spans=True)
    with asyncio.Runner() as one, asyncio.Runner() as other:
        one.run(serve(traced, http_scope()))
        one.run(uninstall())
        one.run(serve(traced, http_scope()))
        other.run(serve(traced, http_scope()))
        one.run(serve(traced, http_scope()))
    assert len(spans.named("work")) == 4


def test_every_loop_has_one_and_none_is_kept_alive(spans: InMemoryExporter) -> None:
    traced = RvhTraceMiddleware(app, task_spans=True)
    gone: list[weakref.ref[asyncio.AbstractEventLoop]] = []

    def request() -> None:
        with asyncio.Runner() as runner:
            gone.append(weakref.ref(runner.get_loop()))
            runner.run(serve(traced, http_scope()))

    threads = [threading.Thread(target=request) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    request()
    assert len(spans.named("work")) == 8
    del threads
    gc.collect()
    assert [loop() for loop in gone] == [None] * 4


def test_a_factory_on_top_is_not_covered_again(spans: InMemoryExporter) -> None:
    async def main() -> None:
        traced = RvhTraceMiddleware(app, task_spans=True)
        await serve(traced, http_scope())
        loop = asyncio.get_running_loop()
        ours: Any = loop.get_task_factory()

        def on_top(loop: Any, coroutine: Any, **kwargs: Any) -> Any:
            return ours(loop, coroutine, **kwargs)

        loop.set_task_factory(on_top)
        await serve(traced, http_scope())
        assert loop.get_task_factory() is on_top

    asyncio.run(main())
    assert len(spans.named("work")) == 4


def test_starlette_serves_with_it(spans: InMemoryExporter) -> None:
    async def page(request: Any) -> PlainTextResponse:
        await asyncio.create_task(work())
        return PlainTextResponse("page")

    starlette: Any = Starlette(routes=[Route("/page", page)])
    starlette.add_middleware(RvhTraceMiddleware, task_spans=True)
    asyncio.run(serve(starlette, http_scope("/page")))
    (server,) = [one for one in spans if one.kind == "server"]
    assert server.name == "GET /page"
    assert [one.name for one in spans.children(server)] == ["work"]
