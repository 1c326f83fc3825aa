"""A span as a scope: when it starts and ends, what is its parent, and what is current."""

import asyncio
import gc
import threading
import weakref
from collections.abc import Callable, Coroutine
from contextlib import AsyncExitStack, ExitStack
from typing import Any

import pytest

from rvh_trace import current_span, new_span, span
from rvh_trace.testing import InMemoryExporter

Run = Callable[[Coroutine[Any, Any, Any]], Any]


def test_with_makes_one_span_with_its_name(spans: InMemoryExporter) -> None:
    with span("checkout"):
        pass
    assert [one.name for one in spans] == ["checkout"]
    only = spans[0]
    assert (only.kind, only.parent_span_id, only.status) == ("internal", None, "unset")
    assert only.attributes == {}
    assert only.start_unix_ns < only.end_unix_ns
    assert (only.events, only.links) == ((), ())


def test_with_gives_the_span_itself() -> None:
    made = span("checkout")
    with made as entered:
        assert entered is made


def test_async_with_gives_the_span_itself_and_ends_it(spans: InMemoryExporter, run: Run) -> None:
    async def main() -> None:
        made = span("checkout")
        async with made as entered:
            assert entered is made
            assert current_span() is made
            await asyncio.sleep(0)
        assert not current_span().context.is_valid

    run(main())
    assert [one.name for one in spans] == ["checkout"]


def test_exit_stacks_take_spans(spans: InMemoryExporter, run: Run) -> None:
    async def main() -> None:
        with ExitStack() as stack:
            stack.enter_context(span("sync"))
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(span("async"))

    run(main())
    assert [one.name for one in spans] == ["sync", "async"]


@pytest.mark.parametrize("kind", ["internal", "server", "client", "producer", "consumer"])
def test_kind_is_kept(spans: InMemoryExporter, kind: Any) -> None:
    with span("call", kind=kind):
        pass
    new_span("by hand", kind=kind).end()
    assert [one.kind for one in spans] == [kind, kind]


def test_name_with_any_text_survives(spans: InMemoryExporter) -> None:
    for name in ("", "läuft 🚀", "x" * 10_000, "nul\0"):
        with span(name):
            pass
        assert spans[-1].name == name


def test_nested_spans_are_children_and_siblings_are_not(spans: InMemoryExporter) -> None:
    with span("root"):
        with span("first"), span("inside first"):
            pass
        with span("second"):
            pass
    root = spans.one("root")
    assert [child.name for child in spans.children(root)] == ["first", "second"]
    assert spans.one("inside first").is_child_of(spans.one("first"))
    assert len({one.trace_id for one in spans}) == 1
    assert len({one.span_id for one in spans}) == 4


def test_two_roots_are_two_traces(spans: InMemoryExporter) -> None:
    for _ in range(2):
        with span("root"):
            pass
    assert spans[0].trace_id != spans[1].trace_id
    assert spans[0].parent_span_id is spans[1].parent_span_id is None


def test_identity_in_code_is_the_identity_that_is_exported(spans: InMemoryExporter) -> None:
    with span("op") as op:
        context = op.context
    assert (context.trace_id, context.span_id) == (spans[0].trace_id, spans[0].span_id)
    assert context.trace_flags == 0x03
    assert (context.is_sampled, context.is_valid, context.is_remote) == (True, True, False)
    assert op.context == context


def test_a_span_has_no_identity_before_it_starts_and_is_not_exported_if_it_never_does(spans: InMemoryExporter) -> None:
    pending = span("never entered")
    assert not pending.context.is_valid
    pending.end()
    del pending
    span("dropped")
    assert list(spans) == []


def test_is_recording_from_start_to_end() -> None:
    with InMemoryExporter():
        with span("op") as op:
            assert op.is_recording
        assert not op.is_recording


def test_current_span_outside_of_spans_is_harmless(spans: InMemoryExporter) -> None:
    nothing = current_span()
    assert not nothing.is_recording
    assert not nothing.context.is_valid
    assert (nothing.context.trace_id, nothing.context.span_id) == ("0" * 32, "0" * 16)
    nothing.set_attribute("key", "value")
    nothing.set_attributes({"key": "value"})
    nothing.add_event("event")
    nothing.add_link(nothing)
    nothing.set_status("error")
    nothing.record_exception(ValueError())
    nothing.update_name("name")
    nothing.end()
    assert list(spans) == []


def test_current_span_follows_the_scopes(spans: InMemoryExporter) -> None:
    with span("outer") as outer:
        assert current_span() is outer
        with span("inner") as inner:
            assert current_span() is inner
        assert current_span() is outer
    assert not current_span().context.is_valid


def test_a_span_entered_again_while_it_is_current_is_one_span(spans: InMemoryExporter) -> None:
    with span("again") as again:
        with again, span("child"):
            pass
        assert current_span() is again
        assert again.is_recording
        again.set_attribute("after", 1)
    assert not current_span().context.is_valid
    assert [one.name for one in spans] == ["child", "again"]
    assert spans.one("again").attributes == {"after": 1}
    assert spans.one("child").is_child_of(spans.one("again"))


