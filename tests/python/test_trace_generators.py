"""Traced generators: a span from the first step to the end, current only while the body runs."""

import asyncio
import contextvars
import gc
import inspect
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Generator, Iterator
from contextlib import aclosing, asynccontextmanager, contextmanager
from typing import Any

import pytest

from rvh_trace import current_span, new_span, span, trace
from rvh_trace.testing import InMemoryExporter

Run = Callable[[Coroutine[Any, Any, Any]], Any]


@trace
def numbers(count: int) -> Generator[int, Any, str]:
    """Counts."""
    for number in range(count):
        current_span().set_attribute("last", number)
        yield number
    return "done"


@trace
async def anumbers(count: int) -> AsyncGenerator[int, Any]:
    for number in range(count):
        await asyncio.sleep(0)
        current_span().set_attribute("last", number)
        yield number


class TestGenerator:
    def test_is_one_span_with_what_the_body_did(self, spans: InMemoryExporter) -> None:
        assert list(numbers(3)) == [0, 1, 2]
        assert [(one.name, one.attributes, one.status) for one in spans] == [("numbers", {"last": 2}, "unset")]

    def test_stays_a_generator_function(self) -> None:
        assert inspect.isgeneratorfunction(numbers)
        assert inspect.isgenerator(numbers(1))
        assert str(inspect.signature(numbers)) == "(count: int) -> collections.abc.Generator[int, typing.Any, str]"
        assert (numbers.__name__, numbers.__doc__) == ("numbers", "Counts.")

    def test_is_not_current_in_the_code_that_iterates(self, spans: InMemoryExporter) -> None:
        with span("consumer") as consumer:
            for _ in numbers(2):
                assert current_span() is consumer
                with span("consumed"):
                    pass
            assert current_span() is consumer
        assert spans.one("numbers").is_child_of(spans.one("consumer"))
        assert all(one.is_child_of(spans.one("consumer")) for one in spans.named("consumed"))

    def test_a_span_inside_the_body_is_current_again_after_a_yield(self, spans: InMemoryExporter) -> None:
        @trace("outer")
        def body() -> Iterator[None]:
            with span("inner") as inner:
                yield
                assert current_span() is inner
                with span("innermost"):
                    pass
            yield

        for _ in body():
            assert not current_span().context.is_valid
        assert spans.one("innermost").is_child_of(spans.one("inner"))
        assert spans.one("inner").is_child_of(spans.one("outer"))

    def test_the_span_starts_with_the_first_step(self, spans: InMemoryExporter) -> None:
        with span("called in"):
            generator = numbers(1)
        with span("stepped in"):
            assert list(generator) == [0]
        assert spans.one("numbers").is_child_of(spans.one("stepped in"))

    def test_one_that_is_never_stepped_makes_no_span(self, spans: InMemoryExporter) -> None:
        numbers(1).close()
        numbers(1)
        gc.collect()
        assert list(spans) == []

    def test_return_value_send_and_yield_from_work(self, spans: InMemoryExporter) -> None:
        @trace
        def echo() -> Generator[Any, Any, str]:
            received: Any = None
            while received != "stop":
                received = yield received
            return "stopped"

        def delegate() -> Generator[Any, Any, str]:
            return (yield from echo())

        generator = delegate()
        assert next(generator) is None
        assert generator.send("a") == "a"
        assert generator.send(None) is None
        with pytest.raises(StopIteration) as stopped:
            generator.send("stop")
        assert stopped.value.value == "stopped"
        assert spans[0].status == "unset"

    def test_throw_reaches_the_body_which_may_handle_it(self, spans: InMemoryExporter) -> None:
        @trace
        def robust() -> Generator[str]:
            try:
                yield "first"
            except KeyError as error:
                yield f"handled {error}"

        generator = robust()
        next(generator)
        assert generator.throw(KeyError("k")) == "handled 'k'"
        assert list(generator) == []
        assert (spans[0].status, spans[0].events) == ("unset", ())

    def test_an_exception_comes_out_as_the_same_object_and_is_recorded(self, spans: InMemoryExporter) -> None:
        error = LookupError("none")

        @trace("fails")
        def fails() -> Iterator[int]:
            yield 1
            raise error

        failing, thrown_into = fails(), numbers(3)
        next(failing)
        next(thrown_into)
        for leave in (lambda: next(failing), lambda: thrown_into.throw(error)):
            with pytest.raises(LookupError) as caught:
                leave()
            assert caught.value is error
        assert [(one.status, one.status_description) for one in spans] == [("error", "none")] * 2

    def test_early_exit_ends_the_span_without_an_error_and_cleans_up(self, spans: InMemoryExporter) -> None:
        cleaned: list[bool] = []

        @trace
        def guarded() -> Generator[int]:
            try:
                yield 1
                yield 2
            finally:
                assert current_span().is_recording
                cleaned.append(True)

        generator = guarded()
        assert next(generator) == 1
        generator.close()
        assert cleaned == [True]
        assert (spans[0].status, spans[0].events, spans[0].attributes) == ("unset", (), {})
        assert not current_span().context.is_valid

    def test_one_that_is_dropped_half_way_ends(self, spans: InMemoryExporter) -> None:
        generator = numbers(3)
        next(generator)
        del generator
        gc.collect()
        assert [(one.name, one.status) for one in spans] == [("numbers", "unset")]

    def test_stop_iteration_in_the_body_is_still_a_runtime_error(self, spans: InMemoryExporter) -> None:
        @trace
        def stops() -> Iterator[int]:
            yield 1
            raise StopIteration

        with pytest.raises(RuntimeError, match="StopIteration"):
            list(stops())
        assert spans[0].attributes["error.type"] == "RuntimeError"

    def test_interleaved_generators_keep_their_own_spans(self, spans: InMemoryExporter) -> None:
        assert list(zip(numbers(3), numbers(3), strict=True)) == [(0, 0), (1, 1), (2, 2)]
        assert len({one.span_id for one in spans}) == 2
        assert [one.parent_span_id for one in spans] == [None, None]

    def test_a_traced_context_manager_function_works(self, spans: InMemoryExporter) -> None:
        @contextmanager
        @trace("managed")
        def managed() -> Iterator[int]:
            yield 1

        with managed() as value:
            assert value == 1
        with pytest.raises(KeyError), managed():
            raise KeyError
        assert [one.status for one in spans] == ["unset", "error"]

    def test_span_that_ended_while_the_generator_waited_does_not_come_back(self, spans: InMemoryExporter) -> None:
        with span("consumer"):
            generator = numbers(2)
            next(generator)
        next(generator)
        assert not current_span().context.is_valid
        generator.close()
        assert not current_span().context.is_valid


