"""`init_tracing(rust_log=...)`: `tracing` spans, events and `log` records of Rust code in the trace of Python."""

import pytest
from interpreter import run_quietly
from receiver import Receiver
from rust_code import run_instrumented

from rvh_trace._rvh_trace import static_max_level


def test_nothing_is_installed_unless_it_is_asked_for() -> None:
    run_instrumented(
        """
        with span("python"):
            call_instrumented()
        assert [one.name for one in spans] == ["python"]
        assert threading.active_count() == 1
        assert kept.records == []
        """,
        {"RUST_LOG": "trace"},
    )


def test_rust_spans_are_children_of_the_current_python_span() -> None:
    run_instrumented(
        """
        with span("python"):
            call_instrumented()
        expected = {"innermost": "inner", "inner": "outer", "outer": "python", "python": None}
        assert parents(spans) == expected, parents(spans)
        assert len({one.trace_id for one in spans}) == 1
        outer, inner, innermost = spans.one("outer"), spans.one("inner"), spans.one("innermost")
        assert (outer.kind, inner.kind, outer.status) == ("internal", "client", "error")
        assert outer.attributes == {"order": 7, "target": "rvh_trace::python::instrumented"}
        assert [event.name for event in outer.events] == ["order taken", "cannot ship"]
        assert outer.events[0].attributes == {
            "level": "INFO", "target": "shop::orders", "order": 7, "paid": True, "total": 12.5
        }
        assert [(event.name, event.attributes["level"]) for event in innermost.events] == [
            ("looking", "WARN"), ("a record of log", "WARN")
        ]
        python = spans.one("python")
        assert python.start_unix_ns <= outer.start_unix_ns <= outer.end_unix_ns <= python.end_unix_ns
        assert kept.records == []
        """,
        rust_log="trace",
    )


def test_rust_threads_need_no_gil() -> None:
    run_instrumented(
        """
        with span("python"):
            call_instrumented(in_thread=True)
        assert parents(spans)["outer"] == "python"
        kept.wait_for(5)
        """,
        rust_log="trace",
        rust_events="trace",
    )


def test_without_a_python_span_they_are_roots() -> None:
    run_instrumented(
        """
        call_instrumented()
        assert parents(spans) == {"outer": None, "inner": "outer", "innermost": "inner"}
        """,
        rust_log="info",
    )


def test_a_remote_parent_is_theirs_too() -> None:
    run_instrumented(
        """
        parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
        with use_context(extract({"traceparent": parent, "tracestate": "vendor=1"})):
            call_instrumented()
        outer = spans.one("outer")
        assert (outer.trace_id, outer.parent_span_id) == (parent[3:35], parent[36:52])
        assert (outer.flags, outer.trace_state) == (0x301, "vendor=1")
        """,
        rust_log="info",
    )


def test_below_a_span_that_is_not_sampled_nothing_is_recorded() -> None:
    run_instrumented(
        """
        unsampled = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00"
        with use_context(extract({"traceparent": unsampled})), span("python"):
            call_instrumented()
        assert len(spans) == 0
        assert stats()["started"] == 0
        assert stats()["not_sampled"] >= 2
        """,
        rust_log="info",
    )


@pytest.mark.parametrize(
    ("rust_log", "names"),
    [
        ("off", []),
        ("error", ["innermost"]),
        ("warn", ["innermost", "inner"]),
        ("warn,rvh_trace=info", ["innermost", "inner", "outer"]),
        ("trace,rvh_trace::python=warn", ["innermost", "inner"]),
        (" rvh_trace::python=info , ", ["innermost", "inner", "outer"]),
        ("trace,rvh_trace=off", []),
        ("2,", ["innermost", "inner"]),
    ],
)
def test_the_filter_goes_by_target_and_level(rust_log: str, names: list[str]) -> None:
    run_instrumented(
        f"""
        call_instrumented()
        assert [one.name for one in spans] == {names}, list(spans)
        """,
        rust_log=rust_log,
    )


def test_events_are_filtered_by_their_own_target() -> None:
    run_instrumented(
        """
        call_instrumented()
        assert [event.name for event in spans.one("outer").events] == []
        assert [event.name for event in spans.one("innermost").events] == ["looking", "a record of log"]
        """,
        rust_log="debug,shop::orders=off,shop::stock=warn",
    )


def test_the_variable_is_used_unless_there_is_an_argument() -> None:
    script = "call_instrumented(); print([one.name for one in spans])"
    environ = {"RVH_TRACE_RUST_LOG": "warn"}
    assert run_instrumented(script, environ) == "['innermost', 'inner']\n"
    assert run_instrumented(script, environ, rust_log="info") == "['innermost', 'inner', 'outer']\n"
    assert run_instrumented(script, {"RVH_TRACE_RUST_EVENTS": "error"}) == "['innermost']\n"


