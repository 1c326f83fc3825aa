"""`instrument_executors`: calls that are sent to worker threads and processes keep the context of their sender."""

import asyncio
import concurrent.futures
import contextvars
import functools
import gc
import multiprocessing
import os
import pickle
import threading
import time
import traceback
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest
import uvloop
from handmade_server import http_scope, serve
from interpreter import run_quietly
from receiver import Receiver
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from worker_calls import Unpicklable, child, raise_with, seen_context

from rvh_trace import (
    RvhTraceMiddleware,
    current_span,
    extract,
    inject,
    instrument_executors,
    span,
    uninstrument_executors,
    use_context,
)
from rvh_trace.testing import InMemoryExporter

WAIT_TIME = "rvh_trace.thread_pool.wait_time"
LOOPS = pytest.mark.parametrize("new_loop", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
VARIABLE: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="unset")


@pytest.fixture
def instrumented() -> Iterator[None]:
    instrument_executors()
    yield
    uninstrument_executors()


@pytest.mark.usefixtures("instrumented")
class TestThreads:
    def test_a_submitted_call_runs_in_the_context_of_its_sender(self, spans: InMemoryExporter) -> None:
        VARIABLE.set("sent")
        baggage = extract({"baggage": "tenant=acme"})
        with ThreadPoolExecutor(1) as executor:
            with use_context(baggage), span("outer") as outer:
                assert executor.submit(current_span).result() is outer
                assert executor.submit(VARIABLE.get).result() == "sent"
                headers: dict[str, str] = {}
                executor.submit(inject, headers).result()
                assert headers["baggage"] == "tenant=acme"
                executor.submit(child).result()
            # The thread that served them holds nothing of it.
            assert not executor.submit(current_span).result().context.is_valid
        assert spans.one("child").is_child_of(spans.one("outer"))

    def test_every_call_has_a_context_of_its_own(self) -> None:
        def change(value: str) -> str:
            seen = VARIABLE.get()
            VARIABLE.set(value)
            return seen

        VARIABLE.set("sender's")
        with ThreadPoolExecutor(1) as executor:
            assert list(executor.map(change, ["one", "two", "three"])) == ["sender's"] * 3
        assert VARIABLE.get() == "sender's"

    @LOOPS
    def test_run_in_executor_carries_context_on_any_loop(
        self, spans: InMemoryExporter, new_loop: Callable[[], asyncio.AbstractEventLoop]
    ) -> None:
        async def main() -> None:
            loop = asyncio.get_running_loop()
            with ThreadPoolExecutor(2) as executor, span("outer"):
                await loop.run_in_executor(None, child, "default executor")
                await loop.run_in_executor(executor, child, "own executor")
                await asyncio.to_thread(child, "to_thread")
                await anyio.to_thread.run_sync(child, "anyio")

        with asyncio.Runner(loop_factory=new_loop) as runner:
            runner.run(main())
        outer = spans.one("outer")
        assert [one.name for one in spans.children(outer)] == ["default executor", "own executor", "to_thread", "anyio"]
        assert outer.attributes[WAIT_TIME] > 0  # type: ignore[operator]  # pyright: ignore[reportOperatorIssue]

    def test_to_thread_is_not_carried_twice(self) -> None:
        """What it sends brings its own context: a second one around it would be a copy for nothing."""
        sent: list[Any] = []

        class Recording(ThreadPoolExecutor):
            def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
                future = super().submit(fn, *args, **kwargs)
                sent.append(fn)
                return future

        async def main() -> None:
            loop = asyncio.get_running_loop()
            with Recording(1) as executor:
                loop.set_default_executor(executor)
                await asyncio.to_thread(VARIABLE.set, "inside")

        asyncio.run(main())
        (fn,) = sent
        assert isinstance(fn, functools.partial)
        assert fn.args[0] == VARIABLE.set
        # The context that it was given is the very one in which it ran.
        mine: Any = fn.func
        assert mine.__self__[VARIABLE] == "inside"

    def test_context_run_keeps_its_context(self) -> None:
        mine = contextvars.Context()
        mine.run(VARIABLE.set, "mine")
        VARIABLE.set("sender's")
        with ThreadPoolExecutor(1) as executor:
            assert executor.submit(mine.run, VARIABLE.get).result() == "mine"
            assert executor.submit(functools.partial(mine.run, VARIABLE.get)).result() == "mine"
            assert executor.submit(functools.partial(VARIABLE.get)).result() == "sender's"

    def test_what_is_called_gets_exactly_what_was_sent(self) -> None:
        def everything(*args: object, **kwargs: object) -> tuple[object, object]:
            return args, kwargs

        class Called:
            def __call__(self, fn: object) -> object:
                return fn

            def method(self, value: int = 3) -> int:
                return value

            @staticmethod
            def static() -> str:
                return "static"

        with ThreadPoolExecutor(1) as executor:
            sent = executor.submit(everything, 1, fn=2, self=3, args=4, function=5)
            assert sent.result() == ((1,), {"fn": 2, "self": 3, "args": 4, "function": 5})
            assert executor.submit(max, 3, 7).result() == 7
            assert executor.submit(max, [3, 7], key=lambda value: -value).result() == 3
            assert executor.submit(functools.partial(everything, 1, a=2), 3).result() == ((1, 3), {"a": 2})
            assert executor.submit(Called(), fn=4).result() == 4
            assert executor.submit(Called().method, value=5).result() == 5
            assert executor.submit(Called.static).result() == "static"
            assert executor.submit(int, "7").result() == 7

    def test_what_it_raises_is_the_same_object_with_its_traceback(self) -> None:
        error = LookupError("mine")

        def fail() -> None:
            raise error

        with ThreadPoolExecutor(1) as executor:
            assert executor.submit(fail).exception() is error
            names = [frame.name for frame in traceback.extract_tb(error.__traceback__)]
            assert names == ["run", "fail"]
            with pytest.raises(SystemExit):
                executor.submit(raise_system_exit).result()

    def test_misuse_is_refused_as_without_it(self) -> None:
        executor = ThreadPoolExecutor(1)
        with pytest.raises(TypeError, match="'int' object is not callable"):
            executor.submit(3).result()  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
        with pytest.raises(TypeError, match=r"submit\(\) missing 1 required positional argument: 'fn'"):
            executor.submit()  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
        executor.shutdown()
        with pytest.raises(RuntimeError, match="cannot schedule new futures after shutdown"):
            executor.submit(child)

    def test_a_cancelled_call_never_runs_and_holds_nothing(self) -> None:
        class Held:
            pass

        started, release = threading.Event(), threading.Event()

        def block() -> None:
            started.set()
            release.wait(30)

        with ThreadPoolExecutor(1) as executor:
            first = executor.submit(block)
            assert started.wait(30)
            held = Held()
            gone = weakref.ref(held)
            second = executor.submit(lambda held: pytest.fail("ran"), held)
            del held
            assert second.cancel()
            release.set()
            first.result()
        del second
        gc.collect()
        assert gone() is None

    def test_what_was_called_is_let_go_of(self) -> None:
        class Held:
            pass

        variable: contextvars.ContextVar[Held] = contextvars.ContextVar("held")

        def send(executor: ThreadPoolExecutor) -> "weakref.ref[Held]":
            held = Held()
            variable.set(held)
            executor.submit(variable.get).result()
            return weakref.ref(held)

        with ThreadPoolExecutor(1) as executor:
            gone = contextvars.Context().run(send, executor)
            executor.submit(child).result()
            gc.collect()
            assert gone() is None

    def test_a_cycle_through_a_call_that_waits_is_collected(self) -> None:
        class Never(ThreadPoolExecutor):
            """Starts no thread."""

            def _adjust_thread_count(self) -> None:
                pass

        class Held:
            executor: Never

            def work(self) -> None:
                pass

        held = Held()
        held.executor = Never(1)
        held.executor.submit(held.work)
        gone = weakref.ref(held)
        del held
        gc.collect()
        assert gone() is None

    def test_subclasses_that_send_something_else_are_respected(self, spans: InMemoryExporter) -> None:
        class Logging(ThreadPoolExecutor):
            def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
                return super().submit(self.logged, fn, *args, **kwargs)

            def logged(self, fn: Any, *args: Any, **kwargs: Any) -> Any:
                return "logged", fn(*args, **kwargs)

        with Logging(1) as executor, span("outer"):
            assert executor.submit(child).result() == ("logged", spans.one("child").span_id)
        assert spans.one("child").is_child_of(spans.one("outer"))

    def test_other_executors_get_what_they_are_given(self) -> None:
        class Inline(concurrent.futures.Executor):
            def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
                sent.append(fn)
                future: Future[Any] = Future()
                future.set_result(fn(*args, **kwargs))
                return future

        sent: list[Any] = []

        async def main() -> None:
            await asyncio.get_running_loop().run_in_executor(Inline(), child)

        asyncio.run(main())
        assert sent == [child]

    def test_a_call_may_be_made_again_and_at_the_same_time(self) -> None:
        """As executors that retry do; a `contextvars.Context` can be entered once at a time."""
        sent: list[Any] = []

        class Keeping(ThreadPoolExecutor):
            def _adjust_thread_count(self) -> None:
                sent.append(self._work_queue.get_nowait().fn)  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType, reportUnknownArgumentType]

        def work() -> str:
            return VARIABLE.get() + (again.pop()() if again else "")

        VARIABLE.set("kept ")
        Keeping(1).submit(work)
        (call,) = sent
        again = [call, call]
        VARIABLE.set("changed")
        assert call() == "kept kept kept "
        assert call() == "kept "


