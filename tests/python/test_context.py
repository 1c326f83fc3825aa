"""What is current where: tasks, threads, callbacks, and generators that are closed by somebody else."""

import asyncio
import contextvars
import gc
import sys
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Generator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from interpreter import run_quietly

from rvh_trace import current_span, new_span, span, use_context
from rvh_trace.testing import InMemoryExporter

Run = Callable[[Coroutine[Any, Any, Any]], Any]


class TestTasksAndThreads:
    def test_a_task_inherits_the_span_and_changes_it_only_for_itself(self, spans: InMemoryExporter, run: Run) -> None:
        async def work(name: str) -> None:
            with span(name):
                await asyncio.sleep(0)

        async def main() -> None:
            with span("outer") as outer:
                task = asyncio.create_task(work("task"))
                await asyncio.sleep(0)
                assert current_span() is outer
                await task
                await asyncio.gather(work("gathered"), work("gathered"))
                async with asyncio.TaskGroup() as group:
                    group.create_task(work("grouped"))
                async with asyncio.timeout(60):
                    await work("in time")
                await asyncio.wait_for(work("waited for"), 60)
                assert current_span() is outer

        run(main())
        outer = spans.one("outer")
        names = sorted(one.name for one in spans.children(outer))
        assert names == ["gathered", "gathered", "grouped", "in time", "task", "waited for"]

    def test_a_task_that_outlives_the_span_keeps_it_as_parent_without_holding_it_open(
        self, spans: InMemoryExporter, run: Run
    ) -> None:
        async def work() -> None:
            await asyncio.sleep(0)
            with span("late"):
                pass

        async def main() -> None:
            with span("outer"):
                task = asyncio.create_task(work())
            await task

        run(main())
        assert [one.name for one in spans] == ["outer", "late"]
        assert spans.one("late").is_child_of(spans.one("outer"))

    def test_to_thread_inherits_and_executors_and_threads_start_clean(self, spans: InMemoryExporter, run: Run) -> None:
        def name_of_current() -> str:
            return current_span().context.span_id

        async def main() -> None:
            with span("outer") as outer, ThreadPoolExecutor(1) as pool:
                assert await asyncio.to_thread(name_of_current) == outer.context.span_id
                assert await asyncio.get_running_loop().run_in_executor(pool, name_of_current) == "0" * 16
                assert pool.submit(contextvars.copy_context().run, name_of_current).result() == outer.context.span_id
                seen: list[str] = []
                thread = threading.Thread(target=lambda: seen.append(name_of_current()))
                thread.start()
                thread.join()
                assert current_span() is outer

        run(main())

    def test_callbacks_inherit(self, spans: InMemoryExporter, run: Run) -> None:
        async def main() -> None:
            loop = asyncio.get_running_loop()
            seen: asyncio.Future[Any] = loop.create_future()
            with span("outer") as outer:
                loop.call_soon(lambda: seen.set_result(current_span()))
            assert await seen is outer

        run(main())

    def test_a_span_entered_in_one_task_and_left_in_another_ends_and_leaks_nowhere(
        self, spans: InMemoryExporter, run: Run
    ) -> None:
        made = span("moved")

        async def enter() -> None:
            made.__enter__()

        async def leave() -> None:
            made.__exit__(None, None, None)
            assert not current_span().context.is_valid

        async def main() -> None:
            await asyncio.create_task(enter())
            await asyncio.create_task(leave())
            assert not current_span().context.is_valid

        run(main())
        assert [one.name for one in spans] == ["moved"]

    def test_scopes_left_in_the_wrong_order_neither_raise_nor_lose_a_span(self, spans: InMemoryExporter) -> None:
        outer, inner = span("outer"), span("inner")
        outer.__enter__()
        inner.__enter__()
        outer.__exit__(None, None, None)
        assert inner.is_recording
        inner.__exit__(None, None, None)
        assert sorted(one.name for one in spans) == ["inner", "outer"]
        assert not current_span().is_recording

    def test_leaving_what_was_never_entered_is_harmless(self, spans: InMemoryExporter) -> None:
        with span("outer") as outer:
            span("never entered").__exit__(None, None, None)
            assert current_span() is outer
        assert [one.name for one in spans] == ["outer"]

    def test_one_span_entered_by_two_tasks_at_once_is_exported_once(self, spans: InMemoryExporter, run: Run) -> None:
        shared = span("shared")

        async def work() -> None:
            with shared:
                await asyncio.sleep(0)
                await asyncio.sleep(0)

        async def main() -> None:
            await asyncio.gather(work(), work())
            assert not current_span().context.is_valid

        run(main())
        assert [one.name for one in spans] == ["shared"]


async def ticks() -> AsyncGenerator[int]:
    """A plain async generator with a span open across its yields, the pattern that others fail on."""
    with span("ticks"):
        for number in range(3):
            yield number


