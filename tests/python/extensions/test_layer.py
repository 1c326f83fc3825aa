"""Spans and events of `tracing`, in an extension that is built apart with an older `tracing`, as spans of the trace."""

import threading
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from collector import Collector
from receiver import Receiver
from receiver import spans as received

import rvh_trace
from rvh_trace import current_span, span
from rvh_trace.testing import FinishedSpan, InMemoryExporter

LAYER = "traced_extension::layer"
ARRIVAL_TIMEOUT_S = 20.0


def names(found: list[FinishedSpan]) -> list[str]:
    return [one.name for one in found]


class TestTree:
    def test_spans_of_rust_stand_below_the_span_of_python(self, extension: ModuleType, spans: InMemoryExporter) -> None:
        with span("python"):
            assert extension.tree(2) == 2
        (outer,) = spans.children(spans.one("python"))
        assert (outer.name, outer.attributes, outer.kind) == ("outer", {"items": 2}, "internal")
        middles = spans.children(outer)
        assert [(one.name, one.attributes) for one in middles] == [("middle", {"item": 0}), ("middle", {"item": 1})]
        assert [names(spans.children(one)) for one in middles] == [["inner"], ["inner"]]
        assert [event.name for one in middles for event in one.events] == ["looked at", "looked at"]
        assert len({one.trace_id for one in spans}) == 1
        assert not any(one.status == "error" for one in spans)

    def test_what_is_inside_ends_first(self, extension: ModuleType, spans: InMemoryExporter) -> None:
        extension.tree(1)
        inner, middle, outer = (spans.one(name) for name in ("inner", "middle", "outer"))
        assert outer.parent_span_id is None
        assert outer.start_unix_ns <= middle.start_unix_ns <= inner.start_unix_ns
        assert inner.end_unix_ns <= middle.end_unix_ns <= outer.end_unix_ns

    def test_all_counters_add_up(self, extension: ModuleType, spans: InMemoryExporter) -> None:
        with span("python"):
            extension.tree(3)
        stats = rvh_trace.stats()
        assert (stats["started"], stats["ended"], stats["not_sampled"]) == (8, 8, 0)
        assert len(spans) == 8

    def test_what_is_not_sampled_is_counted_and_not_recorded(self, extension: ModuleType) -> None:
        with InMemoryExporter(sampler="always_off") as spans:
            extension.tree(1)
            assert rvh_trace.stats()["not_sampled"] == 3
        assert len(spans) == 0

    def test_children_of_a_span_that_is_not_sampled_are_not_either(
        self, extension: ModuleType, spans: InMemoryExporter
    ) -> None:
        remote = rvh_trace.extract({"traceparent": f"00-{'1' * 32}-{'2' * 16}-00"})
        with rvh_trace.use_context(remote):
            extension.tree(1)
            assert dict(extension.inject())["traceparent"] == f"00-{'1' * 32}-{'2' * 16}-00"
        assert len(spans) == 0

    def test_the_remote_parent_of_python_is_that_of_rust(self, extension: ModuleType, spans: InMemoryExporter) -> None:
        with rvh_trace.use_context(rvh_trace.extract({"traceparent": f"00-{'1' * 32}-{'2' * 16}-01"})):
            extension.tree(1)
        outer = spans.one("outer")
        assert (outer.trace_id, outer.parent_span_id) == ("1" * 32, "2" * 16)
        # OTLP's flags of a span whose parent is known to be remote.
        assert outer.flags & 0x300 == 0x300

    def test_threads_carry_the_span_along(self, extension: ModuleType, spans: InMemoryExporter) -> None:
        with span("python"):
            extension.threads(8, 50)
        (parent,) = spans.children(spans.one("python"))
        work = spans.children(parent)
        assert len(work) == 400
        assert sorted((one.attributes["worker"], one.attributes["n"]) for one in work) == [
            (worker, n + 1) for worker in range(8) for n in range(50)
        ]

    def test_python_threads_see_their_own_span(self, extension: ModuleType, spans: InMemoryExporter) -> None:
        def work(number: int) -> None:
            with span(f"thread {number}"):
                for _ in range(20):
                    extension.tree(1)

        threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for number in range(4):
            assert names(spans.children(spans.one(f"thread {number}"))) == ["outer"] * 20

    def test_spans_are_current_while_they_are_entered(self, extension: ModuleType, spans: InMemoryExporter) -> None:
        with span("python"):
            extension.interleaved()
        parents = {one.span_id: one.name for one in spans}
        assert {one.name: parents.get(one.parent_span_id or "") for one in spans} == {
            "python": None,
            "first": "python",
            "second": "python",
            "in second": "second",
            "in first": "first",
            "in neither": "python",
        }

    def test_parents_roots_and_links_are_those_that_were_given(
        self, extension: ModuleType, spans: InMemoryExporter
    ) -> None:
        with span("python"):
            extension.relations()
        first = spans.one("first")
        assert names(spans.children(first)) == ["child of first"]
        assert [event.name for event in first.events] == ["told to first"]
        assert spans.one("root").parent_span_id is None
        assert spans.one("root").trace_id != first.trace_id
        (link,) = spans.one("follower").links
        assert (link.trace_id, link.span_id) == (first.trace_id, first.span_id)