def test_a_span_entered_after_its_end_is_not_exported_twice(spans: InMemoryExporter) -> None:
    used = span("once")
    with used:
        pass
    with used:
        used.set_attribute("late", 1)
    assert [one.name for one in spans] == ["once"]
    assert spans[0].attributes == {}
    assert not current_span().context.is_valid


def test_a_span_ended_twice_is_exported_once_as_it_was_first(spans: InMemoryExporter) -> None:
    op = new_span("op")
    op.end()
    op.set_attribute("late", 1)
    op.add_event("late")
    op.set_status("error", "late")
    op.update_name("late")
    op.end(2**62)
    assert [(one.name, one.attributes, one.events, one.status) for one in spans] == [("op", {}, (), "unset")]


def test_ending_inside_the_scope_keeps_the_scope_open(spans: InMemoryExporter) -> None:
    with span("op") as op:
        op.end()
        assert not op.is_recording
        assert current_span() is op
        op.set_attribute("late", 1)
    assert [one.name for one in spans] == ["op"]
    assert spans[0].attributes == {}
    assert not current_span().context.is_valid


def test_end_takes_a_time(spans: InMemoryExporter) -> None:
    start = 1_700_000_000_000_000_000
    new_span("op", start_unix_ns=start).end(start + 5)
    assert (spans[0].start_unix_ns, spans[0].end_unix_ns, spans[0].duration_ns) == (start, start + 5, 5)


def test_a_span_never_ends_before_it_starts(spans: InMemoryExporter) -> None:
    new_span("op", start_unix_ns=1_700_000_000_000_000_000).end(1)
    assert spans[0].duration_ns == 0


def test_update_name_replaces_the_name_and_keeps_the_attributes(spans: InMemoryExporter) -> None:
    with span("a name that is longer than the next", {"key": "value"}) as op:
        op.update_name("short")
        op.set_attribute("later", 1)
    assert (spans[0].name, spans[0].attributes) == ("short", {"key": "value", "later": 1})


def test_new_span_is_a_child_but_not_current(spans: InMemoryExporter) -> None:
    with span("outer") as outer:
        upload = new_span("upload", {"size": 3}, kind="producer", part=1)
        assert current_span() is outer
    upload.end()
    assert spans.one("upload").is_child_of(spans.one("outer"))
    assert spans.one("upload").attributes == {"size": 3, "part": 1}
    assert [one.name for one in spans] == ["outer", "upload"]


def test_activate_makes_a_span_current_and_does_not_end_it(spans: InMemoryExporter) -> None:
    upload = new_span("upload")
    for _ in range(2):
        with upload.activate() as active:
            assert active is upload
            assert current_span() is upload
            with span("part"):
                pass
        assert upload.is_recording
        assert not current_span().context.is_valid
    with pytest.raises(ValueError, match="inside"), upload.activate():
        raise ValueError("inside")
    assert upload.is_recording
    upload.end()
    assert spans.one("upload").status == "unset"
    assert len(spans.children(spans.one("upload"))) == 2


def test_a_span_left_on_another_thread_ends(spans: InMemoryExporter) -> None:
    op = span("op")
    op.__enter__()
    thread = threading.Thread(target=op.__exit__, args=(None, None, None))
    thread.start()
    thread.join()
    assert [one.name for one in spans] == ["op"]
    assert not current_span().is_recording