def test_a_rust_future_is_below_its_span_at_every_poll() -> None:
    run_instrumented(
        """
        async def main():
            with span("python"):
                future = await_instrumented()
            with span("elsewhere"):
                await future

        asyncio.run(main())
        tree = parents(spans)
        assert [tree[name] for name in ("before", "yielding", "after")] == ["python"] * 3, tree
        assert spans.one("elsewhere").trace_id != spans.one("python").trace_id
        """,
        rust_log="info",
    )


@pytest.mark.skipif(static_max_level() != "trace", reason="this build has nothing below info")
def test_span_future_polls_its_future_below_its_span() -> None:
    run_instrumented(
        """
        async def load():
            return current_span().context.span_id

        async def main(name):
            return await span_future(name, load())

        with span("outer"):
            inside = asyncio.run(main("load"))
        kept.wait_for(1)
        assert kept.said() == [("TRACE", "rvh_trace.span_future", "awaiting")]
        assert kept.records[0].otelSpanID == inside == spans.one("load").span_id

        unsampled = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00"
        with use_context(extract({"traceparent": unsampled})):
            asyncio.run(main("unsampled"))
        kept.wait_for(2)
        assert (kept.records[1].otelSpanID, kept.records[1].otelTraceSampled) == (unsampled[36:52], False)
        """,
        rust_log="rvh_trace::span_future=trace",
        rust_events="trace",
    )


def test_what_suppressed_threads_do_is_not_traced() -> None:
    run_instrumented(
        """
        call_suppressed()
        call_instrumented()
        assert sorted(one.name for one in spans) == ["inner", "innermost", "outer"]
        kept.wait_for(5)
        assert len(kept.records) == 5
        """,
        rust_log="trace",
        rust_events="trace",
    )


@pytest.mark.parametrize("protocol", ["http/protobuf", "grpc"])
def test_our_own_exports_are_not_traced(protocol: str, receiver: Receiver) -> None:
    endpoint = receiver.grpc_endpoint if protocol == "grpc" else receiver.http_endpoint
    run_quietly(
        f"""
        import logging
        import rvh_trace
        from rvh_trace import _rust_logging, span

        said = []
        handler = logging.Handler(1)
        handler.emit = lambda record: said.append(record.name)
        logging.getLogger().addHandler(handler)
        logging.getLogger().setLevel(1)
        rvh_trace.init_tracing(
            "shop", endpoint={endpoint!r}, protocol={protocol!r}, rust_log="trace", rust_events="trace"
        )
        for number in range(3):
            with span(f"op {{number}}"):
                pass
            assert rvh_trace.force_flush()
        assert rvh_trace.stats()["started"] == 3
        assert rvh_trace.shutdown()
        _rust_logging._stop()
        assert said == [], said
        """
    )
    assert sorted(one.name for one in receiver.spans) == ["op 0", "op 1", "op 2"]


def test_a_python_exporter_that_uses_rust_code_does_not_export_itself() -> None:
    run_quietly(
        """
        import rvh_trace
        from rvh_trace import span
        from rvh_trace._rvh_trace import call_instrumented

        class Exporter:
            names = []

            def export(self, spans):
                call_instrumented()
                self.names += [one.name for one in spans]

        rvh_trace.init_tracing("shop", exporter=[Exporter()], rust_log="trace")
        for number in range(3):
            with span("op"):
                pass
            assert rvh_trace.force_flush()
        assert Exporter.names == ["op"] * 3, Exporter.names
        """
    )


def test_a_second_call_with_the_same_arguments_changes_nothing() -> None:
    run_instrumented(
        """
        rvh_trace.init_tracing("shop", exporter="none", rust_log="info", rust_events="error")
        call_instrumented()
        assert [one.name for one in spans] == ["innermost", "inner", "outer"]
        kept.wait_for(1)
        assert kept.said() == [("ERROR", "shop.orders", "cannot ship code=3")]
        assert [one.name for one in threading.enumerate()].count("rvh-trace-rust-events") == 1
        """,
        rust_log="info",
        rust_events="error",
    )


def test_the_cost_of_a_span_can_be_measured() -> None:
    run_instrumented(
        """
        for kind in ("bare", "recorded", "filtered"):
            assert time_instrumented(kind, 100) > 0
        assert len(spans.named("recorded")) == 100
        assert spans.named("filtered") == []
        """,
        rust_log="info,rvh_trace::filtered=off",
    )