class TestFields:
    def test_keep_their_types(self, extension: ModuleType, spans: InMemoryExporter) -> None:
        extension.fields()
        attributes = spans.one("fields").attributes
        assert attributes == {
            "cart.id": "c-1729",
            "cart.size": 4,
            "large": "18446744073709551615",
            "negative": -1,
            "small": 7,
            "wide": 5,
            "price": 12.5,
            "paid": True,
            "type": "raw",
            "debugged": "Some(1)",
            "displayed": "the disk is full",
            "late": "recorded",
        }
        assert attributes["paid"] is True

    def test_otel_fields_mean_what_tracing_opentelemetry_gives_them(
        self, extension: ModuleType, spans: InMemoryExporter
    ) -> None:
        extension.otel_fields("error")
        extension.otel_fields("Ok")
        failed, fine = spans.named("GET /cart")
        assert (failed.kind, failed.status, failed.status_description) == ("client", "error", "told late")
        assert (fine.kind, fine.status, fine.attributes) == ("client", "ok", {})
        assert [one.kind for one in spans.named('"by record"')] == ["internal"] * 2

    def test_a_formatter_may_open_spans(self, extension: ModuleType, spans: InMemoryExporter) -> None:
        extension.formats_in_spans()
        assert spans.one("formatted").attributes == {"before": "b", "value": "traced", "after": "a"}
        assert spans.one("formatting").attributes == {"depth": "inner"}

    def test_errors_are_exceptions(self, extension: ModuleType, spans: InMemoryExporter) -> None:
        extension.errors()
        chain = "not written\n\nCaused by:\n    the disk is full"
        exception = {"exception.message": "not written", "exception.stacktrace": chain}
        level = {"level": "ERROR", "target": LAYER}

        field = spans.one("field")
        assert (field.attributes, field.status) == ({"failure": "not written"}, "unset")
        assert [(event.name, event.attributes) for event in field.events] == [("exception", exception)]

        for name, event_name in (("event", "could not go on"), ("unnamed event", "exception")):
            told = spans.one(name)
            (event,) = told.events
            assert (event.name, event.attributes) == (event_name, {"failure": "not written"} | exception | level)
            assert told.status == "error"

        fails = spans.one("fails")
        assert [event.attributes for event in fails.events] == [{"exception.message": "not written"} | level]
        assert (fails.events[0].name, fails.status, fails.status_description) == ("exception", "error", "not written")


class TestEvents:
    def test_are_events_of_their_span(self, extension: ModuleType, spans: InMemoryExporter) -> None:
        extension.events()
        told = spans.one("events")
        levels = ["TRACE", "DEBUG", "INFO", "WARN", "ERROR"]
        assert [event.name for event in told.events] == ["a trace", "a debug", "an info", "a warning", "an error"]
        assert [event.attributes for event in told.events] == [
            {"n": n, "level": level, "target": LAYER} for n, level in enumerate(levels, 1)
        ]
        assert (told.status, told.status_description) == ("error", "an error")

    def test_outside_of_a_span_of_rust_belong_to_the_one_of_python(
        self, extension: ModuleType, spans: InMemoryExporter
    ) -> None:
        with span("python"):
            extension.lone_event()
        extension.lone_event()
        assert [event.name for event in spans.one("python").events] == ["alone"]

    def test_records_of_the_log_crate_are_events(self, extension: ModuleType, spans: InMemoryExporter) -> None:
        extension.log_record()
        assert [event.name for event in spans.one("logs").events] == ["from log"]


