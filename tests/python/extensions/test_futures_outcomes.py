"""Rust futures that Python awaits: results, exceptions, panics, and the span around them."""

import asyncio
import gc
from collections.abc import Callable, Coroutine
from types import ModuleType
from typing import Any

import pytest

from rvh_trace import span
from rvh_trace.testing import InMemoryExporter

Run = Callable[[Coroutine[Any, Any, Any]], Any]
MANY = 10_000


def test_gives_the_result_in_one_span(futures: ModuleType, spans: InMemoryExporter, run: Run) -> None:
    row = object()

    async def main() -> None:
        with span("outer"):
            assert await futures.echo("load", row) is row

    run(main())
    load = spans.one("load")
    assert load.is_child_of(spans.one("outer"))
    assert (load.kind, load.attributes, load.status, load.events) == ("client", {"key": 7}, "unset", ())


@pytest.mark.parametrize("result", [None, (), (1, 2), StopIteration(3), ValueError("returned"), [4]], ids=repr)
def test_every_result_is_the_same_object(futures: ModuleType, run: Run, result: object) -> None:
    async def main() -> None:
        assert await futures.echo("load", result) is result
        assert await futures.without_span(result) is result

    run(main())


def test_the_span_has_ended_when_the_caller_goes_on(futures: ModuleType, spans: InMemoryExporter, run: Run) -> None:
    async def main() -> None:
        for number in range(20):
            await futures.ready("load")
            assert len(spans) == number + 1
            with pytest.raises(LookupError):
                await futures.raises("fail", LookupError())
            spans.clear()
            await futures.echo("again", None)
            spans.clear()
            for _ in range(number + 1):
                await futures.ready("load")

    run(main())


def test_an_exception_is_the_same_object_and_recorded(futures: ModuleType, spans: InMemoryExporter, run: Run) -> None:
    error = LookupError("no row")
    error.add_note("a note")

    async def main() -> None:
        with pytest.raises(LookupError) as caught:
            await futures.raises("load", error)
        assert caught.value is error

    run(main())
    load = spans.one("load")
    assert (load.status, load.status_description) == ("error", "no row")
    assert load.attributes == {"error.type": "LookupError"}
    (event,) = load.events
    assert event.name == "exception"
    assert event.attributes["exception.type"] == "LookupError"
    assert event.attributes["exception.message"] == "no row"
    assert "a note" in str(event.attributes["exception.stacktrace"])


def test_one_that_raises_the_cancellation_is_cancelled(futures: ModuleType, spans: InMemoryExporter, run: Run) -> None:
    async def main() -> None:
        future = futures.raises("load", asyncio.CancelledError("why"))
        with pytest.raises(asyncio.CancelledError, match="why"):
            await future
        assert future.cancelled()

    run(main())
    assert (spans[0].status, spans[0].attributes) == ("unset", {"rvh_trace.outcome": "cancelled"})


def test_a_stop_iteration_that_no_future_takes_is_wrapped(
    futures: ModuleType, spans: InMemoryExporter, run: Run
) -> None:
    error = StopIteration(3)

    async def main() -> None:
        with pytest.raises(RuntimeError, match="StopIteration") as caught:
            await futures.raises("load", error)
        assert caught.value.__cause__ is error

    run(main())
    assert spans.one("load").status == "error"


@pytest.mark.parametrize(("message", "told"), [("boom", "boom"), ("", "a literal"), ("payload", "no message")])
def test_a_panic_is_a_runtime_error_with_its_message(
    futures: ModuleType, spans: InMemoryExporter, run: Run, capfd: pytest.CaptureFixture[str], message: str, told: str
) -> None:
    async def main() -> None:
        with pytest.raises(RuntimeError, match=f"^a Rust future panicked: {told}$"):
            await futures.panics("load", message)
        # Tokio goes on.
        assert await futures.echo("after", 1) == 1

    run(main())
    load = spans.one("load")
    assert (load.status, load.status_description) == ("error", f"a Rust future panicked: {told}")
    assert load.attributes == {"error.type": "RuntimeError"}
    assert spans.one("after").status == "unset"
    # Rust's own hook says it, once.
    assert capfd.readouterr().err.count("panicked at") == 1


@pytest.mark.parametrize(("panics", "kind"), [(False, ValueError), (True, RuntimeError)])
def test_a_result_that_is_no_python_object_is_an_exception(
    futures: ModuleType, run: Run, capfd: pytest.CaptureFixture[str], panics: bool, kind: type[Exception]
) -> None:
    async def main() -> None:
        with pytest.raises(kind, match="cannot be converted"):
            await futures.returns_what_cannot_be_converted(panics)

    run(main())
    capfd.readouterr()


def test_without_a_loop_it_is_a_runtime_error_that_says_what_to_do(
    futures: ModuleType, spans: InMemoryExporter
) -> None:
    with pytest.raises(RuntimeError, match="call it in a coroutine"):
        futures.ready("load")
    assert not spans


def test_ten_thousand_at_once_come_back_each_with_its_own(
    futures: ModuleType, spans: InMemoryExporter, run: Run
) -> None:
    async def main() -> None:
        assert await asyncio.gather(*(futures.echo("load", number) for number in range(MANY))) == list(range(MANY))

    run(main())
    assert len(spans.named("load")) == MANY
    assert len({one.span_id for one in spans}) == MANY


def test_ten_thousand_that_await_python_come_back_each_with_its_own(
    futures: ModuleType, spans: InMemoryExporter, run: Run
) -> None:
    async def main() -> None:
        async def load(number: int) -> int:
            await asyncio.sleep(0)
            return number

        calls = (futures.call("load", lambda number=number: load(number)) for number in range(MANY))
        assert await asyncio.gather(*calls) == list(range(MANY))

    run(main())
    assert len(spans.named("load")) == MANY


def test_one_that_nobody_awaits_still_ends_its_span(
    futures: ModuleType, spans: InMemoryExporter, run: Run, until: Any
) -> None:
    async def main() -> None:
        futures.echo("load", 1)
        gc.collect()
        await until(lambda: len(spans))

    run(main())
    assert spans.one("load").attributes == {"key": 7}


def test_it_works_in_one_loop_after_another_and_under_uvloop(futures: ModuleType, spans: InMemoryExporter) -> None:
    import uvloop

    async def main() -> str:
        await futures.call("load", lambda: asyncio.sleep(0))
        return await futures.echo("echo", "row")

    for factory in (asyncio.new_event_loop, uvloop.new_event_loop, asyncio.new_event_loop):
        with asyncio.Runner(loop_factory=factory) as runner:
            assert runner.run(main()) == "row"
    assert len(spans) == 6


def test_nothing_is_kept(futures: ModuleType, run: Run) -> None:
    import weakref

    class Row:
        pass

    async def main() -> list[weakref.ref[Row]]:
        kept: list[weakref.ref[Row]] = []
        for _ in range(20):
            row = Row()
            kept.append(weakref.ref(row))
            assert await futures.echo("load", row) is row
            assert await futures.call("load", lambda row=row: asyncio.sleep(0, row)) is row
            del row
        # The last one's handover may not quite have let go of it.
        await futures.ready("after")
        return kept

    kept = run(main())
    gc.collect()
    assert [row() for row in kept[:-1]] == [None] * (len(kept) - 1)