def raise_system_exit() -> None:
    raise SystemExit(3)


def occupy(release: threading.Event) -> None:
    assert release.wait(30)


@pytest.mark.usefixtures("instrumented")
class TestWaitTime:
    def test_a_call_that_waits_for_a_thread_says_how_long(self, spans: InMemoryExporter) -> None:
        release = threading.Event()
        with ThreadPoolExecutor(1) as executor:
            blocked = executor.submit(occupy, release)
            with span("outer"):
                waiting = [executor.submit(child), executor.submit(child)]
                sent = time.monotonic()
                time.sleep(0.02)
                at_least = 2 * (time.monotonic() - sent)
                release.set()
                for one in (blocked, *waiting):
                    one.result()
        outer = spans.one("outer")
        assert at_least <= outer.attributes[WAIT_TIME] <= 2 * outer.duration_ns / 1e9  # type: ignore[operator]  # pyright: ignore[reportOperatorIssue]
        assert not [one for one in spans.named("child") if WAIT_TIME in one.attributes]

    def test_waiting_for_a_token_of_anyio_counts(self, spans: InMemoryExporter) -> None:
        async def main() -> None:
            limiter = anyio.CapacityLimiter(1)
            release = threading.Event()
            async with anyio.create_task_group() as group:
                await limiter.acquire_on_behalf_of("another")
                with span("outer"):

                    async def let_go() -> None:
                        await anyio.sleep(0.02)
                        limiter.release_on_behalf_of("another")

                    group.start_soon(let_go)
                    release.set()
                    await anyio.to_thread.run_sync(occupy, release, limiter=limiter, abandon_on_cancel=True)

        anyio.run(main)
        assert spans.one("outer").attributes[WAIT_TIME] >= 0.02  # type: ignore[operator]  # pyright: ignore[reportOperatorIssue]

    def test_sync_endpoints_show_it_on_their_request(self, spans: InMemoryExporter) -> None:
        def endpoint(request: object) -> PlainTextResponse:
            return PlainTextResponse(child())

        app = RvhTraceMiddleware(Starlette(routes=[Route("/", endpoint)]))
        asyncio.run(serve(app, http_scope("/")))
        server = spans.one("GET /")
        assert spans.one("child").is_child_of(server)
        assert server.attributes[WAIT_TIME] > 0  # type: ignore[operator]  # pyright: ignore[reportOperatorIssue]

    def test_a_span_that_has_ended_keeps_what_it_had(self, spans: InMemoryExporter) -> None:
        release = threading.Event()
        with ThreadPoolExecutor(1) as executor:
            executor.submit(occupy, release)
            with span("outer"):
                late = executor.submit(child)
            release.set()
            late.result()
        assert WAIT_TIME not in spans.one("outer").attributes
        assert spans.one("child").is_child_of(spans.one("outer"))

    def test_without_a_span_nothing_is_measured_and_all_is_well(self) -> None:
        with ThreadPoolExecutor(1) as executor:
            assert executor.submit(max, 1, 2).result() == 2


