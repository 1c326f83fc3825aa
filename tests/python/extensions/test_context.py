"""Context between Python, Rust and headers."""

import contextvars
import threading
from types import ModuleType

import rvh_trace
from rvh_trace import current_span, span
from rvh_trace.testing import InMemoryExporter

TRACE_ID, SPAN_ID = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
TRACEPARENT = f"00-{TRACE_ID}-{SPAN_ID}-01"


def test_the_current_span_of_python_is_seen_with_the_gil(extension: ModuleType, spans: InMemoryExporter) -> None:
    assert extension.current() is None
    with span("python") as current:
        assert extension.current() == (current.context.trace_id, current.context.span_id)
        assert extension.current_detached() is None


def test_another_thread_has_another_context(extension: ModuleType, spans: InMemoryExporter) -> None:
    seen: list[object] = []
    with span("python"):
        thread = threading.Thread(target=lambda: seen.append(extension.current()))
        thread.start()
        thread.join()
    assert seen == [None]


def test_headers_carry_it_on(extension: ModuleType, spans: InMemoryExporter) -> None:
    with span("python") as current:
        expected: dict[str, str] = {}
        rvh_trace.inject(expected)
        assert expected["traceparent"].split("-")[2] == current.context.span_id
        assert dict(extension.inject()) == {"accept": "*/*"} | expected


def test_trace_state_and_baggage_pass_through_rust(extension: ModuleType, spans: InMemoryExporter) -> None:
    sent = [("traceparent", TRACEPARENT), ("tracestate", "a=1"), ("tracestate", "b=2"), ("baggage", "k=v%20w;p=1")]
    passed = dict(extension.pass_on([(name, value.encode()) for name, value in sent]))
    only = spans.one("pass on")
    assert (only.trace_id, only.parent_span_id, only.trace_state) == (TRACE_ID, SPAN_ID, "a=1,b=2")
    assert passed == {
        "accept": "*/*",
        "traceparent": f"00-{TRACE_ID}-{only.span_id}-01",
        "tracestate": "a=1,b=2",
        "baggage": "k=v%20w;p=1",
    }


def test_headers_without_context_are_none(extension: ModuleType, spans: InMemoryExporter) -> None:
    two = [("traceparent", TRACEPARENT.encode())] * 2
    for headers in ([], [("traceparent", b"garbage")], [("traceparent", b"\xff\x80")], two):
        assert extension.pass_on(headers) is None
    assert len(spans) == 0


def test_the_baggage_of_python_is_that_of_rust_and_back(extension: ModuleType, spans: InMemoryExporter) -> None:
    incoming = rvh_trace.extract({"traceparent": TRACEPARENT, "baggage": "cart=7"})
    with rvh_trace.use_context(incoming):
        assert dict(extension.inject())["baggage"] == "cart=7"
        held = extension.Held("held")

    def callback() -> dict[str, str]:
        carrier: dict[str, str] = {}
        rvh_trace.inject(carrier)
        return carrier

    carried = held.attach(callback, True)
    assert carried == {"traceparent": f"00-{TRACE_ID}-{held.span_id}-01", "baggage": "cart=7"}
    assert callback() == {}
    held.release()


def test_a_context_that_ends_with_the_work_needs_no_way_back(extension: ModuleType, spans: InMemoryExporter) -> None:
    held = extension.Held("held")

    def work() -> str:
        assert held.set_in_python()
        with span("below"):
            pass
        current_span().set_attribute("seen", 1)
        return current_span().context.span_id

    with span("outside") as outside:
        assert contextvars.copy_context().run(work) == held.span_id
        assert current_span() is outside
    held.release()
    assert spans.one("below").is_child_of(spans.one("held"))
    assert spans.one("held").attributes["seen"] == 1


def test_scopes_may_be_left_in_any_order(extension: ModuleType, spans: InMemoryExporter) -> None:
    """Python code inside a span of Rust's leaves a scope of its own open, and closes it later."""
    held = extension.Held("held")
    scopes = []

    def callback() -> None:
        opened = span("left open")
        opened.__enter__()
        scopes.append(opened)

    with span("outside") as outside:
        held.attach(callback, True)
        scopes[0].__exit__(None, None, None)
        assert current_span() is outside
    held.release()
    assert spans.one("left open").is_child_of(spans.one("held"))
