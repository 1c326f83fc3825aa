"""Task spans beside everything else that makes, wraps and looks at tasks."""

import asyncio
import contextvars
import inspect
import io
import sys
import traceback
from collections.abc import AsyncIterator, Callable, Coroutine
from pathlib import Path
from typing import Any

import anyio
import pytest
import uvloop
from handmade_server import http_scope, serve
from interpreter import run_quietly, run_script
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.responses import StreamingResponse
from starlette.routing import Route

from rvh_trace import RvhTraceMiddleware, current_span, install_task_factory, span
from rvh_trace.testing import InMemoryExporter

Start = Callable[[Coroutine[Any, Any, Any]], Any]


async def work(result: object = None) -> object:
    await asyncio.sleep(0)
    return result


async def fail() -> None:
    raise LookupError("none")


class TestEagerTasks:
    """They run their first step while they are made (CPython 3.12)."""

    SCRIPT = """
        import asyncio
        from rvh_trace import current_span, install_task_factory, span
        from rvh_trace.testing import InMemoryExporter

        async def finishes():
            return current_span().context.span_id

        async def goes_on():
            mine = current_span()
            await asyncio.sleep(0)
            assert current_span() is mine
            return mine.context.span_id

        async def main():
            loop = asyncio.get_running_loop()
            {before}
            install_task_factory()
            {after}
            with span("outer") as outer:
                for coroutine, is_done in ((finishes(), True), (goes_on(), False)):
                    task = {create}
                    assert task.done() is is_done
                    assert current_span() is outer
                    made.append(await task)

        made = []
        with InMemoryExporter() as spans:
            asyncio.run(main())
            assert [one.span_id for one in spans.children(spans.one("outer"))] == made
            assert [one.attributes["rvh_trace.task.steps"] for one in spans.children(spans.one("outer"))] == [1, 2]
        """

    @pytest.mark.skipif(sys.version_info < (3, 12), reason="eager tasks came with 3.12")
    @pytest.mark.parametrize(
        ("before", "after", "create"),
        [
            ("loop.set_task_factory(asyncio.eager_task_factory)", "", "asyncio.create_task(coroutine)"),
            ("", "", "loop.get_task_factory()(loop, coroutine, eager_start=True)"),
            (
                "",
                "ours = loop.get_task_factory(); "
                "loop.set_task_factory(lambda loop, coro, **kwargs: ours(loop, coro, eager_start=True, **kwargs))",
                "asyncio.create_task(coroutine)",
            ),
        ],
        ids=["eager factory before", "eager_start=", "eager factory after"],
    )
    def test_have_spans_and_leave_the_creator_its_own(self, before: str, after: str, create: str) -> None:
        run_quietly(self.SCRIPT.format(before=before or "pass", after=after or "pass", create=create))


class TestFactories:
    def test_one_before_and_one_after_are_both_called(self, spans: InMemoryExporter, start: Start) -> None:
        called: list[str] = []

        def before(loop: Any, coroutine: Any, **kwargs: Any) -> "asyncio.Task[Any]":
            called.append("before")
            return asyncio.Task(coroutine, loop=loop, **kwargs)

        async def main() -> None:
            loop = asyncio.get_running_loop()
            loop.set_task_factory(before)
            install_task_factory()
            ours: Any = loop.get_task_factory()

            def after(loop: Any, coroutine: Any, **kwargs: Any) -> Any:
                called.append("after")
                return ours(loop, coroutine, **kwargs)

            loop.set_task_factory(after)
            with span("outer"):
                assert await asyncio.create_task(work("result")) == "result"
            loop.set_task_factory(None)

        start(main())
        assert called == ["after", "before"]
        assert len(spans.named("work")) == 1

    def test_one_after_that_awaits_what_it_is_given(self, spans: InMemoryExporter, start: Start) -> None:
        async def timed(coroutine: Any) -> Any:
            return await coroutine

        async def main() -> None:
            loop = asyncio.get_running_loop()

            def wrapping(loop: Any, coroutine: Any, **kwargs: Any) -> "asyncio.Task[Any]":
                return asyncio.Task(timed(coroutine), loop=loop, **kwargs)

            loop.set_task_factory(wrapping)
            install_task_factory()
            with span("outer"):
                for result in (None, "result", (1, 2), StopAsyncIteration()):
                    assert await asyncio.create_task(work(result)) is result
                task = asyncio.create_task(asyncio.Event().wait())
                await asyncio.sleep(0)
                task.cancel()
                await asyncio.wait([task])
            loop.set_task_factory(None)

        start(main())
        assert len(spans.named("work")) == 4
        # The task that runs there is not that of our coroutine: nothing is said about who cancelled it.
        waited = spans.one("Event.wait")
        assert waited.attributes["rvh_trace.outcome"] == "cancelled"
        assert "rvh_trace.task.cancellation" not in waited.attributes

    def test_keywords_that_asyncio_does_not_know_reach_the_one_before(
        self, spans: InMemoryExporter, start: Start
    ) -> None:
        seen: list[dict[str, Any]] = []

        def before(loop: Any, coroutine: Any, **kwargs: Any) -> "asyncio.Task[Any]":
            seen.append(kwargs)
            return asyncio.Task(coroutine, loop=loop)

        async def main() -> None:
            loop = asyncio.get_running_loop()
            loop.set_task_factory(before)
            install_task_factory()
            ours: Any = loop.get_task_factory()
            with span("outer"):
                await ours(loop, work(), flavour="odd", name=None, context=None)
            loop.set_task_factory(None)

        start(main())
        assert seen == [{"flavour": "odd", "name": None, "context": None}]
        assert len(spans.named("work")) == 1


