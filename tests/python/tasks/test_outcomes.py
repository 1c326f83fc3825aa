"""How a task ended, on its span: what asyncio lets one know, and nothing else."""

import asyncio
import sys
import time
from collections.abc import Callable, Coroutine
from typing import Any

import anyio
import pytest
from interpreter import run_quietly, run_script

from rvh_trace import install_task_factory, span
from rvh_trace.testing import FinishedSpan, InMemoryExporter

Start = Callable[[Coroutine[Any, Any, Any]], Any]
CANCELLATION = "rvh_trace.task.cancellation"
MESSAGE = "rvh_trace.task.cancel_message"
OUTCOME = "rvh_trace.outcome"


async def wait() -> None:
    await asyncio.Event().wait()


def seconds(one: FinishedSpan, part: str) -> float:
    value = one.attributes[f"rvh_trace.task.{part}_time"]
    assert isinstance(value, float)
    return value


def steps_of(one: FinishedSpan) -> int:
    value = one.attributes["rvh_trace.task.steps"]
    assert isinstance(value, int)
    return value


def outcome(one: FinishedSpan) -> dict[str, object]:
    return {key: value for key, value in one.attributes.items() if key in (OUTCOME, CANCELLATION, MESSAGE)}


class TestCancellation:
    def test_one_that_was_asked_for_says_so_and_what_it_was_given(self, spans: InMemoryExporter, start: Start) -> None:
        async def main() -> None:
            install_task_factory()
            with span("outer"):
                for message in (None, "shutting down", 7):
                    task = asyncio.create_task(wait())
                    await asyncio.sleep(0)
                    task.cancel(message)
                    await asyncio.wait([task])

        start(main())
        cancelled = {OUTCOME: "cancelled", CANCELLATION: "requested"}
        assert [outcome(one) for one in spans.named("wait")] == [
            cancelled,
            cancelled | {MESSAGE: "shutting down"},
            cancelled | {MESSAGE: "7"},
        ]

    def test_one_of_what_the_task_awaited_is_propagated(self, spans: InMemoryExporter, start: Start) -> None:
        async def await_it(future: "asyncio.Future[None]") -> None:
            await future

        async def main() -> None:
            install_task_factory()
            with span("outer"):
                future = asyncio.get_running_loop().create_future()
                task = asyncio.create_task(await_it(future))
                await asyncio.sleep(0)
                future.cancel()
                await asyncio.wait([task])
                assert task.cancelled()

        start(main())
        (one,) = spans.children(spans.one("outer"))
        assert outcome(one) == {OUTCOME: "cancelled", CANCELLATION: "propagated"}

    def test_one_that_was_taken_back_is_not_requested(self, spans: InMemoryExporter, start: Start) -> None:
        async def survive() -> None:
            try:
                await wait()
            except asyncio.CancelledError:
                task = asyncio.current_task()
                assert task is not None
                task.uncancel()
            raise asyncio.CancelledError

        async def main() -> None:
            install_task_factory()
            with span("outer"):
                task = asyncio.create_task(survive())
                await asyncio.sleep(0)
                task.cancel()
                await asyncio.wait([task])

        start(main())
        (one,) = spans.children(spans.one("outer"))
        assert outcome(one) == {OUTCOME: "cancelled", CANCELLATION: "propagated"}

    def test_a_timeout_is_an_error_of_the_task_and_no_cancellation(self, spans: InMemoryExporter, start: Start) -> None:
        async def impatient() -> None:
            async with asyncio.timeout(0):
                await wait()

        async def main() -> None:
            install_task_factory()
            with span("outer"):
                await asyncio.wait([asyncio.create_task(impatient())])
                with pytest.raises(TimeoutError):
                    await asyncio.wait_for(asyncio.create_task(wait()), 0.001)

        start(main())
        impatient_span, waited = spans.children(spans.one("outer"))
        assert impatient_span.attributes["error.type"] == "TimeoutError"
        assert outcome(impatient_span) == {}
        assert outcome(waited) == {OUTCOME: "cancelled", CANCELLATION: "requested"}

    def test_an_anyio_scope_leaves_its_message(self, spans: InMemoryExporter, start: Start) -> None:
        async def main() -> None:
            install_task_factory()
            with span("outer"):
                async with anyio.create_task_group() as group:
                    group.start_soon(wait)
                    await asyncio.sleep(0)
                    group.cancel_scope.cancel()

        start(main())
        (one,) = spans.children(spans.one("outer"))
        assert outcome(one).keys() == {OUTCOME, CANCELLATION, MESSAGE}
        assert "cancel scope" in str(one.attributes[MESSAGE]).lower()

    def test_shutting_a_runner_down_cancels_what_is_left(self, spans: InMemoryExporter) -> None:
        async def main() -> None:
            install_task_factory()
            with span("outer"):
                main.left = asyncio.create_task(wait())  # type: ignore[attr-defined]  # pyright: ignore[reportFunctionMemberAccess]
                await asyncio.sleep(0)

        asyncio.run(main())
        assert outcome(spans.one("wait")) == {OUTCOME: "cancelled", CANCELLATION: "requested"}


