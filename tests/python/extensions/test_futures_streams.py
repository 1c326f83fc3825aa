"""Rust streams that Python iterates over, and Python async iterators that Rust reads."""

import asyncio
import gc
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import aclosing
from types import ModuleType
from typing import Any

import pytest

from rvh_trace import current_span, span
from rvh_trace.testing import InMemoryExporter

Run = Callable[[Coroutine[Any, Any, Any]], Any]
CANCELLED = {"rvh_trace.outcome": "cancelled"}


@pytest.mark.parametrize("read_ahead", [0, 1, 3, 100])
def test_gives_every_item_in_order_inside_of_one_span(
    futures: ModuleType, spans: InMemoryExporter, run: Run, read_ahead: int
) -> None:
    async def main() -> None:
        with span("outer"):
            numbers = futures.Produced().numbers("numbers", 10, read_ahead)
        assert [number async for number in numbers] == list(range(10))
        assert [number async for number in numbers] == []
        assert await anext(numbers, "default") == "default"

    run(main())
    numbers = spans.one("numbers")
    assert numbers.is_child_of(spans.one("outer"))
    assert (numbers.status, numbers.attributes) == ("unset", {})
    assert [one.attributes["number"] for one in spans.children(numbers)] == list(range(10))


@pytest.mark.parametrize("read_ahead", [1, 2, 7])
def test_the_stream_is_never_more_than_that_ahead(futures: ModuleType, run: Run, until: Any, read_ahead: int) -> None:
    async def main() -> None:
        produced = futures.Produced()
        numbers = produced.numbers("numbers", 50, read_ahead)
        for taken in range(50):
            ahead = min(taken + read_ahead, 50)
            # It gets there, and no further: what would be one too many is produced only when the next is taken.
            await until(lambda ahead=ahead: produced.count >= ahead)
            for _ in range(3):
                await asyncio.sleep(0)
                assert produced.count == ahead
            assert await anext(numbers) == taken
        assert [number async for number in numbers] == []

    run(main())


def test_an_error_comes_after_the_items_and_ends_it(futures: ModuleType, spans: InMemoryExporter, run: Run) -> None:
    error = LookupError("no row")

    async def main() -> None:
        produced = futures.Produced()
        numbers = produced.numbers("numbers", 3, 2, error)
        assert [await anext(numbers) for _ in range(3)] == [0, 1, 2]
        with pytest.raises(LookupError) as caught:
            await anext(numbers)
        assert caught.value is error
        assert [number async for number in numbers] == []
        assert produced.dropped == 1

    run(main())
    numbers = spans.one("numbers")
    assert (numbers.status, numbers.status_description) == ("error", "no row")
    assert [event.name for event in numbers.events] == ["exception"]


def test_an_error_that_would_look_like_the_end_is_wrapped(futures: ModuleType, run: Run) -> None:
    async def main() -> None:
        for error in (StopAsyncIteration(), StopIteration()):
            with pytest.raises(RuntimeError) as caught:
                await anext(futures.Produced().numbers("numbers", 0, 1, error))
            assert caught.value.__cause__ is error

    run(main())


def test_a_panic_is_a_runtime_error(
    futures: ModuleType, spans: InMemoryExporter, run: Run, capfd: pytest.CaptureFixture[str]
) -> None:
    async def main() -> None:
        numbers = futures.Produced().numbers("numbers", 2, 1, panics=True)
        assert [await anext(numbers) for _ in range(2)] == [0, 1]
        with pytest.raises(RuntimeError, match="in a stream"):
            await anext(numbers)

    run(main())
    assert spans.one("numbers").status == "error"
    capfd.readouterr()


def test_closing_it_drops_the_stream_before_it_returns(futures: ModuleType, spans: InMemoryExporter, run: Run) -> None:
    async def main() -> None:
        produced = futures.Produced()
        async with aclosing(produced.numbers("numbers", 100, 3)) as numbers:
            assert await anext(numbers) == 0
        assert produced.dropped == 1
        assert spans.one("numbers").attributes == {}
        assert await anext(numbers, "default") == "default"
        await numbers.aclose()

    run(main())
    assert spans.one("numbers").status == "unset"


def test_one_that_is_forgotten_is_dropped(futures: ModuleType, spans: InMemoryExporter, run: Run, until: Any) -> None:
    async def main() -> None:
        produced = futures.Produced()
        numbers = produced.numbers("numbers", 100, 3)
        async for _ in numbers:
            break
        del numbers
        await until(lambda: produced.dropped)
        await until(lambda: len(spans.named("numbers")))

    run(main())
    assert spans.one("numbers").attributes == {}


def test_cancelling_the_task_that_iterates_drops_the_stream(
    futures: ModuleType, spans: InMemoryExporter, run: Run, until: Any
) -> None:
    async def main() -> None:
        produced = futures.Produced()

        async def iterate() -> None:
            async for _ in produced.nothing("nothing"):
                pass

        task = asyncio.create_task(iterate())
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        del task
        await until(lambda: produced.dropped)
        await until(lambda: len(spans))

    run(main())
    assert spans.one("nothing").attributes == CANCELLED


