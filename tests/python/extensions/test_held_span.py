"""A span that Rust code starts and ends by hand, from whatever thread."""

import asyncio
import threading
from types import ModuleType
from typing import Any

import pytest

import rvh_trace
from rvh_trace import current_span, span
from rvh_trace.testing import InMemoryExporter


def test_has_what_it_was_started_with(extension: ModuleType, spans: InMemoryExporter) -> None:
    with span("python"):
        held = extension.Held("held")
        assert held.is_recorded
        assert len(spans) == 0
        held.release()
    only = spans.one("held")
    assert (only.kind, only.status) == ("client", "unset")
    assert only.attributes == {"text": "t", "int": 8, "double": 1.5, "bool": True}
    assert only.is_child_of(spans.one("python"))


def test_takes_all_that_can_be_set(extension: ModuleType, spans: InMemoryExporter) -> None:
    held = extension.Held("held")
    held.annotate()
    held.release()
    only = spans.one("renamed")
    assert only.attributes == {"text": "t", "int": 9, "double": 1.5, "bool": True, "more": "m", "empty": ""}
    assert (only.status, only.status_description) == ("error", "why")
    now, then = only.events
    assert (now.name, now.attributes) == ("now", {"n": 1})
    assert only.start_unix_ns <= now.unix_ns <= only.end_unix_ns
    assert (then.name, then.unix_ns, then.attributes) == ("then", 1_700_000_000_000_000_000, {})


def test_ok_is_final(extension: ModuleType, spans: InMemoryExporter) -> None:
    held = extension.Held("held")
    held.set_ok()
    held.release()
    assert spans.one("held").status == "ok"


def test_times_can_be_given(extension: ModuleType, spans: InMemoryExporter) -> None:
    start = 1_700_000_000_000_000_000
    extension.Held("held", None, start).end(start + 5)
    extension.Held("backwards", None, start).end(start - 5)
    assert (spans.one("held").start_unix_ns, spans.one("held").end_unix_ns) == (start, start + 5)
    assert spans.one("backwards").end_unix_ns == start


def test_parent_and_links_are_those_that_were_given(extension: ModuleType, spans: InMemoryExporter) -> None:
    with span("python"):
        parent = extension.Held("parent")
    child = extension.Held("child", parent)
    child.link(parent)
    for held in (child, parent):
        held.release()
    assert spans.one("child").is_child_of(spans.one("parent"))
    (link,) = spans.one("child").links
    assert (link.span_id, link.attributes) == (spans.one("parent").span_id, {"why": "because"})


def test_ends_once_and_is_silent_afterwards(extension: ModuleType, spans: InMemoryExporter) -> None:
    held = extension.Held("held")
    held.end()
    held.annotate()
    held.end()
    held.release()
    held.annotate()
    assert [one.name for one in spans] == ["held"]


def test_many_threads_may_annotate_and_end_it(extension: ModuleType, spans: InMemoryExporter) -> None:
    for _ in range(20):
        held = extension.Held("held")
        barrier = threading.Barrier(6)

        def work(number: int, held: Any = held, barrier: threading.Barrier = barrier) -> None:
            barrier.wait()
            for n in range(50):
                held.set_attribute(f"thread.{number}", n)
                if number == 0 and n == 40:
                    held.end()

        threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        held.release()
    assert [one.name for one in spans] == ["held"] * 20
    assert all(one.attributes["thread.0"] == 40 for one in spans)
    assert rvh_trace.stats()["ended"] == 20


def test_below_a_request_that_was_answered_it_is_a_root_that_links_it(
    extension: ModuleType, spans: InMemoryExporter
) -> None:
    """As spans of Python are: a child would stand outside of its parent's time."""
    captured = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})
        captured.append(extension.capture())
        extension.tree(1)

    drive(app)
    request = spans.one("GET")
    outer = spans.one("outer")
    assert outer.parent_span_id is None
    assert outer.trace_id != request.trace_id
    assert [link.span_id for link in outer.links] == [request.span_id]
    # Also by way of a context that was taken there.
    extension.Held("later", captured[0]).release()
    later = spans.one("later")
    assert (later.parent_span_id, [link.span_id for link in later.links]) == (None, [request.span_id])


def drive(app: Any) -> None:
    """One request to `app`, behind the middleware."""
    scope = {"type": "http", "method": "GET", "path": "/", "headers": [], "query_string": b"", "scheme": "http"}

    async def receive() -> dict[str, object]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Any) -> None:
        pass

    asyncio.run(rvh_trace.RvhTraceMiddleware(app)(scope, receive, send))


class TestAttached:
    def test_is_current_for_rust_and_not_for_python(self, extension: ModuleType, spans: InMemoryExporter) -> None:
        held = extension.Held("held")

        def callback() -> None:
            assert extension.current()[1] == held.span_id
            assert not current_span().context.is_valid
            extension.tree(1)

        held.attach(callback)
        assert extension.current() is None
        held.release()
        assert spans.one("outer").is_child_of(spans.one("held"))

    def test_python_below_it_comes_first_where_rust_has_entered_it(
        self, extension: ModuleType, spans: InMemoryExporter
    ) -> None:
        held = extension.Held("held")

        def callback() -> None:
            assert current_span().context.span_id == held.span_id
            with span("python"):
                extension.tree(1)
                inside.attach(lambda: extension.tree(1))

        with span("elsewhere"):
            inside = extension.Held("inside")
        held.attach(callback, True)
        for one in (held, inside):
            one.release()
        assert spans.one("python").is_child_of(spans.one("held"))
        first, second = spans.named("outer")
        assert first.is_child_of(spans.one("python"))
        assert second.is_child_of(spans.one("inside"))

    @pytest.mark.parametrize("entered", [True, False])
    def test_what_is_not_recorded_is_handed_on(self, extension: ModuleType, entered: bool) -> None:
        with InMemoryExporter(sampler="always_off") as spans:
            held = extension.Held("held")
            assert not held.is_recorded
            assert held.trace_flags == 0x02

            def callback() -> None:
                carrier: dict[str, str] = {}
                rvh_trace.inject(carrier)
                assert dict(extension.inject())["traceparent"].split("-")[2] == held.span_id
                assert (carrier == {}) is not entered

            held.attach(callback, entered)
        assert len(spans) == 0
