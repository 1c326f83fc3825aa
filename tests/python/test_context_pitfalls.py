"""Public failures of other tracing libraries, played again: no line in any log, the right parents, one end each.

Each test is named after what its users saw; the issue stands beside it.
"""

import asyncio
import contextlib
import contextvars
import gc
import inspect
import logging
import types
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import anyio
import anyio.to_thread
import pytest
import uvloop

from rvh_trace import current_span, extract, install_task_factory, new_span, span, trace, use_context
from rvh_trace.testing import InMemoryExporter

Run = Callable[[Coroutine[Any, Any, Any]], Any]


@pytest.fixture(params=[asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest, complaints: list[dict[str, Any]]) -> Run:
    """Runs a coroutine on a loop whose exception handler must stay silent."""

    def run_checked(main: Coroutine[Any, Any, Any]) -> Any:
        async def checked() -> Any:
            asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
            return await main

        with asyncio.Runner(loop_factory=request.param) as runner:
            return runner.run(checked())

    return run_checked


@pytest.fixture(autouse=True)
def quiet(caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]) -> Iterator[None]:
    """Not a line in a log or on standard error."""
    with caplog.at_level(logging.WARNING):
        yield
    assert [record.getMessage() for record in caplog.records] == []
    assert capfd.readouterr().err == ""


class ClientGoneError(Exception):
    """What a client does to a handler."""


