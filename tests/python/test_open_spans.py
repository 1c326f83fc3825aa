"""`open_spans`: what is in flight now, with tasks and where they are."""

import asyncio
import gc
import os
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Generator, Iterator
from typing import Any

import anyio
import pytest
import uvloop
from handmade_server import LAST_BODY, START, http_scope, serve
from interpreter import run_quietly

import rvh_trace
from rvh_trace import (
    OpenSpan,
    OpenSpans,
    RvhTraceMiddleware,
    extract,
    install_task_factory,
    new_span,
    span,
    span_future,
    trace,
    use_context,
)
from rvh_trace.testing import InMemoryExporter

Run = Callable[[Coroutine[Any, Any, Any]], Any]

left_over: set[str] = set()


@pytest.fixture(autouse=True)
def without_what_others_left() -> None:
    """Other tests start requests that nobody ever finishes."""
    gc.collect()
    left_over.clear()
    left_over.update(one.span_id for _, one in rvh_trace.open_spans().walk())


def open_spans() -> OpenSpans:
    return OpenSpans(one for one in rvh_trace.open_spans() if one.span_id not in left_over)


@pytest.fixture(params=[asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Iterator[Run]:
    """Runs a coroutine on either loop."""

    def run_on(main: Coroutine[Any, Any, Any]) -> Any:
        with asyncio.Runner(loop_factory=request.param) as runner:
            return runner.run(main)

    yield run_on
    assert open_spans() == ()


def named(name: str) -> OpenSpan:
    (found,) = [one for _, one in open_spans().walk() if one.name == name]
    return found


def tree() -> list[tuple[int, str]]:
    return [(depth, one.name) for depth, one in open_spans().walk()]


class Blocked:
    """Tasks that wait here are known to wait."""

    def __init__(self) -> None:
        self.waiting = 0
        self.release = asyncio.Event()

    async def here(self) -> None:
        self.waiting += 1
        await self.release.wait()

    async def until(self, waiting: int) -> None:
        while self.waiting < waiting:  # noqa: ASYNC110 - the wait counts what the tasks do in their next step
            await asyncio.sleep(0)


class TestWhatIsOpen:
    def test_spans_are_open_from_their_start_to_their_end(self, spans: InMemoryExporter) -> None:
        assert open_spans() == ()
        outer = span("outer", {"cart.id": 7})
        assert open_spans() == ()
        with outer:
            assert tree() == [(0, "outer")]
            with span("inner", kind="client"):
                by_hand = new_span("by hand")
                assert tree() == [(0, "outer"), (1, "inner"), (2, "by hand")]
            assert tree() == [(0, "outer"), (0, "by hand")]  # its parent has ended
            by_hand.end()
            assert tree() == [(0, "outer")]
        assert open_spans() == ()
        assert len(spans) == 3

    def test_it_tells_what_is_known_of_a_span_so_far(self, spans: InMemoryExporter) -> None:
        before = time.time_ns()
        with span("outer", {"cart.id": 7, "cart.tags": ["a", "b"]}, kind="consumer") as outer:
            outer.update_name("renamed")
            outer.set_attribute("cart.size", 2.5)
            (seen,) = open_spans()
            assert (seen.name, seen.kind) == ("renamed", "consumer")
            assert (seen.trace_id, seen.span_id) == (outer.context.trace_id, outer.context.span_id)
            assert seen.parent_span_id is None
            assert seen.attributes == {"cart.id": 7, "cart.tags": ["a", "b"], "cart.size": 2.5}
            assert abs(seen.start_unix_ns - before) < 60_000_000_000
            (later,) = open_spans()
            assert 0 < seen.age_s < later.age_s < 60
            outer.set_attribute("cart.late", True)
            assert "cart.late" not in seen.attributes

    def test_a_remote_parent_is_named_and_not_in_the_tree(self, spans: InMemoryExporter) -> None:
        remote = extract({"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"})
        with use_context(remote), span("server"):
            (seen,) = open_spans()
            assert seen.parent_span_id == "b7ad6b7169203331"
            assert seen.trace_id == "0af7651916cd43dd8448eb211c80319c"

    def test_spans_that_are_not_recorded_are_not_open(self) -> None:
        with span("off"):
            assert open_spans() == ()
        with InMemoryExporter(sampler="always_off"), span("not sampled"):
            assert open_spans() == ()
        made_early = span("made early")  # its object is of another kind
        with InMemoryExporter(), made_early:
            assert tree() == [(0, "made early")]

    def test_decorated_functions_and_generators_have_theirs(self, spans: InMemoryExporter) -> None:
        seen: list[list[tuple[int, str]]] = []

        @trace("generator")
        def generator() -> Generator[int, None, None]:
            seen.append(tree())
            yield 1

        @trace("function")
        def function() -> None:
            suspended = generator()
            next(suspended)
            seen.append(tree())
            suspended.close()
            seen.append(tree())

        function()
        assert seen == [[(0, "function"), (1, "generator")]] * 2 + [[(0, "function")]]

    def test_a_forgotten_span_is_not_open_any_more(self, spans: InMemoryExporter) -> None:
        forgotten = new_span("forgotten")
        assert tree() == [(0, "forgotten")]
        del forgotten
        gc.collect()
        assert open_spans() == ()

    def test_thousands_come_and_go_in_any_order(self, spans: InMemoryExporter) -> None:
        import random

        order = random.Random(7)
        made = [new_span(f"span {number}") for number in range(1_000)]
        order.shuffle(made)
        while made:
            assert {one.span_id for one in open_spans()} == {one.context.span_id for one in made}
            some, made = made[: len(made) // 2 + 1], made[len(made) // 2 + 1 :]
            while some:
                if order.random() < 0.5:
                    some[-1].end()
                some.pop()
        gc.collect()
        assert open_spans() == ()
        with span("after"):
            assert tree() == [(0, "after")]

    def test_a_deep_tree_is_no_recursion(self, spans: InMemoryExporter) -> None:
        deep = sys.getrecursionlimit() + 500
        entered = [span("deep") for _ in range(deep)]
        for one in entered:
            one.__enter__()
        try:
            depths = [depth for depth, _ in open_spans().walk()]
            assert depths == list(range(deep))
            assert str(open_spans()).count("\n") == deep
        finally:
            for one in reversed(entered):
                one.__exit__(None, None, None)

    def test_asking_while_an_object_is_freed_is_fine(self, spans: InMemoryExporter) -> None:
        """The finaliser of something that a span object holds runs while that object goes."""
        seen: list[int] = []

        class Asks(str):
            def __del__(self) -> None:
                seen.append(len(open_spans()))

        with InMemoryExporter(sampler="always_off"):
            pass
        deferred = [span(Asks("deferred")) for _ in range(5)]
        del deferred
        gc.collect()
        assert seen

    def test_from_threads_that_come_and_go(self, spans: InMemoryExporter) -> None:
        failed: list[BaseException] = []
        stop = threading.Event()

        def work() -> None:
            try:
                while not stop.wait(0.001):
                    kept = [new_span("kept") for _ in range(20)]
                    with span("a"), span("b"), span("c"):
                        pass
                    del kept
            except BaseException as error:
                failed.append(error)

        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for _ in range(50):
            assert {one.name for _, one in open_spans().walk()} <= {"kept", "a", "b", "c"}
        stop.set()
        for thread in threads:
            thread.join()
        assert failed == []
        assert open_spans() == ()

    @pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
    def test_a_forked_child_has_none_of_its_parents(self) -> None:
        run_quietly(
            """
            import os
            from rvh_trace import new_span, open_spans, span
            from rvh_trace.testing import InMemoryExporter

            with InMemoryExporter(), span("parent's"):
                mine = new_span("parent's too")
                if (pid := os.fork()) == 0:
                    status = int(open_spans() != ())
                    with span("child's"):
                        status += 2 * ([one.name for one in open_spans()] != ["child's"])
                    os._exit(status)
                assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
                assert len(open_spans()) == 1
            """
        )


class TestRequests:
    def test_requests_and_websockets_are_open_until_they_are_over(self, spans: InMemoryExporter) -> None:
        async def http(scope: Any, receive: Any, send: Any) -> None:
            assert (named("GET").kind, named("GET").attributes["url.path"]) == ("server", "/items/7")
            await send(START)
            await send(LAST_BODY)
            assert open_spans() == ()

        async def websocket(scope: Any, receive: Any, send: Any) -> None:
            await receive()
            await send({"type": "websocket.accept"})
            assert named("GET").attributes["url.path"] == "/ws"
            await send({"type": "websocket.close"})

        asyncio.run(serve(RvhTraceMiddleware(http), http_scope()))
        scope = http_scope("/ws", type="websocket", scheme="ws", subprotocols=[])
        asyncio.run(serve(RvhTraceMiddleware(websocket), scope, [{"type": "websocket.connect"}]))
        assert len(spans.named("GET")) == 2

    def test_one_that_waits_for_its_client_says_so(self, spans: InMemoryExporter, run: Run) -> None:
        async def main() -> None:
            waiting = asyncio.Event()

            async def receive() -> Any:
                waiting.set()
                await asyncio.Event().wait()

            async def send(message: Any) -> None:
                pass

            async def application(scope: Any, receive: Any, send: Any) -> None:
                await receive()

            served: Any = RvhTraceMiddleware(application)(http_scope(), receive, send)
            task = asyncio.create_task(served, name="connection 7")
            await waiting.wait()
            seen = named("GET")
            assert seen.task == "connection 7"
            functions = [frame.function.rpartition(".")[2] for frame in seen.stack]
            assert functions == ["__call__", "application", "receive", "wait"]
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

        run(main())


class TestTasks:
    def test_a_span_says_its_task_and_where_that_is_suspended(self, spans: InMemoryExporter, run: Run) -> None:
        async def main() -> None:
            blocked = Blocked()

            async def work(name: str) -> None:
                with span(name):
                    await blocked.here()

            async with asyncio.TaskGroup() as group:
                group.create_task(work("one"), name="first")
                group.create_task(work("two"), name="second")
                await blocked.until(2)
                one, two = named("one"), named("two")
                assert (one.task, two.task) == ("first", "second")
                functions = [frame.function.rpartition(".")[2] for frame in one.stack]
                assert functions == ["work", "here", "wait"]
                work_frame, here, wait = one.stack
                assert work_frame.file == here.file == __file__
                assert here.line == Blocked.here.__code__.co_firstlineno + 2
                assert wait.file == asyncio.locks.__file__
                assert one.suspended_at is wait
                assert str(here) == f"{__file__}:{here.line} Blocked.here"
                blocked.release.set()

        run(main())

    def test_task_spans_and_what_is_in_them(self, spans: InMemoryExporter, run: Run) -> None:
        async def main() -> None:
            blocked = Blocked()

            async def work() -> None:
                with span("inner"):
                    await blocked.here()

            install_task_factory()
            with span("outer"):
                task = asyncio.create_task(work(), name="worker")
                before = named("TestTasks.test_task_spans_and_what_is_in_them.<locals>.main.<locals>.work")
                assert (before.task, len(before.stack)) == ("worker", 1)  # it waits for its first step
                await blocked.until(1)
                outer = named("outer")
                assert outer.task != "worker"
                (of_task,) = outer.children
                (inner,) = of_task.children
                assert inner.name == "inner"
                for one in (of_task, inner):
                    assert one.task == "worker"
                    assert [frame.function.rpartition(".")[2] for frame in one.stack] == ["work", "here", "wait"]
                blocked.release.set()
                await task

        run(main())

    def test_the_task_that_asks_is_where_it_asks(self, spans: InMemoryExporter, run: Run) -> None:
        def ask() -> OpenSpan:
            return named("outer")

        async def inner() -> OpenSpan:
            return ask()

        async def main() -> None:
            with span("outer"):
                seen = await inner()
            assert seen.suspended_at is not None
            functions = [frame.function.rpartition(".")[2] for frame in seen.stack]
            assert functions[-5:] == ["main", "inner", "ask", "named", "open_spans"]

        run(main())

    def test_a_loop_that_is_blocked_is_seen_from_another_thread(self, spans: InMemoryExporter, run: Run) -> None:
        release, blocking = threading.Event(), threading.Event()

        def blocks() -> None:
            blocking.set()
            assert release.wait(30)

        async def main() -> None:
            with span("outer"):
                blocks()

        seen: list[OpenSpan] = []

        def look() -> None:
            assert blocking.wait(30)
            seen.append(named("outer"))
            release.set()

        watcher = threading.Thread(target=look)
        watcher.start()
        run(main())
        watcher.join()
        (outer,) = seen
        functions = [frame.function.rpartition(".")[2] for frame in outer.stack]
        assert functions == ["main", "blocks", "wait", "wait"]
        assert outer.stack[1].line == blocks.__code__.co_firstlineno + 2

    def test_async_generators_run_and_awaitables_are_followed(self, spans: InMemoryExporter, run: Run) -> None:
        async def main() -> None:
            blocked = Blocked()

            class Awaitable:
                def __await__(self) -> Any:
                    return (yield from blocked.here().__await__())

            @trace("numbers")
            async def numbers() -> AsyncIterator[int]:
                yield 1
                await span("run").run(Awaitable())
                yield 2

            async def consume() -> None:
                async for _ in numbers():
                    pass

            task = asyncio.create_task(consume(), name="consumer")
            await blocked.until(1)
            seen = named("run")
            assert seen.task == "consumer"
            functions = [frame.function.rpartition(".")[2] for frame in seen.stack]
            assert functions[0] == "consume"
            assert functions[-4:] == ["numbers", "__await__", "here", "wait"]
            blocked.release.set()
            await task

        run(main())

    def test_a_future_is_where_the_search_ends(self, spans: InMemoryExporter, run: Run) -> None:
        """A future knows who waits for it: following that would show another task's stack."""

        async def main() -> None:
            future: asyncio.Future[None] = asyncio.get_running_loop().create_future()

            async def work(name: str) -> None:
                with span(name):
                    await asyncio.shield(future)

            tasks = [asyncio.create_task(work(name), name=name) for name in ("one", "two")]
            await asyncio.sleep(0)
            for name in ("one", "two"):
                seen = named(name)
                assert seen.task == name
                assert [frame.function.rpartition(".")[2] for frame in seen.stack] == ["work"]
            future.set_result(None)
            await asyncio.gather(*tasks)

        run(main())

    def test_a_task_that_waits_for_another_is_not_it(self, spans: InMemoryExporter, run: Run) -> None:
        """Before CPython 3.12 a task shows its context only to the collector, beside those of its callbacks."""

        async def main() -> None:
            blocked = Blocked()

            async def waits(task: "asyncio.Task[None]") -> None:
                with span("waits"):
                    await task

            first = asyncio.create_task(blocked.here(), name="first")
            second = asyncio.create_task(waits(first), name="second")
            await blocked.until(1)
            await asyncio.sleep(0)
            assert named("waits").task == "second"
            blocked.release.set()
            await second

        run(main())

    def test_several_tasks_in_one_context_are_nobodys(self, spans: InMemoryExporter, run: Run) -> None:
        import contextvars

        async def main() -> None:
            blocked = Blocked()
            context = contextvars.copy_context()

            async def work() -> None:
                with span("work"):
                    await blocked.here()

            loop = asyncio.get_running_loop()
            tasks = [loop.create_task(coroutine, context=context) for coroutine in (work(), blocked.here())]
            await blocked.until(2)
            assert (named("work").task, named("work").stack) == (None, ())
            blocked.release.set()
            await asyncio.gather(*tasks)

        run(main())

    def test_tasks_of_loops_in_other_threads_are_found(self, spans: InMemoryExporter) -> None:
        started, release = threading.Event(), threading.Event()

        async def elsewhere() -> None:
            with span("elsewhere"):
                started.set()
                await asyncio.to_thread(release.wait, 30)

        async def main() -> None:
            await asyncio.create_task(elsewhere(), name="far away")

        thread = threading.Thread(target=asyncio.run, args=(main(),))
        thread.start()
        try:
            assert started.wait(30)
            assert named("elsewhere").task == "far away"
        finally:
            release.set()
            thread.join()

    def test_spans_without_a_task(self, spans: InMemoryExporter, run: Run) -> None:
        async def main() -> None:
            by_hand = new_span("by hand")
            started, release = threading.Event(), threading.Event()

            def in_thread() -> None:
                with span("in a thread"):
                    started.set()
                    release.wait(30)

            async with anyio.create_task_group() as group:
                group.start_soon(anyio.to_thread.run_sync, in_thread)
                assert await asyncio.to_thread(started.wait, 30)
                assert named("by hand").task is named("in a thread").task is None
                assert named("in a thread").suspended_at is None
                release.set()
            by_hand.end()

        run(main())

    def test_a_span_future_is_in_its_task(self, spans: InMemoryExporter, run: Run) -> None:
        async def main() -> None:
            blocked = Blocked()
            future = span_future("future", blocked.here())
            await blocked.until(1)
            assert named("future").task is not None
            assert [frame.function for frame in named("future").stack][:1] == ["Blocked.here"]
            blocked.release.set()
            await future

        run(main())

    def test_nothing_is_kept_alive(self, spans: InMemoryExporter, run: Run) -> None:
        import weakref

        class Held:
            pass

        async def main() -> None:
            blocked = Blocked()

            async def work(held: Held) -> None:
                with span("work"):
                    await blocked.here()

            held = Held()
            gone = weakref.ref(held)
            task = asyncio.create_task(work(held))
            del held
            await blocked.until(1)
            seen = open_spans()
            blocked.release.set()
            await task
            del task
            gc.collect()
            assert gone() is None
            assert seen[0].task

        run(main())


class TestText:
    def test_a_tree_that_a_person_can_read(self, spans: InMemoryExporter, run: Run) -> None:
        async def main() -> None:
            blocked = Blocked()

            async def load() -> None:
                with span("checkout", kind="consumer"), span("load"):
                    await blocked.here()

            task = asyncio.create_task(load(), name="loader")
            await blocked.until(1)
            seen = open_spans()
            first, checkout, line = str(seen).splitlines()
            assert first == "2 open spans"
            root, (_, inner) = seen[0], [*seen.walk()]
            assert checkout == f"checkout  {root.age_s:.3f} s  consumer  task 'loader'  trace {root.trace_id}"
            own, library = inner[1].stack[-2:]
            assert line == f"  load  {inner[1].age_s:.3f} s  task 'loader' at {own}, in {library}"
            blocked.release.set()
            await task

        run(main())

    def test_nothing_open_says_so(self) -> None:
        assert str(open_spans()) == "0 open spans"
        assert isinstance(open_spans(), OpenSpans)

    def test_names_cannot_break_out_of_their_line(self, spans: InMemoryExporter) -> None:
        with span("two\nlines \x1b[31m"):
            _, line = str(open_spans()).splitlines()
            assert line.startswith("two\\nlines \\x1b[31m  ")
            assert "two\\nlines" in repr(open_spans()[0])


def test_without_asyncio_none_is_imported() -> None:
    run_quietly(
        """
        import sys
        import rvh_trace
        rvh_trace.init_tracing("shop", exporter="none")
        with rvh_trace.span("outer"):
            str(rvh_trace.open_spans())
        assert "asyncio" not in sys.modules
        """
    )