class TestNeverStarted:
    def test_a_task_cancelled_before_its_first_step(self, spans: InMemoryExporter, start: Start) -> None:
        async def main() -> None:
            install_task_factory()
            with span("outer"):
                task = asyncio.create_task(wait())
                task.cancel()
                await asyncio.wait([task])

        start(main())
        one = spans.one("wait")
        assert outcome(one) == {OUTCOME: "never_started", CANCELLATION: "requested"}
        assert (one.attributes["rvh_trace.task.steps"], one.attributes["rvh_trace.task.run_time"]) == (0, 0.0)
        assert one.status == "unset"

    @pytest.mark.parametrize("factory", ["asyncio.new_event_loop", "uvloop.new_event_loop"])
    def test_a_task_whose_loop_was_closed_ends_once(self, factory: str) -> None:
        run_quietly(
            f"""
            import asyncio, gc, uvloop
            from rvh_trace import install_task_factory, span
            from rvh_trace.testing import InMemoryExporter

            async def suspended():
                await asyncio.Event().wait()

            async def main():
                asyncio.get_running_loop().set_exception_handler(lambda loop, context: None)
                install_task_factory()
                with span("outer"):
                    task = asyncio.create_task(suspended())
                    await asyncio.sleep(0)
                    return task

            with InMemoryExporter() as spans:
                loop = {factory}()
                task = loop.run_until_complete(main())
                loop.close()
                del task, loop
                gc.collect()
                assert spans.one("suspended").attributes["rvh_trace.outcome"] == "destroyed"
            """,
            options=(),
        )

    def test_a_task_that_is_dropped_before_its_first_step(self) -> None:
        finished = run_script(
            """
            import asyncio, gc
            from rvh_trace import install_task_factory, span
            from rvh_trace.testing import InMemoryExporter

            async def work():
                pass

            async def main(loop):
                install_task_factory()
                with span("outer"):
                    loop.create_task(work())
                    loop.stop()

            with InMemoryExporter() as spans:
                loop = asyncio.new_event_loop()
                try:
                    loop.run_until_complete(main(loop))
                except RuntimeError:
                    pass
                loop._ready.clear()
                loop.close()
                gc.collect()
                one = spans.one("work")
                assert one.attributes["rvh_trace.outcome"] == "never_started", one
                assert one.attributes["rvh_trace.task.steps"] == 0
            """,
            options=(),
        )
        assert finished.returncode == 0, finished.stderr
        assert "'work' was never awaited" in finished.stderr


