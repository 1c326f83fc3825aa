"""Cancelling from both sides, at every await point: what the other side sees, and that nothing is left behind."""

import asyncio
import gc
from collections.abc import Callable, Coroutine
from types import ModuleType
from typing import Any

import pytest

from rvh_trace import span
from rvh_trace.testing import InMemoryExporter

Run = Callable[[Coroutine[Any, Any, Any]], Any]
STEPS = 9
TURNS = 60
CANCELLED = {"rvh_trace.outcome": "cancelled"}


@pytest.mark.parametrize("step", range(STEPS))
def test_cancelling_the_task_at_a_step_of_python_drops_the_future(
    futures: ModuleType, spans: InMemoryExporter, run: Run, until: Any, step: int
) -> None:
    crossing = futures.Crossing()
    cancelled: list[int] = []

    async def main() -> None:
        async def point(number: int) -> None:
            if number == step:
                task.cancel()
                try:
                    await asyncio.Event().wait()
                finally:
                    cancelled.append(number)

        async def outer() -> None:
            await futures.steps(crossing, point, STEPS)

        task = asyncio.create_task(outer())
        with pytest.raises(asyncio.CancelledError):
            await task
        await until(lambda: crossing.dropped)
        await until(lambda: cancelled)
        await until(lambda: len(spans.named("steps")))

    run(main())
    assert (crossing.reached, crossing.dropped, cancelled) == (step, 1, [step])
    steps = spans.one("steps")
    assert (steps.status, steps.attributes) == ("unset", CANCELLED)


@pytest.mark.parametrize("loop_factory", ["asyncio", "uvloop"])
def test_cancelling_the_task_at_any_turn_of_the_loop_leaves_nothing_behind(
    futures: ModuleType, spans: InMemoryExporter, until: Any, complaints: list[Any], loop_factory: str
) -> None:
    import uvloop

    async def interrupt(turn: int) -> None:
        crossing = futures.Crossing()
        inside = 0

        async def point(_: int) -> None:
            nonlocal inside
            inside += 1
            try:
                await asyncio.sleep(0)
            finally:
                inside -= 1

        async def outer() -> int:
            return await futures.steps(crossing, point, STEPS)

        spans.clear()
        task = asyncio.create_task(outer())
        for _ in range(turn):
            await asyncio.sleep(0)
        task.cancel()
        try:
            assert await task == STEPS
        except asyncio.CancelledError:
            await until(lambda: crossing.dropped)
        await until(lambda: not inside)
        await until(lambda: len(spans.named("steps")))
        assert crossing.dropped == 1
        expected = {} if crossing.reached == STEPS else CANCELLED
        assert spans.one("steps").attributes == expected
        assert spans.one("steps").status == "unset"

    async def main() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
        for turn in range(1, TURNS):
            await interrupt(turn)

    factory = uvloop.new_event_loop if loop_factory == "uvloop" else asyncio.new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(main())


@pytest.mark.parametrize("step", range(STEPS))
def test_dropping_the_future_cancels_the_task_of_python_at_every_step(
    futures: ModuleType, spans: InMemoryExporter, run: Run, until: Any, step: int
) -> None:
    crossing = futures.Crossing()
    cancelled: list[int] = []

    async def main() -> None:
        async def callback() -> None:
            for number in range(STEPS):
                try:
                    if number == step:
                        crossing.break_off()
                        await asyncio.Event().wait()
                    with span("step"):
                        await asyncio.sleep(0)
                except asyncio.CancelledError:
                    cancelled.append(number)
                    raise

        assert await futures.abandon(crossing, callback) is True
        await until(lambda: cancelled)

    run(main())
    assert cancelled == [step]
    assert spans.one("abandon").attributes == {}
    assert len(spans.named("step")) == step


def test_a_task_of_python_that_was_not_begun_is_never_begun(
    futures: ModuleType, spans: InMemoryExporter, run: Run, until: Any
) -> None:
    made: list[Any] = []

    async def main() -> None:
        begun = False

        async def body() -> None:
            nonlocal begun
            begun = True

        def callback() -> Coroutine[Any, Any, None]:
            made.append(body())
            return made[-1]

        crossing = futures.Crossing()
        crossing.break_off()
        assert await futures.abandon(crossing, callback) is True
        assert not begun

    run(main())
    gc.collect()
    for coroutine in made:
        assert coroutine.cr_frame is None


def test_a_task_that_swallows_the_cancellation_is_no_error(
    futures: ModuleType, spans: InMemoryExporter, run: Run, until: Any
) -> None:
    async def main() -> None:
        crossing = futures.Crossing()
        survived = asyncio.Event()

        async def callback() -> str:
            crossing.break_off()
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                survived.set()
            return "survived"

        assert await futures.abandon(crossing, callback) is True
        await survived.wait()

    run(main())
    assert spans.one("abandon").status == "unset"


def test_a_task_that_fails_while_it_is_cancelled_makes_no_noise(
    futures: ModuleType, run: Run, until: Any, complaints: list[Any]
) -> None:
    async def main() -> None:
        crossing = futures.Crossing()
        failed = asyncio.Event()

        async def callback() -> None:
            crossing.break_off()
            try:
                await asyncio.Event().wait()
            finally:
                failed.set()
                raise LookupError("while it was cancelled")

        assert await futures.abandon(crossing, callback) is True
        await failed.wait()
        await asyncio.sleep(0)
        gc.collect()

    run(main())
    assert complaints == []


def test_a_timeout_drops_the_future(futures: ModuleType, spans: InMemoryExporter, run: Run, until: Any) -> None:
    async def main() -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await futures.pending("load")
        await until(lambda: len(spans))

    run(main())
    assert (spans[0].status, spans[0].attributes) == ("unset", CANCELLED)


def test_ten_thousand_at_once_are_cancelled(futures: ModuleType, spans: InMemoryExporter, run: Run, until: Any) -> None:
    many = 10_000

    async def main() -> None:
        tasks = [asyncio.ensure_future(futures.pending("load")) for _ in range(many)]
        await asyncio.sleep(0)
        for task in tasks:
            task.cancel()
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
        assert {type(outcome) for outcome in outcomes} == {asyncio.CancelledError}
        await until(lambda: len(spans) == many)

    run(main())
    assert all(one.attributes == CANCELLED for one in spans)
