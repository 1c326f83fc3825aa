"""`install_task_factory`: tasks created inside a recorded span become child spans, and stay tasks otherwise."""

import asyncio
import contextvars
import gc
import inspect
import sys
from collections.abc import Callable, Coroutine, Generator, Iterator
from typing import Any

import anyio
import pytest
import uvloop
from interpreter import run_quietly, run_script

from rvh_trace import current_span, install_task_factory, span, uninstall_task_factory
from rvh_trace.testing import FinishedSpan, InMemoryExporter

Run = Callable[[Coroutine[Any, Any, Any]], Any]


@pytest.fixture(params=[asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Iterator[Run]:
    """Runs a coroutine on a loop with our factory; the loop must have nothing to complain about."""
    complaints: list[dict[str, Any]] = []

    def run_checked(main: Coroutine[Any, Any, Any]) -> Any:
        async def checked() -> Any:
            asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
            install_task_factory()
            return await main

        with asyncio.Runner(loop_factory=request.param) as runner:
            return runner.run(checked())

    yield run_checked
    assert complaints == []


async def work(result: object = None) -> object:
    await asyncio.sleep(0)
    return result


TIMINGS = frozenset(f"rvh_trace.task.{name}" for name in ("queue_time", "run_time", "suspended_time", "steps"))


def untimed(task: FinishedSpan) -> dict[str, object]:
    """The attributes of a task's span without its timings, which must be there."""
    assert task.attributes.keys() >= TIMINGS
    return {name: value for name, value in task.attributes.items() if name not in TIMINGS}


class Worker:
    async def step(self) -> str:
        return current_span().context.span_id


class TestSpans:
    def test_a_task_inside_a_span_is_a_child_named_after_its_coroutine(self, spans: InMemoryExporter, run: Run) -> None:
        async def main() -> None:
            with span("outer"):
                assert await asyncio.create_task(work("result")) == "result"
                assert await asyncio.create_task(Worker().step()) == spans.one("Worker.step").span_id
                assert await asyncio.ensure_future(work()) is None
                assert await asyncio.get_running_loop().create_task(work(3)) == 3

        run(main())
        outer = spans.one("outer")
        assert [one.name for one in spans.children(outer)] == ["work", "Worker.step", "work", "work"]
        assert {(one.kind, one.status) for one in spans.children(outer)} == {("internal", "unset")}

    def test_gather_groups_and_wait_make_spans_too(self, spans: InMemoryExporter, run: Run) -> None:
        async def main() -> None:
            with span("outer"):
                assert await asyncio.gather(work(1), work(2)) == [1, 2]
                async with asyncio.TaskGroup() as group:
                    group.create_task(work())
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(work)
                await asyncio.wait({asyncio.create_task(work())})
                async with asyncio.timeout(60):
                    await asyncio.shield(work())

        run(main())
        assert len(spans.children(spans.one("outer"))) == 6

    def test_the_span_is_current_in_the_task_and_children_are_its(self, spans: InMemoryExporter, run: Run) -> None:
        async def outer_task() -> None:
            inside = current_span()
            await asyncio.sleep(0)
            assert current_span() is inside
            inside.set_attribute("set", "inside")
            with span("inner"):
                await asyncio.create_task(work())

        async def main() -> None:
            with span("outer") as outer:
                task = asyncio.create_task(outer_task())
                assert current_span() is outer
                await task
                assert current_span() is outer

        run(main())
        (task,) = spans.children(spans.one("outer"))
        assert untimed(task) == {"set": "inside"}
        assert spans.one("inner").is_child_of(task)
        assert spans.one("work").is_child_of(spans.one("inner"))

    def test_it_lasts_from_creation_to_the_end_of_the_task(self, spans: InMemoryExporter, run: Run) -> None:
        async def main() -> None:
            with span("outer"):
                task = asyncio.create_task(work())
                with span("before it ran"):
                    pass
                await task
                with span("after it ended"):
                    pass

        run(main())
        one = spans.one("work")
        assert one.start_unix_ns <= spans.one("before it ran").start_unix_ns
        assert one.end_unix_ns <= spans.one("after it ended").start_unix_ns

    def test_tasks_outside_of_a_recorded_span_are_left_alone(self, spans: InMemoryExporter, run: Run) -> None:
        async def main() -> None:
            coroutine = work()
            task = asyncio.create_task(coroutine)
            assert task.get_coro() is coroutine
            await task
            with span("ended") as ended:
                ended.end()
                coroutine = work()
                task = asyncio.create_task(coroutine)
                assert task.get_coro() is coroutine
                await task

        run(main())
        assert [one.name for one in spans] == ["ended"]

    def test_tasks_inside_a_span_that_is_not_sampled_are_left_alone(self, run: Run) -> None:
        async def main() -> None:
            with span("outer"):
                coroutine = work()
                task = asyncio.create_task(coroutine)
                assert task.get_coro() is coroutine
                await task

        with InMemoryExporter(sampler="always_off") as spans:
            run(main())
            assert list(spans) == []


class TestOutcomes:
    def test_an_exception_is_the_same_object_and_makes_an_error(self, spans: InMemoryExporter, run: Run) -> None:
        error = LookupError("none")

        async def fail() -> None:
            await asyncio.sleep(0)
            raise error

        async def main() -> None:
            with span("outer"):
                task = asyncio.create_task(fail())
                with pytest.raises(LookupError) as caught:
                    await task
                assert caught.value is error
                assert task.exception() is error

        run(main())
        (task,) = spans.children(spans.one("outer"))
        assert (task.status, task.status_description) == ("error", "none")
        assert untimed(task) == {"error.type": "LookupError"}
        assert spans.one("outer").status == "unset"

    @pytest.mark.parametrize("started", [False, True])
    def test_cancellation_is_visible_and_not_an_error(self, spans: InMemoryExporter, run: Run, started: bool) -> None:
        async def main() -> None:
            with span("outer"):
                task = asyncio.create_task(work_forever())
                if started:
                    await asyncio.sleep(0)
                assert task.cancel("because")
                with pytest.raises(asyncio.CancelledError):
                    await task
                assert task.cancelled()

        run(main())
        assert untimed(spans.one("work_forever")) == {
            "rvh_trace.outcome": "cancelled" if started else "never_started",
            "rvh_trace.task.cancellation": "requested",
            "rvh_trace.task.cancel_message": "because",
        }
        assert (spans.one("work_forever").status, spans.one("work_forever").events) == ("unset", ())

    def test_a_task_that_handles_its_cancellation_goes_on(self, spans: InMemoryExporter, run: Run) -> None:
        async def stubborn() -> str:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                await asyncio.sleep(0)
            return "survived"

        async def main() -> None:
            with span("outer"):
                task = asyncio.create_task(stubborn())
                await asyncio.sleep(0)
                task.cancel()
                assert await task == "survived"

        run(main())
        assert untimed(spans.children(spans.one("outer"))[0]) == {}

    @pytest.mark.parametrize("result", [None, (), (1, 2), StopIteration(3), ValueError("returned"), [4]], ids=repr)
    def test_every_result_is_the_same_object(self, spans: InMemoryExporter, run: Run, result: object) -> None:
        async def main() -> None:
            with span("outer"):
                assert await asyncio.create_task(work(result)) is result

        run(main())
        assert spans.one("work").status == "unset"

    def test_a_group_cancels_the_others_when_one_fails(self, spans: InMemoryExporter, run: Run) -> None:
        async def fail() -> None:
            raise LookupError("none")

        async def main() -> None:
            with pytest.raises(ExceptionGroup), span("outer"):  # noqa: PT012
                async with asyncio.TaskGroup() as group:
                    group.create_task(work_forever())
                    await asyncio.sleep(0)
                    group.create_task(fail())

        run(main())
        assert untimed(spans.one("work_forever")) == {
            "rvh_trace.outcome": "cancelled",
            "rvh_trace.task.cancellation": "requested",
        }
        assert spans.one("outer").attributes == {"error.type": "ExceptionGroup"}


async def work_forever() -> None:
    await asyncio.Event().wait()


class TestTaskStaysATask:
    def test_name_and_context_are_taken(self, spans: InMemoryExporter, run: Run) -> None:
        variable = contextvars.ContextVar("variable", default="default")

        async def read() -> str:
            return variable.get()

        async def main() -> None:
            context = contextvars.copy_context()
            context.run(variable.set, "given")
            with span("outer"):
                task = asyncio.create_task(read(), name="a name", context=context)
                assert task.get_name() == "a name"
                assert await task == "given"
            assert variable.get() == "default"

        run(main())
        assert len(spans.children(spans.one("outer"))) == 1

    @pytest.mark.parametrize("factory", ["asyncio.new_event_loop", "uvloop.new_event_loop"])
    def test_tasks_that_share_a_context_keep_their_own_spans(self, factory: str) -> None:
        # In a process of its own: a circle of abandoned spans once hung the interpreter here.
        run_quietly(
            f"""
            import asyncio, contextvars, uvloop
            from rvh_trace import current_span, install_task_factory, span
            from rvh_trace.testing import InMemoryExporter

            async def share(name):
                mine = current_span()
                for _ in range(3):
                    await asyncio.sleep(0)
                    assert current_span() is mine
                    with span("in " + name) as inside:
                        await asyncio.sleep(0)
                        assert current_span() is inside
                    assert current_span() is mine

            async def main():
                install_task_factory()
                for names in ("a", "ab"):
                    with span("outer") as outer:
                        context = contextvars.copy_context()
                        tasks = [asyncio.create_task(share(name), context=context) for name in names]
                        await asyncio.gather(*tasks)
                        assert context.run(current_span) is outer

            with InMemoryExporter() as spans, asyncio.Runner(loop_factory={factory}) as runner:
                runner.run(main())
                shared = {{one.span_id for one in spans.named("share")}}
                assert len(shared) == 3, spans
                assert {{one.parent_span_id for name in "ab" for one in spans.named("in " + name)}} == shared
            """
        )

    def test_get_coro_get_stack_and_repr_show_the_coroutine(self, spans: InMemoryExporter, run: Run) -> None:
        async def main() -> None:
            with span("outer"):
                task = asyncio.create_task(work_forever())
                await asyncio.sleep(0)
                assert "work_forever" in repr(task)
                assert "work_forever" in repr(task.get_coro())
                assert [frame.f_code.co_name for frame in task.get_stack()][:1] == ["work_forever"]
                coroutine: Any = task.get_coro()
                assert (coroutine.__name__, coroutine.__qualname__) == ("work_forever", "work_forever")
                assert coroutine.cr_running is False
                assert inspect.isawaitable(coroutine)
                assert asyncio.iscoroutine(coroutine)
                task.print_stack(file=open_null())
                task.cancel()

        run(main())

    def test_a_generator_based_or_custom_coroutine_runs(self, spans: InMemoryExporter, run: Run) -> None:
        class Custom(Coroutine[Any, Any, str]):
            def __init__(self) -> None:
                self._inner = work("custom")

            def send(self, value: Any) -> Any:
                return self._inner.send(value)

            def throw(self, *args: Any) -> Any:
                return self._inner.throw(*args)

            def close(self) -> None:
                self._inner.close()

            def __await__(self) -> Generator[Any, Any, Any]:
                return self._inner.__await__()

        async def main() -> None:
            with span("outer"):
                assert await asyncio.get_running_loop().create_task(Custom()) == "custom"

        run(main())
        (task,) = spans.children(spans.one("outer"))
        assert task.name.endswith("Custom")

    def test_a_span_run_may_be_a_task(self, spans: InMemoryExporter, run: Run) -> None:
        async def main() -> None:
            with span("outer"):
                assert await asyncio.create_task(span("load").run(work("row"))) == "row"

        run(main())
        assert spans.one("load").trace_id == spans.one("outer").trace_id

    @pytest.mark.skipif(sys.version_info < (3, 12), reason="eager tasks came with 3.12")
    @pytest.mark.parametrize("finishes", [True, False])
    def test_eager_tasks_have_spans_and_leave_the_creator_its_own(
        self, spans: InMemoryExporter, finishes: bool
    ) -> None:
        async def eager() -> str:
            mine = current_span()
            if not finishes:
                await asyncio.sleep(0)
                assert current_span() is mine
            return mine.context.span_id

        async def main() -> None:
            loop = asyncio.get_running_loop()
            loop.set_task_factory(asyncio.eager_task_factory)  # type: ignore[attr-defined, arg-type]  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType, reportUnknownArgumentType]
            install_task_factory()
            with span("outer") as outer:
                task = asyncio.create_task(eager())
                assert task.done() is finishes
                assert current_span() is outer
                mine = await task
            (child,) = spans.children(spans.one("outer"))
            assert child.span_id == mine

        asyncio.run(main())  # uvloop 0.23 cannot run CPython's eager factory, with or without us


class TestFactory:
    def test_an_existing_factory_is_called_with_what_we_were_given(self, spans: InMemoryExporter) -> None:
        calls: list[dict[str, Any]] = []

        def factory(loop: Any, coroutine: Any, **kwargs: Any) -> "asyncio.Task[Any]":
            calls.append(dict(kwargs))
            kwargs.pop("flavour", None)
            return asyncio.Task(coroutine, loop=loop, **kwargs)

        async def main() -> None:
            loop = asyncio.get_running_loop()
            loop.set_task_factory(factory)
            install_task_factory()
            with span("outer"):
                assert await loop.create_task(work("one")) == "one"
                ours: Any = loop.get_task_factory()
                assert await ours(loop, work("two"), flavour="odd", name="named") == "two"
            assert await loop.create_task(work("three")) == "three"
            uninstall_task_factory()
            assert loop.get_task_factory() is factory

        asyncio.run(main())
        assert len(calls) >= 3  # and what `asyncio.run` creates at its end
        assert calls[1] == {"flavour": "odd", "name": "named"}
        assert len(spans.named("work")) == 2

    def test_installing_twice_is_installing_once(self, spans: InMemoryExporter) -> None:
        async def main() -> None:
            loop = asyncio.get_running_loop()
            install_task_factory()
            first = loop.get_task_factory()
            install_task_factory(loop)
            assert loop.get_task_factory() is first
            with span("outer"):
                await asyncio.create_task(work())
            uninstall_task_factory()
            assert loop.get_task_factory() is None

        asyncio.run(main())
        assert len(spans.named("work")) == 1

    def test_uninstalling_what_is_not_installed_leaves_others_alone(self) -> None:
        def factory(loop: Any, coroutine: Any, **kwargs: Any) -> "asyncio.Task[Any]":
            return asyncio.Task(coroutine, loop=loop, **kwargs)

        async def main() -> None:
            loop = asyncio.get_running_loop()
            uninstall_task_factory()
            loop.set_task_factory(factory)
            uninstall_task_factory()
            assert loop.get_task_factory() is factory

        asyncio.run(main())

    def test_after_uninstalling_tasks_have_no_spans_and_running_ones_keep_theirs(self, spans: InMemoryExporter) -> None:
        async def main() -> None:
            install_task_factory()
            with span("outer"):
                task = asyncio.create_task(work())
                uninstall_task_factory()
                await task
                await asyncio.create_task(work())

        asyncio.run(main())
        assert len(spans.named("work")) == 1

    def test_a_factory_put_on_top_of_ours_still_works_after_uninstalling(self, spans: InMemoryExporter) -> None:
        async def main() -> None:
            loop = asyncio.get_running_loop()
            install_task_factory()
            ours: Any = loop.get_task_factory()

            def on_top(loop: Any, coroutine: Any, **kwargs: Any) -> Any:
                return ours(loop, coroutine, **kwargs)

            loop.set_task_factory(on_top)
            with span("outer"):
                await asyncio.create_task(work())
                uninstall_task_factory()
                assert loop.get_task_factory() is on_top
                await asyncio.create_task(work())

        asyncio.run(main())
        assert len(spans.named("outer")) == 1

    def test_a_loop_that_does_not_run_may_be_given(self, spans: InMemoryExporter) -> None:
        async def main() -> None:
            with span("outer"):
                await asyncio.create_task(work())

        loop = asyncio.new_event_loop()
        try:
            install_task_factory(loop)
            loop.run_until_complete(main())
        finally:
            loop.close()
        assert len(spans.named("work")) == 1

    @pytest.mark.parametrize("call", [install_task_factory, uninstall_task_factory])
    def test_without_a_loop_it_says_what_to_do(self, call: Callable[[], None]) -> None:
        with pytest.raises(RuntimeError, match=r"loop"):
            call()

    def test_an_unknown_keyword_is_the_type_error_that_asyncio_raises(self, spans: InMemoryExporter) -> None:
        async def main() -> None:
            install_task_factory()
            loop = asyncio.get_running_loop()
            factory: Any = loop.get_task_factory()
            coroutine = work()
            with span("outer"), pytest.raises(TypeError, match="flavour"):
                factory(loop, coroutine, flavour="odd")
            coroutine.close()

        asyncio.run(main())


class TestTheProcessStaysQuiet:
    def test_debug_mode_works(self) -> None:
        run_quietly(
            """
            import asyncio
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

            with InMemoryExporter() as spans:
                asyncio.run(main(), debug=True)
                assert len(spans.named("work")) == 2
            """,
            PYTHONASYNCIODEBUG="1",
        )

    def test_a_task_that_never_ran_warns_as_without_us(self) -> None:
        script = """
            import asyncio, gc
            from rvh_trace import install_task_factory, span
            from rvh_trace.testing import InMemoryExporter

            async def work():
                pass

            async def main(loop):
                if {install}:
                    install_task_factory()
                with span("outer"):
                    loop.create_task(work())
                    loop.stop()

            InMemoryExporter().install()
            loop = asyncio.new_event_loop()
            try:
                loop.run_until_complete(main(loop))
            except RuntimeError:
                pass
            loop._ready.clear()
            loop.close()
            gc.collect()
            """
        told = [run_script(script.format(install=install), options=()) for install in (False, True)]
        assert all(one.returncode == 0 for one in told)
        for expected in ("Task was destroyed but it is pending", "'work' was never awaited"):
            assert all(expected in one.stderr for one in told), told

    def test_a_task_exception_that_nobody_retrieved_is_logged_once(self) -> None:
        finished = run_script(
            """
            import asyncio, gc
            from rvh_trace import install_task_factory, span
            from rvh_trace.testing import InMemoryExporter

            async def fail():
                raise LookupError("nobody asks")

            async def main():
                install_task_factory()
                with span("outer"):
                    asyncio.create_task(fail())
                    await asyncio.sleep(0)
                gc.collect()

            InMemoryExporter().install()
            asyncio.run(main())
            """
        )
        assert finished.returncode == 0
        assert finished.stderr.count("Task exception was never retrieved") == 1
        assert finished.stderr.count("LookupError: nobody asks") == 1

    def test_no_task_is_kept_alive(self, spans: InMemoryExporter, run: Run) -> None:
        import weakref

        async def main() -> None:
            with span("outer"):
                task = asyncio.create_task(work())
                gone = weakref.ref(task)
                await task
                del task
            await asyncio.sleep(0)
            gc.collect()
            assert gone() is None

        run(main())


def open_null() -> Any:
    import io

    return io.StringIO()


def test_a_task_that_is_destroyed_while_pending_ends_its_span_and_frees_its_context() -> None:
    run_quietly(
        """
        import asyncio, contextvars, gc, weakref
        from rvh_trace import install_task_factory, span
        from rvh_trace.testing import InMemoryExporter

        class Held:
            pass

        variable = contextvars.ContextVar("variable")
        loop = asyncio.new_event_loop()
        loop.set_exception_handler(lambda loop, context: None)

        async def main():
            install_task_factory()
            with span("outer"):
                variable.set(held := Held())
                task = asyncio.create_task(asyncio.Event().wait())
                await asyncio.sleep(0)
            return weakref.ref(held)

        with InMemoryExporter() as spans:
            held = contextvars.Context().run(loop.run_until_complete, main())
            loop.close()
            gc.collect()
            assert held() is None
            assert sorted(one.name for one in spans) == ["Event.wait", "outer"]
        """,
        options=(),
    )