def test_an_exception_that_nobody_retrieves_is_on_the_span_and_said_by_asyncio() -> None:
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

        with InMemoryExporter() as spans:
            asyncio.run(main())
            failed = spans.one("fail")
            assert (failed.status, failed.status_description) == ("error", "nobody asks")
            assert failed.attributes["error.type"] == "LookupError"
        """
    )
    assert finished.returncode == 0
    assert finished.stderr.count("Task exception was never retrieved") == 1


class TestOutlivingTheParent:
    def test_a_task_that_outlives_its_parent_is_its_child(self, spans: InMemoryExporter, start: Start) -> None:
        async def linger(parent_ended: asyncio.Event) -> None:
            await parent_ended.wait()
            with span("inside"):
                pass

        async def main() -> None:
            install_task_factory()
            ended = asyncio.Event()
            with span("outer"):
                task = asyncio.create_task(linger(ended))
            ended.set()
            await task

        start(main())
        (one,) = spans.children(spans.one("outer"))
        assert one.end_unix_ns > spans.one("outer").end_unix_ns
        assert one.links == ()
        assert spans.one("inside").is_child_of(one)


class TestTimings:
    def test_they_add_up_to_the_duration_of_the_span(self, spans: InMemoryExporter, start: Start) -> None:
        async def steps(count: int) -> None:
            for _ in range(count):
                await asyncio.sleep(0)

        async def main() -> None:
            install_task_factory()
            with span("outer"):
                await asyncio.gather(*(asyncio.create_task(steps(count)) for count in (0, 1, 10, 1000)))

        start(main())
        children = spans.children(spans.one("outer"))
        assert sorted(steps_of(one) for one in children) == [1, 2, 11, 1001]
        for one in children:
            parts = [seconds(one, part) for part in ("queue", "run", "suspended")]
            assert all(part >= 0 for part in parts), one
            assert sum(parts) == pytest.approx((one.end_unix_ns - one.start_unix_ns) / 1e9)

    def test_what_runs_is_run_time_and_what_waits_is_not(self, spans: InMemoryExporter, start: Start) -> None:
        spent: dict[str, float] = {}

        def burn(seconds: float) -> float:
            began = time.monotonic()
            while time.monotonic() < began + seconds:
                pass
            return time.monotonic() - began

        async def busy() -> None:
            await asyncio.sleep(0)
            spent["busy"] = burn(0.02)

        async def idle() -> None:
            await asyncio.Event().wait()

        async def main() -> None:
            install_task_factory()
            with span("outer"):
                waiting = asyncio.create_task(idle())
                await asyncio.sleep(0)
                task = asyncio.create_task(busy())
                spent["queue"] = burn(0.02)
                await task
                waiting.cancel()
                await asyncio.wait([waiting])

        start(main())
        busy_span = next(one for one in spans.children(spans.one("outer")) if "busy" in one.name)
        idle_span = next(one for one in spans.children(spans.one("outer")) if "idle" in one.name)
        # Each interval was measured inside of what is compared with it; a hundredth is for the two clocks.
        assert seconds(busy_span, "run") >= spent["busy"] * 0.99
        assert seconds(busy_span, "queue") >= spent["queue"] * 0.99
        assert seconds(idle_span, "suspended") >= (spent["busy"] + spent["queue"]) * 0.99
        assert seconds(idle_span, "run") < seconds(idle_span, "suspended")


def test_gc_at_every_allocation_changes_nothing() -> None:
    """The contextvars C API is fragile before CPython 3.12."""
    run_quietly(
        """
        import asyncio, gc
        from rvh_trace import current_span, install_task_factory, span
        from rvh_trace.testing import InMemoryExporter

        async def work(depth):
            mine = current_span()
            for _ in range(3):
                await asyncio.sleep(0)
                assert current_span() is mine
            if depth:
                await asyncio.gather(*(asyncio.create_task(work(depth - 1)) for _ in range(3)))
            circle = [mine]
            circle.append(circle)

        async def main():
            install_task_factory()
            with span("outer"):
                await work(3)

        with InMemoryExporter() as spans:
            gc.set_threshold(1)
            asyncio.run(main())
            gc.set_threshold(700)
            assert len(spans.named("work")) == 39, len(spans.named("work"))
        """,
        options=("-X", "dev", "-W", "error") if sys.version_info < (3, 12) else ("-W", "error"),
    )
