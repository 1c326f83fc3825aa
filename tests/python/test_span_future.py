"""`span_future`: a Rust future made awaitable, with a Python awaitable inside it."""

import asyncio
import contextvars
import gc
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
from interpreter import run_quietly, run_script

from rvh_trace import current_span, extract, new_span, span, span_future
from rvh_trace.testing import InMemoryExporter

Run = Callable[[Coroutine[Any, Any, Any]], Any]


class Custom:
    def __await__(self) -> Any:
        yield from asyncio.sleep(0).__await__()
        return current_span().context.span_id


def test_gives_the_result_and_one_span(spans: InMemoryExporter, run: Run) -> None:
    async def main() -> None:
        with span("outer"):
            assert await span_future("load", asyncio.sleep(0, "row"), {"key": 7}, kind="client", shard=3) == "row"

    run(main())
    load = spans.one("load")
    assert load.is_child_of(spans.one("outer"))
    assert (load.kind, load.attributes, load.status) == ("client", {"key": 7, "shard": 3}, "unset")


@pytest.mark.parametrize("result", [None, (), (1, 2), StopIteration(3), ValueError("returned"), [4]], ids=repr)
def test_every_result_is_the_same_object(run: Run, result: object) -> None:
    async def load() -> object:
        return result

    async def main() -> None:
        assert await span_future("load", load()) is result

    run(main())


def test_the_span_is_current_in_the_awaitable_and_not_around_it(spans: InMemoryExporter, run: Run) -> None:
    async def load() -> str:
        with span("inside"):
            await asyncio.sleep(0)
        return current_span().context.span_id

    async def main() -> None:
        with span("outer") as outer:
            future = span_future("load", load())
            assert current_span() is outer
            assert await future == spans_id_of("load")
            assert current_span() is outer

    def spans_id_of(name: str) -> str:
        return spans.one(name).span_id

    run(main())
    assert spans.one("inside").is_child_of(spans.one("load"))


def test_context_variables_of_the_caller_are_seen_and_its_own_kept(run: Run) -> None:
    variable = contextvars.ContextVar("variable", default="default")

    async def load() -> str:
        seen = variable.get()
        variable.set("changed inside")
        return seen

    async def main() -> None:
        variable.set("caller")
        assert await span_future("load", load()) == "caller"
        assert variable.get() == "caller"

    run(main())


def test_an_exception_is_the_same_object_and_recorded(spans: InMemoryExporter, run: Run) -> None:
    error = LookupError("no row")

    async def load() -> None:
        await asyncio.sleep(0)
        raise error

    async def main() -> None:
        with pytest.raises(LookupError) as caught:
            await span_future("load", load())
        assert caught.value is error

    run(main())
    assert (spans[0].status, spans[0].status_description) == ("error", "no row")
    assert spans[0].attributes == {"error.type": "LookupError"}
    assert "in load" in str(spans[0].events[0].attributes["exception.stacktrace"])


def test_cancelling_it_cancels_the_awaitable(spans: InMemoryExporter, run: Run) -> None:
    async def main() -> None:
        started, stopped = asyncio.Event(), asyncio.Event()

        async def load() -> None:
            started.set()
            try:
                await asyncio.Event().wait()
            finally:
                stopped.set()

        async def outer() -> None:
            await span_future("load", load())

        task = asyncio.create_task(outer())
        await started.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await stopped.wait()
        await asyncio.sleep(0)

    run(main())
    assert (spans[0].status, spans[0].attributes) == ("unset", {"rvh_trace.outcome": "cancelled"})


def test_an_awaitable_that_is_cancelled_inside_cancels_it(spans: InMemoryExporter, run: Run) -> None:
    async def main() -> None:
        async def load() -> None:
            raise asyncio.CancelledError

        with pytest.raises(asyncio.CancelledError):
            await span_future("load", load())

        never: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        future = span_future("never", never)
        never.cancel()
        with pytest.raises(asyncio.CancelledError):
            await future

    run(main())
    for name in ("load", "never"):
        assert spans.one(name).attributes == {"rvh_trace.outcome": "cancelled"}
        assert spans.one(name).status == "unset"


def test_a_timeout_around_it_works(spans: InMemoryExporter, run: Run) -> None:
    async def main() -> None:
        stopped = asyncio.Event()

        async def load() -> None:
            try:
                await asyncio.Event().wait()
            finally:
                stopped.set()

        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await span_future("load", load())
        await stopped.wait()
        await asyncio.sleep(0)

    run(main())
    assert spans.one("load").attributes == {"rvh_trace.outcome": "cancelled"}


def test_an_awaitable_that_swallows_the_cancellation_is_no_error(spans: InMemoryExporter, run: Run) -> None:
    async def main() -> None:
        started, finished = asyncio.Event(), asyncio.Event()

        async def load() -> str:
            started.set()
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                finished.set()
            return "survived"

        future = span_future("load", load())
        await started.wait()
        future.cancel()
        with pytest.raises(asyncio.CancelledError):
            await future
        await finished.wait()
        await asyncio.sleep(0)

    run(main())
    assert spans.one("load").status == "unset"