class TestFailedToDetachContext:
    def test_a_generator_is_closed_by_the_task_that_cleans_up(self, spans: InMemoryExporter, run: Run) -> None:
        """open-telemetry/opentelemetry-python#2606."""

        async def rows() -> AsyncGenerator[int]:
            with span("query"):
                for row in range(3):
                    yield row

        async def main() -> None:
            with span("handler") as handler:
                generator = rows()
                assert await anext(generator) == 0
                await asyncio.create_task(aclose(generator))
                assert current_span() is handler
                with span("next query"):
                    pass

        run(main())
        handler = spans.one("handler")
        assert [one.name for one in spans.children(handler)] == ["query", "next query"]

    def test_a_streamed_answer_of_a_model_is_abandoned_by_its_reader(self, spans: InMemoryExporter, run: Run) -> None:
        """traceloop/openllmetry#3061: the stream holds the span open, and nobody reads it to its end."""

        async def stream() -> AsyncGenerator[str]:
            async with span("chat"):
                with contextlib.suppress(GeneratorExit):
                    for word in ("one", "two", "three"):
                        await asyncio.sleep(0)
                        yield word

        async def read() -> str:
            async for word in stream():
                return word
            return ""

        async def main() -> None:
            async with span("agent"):
                assert await asyncio.gather(read(), read()) == ["one", "one"]
                await until(lambda: len(spans.named("chat")) == 2)

        run(main())
        agent = spans.one("agent")
        assert all(one.is_child_of(agent) and one.status == "unset" for one in spans.named("chat"))

    def test_agents_nested_in_generators_are_closed_from_the_outside_in(
        self, spans: InMemoryExporter, run: Run
    ) -> None:
        """google/adk-python#4894: each agent is an async generator around the events of the next."""

        async def events(depth: int) -> AsyncGenerator[int]:
            with span(f"agent {depth}"):
                if depth:
                    async for event in events(depth - 1):
                        yield event
                yield depth

        async def main() -> None:
            with span("runner") as runner:
                generator = events(3)
                await anext(generator)
                await asyncio.create_task(aclose(generator))
                del generator
                gc.collect()
                await until(lambda: len(spans) == 4)
                assert current_span() is runner

        run(main())
        for depth in range(3):
            assert spans.one(f"agent {depth}").is_child_of(spans.one(f"agent {depth + 1}"))
        assert spans.one("agent 3").is_child_of(spans.one("runner"))

    def test_the_consumer_is_cancelled_in_the_middle_of_a_stream(self, spans: InMemoryExporter, run: Run) -> None:
        """Arize-ai/openinference#1769."""
        reached = asyncio.Event()

        @trace("stream")
        async def stream() -> AsyncIterator[int]:
            yield 1
            with span("tool"):
                reached.set()
                await asyncio.Event().wait()

        async def consume() -> None:
            with span("consumer"):
                async for _ in stream():
                    pass

        async def main() -> None:
            task = asyncio.create_task(consume())
            await reached.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert not current_span().context.is_valid

        run(main())
        assert spans.one("tool").is_child_of(spans.one("stream"))
        assert spans.one("stream").is_child_of(spans.one("consumer"))
        assert {one.attributes["rvh_trace.outcome"] for one in spans} == {"cancelled"}

    def test_a_run_that_yields_is_resumed_in_other_contexts(self, spans: InMemoryExporter, run: Run) -> None:
        """agno-agi/agno#3220: a server steps a response in a new task, and so a new context, for every chunk."""

        @trace("run")
        async def chunks() -> AsyncGenerator[str]:
            for number in range(3):
                with span("chunk") as chunk:
                    await asyncio.sleep(0)
                    assert current_span() is chunk
                    yield str(number)
                    assert current_span() is chunk

        async def main() -> None:
            generator, seen = chunks(), list[str]()
            for _ in range(3):
                seen.append(await asyncio.create_task(step(generator)))
                assert not current_span().context.is_valid
            await asyncio.create_task(aclose(generator))
            assert seen == ["0", "1", "2"]

        run(main())
        assert len(spans.children(spans.one("run"))) == 3

    def test_a_context_that_was_attached_is_detached_by_somebody_else(self, spans: InMemoryExporter, run: Run) -> None:
        """The same with `use_context`: what a message carried must not stay with the code that read it."""
        headers = {"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}

        async def messages() -> AsyncGenerator[str]:
            with use_context(extract(headers)):
                yield "first"
                yield "second"

        async def main() -> None:
            with span("worker") as worker:
                generator = messages()
                await anext(generator)
                await asyncio.create_task(aclose(generator))
                assert current_span() is worker
                with span("afterwards"):
                    pass

        run(main())
        assert spans.one("afterwards").is_child_of(spans.one("worker"))

    def test_the_loop_is_closed_before_the_generator_is_garbage(self, spans: InMemoryExporter) -> None:
        """A traced generator of a closed loop is as quiet as any other: it is not closed, and its span ends."""

        @trace
        async def listen() -> AsyncGenerator[int]:
            try:
                yield 1
            finally:
                await asyncio.sleep(0)

        async def start() -> AsyncGenerator[int]:
            generator = listen()
            await anext(generator)
            return generator

        loop = asyncio.new_event_loop()
        generator = loop.run_until_complete(start())
        loop.close()
        del generator
        gc.collect()
        current_span()
        assert [one.status for one in spans] == ["unset"]

    def test_a_traced_generator_in_a_reference_circle_cleans_up_in_the_loop(
        self, spans: InMemoryExporter, run: Run
    ) -> None:
        """ "async generator ignored GeneratorExit": the collector finds wrapper and body at once."""
        cleaned: list[bool] = []

        @trace
        async def listen() -> AsyncGenerator[int]:
            try:
                yield 1
            finally:
                await asyncio.sleep(0)
                cleaned.append(current_span().is_recording)

        async def main() -> None:
            circle: list[Any] = [listen()]
            circle.append(circle)
            await anext(circle[0])
            del circle
            gc.collect()
            await until(lambda: len(spans) == 1)

        run(main())
        assert cleaned == [True]


class TestRequestsMergedIntoOneTrace:
    def test_the_next_request_starts_in_the_context_of_the_last(self, spans: InMemoryExporter, run: Run) -> None:
        """Kludex/uvicorn#2167, #2912: a callback that was registered inside of a request starts the next one."""

        async def handle(number: int, queue: list[Callable[[], Any]]) -> None:
            with use_context(extract({})), span(f"request {number}"):
                queue.append(partial(contextvars.copy_context().run, partial(start, number + 1, queue)))
                await asyncio.sleep(0)

        tasks: list[asyncio.Task[None]] = []

        def start(number: int, queue: list[Callable[[], Any]]) -> None:
            if number < 3:
                tasks.append(asyncio.get_running_loop().create_task(handle(number, queue)))

        async def main() -> None:
            install_task_factory()
            queue: list[Callable[[], Any]] = []
            start(0, queue)
            for number in range(3):
                await tasks[number]
                queue[number]()

        run(main())
        assert len({one.trace_id for one in spans if one.name.startswith("request")}) == 3
        assert {one.parent_span_id for one in spans if one.name.startswith("request")} == {None}


class TestInstrumentedTasks:
    def test_tasks_made_by_every_door_are_seen(self, spans: InMemoryExporter, run: Run) -> None:
        """Patching `asyncio.create_task` by name misses `loop.create_task`, anyio and early imports."""
        early = asyncio.create_task

        async def work() -> None:
            await asyncio.sleep(0)

        async def main() -> None:
            install_task_factory()
            with span("outer"):
                await early(work())
                await asyncio.get_running_loop().create_task(work())
                await asyncio.ensure_future(work())
                async with anyio.create_task_group() as group:
                    group.start_soon(work)

        run(main())
        assert len(spans.children(spans.one("outer"))) == 4

    def test_an_awaitable_made_of_a_generator_runs(self, spans: InMemoryExporter, run: Run) -> None:
        """opentelemetry-python-contrib#2791: wrapped, it was never stepped, and nobody noticed."""
        ran: list[str] = []

        class Old:
            def __await__(self) -> Generator[Any, Any, None]:
                ran.append("before")
                yield from asyncio.sleep(0).__await__()
                ran.append("after")

        @types.coroutine
        def old_style() -> Generator[Any, Any, None]:
            yield from Old().__await__()

        async def old() -> None:
            await Old()

        async def main() -> None:
            install_task_factory()
            with span("outer"):
                await asyncio.gather(old(), asyncio.ensure_future(Old()), Old())
                await span("awaited").run(Old())
                await span("awaited").run(old_style())

        run(main())
        assert sorted(ran) == ["after"] * 5 + ["before"] * 5
        assert len(spans.named("awaited")) == 2
        assert {one.parent_span_id for one in spans if one.name != "outer"} == {spans.one("outer").span_id}

    def test_a_factory_gets_the_keywords_that_python_adds(self, spans: InMemoryExporter, run: Run) -> None:
        """getsentry/sentry-python#1993, #2212: `context=` came with 3.11, `eager_start=` with 3.14."""
        seen: list[dict[str, Any]] = []

        def factory(loop: Any, coroutine: Any, **kwargs: Any) -> "asyncio.Task[Any]":
            if kwargs.pop("from_the_future", False):
                seen.append(dict(kwargs))
            return asyncio.Task(coroutine, loop=loop, **kwargs)

        async def main() -> None:
            loop = asyncio.get_running_loop()
            loop.set_task_factory(factory)
            install_task_factory()
            create: Any = loop.get_task_factory()
            with span("outer"):
                await create(loop, asyncio.sleep(0), name="named", from_the_future=True)

        run(main())
        assert seen == [{"name": "named"}]
        assert len(spans.children(spans.one("outer"))) == 1

    def test_user_code_is_not_rewritten(self, spans: InMemoryExporter, run: Run) -> None:
        """DataDog/dd-trace-py#18741: bytecode that was rewritten made requests fail."""

        async def handler() -> str:
            return "fine"

        before = handler.__code__

        async def main() -> str:
            install_task_factory()
            with span("outer"):
                return await asyncio.create_task(trace(handler)())

        assert run(main()) == "fine"
        assert handler.__code__ is before
        assert inspect.iscoroutinefunction(trace(handler))


class TestThreads:
    def test_to_thread_copies_the_context_and_an_executor_does_not(self, spans: InMemoryExporter, run: Run) -> None:
        def work(name: str) -> None:
            with span(name):
                pass

        async def main() -> None:
            with span("outer"), ThreadPoolExecutor(1) as pool:
                await asyncio.to_thread(work, "to_thread")
                await anyio.to_thread.run_sync(work, "anyio")
                await asyncio.get_running_loop().run_in_executor(pool, work, "executor")

        run(main())
        assert [one.name for one in spans.children(spans.one("outer"))] == ["to_thread", "anyio"]
        assert spans.one("executor").parent_span_id is None

    def test_a_span_that_ends_on_another_thread_does_not_panic(self, spans: InMemoryExporter, run: Run) -> None:
        """What pytracingx does."""

        async def main() -> None:
            made = span("moved")
            made.__enter__()
            await asyncio.to_thread(made.__exit__, None, None, None)
            assert not current_span().context.is_valid
            by_hand = new_span("by hand")
            await asyncio.to_thread(by_hand.end)

        run(main())
        assert sorted(one.name for one in spans) == ["by hand", "moved"]


class TestCancellationAndErrors:
    def test_a_cancelled_request_does_not_leak_its_span(self, spans: InMemoryExporter, run: Run) -> None:
        """opentelemetry-python-contrib#3848, #4102."""

        async def request() -> None:
            async with span("request"), asyncio.timeout(60):
                await asyncio.Event().wait()

        async def main() -> None:
            task = asyncio.create_task(request())
            await asyncio.sleep(0)
            task.cancel()
            await asyncio.wait([task])
            assert not current_span().context.is_valid

        run(main())
        assert spans.one("request").attributes == {"rvh_trace.outcome": "cancelled"}
        assert spans.one("request").status == "unset"

    def test_a_group_shows_what_went_wrong_inside(self, spans: InMemoryExporter, run: Run) -> None:
        """ "unhandled errors in a TaskGroup (1 sub-exception)" says nothing."""

        async def fail() -> None:
            raise ClientGoneError("gone")

        async def main() -> None:
            with pytest.raises(ExceptionGroup), span("request"):
                async with asyncio.TaskGroup() as group:
                    group.create_task(fail())

        run(main())
        messages = [event.attributes["exception.message"] for event in spans.one("request").events]
        assert "gone" in messages


async def aclose(generator: AsyncGenerator[Any]) -> None:
    await generator.aclose()


async def step(generator: AsyncGenerator[str]) -> str:
    return await anext(generator)


async def until(condition: Callable[[], bool]) -> None:
    """Lets the loop run until a condition holds."""
    async with asyncio.timeout(30):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0)