class TestAsyncGeneratorsClosedBySomebodyElse:
    """Never "Failed to detach context", nor a line in a log, whoever closes them (pitfalls: the loudest complaint)."""

    def test_closed_by_another_task(self, spans: InMemoryExporter, run: Run, caplog: pytest.LogCaptureFixture) -> None:
        async def main() -> None:
            generator = ticks()
            await anext(generator)
            await asyncio.create_task(close(generator))
            assert not current_span().is_recording

        run(main())
        assert [(one.name, one.status) for one in spans] == [("ticks", "unset")]
        assert caplog.records == []

    def test_what_starts_after_it_was_closed_elsewhere_stays_in_the_trace(
        self, spans: InMemoryExporter, run: Run
    ) -> None:
        async def main() -> None:
            with span("outer") as outer:
                generator = ticks()
                await anext(generator)
                await asyncio.create_task(close(generator))
                with span("after"):
                    pass
                outer.set_attribute("still", "open")
            assert not current_span().is_recording

        run(main())
        assert len({one.trace_id for one in spans}) == 1
        assert spans.one("outer").attributes == {"still": "open"}

    def test_garbage_collected(self, spans: InMemoryExporter, run: Run, caplog: pytest.LogCaptureFixture) -> None:
        async def start() -> None:
            await anext(ticks())

        async def main() -> None:
            await asyncio.create_task(start())
            gc.collect()
            for _ in range(3):
                await asyncio.sleep(0)

        run(main())
        assert [(one.name, one.status) for one in spans] == [("ticks", "unset")]
        assert caplog.records == []

    def test_left_to_the_end_of_the_loop(self, spans: InMemoryExporter, run: Run) -> None:
        kept: list[Any] = []

        async def main() -> None:
            kept.append(ticks())
            await anext(kept[0])

        run(main())
        assert [(one.name, one.status) for one in spans] == [("ticks", "unset")]

    def test_garbage_collected_without_a_loop(self, spans: InMemoryExporter) -> None:
        def numbers() -> Generator[int]:
            with span("numbers"):
                yield 1

        generator = numbers()
        next(generator)
        other = contextvars.Context()
        other.run(generator.close)
        assert [(one.name, one.status) for one in spans] == [("numbers", "unset")]

    def test_consumed_by_different_tasks(self, spans: InMemoryExporter, run: Run) -> None:
        async def main() -> None:
            generator = ticks()
            for expected in range(3):
                assert await asyncio.create_task(step(generator)) == expected
            with pytest.raises(StopAsyncIteration):
                await anext(generator)

        run(main())
        assert [one.name for one in spans] == ["ticks"]

    def test_the_process_stays_quiet_whoever_closes_them(self) -> None:
        run_quietly(
            """
            import asyncio, gc, logging
            from rvh_trace import span
            from rvh_trace.testing import InMemoryExporter

            logging.basicConfig()

            async def ticks():
                with span("ticks"):
                    while True:
                        yield

            async def close(generator):
                await generator.aclose()

            async def main():
                generators = [ticks() for _ in range(30)]
                for generator in generators:
                    await anext(generator)
                await asyncio.gather(*(asyncio.create_task(close(generator)) for generator in generators[:10]))
                del generators[:20], generator
                gc.collect()
                await asyncio.sleep(0)

            with InMemoryExporter() as spans:
                asyncio.run(main(), debug=True)
                gc.collect()
                assert len(spans) == 30, len(spans)
            """
        )


class TestUseContextAcrossTasks:
    def test_left_in_another_context_is_harmless(self, spans: InMemoryExporter, run: Run) -> None:
        parent = new_span("parent")

        async def listen() -> AsyncIterator[int]:
            with use_context(parent):
                yield 1

        async def main() -> None:
            generator: Any = listen()
            await anext(generator)
            await asyncio.create_task(close(generator))

        run(main())
        parent.end()
        assert [one.name for one in spans] == ["parent"]


def test_setting_context_variables_in_finalisers_during_collection_is_safe() -> None:
    """Before 3.12 `PyContextVar_Set` is not atomic against collection: one at every allocation shows."""
    run_quietly(
        """
        import contextvars, gc
        from rvh_trace import current_span, span
        from rvh_trace.testing import InMemoryExporter

        other = contextvars.ContextVar("other", default=0)

        class Cycle:
            def __init__(self):
                self.me = self
            def __del__(self):
                other.set(other.get() + 1)
                with span("in finaliser"):
                    pass

        gc.set_threshold(1, 1, 1)
        with InMemoryExporter() as spans:
            for _ in range(2000):
                Cycle()
                with span("outer") as outer:
                    with span("inner"):
                        Cycle()
                    assert current_span() is outer
            assert not current_span().context.is_valid
            gc.disable()
            assert len(spans.named("inner")) == 2000
        """,
        options=(),
    )


async def close(generator: AsyncGenerator[Any, Any]) -> None:
    await generator.aclose()


async def step(generator: AsyncGenerator[int, Any]) -> int:
    return await anext(generator)


@pytest.mark.skipif(sys.version_info < (3, 12), reason="eager tasks came with 3.12")
def test_eager_tasks_leave_the_span_of_their_creator_current(spans: InMemoryExporter, run: Run) -> None:
    async def work() -> None:
        with span("eager"):
            await asyncio.sleep(0)

    async def main() -> None:
        asyncio.get_running_loop().set_task_factory(asyncio.eager_task_factory)  # type: ignore[attr-defined, arg-type]  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType, reportUnknownArgumentType]
        with span("outer") as outer:
            task = asyncio.create_task(work())
            assert current_span() is outer
            await task

    run(main())
    assert spans.one("eager").is_child_of(spans.one("outer"))