class TestAsyncGenerator:
    def test_is_one_span_with_what_the_body_did(self, spans: InMemoryExporter, run: Run) -> None:
        async def main() -> None:
            assert [number async for number in anumbers(3)] == [0, 1, 2]

        run(main())
        assert [(one.name, one.attributes, one.status) for one in spans] == [("anumbers", {"last": 2}, "unset")]

    def test_stays_an_async_generator_function(self) -> None:
        assert inspect.isasyncgenfunction(anumbers)
        assert inspect.isasyncgen(anumbers(1))

    def test_is_not_current_in_the_code_that_iterates(self, spans: InMemoryExporter, run: Run) -> None:
        async def main() -> None:
            async with span("consumer") as consumer:
                async for _ in anumbers(2):
                    assert current_span() is consumer
                assert current_span() is consumer

        run(main())
        assert spans.one("anumbers").is_child_of(spans.one("consumer"))

    def test_is_not_current_in_another_coroutine_while_its_body_awaits(self, spans: InMemoryExporter, run: Run) -> None:
        gate, seen = asyncio.Event(), list[bool]()

        @trace
        async def waits() -> AsyncIterator[int]:
            await gate.wait()
            yield 1

        async def other() -> None:
            seen.append(current_span().context.is_valid)
            gate.set()

        async def main() -> None:
            task = asyncio.create_task(other())
            assert [one async for one in waits()] == [1]
            await task

        run(main())
        assert seen == [False]

    def test_asend_and_athrow_reach_the_body(self, spans: InMemoryExporter, run: Run) -> None:
        @trace
        async def echo() -> AsyncGenerator[Any, Any]:
            received: Any = None
            while True:
                try:
                    received = yield received
                except KeyError as error:
                    received = repr(error)

        async def main() -> None:
            generator = echo()
            await anext(generator)
            assert await generator.asend("a") == "a"
            assert await generator.athrow(KeyError("k")) == "KeyError('k')"
            await generator.aclose()

        run(main())
        assert (spans[0].status, spans[0].events) == ("unset", ())

    def test_an_exception_comes_out_as_the_same_object_and_is_recorded(self, spans: InMemoryExporter, run: Run) -> None:
        error = LookupError("none")

        @trace
        async def fails() -> AsyncIterator[int]:
            yield 1
            raise error

        async def main() -> None:
            with pytest.raises(LookupError) as caught:
                async for _ in fails():
                    pass
            assert caught.value is error

        run(main())
        assert (spans[0].status, spans[0].status_description) == ("error", "none")

    def test_early_exit_ends_the_span_without_an_error_and_cleans_up(self, spans: InMemoryExporter, run: Run) -> None:
        cleaned: list[bool] = []

        @trace
        async def guarded() -> AsyncGenerator[int]:
            try:
                yield 1
                yield 2
            finally:
                await asyncio.sleep(0)
                cleaned.append(current_span().is_recording)

        async def main() -> None:
            async with aclosing(guarded()) as generator:
                async for _ in generator:
                    break
            assert not current_span().context.is_valid

        run(main())
        assert cleaned == [True]
        assert [(one.status, one.events) for one in spans] == [("unset", ())]

    def test_aclose_from_another_task_ends_it_quietly(self, spans: InMemoryExporter, run: Run) -> None:
        async def main() -> None:
            generator = anumbers(3)
            await anext(generator)
            await asyncio.create_task(aclose(generator))
            assert not current_span().context.is_valid

        run(main())
        assert [(one.name, one.status) for one in spans] == [("anumbers", "unset")]

    def test_garbage_collected_half_way_ends_it_quietly(self, spans: InMemoryExporter, run: Run) -> None:
        async def main() -> None:
            generator = anumbers(3)
            await anext(generator)
            del generator
            gc.collect()
            for _ in range(3):  # the loop's hook closes it in a task of its own
                await asyncio.sleep(0)
            assert not current_span().context.is_valid

        run(main())
        assert [(one.name, one.status) for one in spans] == [("anumbers", "unset")]

    def test_left_to_the_end_of_the_loop_ends_it_quietly(self, spans: InMemoryExporter, run: Run) -> None:
        # The loop closes wrapper and body, each of which it knows, in an order that depends on their addresses.
        kept: list[AsyncGenerator[int, Any]] = []

        async def main() -> None:
            for _ in range(20):
                kept.append(anumbers(3))
                await anext(kept[-1])

        run(main())
        assert [(one.name, one.status) for one in spans] == [("anumbers", "unset")] * 20

    def test_cancelled_while_its_body_awaits_is_visible(self, spans: InMemoryExporter, run: Run) -> None:
        @trace
        async def waits() -> AsyncIterator[int]:
            yield 1
            await asyncio.Event().wait()

        async def consume() -> None:
            async for _ in waits():
                pass

        async def main() -> None:
            task = asyncio.create_task(consume())
            await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

        run(main())
        assert spans[0].attributes == {"rvh_trace.outcome": "cancelled"}
        assert spans[0].status == "unset"

    def test_a_traced_async_context_manager_function_works(self, spans: InMemoryExporter, run: Run) -> None:
        @asynccontextmanager
        @trace("managed")
        async def managed() -> AsyncIterator[int]:
            yield 1

        async def main() -> None:
            async with managed() as value:
                assert value == 1
            with pytest.raises(KeyError):
                async with managed():
                    raise KeyError

        run(main())
        assert [one.status for one in spans] == ["unset", "error"]

    def test_closed_in_another_context_while_its_body_awaits_it_changes_nothing_there(
        self, spans: InMemoryExporter, run: Run
    ) -> None:
        @trace("waits")
        async def waits() -> AsyncIterator[int]:
            await asyncio.Event().wait()
            yield 1

        async def consume() -> None:
            with span("consumer"):
                async for _ in waits():
                    pass

        async def main() -> None:
            consumer = consume()
            contextvars.copy_context().run(consumer.send, None)
            with span("closer") as closer:
                consumer.close()
                assert current_span() is closer
                with span("afterwards"):
                    pass
            assert not current_span().context.is_valid

        run(main())
        assert spans.one("afterwards").is_child_of(spans.one("closer"))
        assert spans.one("waits").is_child_of(spans.one("consumer"))

    def test_stepped_by_different_tasks_has_one_span(self, spans: InMemoryExporter, run: Run) -> None:
        async def main() -> None:
            generator = anumbers(3)
            with new_span("elsewhere").activate():
                assert await asyncio.create_task(step(generator)) == 0
            assert await asyncio.create_task(step(generator)) == 1
            assert [number async for number in generator] == [2]
            assert not current_span().context.is_valid

        run(main())
        assert spans.one("anumbers").attributes == {"last": 2}


async def aclose(generator: AsyncGenerator[Any, Any]) -> None:
    await generator.aclose()


async def step(generator: AsyncGenerator[int, Any]) -> int:
    return await anext(generator)