@pytest.mark.usefixtures("instrumented")
class TestProcesses:
    @pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
    @pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")
    def test_context_travels_as_headers(self, spans: InMemoryExporter, method: str) -> None:
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context(method)) as executor:
            baggage = extract({"baggage": "tenant=acme"})
            with use_context(baggage), span("outer") as outer:
                seen = executor.submit(seen_context).result()
            assert seen["pid"] != os.getpid()
            context = extract(seen["headers"])
            assert context.span_context.trace_id == outer.context.trace_id
            assert context.span_context.span_id == outer.context.span_id
            assert context.baggage == {"tenant": "acme"}
            # A forked worker has inherited the context of the first call.
            assert executor.submit(seen_context).result()["headers"] == {}

    def test_arguments_results_and_errors_pass(self) -> None:
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as executor, span("outer"):
            assert executor.submit(max, [3, 7], key=abs).result() == 7
            assert list(executor.map(abs, [-1, -2, -3], chunksize=2)) == [1, 2, 3]
            assert executor.submit(functools.partial(int, base=2), "101").result() == 5
            with pytest.raises(ValueError, match="invalid literal"):
                executor.submit(int, "x").result()
            with pytest.raises(ValueError, match="fn and headers"):
                executor.submit(raise_with, fn="fn", headers="headers").result()
        with pytest.raises(RuntimeError, match="cannot schedule new futures after shutdown"):
            executor.submit(seen_context)

    def test_errors_of_pickling_are_the_same(self) -> None:
        told: list[tuple[type[BaseException], str]] = []
        for instrument in (True, False):
            if not instrument:
                uninstrument_executors()
            with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as executor, span("outer"):
                for unpicklable in (lambda: None, Unpicklable()):
                    error = executor.submit(unpicklable).exception()
                    assert error is not None
                    told.append((type(error), str(error).replace("True", "").replace("False", "")))
        assert told[:2] == told[2:]
        assert issubclass(told[0][0], (pickle.PicklingError, AttributeError))

    @pytest.mark.parametrize("method", ["fork", "spawn"])
    def test_spans_of_a_worker_process_are_exported_from_there(self, receiver: Receiver, method: str) -> None:
        run_quietly(
            f"""
            import multiprocessing, sys, warnings
            from concurrent.futures import ProcessPoolExecutor
            from functools import partial
            import rvh_trace
            from rvh_trace import instrument_executors, span

            warnings.filterwarnings("ignore", message=".*multi-threaded", category=DeprecationWarning)
            set_up = partial(rvh_trace.init_tracing, "shop", endpoint={receiver.http_endpoint!r})

            if __name__ == "__main__":
                set_up()
                instrument_executors()
                context = multiprocessing.get_context({method!r})
                initializer = set_up if {method!r} == "spawn" else None
                with ProcessPoolExecutor(2, mp_context=context, initializer=initializer) as executor:
                    with span("outer"):
                        from worker_calls import child
                        assert len(set(executor.map(child, ["one", "two", "three"]))) == 3
                assert rvh_trace.force_flush(10_000)
            """,
            PYTHONPATH=str(Path(__file__).parent),
        )
        by_name = {one.name: one for one in receiver.spans}
        assert set(by_name) == {"outer", "one", "two", "three"}
        outer = by_name.pop("outer")
        assert {one.parent_id for one in by_name.values()} == {outer.span_id}
        assert {one.trace_id for one in by_name.values()} == {outer.trace_id}