class TestTaskGroups:
    def test_of_asyncio_and_anyio_make_children_of_where_they_are(self, spans: InMemoryExporter, start: Start) -> None:
        async def main() -> None:
            install_task_factory()
            with span("asyncio"):
                async with asyncio.TaskGroup() as group:
                    group.create_task(work())
            with span("anyio"):
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(work)
                    await tasks.start(started)
            with pytest.raises(ExceptionGroup), span("failing"):
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(fail)

        async def started(*, task_status: Any) -> None:
            task_status.started()

        start(main())
        assert len(spans.children(spans.one("asyncio"))) == 1
        assert len(spans.children(spans.one("anyio"))) == 2
        (failed,) = spans.children(spans.one("failing"))
        assert failed.attributes["error.type"] == "LookupError"

    def test_of_starlette_keep_one_server_span_and_its_answer(self, spans: InMemoryExporter) -> None:
        async def passing(request: Any, call_next: Any) -> Any:
            return await call_next(request)

        async def stream(request: Any) -> StreamingResponse:
            async def parts() -> AsyncIterator[str]:
                yield "a"
                await asyncio.create_task(work())
                yield "b"

            return StreamingResponse(parts(), background=BackgroundTask(work))

        app: Any = Starlette(routes=[Route("/stream", stream)])
        app.add_middleware(BaseHTTPMiddleware, dispatch=passing)
        app.add_middleware(RvhTraceMiddleware)
        traced = RvhTraceMiddleware(app, task_spans=True)
        sent = asyncio.run(serve(traced, http_scope("/stream")))
        assert b"".join(message.get("body", b"") for message in sent) == b"ab"
        (server,) = [one for one in spans if one.kind == "server"]
        assert {one.trace_id for one in spans.named("work")} == {server.trace_id}