@pytest.mark.parametrize("turn", range(12))
def test_a_wait_that_is_cancelled_loses_no_item(futures: ModuleType, run: Run, turn: int) -> None:
    async def main() -> None:
        numbers = futures.Produced().numbers("numbers", 30, 1)
        taken: list[int] = []
        while len(taken) < 30:
            waiting = asyncio.create_task(anext(numbers))
            for _ in range(turn):
                await asyncio.sleep(0)
            waiting.cancel()
            try:
                taken.append(await waiting)
            except asyncio.CancelledError:
                taken.append(await anext(numbers))
        assert taken == list(range(30))

    run(main())


class Watched:
    """An async generator of numbers that is watched."""

    def __init__(self, length: int, error: BaseException | None = None) -> None:
        self.count = 0
        self.ended: list[str] = []
        self.tasks: set[Any] = set()
        self._length, self._error = length, error

    async def numbers(self) -> AsyncIterator[int]:
        try:
            for number in range(self._length):
                self.count += 1
                self.tasks.add(asyncio.current_task())
                yield number
                await asyncio.sleep(0)
            if self._error:
                raise self._error
        except BaseException as error:
            self.ended.append(type(error).__name__)
            raise
        finally:
            self.tasks.add(asyncio.current_task())
            self.ended.append("finally")


@pytest.mark.parametrize("read_ahead", [0, 1, 3, 100])
def test_rust_reads_every_item_in_one_task_inside_of_its_span(
    futures: ModuleType, spans: InMemoryExporter, run: Run, read_ahead: int
) -> None:
    seen: set[str] = set()

    async def main() -> None:
        watched = Watched(10)

        async def numbers() -> AsyncIterator[int]:
            async for number in watched.numbers():
                seen.add(current_span().context.span_id)
                yield number

        assert await futures.collect("collect", numbers(), read_ahead) == list(range(10))
        assert len(watched.tasks) == 1
        assert watched.ended == ["finally"]

    run(main())
    assert seen == {spans.one("collect").span_id}


@pytest.mark.parametrize("read_ahead", [1, 2, 7])
def test_the_iterator_is_never_more_than_that_ahead(futures: ModuleType, run: Run, until: Any, read_ahead: int) -> None:
    async def main() -> None:
        watched = Watched(50)
        reader = futures.Reader(watched.numbers(), read_ahead)
        for taken in range(50):
            await until(lambda taken=taken: watched.count >= min(taken + 1, 50))
            for _ in range(20):
                await asyncio.sleep(0)
                assert watched.count <= taken + read_ahead
            assert await reader.next() == [taken]
        assert await reader.next() == []
        assert await reader.next() == []

    run(main())


@pytest.mark.parametrize("error", [LookupError("no row"), asyncio.CancelledError()], ids=repr)
def test_an_error_of_the_iterator_comes_after_its_items(futures: ModuleType, run: Run, error: BaseException) -> None:
    async def main() -> None:
        reader = futures.Reader(Watched(3, error).numbers(), 8)
        assert [await reader.next() for _ in range(3)] == [[0], [1], [2]]
        with pytest.raises(type(error)) as caught:
            await reader.next()
        if isinstance(error, LookupError):
            assert caught.value is error
        assert await reader.next() == []

    run(main())


@pytest.mark.parametrize("taken", range(5))
def test_dropping_the_stream_closes_the_iterator_where_it_is(
    futures: ModuleType, run: Run, until: Any, taken: int
) -> None:
    async def main() -> None:
        watched = Watched(100)
        reader = futures.Reader(watched.numbers(), 2)
        for number in range(taken):
            assert await reader.next() == [number]
        await until(lambda: watched.count)
        reader.close()
        await until(lambda: "finally" in watched.ended)
        assert watched.ended[0] in {"CancelledError", "GeneratorExit"}
        assert len(watched.tasks) == 1

    run(main())


def test_one_that_was_never_begun_is_no_trouble(futures: ModuleType, run: Run) -> None:
    async def main() -> None:
        reader = futures.Reader(Watched(3).numbers(), 2)
        reader.close()
        del reader
        gc.collect()
        for _ in range(5):
            await asyncio.sleep(0)

    run(main())


def test_what_is_no_async_iterator_is_a_type_error(futures: ModuleType, run: Run) -> None:
    async def main() -> None:
        with pytest.raises(TypeError):
            await futures.collect("collect", [1, 2], 1)

    run(main())


def test_a_stream_of_rust_through_python_into_rust(futures: ModuleType, spans: InMemoryExporter, run: Run) -> None:
    async def main() -> None:
        produced = futures.Produced()

        async def doubled() -> AsyncIterator[int]:
            async for number in produced.numbers("numbers", 200, 4):
                yield number * 2

        assert await futures.collect("collect", doubled(), 4) == [number * 2 for number in range(200)]
        assert produced.dropped == 1

    run(main())
    assert spans.one("numbers").is_child_of(spans.one("collect"))