class TestInstalling:
    ORIGINALS = (ThreadPoolExecutor.submit, ProcessPoolExecutor.submit, anyio.to_thread.run_sync)

    def now(self) -> tuple[object, ...]:
        return (ThreadPoolExecutor.submit, ProcessPoolExecutor.submit, anyio.to_thread.run_sync)

    def test_without_it_nothing_is_carried(self, spans: InMemoryExporter) -> None:
        with ThreadPoolExecutor(1) as executor, span("outer"):
            assert not executor.submit(current_span).result().context.is_valid

    def test_installing_twice_is_installing_once_and_it_can_be_undone(self) -> None:
        instrument_executors()
        once = self.now()
        instrument_executors()
        assert self.now() == once
        assert not set(once) & set(self.ORIGINALS)
        uninstrument_executors()
        assert self.now() == self.ORIGINALS
        uninstrument_executors()
        assert self.now() == self.ORIGINALS

    def test_what_replaces_looks_like_what_it_replaces(self) -> None:
        instrument_executors()
        try:
            for ours, original in zip(self.now(), self.ORIGINALS, strict=True):
                for name in ("__name__", "__qualname__", "__doc__", "__module__"):
                    assert getattr(ours, name) == getattr(original, name)
            assert asyncio.iscoroutinefunction(anyio.to_thread.run_sync)
        finally:
            uninstrument_executors()

    def test_a_patch_on_top_of_ours_stays_and_ours_passes_calls_on(self, spans: InMemoryExporter) -> None:
        instrument_executors()
        ours = ThreadPoolExecutor.submit
        calls: list[object] = []

        def on_top(self: ThreadPoolExecutor, fn: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
            calls.append(fn)
            return ours(self, fn, *args, **kwargs)

        ThreadPoolExecutor.submit = on_top  # type: ignore[method-assign, assignment]
        try:
            with ThreadPoolExecutor(1) as executor, span("outer") as outer:
                assert executor.submit(current_span).result() is outer
                uninstrument_executors()
                assert ThreadPoolExecutor.submit is on_top
                assert not executor.submit(current_span).result().context.is_valid
                instrument_executors()
                assert executor.submit(current_span).result() is outer
                uninstrument_executors()
                assert ThreadPoolExecutor.submit is on_top
        finally:
            ThreadPoolExecutor.submit = self.ORIGINALS[0]  # type: ignore[method-assign]
        assert len(calls) == 3

    def test_calls_that_wait_keep_their_context_when_it_is_undone(self, spans: InMemoryExporter) -> None:
        release = threading.Event()
        instrument_executors()
        with ThreadPoolExecutor(1) as executor, span("outer") as outer:
            blocked = executor.submit(occupy, release)
            waiting = executor.submit(current_span)
            uninstrument_executors()
            release.set()
            blocked.result()
            assert waiting.result() is outer

    def test_importing_the_package_loads_no_executor(self) -> None:
        run_quietly(
            """
            import sys
            import rvh_trace
            assert not {"concurrent.futures", "multiprocessing", "anyio"} & set(sys.modules)
            rvh_trace.instrument_executors()
            assert "anyio" not in sys.modules
            rvh_trace.uninstrument_executors()
            """
        )