def test_threads_may_share_a_span(spans: InMemoryExporter) -> None:
    with span("shared") as shared:

        def work(number: int) -> None:
            for _ in range(50):
                shared.set_attribute(f"thread.{number}", number)
                shared.add_event("tick")

        threads = [threading.Thread(target=work, args=(number,)) for number in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert spans[0].attributes == {"thread.0": 0, "thread.1": 1}
    assert len(spans[0].events) == 100


def test_an_ended_span_keeps_no_object_of_the_user_alive(spans: InMemoryExporter) -> None:
    class Cart:
        def __str__(self) -> str:
            return "cart"

    cart = Cart()
    gone = weakref.ref(cart)
    with span("op", {"cart": cart}, again=cart) as op:
        op.set_attribute("later", cart)
    del cart
    gc.collect()
    assert gone() is None
    assert op.context.is_valid


def test_spans_in_reference_cycles_are_collected(spans: InMemoryExporter) -> None:
    class Owner:
        span: Any

    def make() -> "weakref.ref[Owner]":
        owner = Owner()
        owner.span = span("pending", {"owner": owner})
        return weakref.ref(owner)

    gone = make()
    gc.collect()
    assert gone() is None


def test_repr_names_the_ids() -> None:
    with InMemoryExporter(), span("op") as op:
        assert op.context.trace_id in repr(op)
        assert op.context.span_id in repr(op)
    assert "not started" in repr(span("op"))


def test_the_class_cannot_be_called() -> None:
    with pytest.raises(TypeError):
        type(span("op"))()


class TestRun:
    """`span(...).run(awaitable)`"""

    def test_gives_the_result_and_the_span_is_current_inside(self, spans: InMemoryExporter, run: Run) -> None:
        async def load(key: int) -> tuple[int, Any]:
            inside = current_span()
            await asyncio.sleep(0)
            assert current_span() is inside
            return key, inside

        async def main() -> None:
            with span("outer") as outer:
                made = span("load", {"key": 7})
                assert await made.run(load(7)) == (7, made)
                assert current_span() is outer

        run(main())
        assert spans.one("load").is_child_of(spans.one("outer"))
        assert spans.one("load").attributes == {"key": 7}

    @pytest.mark.parametrize("result", [None, (), (1, 2), StopIteration(3), ValueError("returned"), [4], "text"])
    def test_every_result_comes_back_as_it_is(self, spans: InMemoryExporter, run: Run, result: object) -> None:
        async def load() -> object:
            return result

        async def suspended() -> object:
            await asyncio.sleep(0)
            return result

        async def main() -> None:
            assert await span("load").run(load()) is result
            assert await span("load").run(suspended()) is result
            assert await asyncio.create_task(span("load").run(suspended())) is result

        run(main())
        assert [one.status for one in spans] == ["unset"] * 3

    def test_starts_with_the_first_step_and_not_with_the_call(self, spans: InMemoryExporter, run: Run) -> None:
        async def main() -> None:
            pending = span("late")
            with span("called in"):
                coroutine = pending.run(asyncio.sleep(0))
            with span("awaited in"):
                await coroutine

        run(main())
        assert spans.one("late").is_child_of(spans.one("awaited in"))

    def test_raises_the_same_exception(self, spans: InMemoryExporter, run: Run) -> None:
        error = LookupError("no row")

        async def load() -> None:
            await asyncio.sleep(0)
            raise error

        async def main() -> None:
            with pytest.raises(LookupError) as caught:
                await span("load").run(load())
            assert caught.value is error

        run(main())
        assert spans[0].attributes == {"error.type": "LookupError"}
        assert (spans[0].status, spans[0].status_description) == ("error", "no row")

    def test_takes_futures_tasks_and_objects_with_dunder_await(self, spans: InMemoryExporter, run: Run) -> None:
        class Custom:
            def __await__(self) -> Any:
                yield from asyncio.sleep(0).__await__()
                return "custom"

        async def main() -> None:
            loop = asyncio.get_running_loop()
            future: asyncio.Future[str] = loop.create_future()
            loop.call_soon(future.set_result, "future")
            assert await span("future").run(future) == "future"
            assert await span("custom").run(Custom()) == "custom"
            assert await span("task").run(asyncio.create_task(asyncio.sleep(0, "task"))) == "task"
            assert await span("outer").run(span("inner").run(asyncio.sleep(0, "nested"))) == "nested"

        run(main())
        assert [one.name for one in spans] == ["future", "custom", "task", "inner", "outer"]
        assert spans.one("inner").is_child_of(spans.one("outer"))

    def test_what_is_not_awaitable_is_a_type_error_at_the_call(self) -> None:
        with pytest.raises(TypeError, match="awaitable"):
            span("load").run(7)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]

    def test_cancellation_reaches_the_awaitable_and_is_visible(self, spans: InMemoryExporter, run: Run) -> None:
        seen: list[str] = []

        async def load() -> None:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                seen.append("cancelled")
                raise

        async def main() -> None:
            task = asyncio.create_task(span("load").run(load()))
            await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

        run(main())
        assert seen == ["cancelled"]
        assert spans[0].attributes == {"rvh_trace.outcome": "cancelled"}
        assert (spans[0].status, spans[0].events) == ("unset", ())

    def test_a_coroutine_that_is_never_awaited_still_warns_and_makes_no_span(self, spans: InMemoryExporter) -> None:
        async def load() -> None: ...

        coroutine = span("load").run(load())
        with pytest.warns(RuntimeWarning, match=r"load.* was never awaited"):  # noqa: PT031
            del coroutine
            gc.collect()
        assert list(spans) == []

    def test_closing_it_closes_what_it_awaits(self, spans: InMemoryExporter) -> None:
        closed: list[bool] = []

        class Pause:
            def __await__(self) -> Any:
                yield

        async def load() -> None:
            try:
                await Pause()
            finally:
                closed.append(True)

        coroutine = span("load").run(load())
        coroutine.send(None)
        coroutine.close()
        assert closed == [True]
        assert [(one.name, one.status) for one in spans] == [("load", "unset")]
        assert not current_span().context.is_valid

    def test_it_is_a_coroutine_to_asyncio(self, run: Run) -> None:
        coroutine = span("load").run(asyncio.sleep(0, "row"))
        assert asyncio.iscoroutine(coroutine)
        assert isinstance(coroutine, Coroutine)
        assert run(coroutine_in_runner(coroutine)) == "row"

    def test_stop_iteration_cannot_end_it_silently(self, run: Run) -> None:
        async def load() -> None:
            raise StopIteration("oops")

        async def main() -> None:
            with pytest.raises(RuntimeError, match="StopIteration"):
                await span("load").run(load())

        run(main())


async def coroutine_in_runner(coroutine: Coroutine[Any, Any, Any]) -> Any:
    return await coroutine