class TestRunners:
    def test_a_runner_runs_again_and_again(self, spans: InMemoryExporter) -> None:
        for factory in (asyncio.new_event_loop, uvloop.new_event_loop):
            with asyncio.Runner(loop_factory=factory) as runner:
                install_task_factory(runner.get_loop(), root_tasks=True)
                assert runner.run(work(1)) == 1
                assert runner.run(work(2), context=contextvars.Context()) == 2
        assert len(spans.named("work")) == 4
        assert all(one.parent_span_id is None for one in spans)

    def test_pytest_asyncio_runs_tests_with_it(self, tmp_path: Path) -> None:
        test = tmp_path / "test_with_plugin.py"
        test.write_text(
            "import asyncio\n"
            "import pytest\n"
            "from rvh_trace import current_span, install_task_factory, span\n"
            "@pytest.fixture(autouse=True)\n"
            "async def tasks():\n"
            "    install_task_factory()\n"
            "    yield\n"
            "async def work():\n"
            "    await asyncio.sleep(0)\n"
            "    return current_span().context.span_id\n"
            "@pytest.mark.parametrize('number', range(3))\n"
            "async def test_tasks(spans, number):\n"
            "    with span('outer'):\n"
            "        ids = await asyncio.gather(work(), asyncio.create_task(work()))\n"
            "    assert sorted(ids) == sorted(one.span_id for one in spans.children(spans.one('outer')))\n",
            encoding="utf-8",
        )
        finished = run_script(
            f"""
            import pytest, sys
            settings = ["-o", "asyncio_mode=auto", "-o", "asyncio_default_fixture_loop_scope=function"]
            options = ["-q", "-p", "no:cacheprovider", "-W", "error", *settings, "--rootdir", {str(tmp_path)!r}]
            sys.exit(pytest.main([*options, {str(test)!r}]))
            """,
            options=(),
            RVH_TRACE_STRICT="1",
        )
        assert finished.returncode == 0, finished.stdout + finished.stderr
        assert "3 passed" in finished.stdout

    @pytest.mark.parametrize("factory", ["asyncio.new_event_loop", "uvloop.new_event_loop"])
    def test_debug_mode_has_nothing_to_say(self, factory: str) -> None:
        run_quietly(
            f"""
            import asyncio, uvloop
            from rvh_trace import install_task_factory, span
            from rvh_trace.testing import InMemoryExporter

            async def work():
                await asyncio.sleep(0)
                return 7

            async def main():
                install_task_factory()
                asyncio.get_running_loop().slow_callback_duration = 60
                with span("outer"):
                    assert await asyncio.gather(work(), asyncio.create_task(work())) == [7, 7]
                    group = asyncio.create_task(asyncio.Event().wait())
                    await asyncio.sleep(0)
                    assert "Event.wait" in repr(group)
                    group.cancel()
                    await asyncio.wait([group])

            with InMemoryExporter() as spans, asyncio.Runner(debug=True, loop_factory={factory}) as runner:
                runner.run(main())
                assert len(spans.named("work")) == 2
            """,
            options=("-X", "dev", "-W", "error"),
            PYTHONASYNCIODEBUG="1",
        )


class TestWhatAPersonSees:
    def test_coroutine_stack_name_and_repr_of_a_task(self, spans: InMemoryExporter, start: Start) -> None:
        async def inner() -> None:
            await asyncio.Event().wait()

        async def outer() -> None:
            await inner()

        async def main() -> None:
            install_task_factory()
            with span("outer"):
                task = asyncio.create_task(outer(), name="a name")
                await asyncio.sleep(0)
                assert asyncio.iscoroutine(task.get_coro())
                assert inspect.isawaitable(task.get_coro())
                assert not inspect.iscoroutine(task.get_coro())  # documented
                coroutine: Any = task.get_coro()
                assert (coroutine.__name__, coroutine.cr_code.co_name) == ("outer", "outer")
                assert coroutine.cr_frame.f_code.co_name == "outer"
                assert coroutine.cr_await.__name__ == "inner"
                assert inspect.getcoroutinestate(coroutine) == inspect.CORO_SUSPENDED
                assert [frame.f_code.co_name for frame in task.get_stack()] == ["outer"]
                printed = io.StringIO()
                task.print_stack(file=printed)
                assert "await inner()" in printed.getvalue()
                assert "outer" in repr(task)
                assert "'a name'" in repr(task)
                assert "test_composition.py" in repr(task)
                task.cancel()
                await asyncio.wait([task])

        start(main())

    def test_the_traceback_of_a_task_has_no_frame_of_ours(self, spans: InMemoryExporter, start: Start) -> None:
        async def main() -> None:
            install_task_factory()
            with span("outer"):
                task = asyncio.create_task(fail())
                with pytest.raises(LookupError) as caught:
                    await task
                frames = [frame.name for frame in traceback.extract_tb(caught.value.__traceback__)]
                assert frames == ["main", "fail"]

        start(main())

    def test_the_running_task_and_its_context_are_its_own(self, spans: InMemoryExporter, start: Start) -> None:
        variable = contextvars.ContextVar("variable", default="default")

        async def change() -> "asyncio.Task[Any] | None":
            variable.set("changed")
            await asyncio.sleep(0)
            assert variable.get() == "changed"
            return asyncio.current_task()

        async def main() -> None:
            install_task_factory()
            with span("outer") as outer:
                task = asyncio.create_task(change())
                assert await task is task
                assert variable.get() == "default"
                shared = contextvars.copy_context()
                task = asyncio.create_task(change(), context=shared)
                assert await task is task
                assert shared[variable] == "changed"
                assert shared.run(current_span) is outer

        start(main())
