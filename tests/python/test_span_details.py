"""Events, links and status of a span."""

from typing import Any

import pytest

from rvh_trace import Context, SpanContext, extract, new_span, span
from rvh_trace.testing import InMemoryExporter

PARENT = {"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "tracestate": "vendor=a"}


class TestEvents:
    def test_events_keep_order_time_and_attributes(self, spans: InMemoryExporter) -> None:
        with span("op") as op:
            op.add_event("first", {"number": 1})
            op.add_event("second")
            op.add_event("dated", None, unix_ns=17)
        first, second, dated = spans[0].events
        assert (first.name, first.attributes) == ("first", {"number": 1})
        assert (second.name, second.attributes) == ("second", {})
        assert spans[0].start_unix_ns <= first.unix_ns <= second.unix_ns <= spans[0].end_unix_ns
        assert dated.unix_ns == 17

    def test_events_over_the_limit_are_dropped_and_counted(self, spans: InMemoryExporter) -> None:
        with span("op") as op:
            for number in range(131):
                op.add_event(str(number))
        assert [event.name for event in spans[0].events] == [str(number) for number in range(128)]
        assert spans[0].dropped_events == 3

    def test_event_attributes_over_the_limit_are_left_out(self, spans: InMemoryExporter) -> None:
        with span("op") as op:
            op.add_event("wide", {str(number): number for number in range(200)})
        assert len(spans[0].events[0].attributes) == 128


class TestLinks:
    def test_every_form_of_a_link_is_understood(self, spans: InMemoryExporter) -> None:
        other = new_span("other")
        remote = extract(PARENT)
        forms: list[Any] = [
            other,
            other.context,
            remote,
            (other, {"why": "span"}),
            (other.context, {"why": "context"}),
            (remote, {"why": "remote"}),
        ]
        with span("linked", links=forms) as linked:
            linked.add_link(other, {"why": "added"})
            linked.add_link(other.context)
            linked.add_link(remote)
        new_span("by hand", links=iter(forms)).end()
        here = (other.context.trace_id, other.context.span_id)
        there = (remote.span_context.trace_id, remote.span_context.span_id)
        expected = [
            (*here, {}),
            (*here, {}),
            (*there, {}),
            (*here, {"why": "span"}),
            (*here, {"why": "context"}),
            (*there, {"why": "remote"}),
        ]
        by_hand, sent = spans.one("by hand"), spans.one("linked")
        assert [(link.trace_id, link.span_id, link.attributes) for link in by_hand.links] == expected
        assert [(link.trace_id, link.span_id, link.attributes) for link in sent.links] == [
            *expected,
            (*here, {"why": "added"}),
            (*here, {}),
            (*there, {}),
        ]
        assert (sent.parent_span_id, by_hand.parent_span_id) == (None, None)

    def test_a_link_to_nothing_is_ignored(self, spans: InMemoryExporter) -> None:
        with span("op", links=[extract({})]) as op:
            op.add_link(extract({}).span_context)
        assert (spans[0].links, spans[0].dropped_links) == ((), 0)

    def test_links_over_the_limit_are_dropped_and_counted(self, spans: InMemoryExporter) -> None:
        with span("op") as op:
            for _ in range(130):
                op.add_link(op)
        assert (len(spans[0].links), spans[0].dropped_links) == (128, 2)


class TestStatus:
    """OpenTelemetry specification, "Set Status"."""

    @pytest.mark.parametrize(
        ("calls", "expected"),
        [
            ([], ("unset", "")),
            ([("ok",)], ("ok", "")),
            ([("error",)], ("error", "")),
            ([("error", "why")], ("error", "why")),
            ([("ok", "ignored")], ("ok", "")),
            ([("unset", "ignored")], ("unset", "")),
            ([("error", "why"), ("ok",)], ("ok", "")),
            ([("ok",), ("error", "why")], ("ok", "")),
            ([("ok",), ("unset",)], ("ok", "")),
            ([("error", "why"), ("unset",)], ("error", "why")),
            ([("error", "first"), ("error", "second")], ("error", "second")),
            ([("error", "first"), ("error",)], ("error", "")),
        ],
    )
    def test_ok_is_final_unset_is_ignored_and_only_error_is_described(
        self, spans: InMemoryExporter, calls: list[Any], expected: tuple[str, str]
    ) -> None:
        with span("op") as op:
            for call in calls:
                op.set_status(*call)
        assert (spans[0].status, spans[0].status_description) == expected


class TestSpanContext:
    def test_compares_and_hashes_by_value(self) -> None:
        first, second = extract(PARENT), extract(dict(PARENT))
        assert isinstance(first, Context)
        assert isinstance(first.span_context, SpanContext)
        assert first == second
        assert first.span_context == second.span_context
        assert len({first.span_context, second.span_context}) == 1
        assert first != extract({})
        assert first.span_context != extract({}).span_context
        assert first.span_context != PARENT

    def test_says_what_it_is(self) -> None:
        remote = extract(PARENT).span_context
        assert (remote.trace_id, remote.span_id) == ("0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331")
        assert (remote.trace_flags, remote.trace_state) == (1, "vendor=a")
        assert (remote.is_sampled, remote.is_remote, remote.is_valid) == (True, True, True)
        assert remote.trace_id in repr(remote)

    def test_is_read_only(self) -> None:
        context = extract(PARENT)
        with pytest.raises(AttributeError):
            context.span_context.trace_id = "0" * 32  # type: ignore[misc]  # pyright: ignore[reportAttributeAccessIssue]
        with pytest.raises(AttributeError):
            context.baggage = {}  # type: ignore[misc]  # pyright: ignore[reportAttributeAccessIssue]


@pytest.mark.parametrize("sampler", ["always_off", "parentbased_always_off"])
def test_what_is_not_sampled_costs_no_attribute_and_keeps_its_identity(sampler: str) -> None:
    class Loud:
        def __str__(self) -> str:
            raise AssertionError("an attribute of a span that is not sampled was read")

    with InMemoryExporter(sampler=sampler) as spans:
        with span("op", {"loud": Loud()}) as op:
            op.set_attribute("loud", Loud())
            op.add_event("event", {"loud": Loud()})
            assert not op.is_recording
            assert op.context.is_valid
            assert not op.context.is_sampled
            with span("child") as child:
                assert child.context.trace_id == op.context.trace_id
        assert list(spans) == []


def test_ratio_keeps_or_drops_whole_traces() -> None:
    with InMemoryExporter(sampler_ratio=0.5) as spans:
        for _ in range(200):
            with span("root"), span("child"):
                pass
        assert 20 < len(spans.named("root")) < 180
        assert {one.trace_id for one in spans.named("root")} == {one.trace_id for one in spans.named("child")}