def test_futures_tasks_and_custom_awaitables_will_do(spans: InMemoryExporter, run: Run) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[str] = loop.create_future()
        loop.call_soon(future.set_result, "future")
        assert await span_future("future", future) == "future"
        assert await span_future("task", asyncio.create_task(asyncio.sleep(0, "task"))) == "task"
        assert await span_future("custom", Custom()) == spans.one("custom").span_id
        assert await span_future("run", span("inner").run(asyncio.sleep(0, "nested"))) == "nested"
        assert await span_future("outer", span_future("future inside", asyncio.sleep(0, 1))) == 1

    run(main())
    assert spans.one("inner").is_child_of(spans.one("run"))


def test_many_at_once_come_back_each_with_its_own(spans: InMemoryExporter, run: Run) -> None:
    async def load(number: int) -> int:
        await asyncio.sleep(0)
        current_span().set_attribute("number", number)
        return number

    async def main() -> None:
        assert await asyncio.gather(*(span_future("load", load(n)) for n in range(50))) == list(range(50))

    run(main())
    assert sorted(one.attributes["number"] for one in spans) == list(range(50))  # type: ignore[type-var]  # pyright: ignore[reportArgumentType]


def test_links_are_taken(spans: InMemoryExporter, run: Run) -> None:
    other = new_span("other")
    remote = extract({"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"})

    async def main() -> None:
        await span_future("load", asyncio.sleep(0), links=[other, (remote, {"why": "remote"})])

    run(main())
    assert [link.span_id for link in spans.one("load").links] == [other.context.span_id, "b7ad6b7169203331"]


def test_the_span_has_ended_when_the_caller_goes_on(spans: InMemoryExporter, run: Run) -> None:
    async def main() -> None:
        for number in range(20):
            await span_future("load", asyncio.sleep(0))
            assert len(spans) == number + 1

    run(main())


def test_one_that_nobody_awaits_still_ends_its_span(spans: InMemoryExporter, run: Run) -> None:
    async def main() -> None:
        done = asyncio.Event()

        async def load() -> None:
            done.set()

        span_future("load", load())
        gc.collect()
        await done.wait()
        await asyncio.sleep(0)
        await asyncio.sleep(0)

    run(main())
    assert [one.name for one in spans] == ["load"]


def test_without_a_loop_it_is_a_runtime_error() -> None:
    coroutine = asyncio.sleep(0)
    with pytest.raises(RuntimeError, match="loop"):
        span_future("load", coroutine)
    coroutine.close()


def test_what_is_not_awaitable_is_a_type_error(run: Run) -> None:
    async def main() -> None:
        with pytest.raises(TypeError):
            await span_future("load", 7)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]

    run(main())


needs_proc = pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="counts threads in /proc")


@needs_proc
def test_tokio_starts_with_the_first_call_and_not_before() -> None:
    run_quietly(
        """
        import asyncio, os
        import rvh_trace
        from rvh_trace import span, span_future
        threads = lambda: len(os.listdir("/proc/self/task"))
        assert threads() == 1, "threads at import"

        async def main():
            async with span("op"):
                await span("op").run(asyncio.sleep(0))
            assert threads() == 1, "threads without span_future"
            await span_future("load", asyncio.sleep(0))
            assert threads() > 1
        asyncio.run(main())
        """
    )


def test_a_loop_that_ends_under_a_pending_one_prints_nothing() -> None:
    run_quietly(
        """
        import asyncio
        from rvh_trace import span_future
        from rvh_trace.testing import InMemoryExporter

        async def forever():
            await asyncio.Event().wait()

        async def main():
            pending = span_future("load", forever())
            await asyncio.sleep(0)

        with InMemoryExporter() as spans:
            for _ in range(5):
                asyncio.run(main())
            assert len(spans) == 5, spans
            assert {one.status for one in spans} == {"unset"}
        """
    )


def test_it_works_in_one_loop_after_another_and_under_uvloop(spans: InMemoryExporter) -> None:
    import uvloop

    async def main() -> str:
        return await span_future("load", asyncio.sleep(0, "row"))

    for factory in (asyncio.new_event_loop, uvloop.new_event_loop, asyncio.new_event_loop):
        with asyncio.Runner(loop_factory=factory) as runner:
            assert runner.run(main()) == "row"
    assert len(spans) == 3


def test_in_a_forked_child_it_says_why_it_cannot_work() -> None:
    finished = run_script(
        """
        import asyncio, os
        from rvh_trace import span_future

        async def load():
            return await span_future("load", asyncio.sleep(0, "row"))

        assert asyncio.run(load()) == "row"
        pid = os.fork()
        if not pid:
            coroutine = asyncio.sleep(0)
            async def attempt():
                span_future("load", coroutine)
            try:
                asyncio.run(attempt())
            except RuntimeError as error:
                coroutine.close()
                os._exit(7 if "fork" in str(error) else 8)
            os._exit(9)
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
        """,
        options=("-W", "ignore::DeprecationWarning"),
    )
    assert (finished.returncode, finished.stdout, finished.stderr) == (0, "7\n", "")