class TestOptions:
    def test_a_level_leaves_out_what_is_more_verbose(self, extension: ModuleType, spans: InMemoryExporter) -> None:
        extension.with_options("level")
        assert names(list(spans)) == ["middle", "outer", "events"]
        assert [event.name for event in spans.one("events").events] == ["an info", "a warning", "an error"]

    def test_filters_of_tracing_subscriber_work(self, extension: ModuleType, spans: InMemoryExporter) -> None:
        extension.with_options("targets")
        assert len(spans) == 0

    def test_source_and_thread_are_told_by_choice(self, extension: ModuleType, spans: InMemoryExporter) -> None:
        thread = threading.Thread(target=extension.with_options, args=("code",))
        thread.start()
        thread.join()
        attributes = dict(spans.one("outer").attributes)
        assert Path(str(attributes.pop("code.file.path"))).name == "layer.rs"
        assert isinstance(attributes.pop("code.line.number"), int)
        # A thread of Python's has no name that Rust knows.
        assert attributes == {"items": 1}

    def test_an_error_event_need_not_be_an_error_of_the_span(
        self, extension: ModuleType, spans: InMemoryExporter
    ) -> None:
        extension.with_options("no error status")
        assert spans.one("events").status == "unset"

    def test_two_layers_do_not_disturb_each_other(self, extension: ModuleType, spans: InMemoryExporter) -> None:
        extension.with_options("two layers")
        assert sorted(names(list(spans))) == sorted(["outer", "middle", "inner", "events"] * 2)

    def test_another_layer_sees_what_this_one_leaves_out(self, extension: ModuleType) -> None:
        before = extension.seen()
        extension.with_options("beside another")
        assert extension.seen() - before == 4


class TestPythonInsideRust:
    def test_the_span_of_rust_is_current_and_can_be_annotated(
        self, extension: ModuleType, spans: InMemoryExporter
    ) -> None:
        def callback() -> str:
            current = current_span()
            assert current.is_recording
            current.set_attribute("from", "python")
            current.add_event("called")
            with span("inner"):
                extension.tree(1)
            assert current_span() is current
            return current.context.span_id

        with span("python") as outside:
            span_id = extension.call_inside(callback)
            assert current_span() is outside
        rust = spans.one("rust")
        assert rust.span_id == span_id
        assert rust.is_child_of(spans.one("python"))
        assert (rust.attributes, [event.name for event in rust.events]) == ({"from": "python"}, ["called"])
        (inner,) = spans.children(rust)
        assert names(spans.children(inner)) == ["outer"]

    def test_an_exception_of_python_passes_through(self, extension: ModuleType, spans: InMemoryExporter) -> None:
        error = ValueError("from Python")

        def callback() -> None:
            raise error

        with span("python") as outside:
            with pytest.raises(ValueError, match="from Python") as raised:
                extension.call_inside(callback)
            assert raised.value is error
            assert current_span() is outside
        assert spans.one("rust").status == "unset"

    def test_leaving_does_not_end_it_and_its_end_makes_it_silent(
        self, extension: ModuleType, spans: InMemoryExporter
    ) -> None:
        kept: list[Any] = []

        def callback() -> None:
            ended = current_span()
            kept.append(ended)
            assert not ended.is_recording
            ended.set_attribute("too", "late")
            with span("below"):
                pass

        extension.call_and_end(callback)
        assert spans.one("rust").attributes == {}
        assert spans.one("below").is_child_of(spans.one("rust"))
        (ended,) = kept
        ended.set_attribute("much too", "late")
        assert ended.context.span_id == spans.one("rust").span_id

    def test_python_may_keep_it_and_it_ends_all_the_same(self, extension: ModuleType, spans: InMemoryExporter) -> None:
        kept: list[Any] = []
        extension.call_inside(lambda: kept.append(current_span()))
        assert names(list(spans)) == ["rust"]
        assert not kept[0].is_recording

    def test_entering_it_again_in_python_leaves_it_open_for_rust(
        self, extension: ModuleType, spans: InMemoryExporter
    ) -> None:
        def callback() -> None:
            with rvh_trace.use_context(current_span()) as again:
                again.set_attribute("again", 1)
            current_span().set_attribute("still", 2)

        extension.call_inside(callback)
        assert spans.one("rust").attributes == {"again": 1, "still": 2}


def test_spans_of_rust_go_through_a_collector(receiver: Receiver, run_extension: Any, tmp_path: Path) -> None:
    with Collector(receiver.http_endpoint, "http", directory=tmp_path) as collector:
        run_extension(
            """
            import rvh_trace, traced_extension
            rvh_trace.init_tracing("shop")
            with rvh_trace.span("python"):
                traced_extension.tree(1)
            assert rvh_trace.force_flush()
            """,
            endpoint=collector.endpoint("http"),
        )
        receiver.wait_for(lambda requests: len(received(requests)) == 4, ARRIVAL_TIMEOUT_S)
    parents = {one.span_id: one.name for one in receiver.spans}
    assert {one.name: parents.get(one.parent_id) for one in receiver.spans} == {
        "python": None,
        "outer": "python",
        "middle": "outer",
        "inner": "middle",
    }
    (middle,) = (one for one in receiver.spans if one.name == "middle")
    assert (middle.service, middle.attributes) == ("shop", {"item": 0})
