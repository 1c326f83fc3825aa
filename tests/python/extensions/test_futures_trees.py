"""Where spans of Rust and of Python stand that are made inside of a Rust future."""

import asyncio
import contextvars
from collections.abc import Callable, Coroutine
from types import ModuleType
from typing import Any

import pytest

from rvh_trace import current_span, extract, inject, span, use_context
from rvh_trace.testing import FinishedSpan, InMemoryExporter

Run = Callable[[Coroutine[Any, Any, Any]], Any]


def path(spans: InMemoryExporter, one: FinishedSpan) -> list[str]:
    """The names from the root down to a span."""
    by_id = {span.span_id: span for span in spans}
    names = [one.name]
    while parent := by_id.get(one.parent_span_id or ""):
        names.insert(0, parent.name)
        one = parent
    return names


def test_spans_of_rust_are_below_the_future_on_every_task_and_thread(
    futures: ModuleType, spans: InMemoryExporter, run: Run
) -> None:
    async def main() -> None:
        with span("python"):
            await futures.tree()

    run(main())
    above = ["python", "future", "first"]
    paths = sorted(path(spans, one) for one in spans)
    assert paths == sorted(
        [
            ["python"],
            ["python", "future"],
            above,
            *[[*above, "leaf"]] * 3,
            [*above, "blocking"],
            [*above, "second"],
            [*above, "second", "third"],
            [*above, "second", "third", "by hand"],
        ]
    )
    assert len({one.trace_id for one in spans}) == 1
    first = spans.one("first")
    assert first.attributes["number"] == 1
    assert [event.name for event in first.events] == ["in first"]
    assert [event.name for event in spans.one("blocking").events] == ["in blocking"]


def test_the_future_is_current_for_this_crate_and_for_opentelemetry(
    futures: ModuleType, spans: InMemoryExporter, run: Run
) -> None:
    async def main() -> Any:
        return await futures.identities("load")

    own, opentelemetry = run(main())
    load = spans.one("load")
    assert tuple(own) == (load.trace_id, load.span_id)
    assert tuple(opentelemetry) == tuple(own)


def test_without_a_span_of_its_own_pythons_is_current(futures: ModuleType, spans: InMemoryExporter, run: Run) -> None:
    async def main() -> None:
        with span("outer") as outer:
            assert await futures.without_span(current_span()) is outer

    run(main())
    assert [one.name for one in spans] == ["outer"]


def test_a_span_that_is_not_sampled_is_none_in_rust_and_python_either(futures: ModuleType, run: Run) -> None:
    async def ask() -> tuple[bool, str]:
        return current_span().is_recording, current_span().context.trace_id

    async def main() -> None:
        unsampled = extract({"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00"})
        with use_context(unsampled):
            assert await futures.call_within_two_spans(ask) == (False, "0af7651916cd43dd8448eb211c80319c")

    with InMemoryExporter() as spans:
        run(main())
        assert not spans


def test_a_coroutine_sees_the_innermost_span_of_rust(futures: ModuleType, spans: InMemoryExporter, run: Run) -> None:
    async def ask() -> str:
        current_span().set_attribute("asked", True)
        await asyncio.sleep(0)
        with span("below"):
            await asyncio.sleep(0)
        return current_span().context.span_id

    async def main() -> None:
        with span("python") as python:
            assert await futures.call_within_two_spans(ask) == spans.one("inner").span_id
            assert current_span() is python

    run(main())
    assert path(spans, spans.one("below")) == ["python", "future", "outer", "inner", "below"]
    assert spans.one("inner").attributes["asked"] is True


def test_rust_within_python_within_rust_goes_on_below(futures: ModuleType, spans: InMemoryExporter, run: Run) -> None:
    async def ask() -> None:
        with span("callback"):
            await futures.call_within_two_spans(lambda: asyncio.sleep(0))

    async def main() -> None:
        await futures.call("outermost", ask)

    run(main())
    assert path(spans, spans.one("inner")) == ["outermost", "callback", "future", "outer", "inner"]


def test_a_plain_function_on_a_blocking_thread_sees_the_span(
    futures: ModuleType, spans: InMemoryExporter, run: Run
) -> None:
    def ask() -> str:
        with span("below"):
            return current_span().context.trace_id

    async def main() -> None:
        with span("python") as python:
            assert await futures.call_blocking(ask) == python.context.trace_id

    run(main())
    assert path(spans, spans.one("below")) == ["python", "future", "blocking", "below"]


def test_context_variables_and_baggage_of_the_caller_are_seen_and_its_own_kept(futures: ModuleType, run: Run) -> None:
    variable = contextvars.ContextVar("variable", default="default")

    async def ask() -> tuple[str, str]:
        seen = variable.get()
        variable.set("changed inside")
        await asyncio.sleep(0)
        assert variable.get() == "changed inside"
        headers: dict[str, str] = {}
        inject(headers)
        return seen, headers["baggage"]

    async def main() -> None:
        variable.set("caller")
        with use_context(extract({"baggage": "customer=7"})), span("python"):
            for call in (futures.call_in_task, futures.call_within_two_spans):
                assert await call(ask) == ("caller", "customer=7")
        assert variable.get() == "caller"

    run(main())


def test_a_tokio_task_that_was_told_where_it_belongs_awaits_python(
    futures: ModuleType, spans: InMemoryExporter, run: Run
) -> None:
    async def ask() -> str:
        return current_span().context.span_id

    async def main() -> None:
        assert await futures.call_in_task(ask) == spans.one("future").span_id

    run(main())


def test_one_that_was_not_told_says_what_to_do(futures: ModuleType, spans: InMemoryExporter, run: Run) -> None:
    coroutine = asyncio.sleep(0)

    async def main() -> None:
        with pytest.raises(RuntimeError, match="rvh_trace_client::task::spawn"):
            await futures.call_in_bare_task(lambda: coroutine)

    run(main())
    # It was closed: nobody can be warned that it was never awaited.
    assert coroutine.cr_frame is None
    assert spans.one("future").status == "error"


def test_futures_tasks_and_custom_awaitables_will_do(futures: ModuleType, spans: InMemoryExporter, run: Run) -> None:
    class Custom:
        def __await__(self) -> Any:
            yield from asyncio.sleep(0).__await__()
            return current_span().context.span_id

    async def main() -> None:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[str] = loop.create_future()
        loop.call_soon(future.set_result, "future")
        task = asyncio.create_task(asyncio.sleep(0, "task"))
        assert await futures.call("load", lambda: future) == "future"
        assert await futures.call("load", lambda: task) == "task"
        assert await futures.call("custom", Custom) == spans.one("custom").span_id
        assert await futures.call("load", lambda: futures.echo("inside", 1)) == 1
        with pytest.raises(TypeError):
            await futures.call("load", lambda: 7)

    run(main())


def test_an_exception_of_the_coroutine_is_the_same_object_outside(
    futures: ModuleType, spans: InMemoryExporter, run: Run
) -> None:
    error = LookupError("no row")

    async def ask() -> None:
        await asyncio.sleep(0)
        raise error

    async def main() -> None:
        with pytest.raises(LookupError) as caught:
            await futures.call("load", ask)
        assert caught.value is error

    run(main())
    (event,) = spans.one("load").events
    assert "in ask" in str(event.attributes["exception.stacktrace"])
