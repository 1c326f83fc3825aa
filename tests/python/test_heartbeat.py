"""`open_span_interval_ms`: a backend sees long spans before they end."""

import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from interpreter import run_quietly, run_script
from receiver import ReceivedSpan, Receiver

from rvh_trace import extract, new_span, span, use_context
from rvh_trace._rvh_trace import export_pending
from rvh_trace.testing import InMemoryExporter

AGE = "rvh_trace.pending.age"
PARENT = "rvh_trace.pending.parent_span_id"


def mark(spans: InMemoryExporter, seconds: float = 0) -> list[str]:
    """Has markers exported; what they are of. Other tests may have left spans open, whose markers go elsewhere."""
    before = len(spans)
    export_pending(seconds)
    return sorted(one.name.removeprefix("pending ") for one in spans[before:])


class TestMarkers:
    def test_a_marker_stands_below_the_span_it_is_of(self, spans: InMemoryExporter) -> None:
        with span("outer", {"cart.id": 7}, kind="server") as outer, span("inner") as inner:
            outer.set_attribute("cart.size", 3)
            assert mark(spans) == ["inner", "outer"]
        of_outer, of_inner = spans.one("pending outer"), spans.one("pending inner")
        assert (of_outer.trace_id, of_outer.parent_span_id) == (outer.context.trace_id, outer.context.span_id)
        assert of_inner.parent_span_id == inner.context.span_id
        assert (of_outer.kind, of_outer.duration_ns, of_outer.status) == ("internal", 0, "unset")
        age = of_outer.attributes[AGE]
        assert isinstance(age, float)
        assert abs(spans.one("outer").start_unix_ns + age * 1e9 - of_outer.start_unix_ns) < 1_000
        assert of_outer.attributes == {"cart.id": 7, "cart.size": 3, AGE: age}
        assert of_inner.attributes[PARENT] == outer.context.span_id
        assert len({one.span_id for one in spans}) == 4

    def test_the_span_itself_is_exported_as_ever(self, spans: InMemoryExporter) -> None:
        with span("outer", {"cart.id": 7}) as outer:
            export_pending(0)
            outer.add_event("late")
        one = spans.one("outer")
        assert (one.attributes, [event.name for event in one.events]) == ({"cart.id": 7}, ["late"])

    def test_only_spans_that_are_old_enough_have_one(self, spans: InMemoryExporter) -> None:
        an_hour_ago = new_span("old", start_unix_ns=time.time_ns() - 3_600_000_000_000)
        with span("young"):
            assert mark(spans, 1800) == ["old"]
            assert mark(spans, 7200) == []
        an_hour_ago.end()
        (marker,) = (one for one in spans if one.name.startswith("pending"))
        assert marker.name == "pending old"
        assert 3600 <= marker.attributes[AGE] < 3700  # type: ignore[operator]  # pyright: ignore[reportOperatorIssue]

    def test_spans_that_are_not_open_or_not_recorded_have_none(self, spans: InMemoryExporter) -> None:
        made, ended = span("made"), new_span("ended")
        ended.end()
        assert mark(spans) == []
        with InMemoryExporter(sampler="always_off") as others, span("not sampled"):
            assert mark(spans) == mark(others) == []
        del made
        new_span("forgotten")
        assert mark(spans) == ["forgotten"]  # its end, and no marker
        assert [one.name for one in spans] == ["ended", "forgotten"]

    def test_what_is_long_or_odd_arrives_whole(self, spans: InMemoryExporter) -> None:
        remote = extract(
            {
                "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
                "tracestate": "vendor=1",
            }
        )
        names = ["", "é" * 100, "x" * 20_000]
        with use_context(remote):
            made = [new_span(name, {"shop.text": "y" * 300}) for name in names]
            assert mark(spans) == sorted(names)
            for one in made:
                one.end()
        for name in names:
            marker = spans.one(f"pending {name}")
            assert marker.attributes[PARENT] == "b7ad6b7169203331"
            assert marker.attributes["shop.text"] == "y" * 300
            assert (marker.trace_state, marker.flags & 1) == ("vendor=1", 1)


def wait_for(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


SCRIPT = """
import os, sys, time
import rvh_trace
from rvh_trace import span

rvh_trace.init_tracing("shop", endpoint={endpoint!r}, schedule_delay_ms=20, {arguments})

def until_told():
    while not os.path.exists({told!r}):
        time.sleep(0.01)
"""


class TestExport:
    @pytest.mark.parametrize(
        ("arguments", "environ"),
        [("open_span_interval_ms=50", {}), ("", {"RVH_TRACE_OPEN_SPAN_INTERVAL": "50"})],
        ids=["argument", "variable"],
    )
    def test_a_long_span_is_seen_again_and_again_before_it_ends(
        self, receiver: Receiver, tmp_path: Path, arguments: str, environ: dict[str, Any]
    ) -> None:
        told = tmp_path / "told"
        seen: list[ReceivedSpan] = []

        def watch() -> None:
            try:
                wait_for(lambda: len([one for one in receiver.spans if one.name == "pending long"]) >= 3)
                seen.extend(receiver.spans)
            finally:
                told.touch()

        watcher = threading.Thread(target=watch)
        watcher.start()
        run_quietly(
            SCRIPT.format(endpoint=receiver.http_endpoint, told=str(told), arguments=arguments)
            + """
with span("long", {"cart.id": 7}):
    for _ in range(100):
        with span("short"):
            pass
    until_told()
assert rvh_trace.shutdown(5_000)
with span("after the end"):
    assert rvh_trace._rvh_trace.export_pending(0) == 0
assert rvh_trace.stats()["dropped"]["exit"] == 1  # that span, and no marker
""",
            **environ,
        )
        watcher.join()
        assert "long" not in {one.name for one in seen}
        markers = [one for one in receiver.spans if one.name == "pending long"]
        (long,) = [one for one in receiver.spans if one.name == "long"]
        assert {(one.trace_id, one.parent_id) for one in markers} == {(long.trace_id, long.span_id)}
        ages = [one.attributes[AGE] for one in markers]
        assert ages == sorted(ages)  # type: ignore[type-var]  # pyright: ignore[reportArgumentType]
        assert min(ages) >= 0.05  # type: ignore[type-var, operator]  # pyright: ignore[reportArgumentType, reportOperatorIssue]
        assert len({one.span_id for one in receiver.spans}) == len(receiver.spans)
        assert not [one for one in receiver.spans if one.name == "pending short"]

    @pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
    def test_a_forked_child_has_markers_of_its_own(self, receiver: Receiver, tmp_path: Path) -> None:
        told = tmp_path / "told"

        def watch() -> None:
            try:
                wait_for(lambda: {"pending parent's", "pending child's"} <= {one.name for one in receiver.spans})
            finally:
                told.touch()

        watcher = threading.Thread(target=watch)
        watcher.start()
        run_quietly(
            SCRIPT.format(endpoint=receiver.http_endpoint, told=str(told), arguments="open_span_interval_ms=50")
            + """
import warnings
warnings.simplefilter("ignore", DeprecationWarning)
with span("parent's"):
    if (pid := os.fork()) == 0:
        with rvh_trace.use_context(None), span("child's"):
            until_told()
        rvh_trace.shutdown(5_000)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
"""
        )
        watcher.join()
        (parents,) = [one for one in receiver.spans if one.name == "parent's"]
        (childs,) = [one for one in receiver.spans if one.name == "child's"]
        for owner in (parents, childs):
            markers = [one for one in receiver.spans if one.name == f"pending {owner.name}"]
            assert markers
            assert {one.parent_id for one in markers} == {owner.span_id}

    def test_without_the_option_there_is_no_thread(self) -> None:
        run_quietly(
            """
            import sys
            import rvh_trace
            rvh_trace.init_tracing("shop", endpoint="http://127.0.0.1:1", open_span_interval_ms=0)
            assert "threading" not in sys.modules
            """
        )

    def test_a_process_ends_as_ever(self, receiver: Receiver) -> None:
        run_quietly(
            SCRIPT.format(endpoint=receiver.http_endpoint, told="/", arguments="open_span_interval_ms=1")
            + """
import threading
assert [thread.name for thread in threading.enumerate()][1:] == ["rvh-trace-heartbeat"]
rvh_trace.init_tracing("shop", endpoint={endpoint!r}, schedule_delay_ms=20, open_span_interval_ms=1)
assert threading.active_count() == 2
open_to_the_end = span("open to the end").__enter__()
""".replace("{endpoint!r}", repr(receiver.http_endpoint))
        )

    @pytest.mark.parametrize("wrong", [-1, float("nan"), 1e300])
    def test_a_wrong_interval_is_an_error_that_names_it(self, wrong: float) -> None:
        finished = run_script(
            f"""
            import rvh_trace
            rvh_trace.init_tracing("shop", exporter="none", open_span_interval_ms=float({str(wrong)!r}))
            """
        )
        assert "open_span_interval_ms" in finished.stderr.splitlines()[-1]
        assert "ConfigurationError" in finished.stderr.splitlines()[-1]

    def test_a_wrong_variable_is_one_warning(self) -> None:
        finished = run_script(
            'import rvh_trace; rvh_trace.init_tracing("shop", exporter="none")', RVH_TRACE_OPEN_SPAN_INTERVAL="soon"
        )
        assert finished.returncode == 0
        (warning,) = finished.warnings
        assert "RVH_TRACE_OPEN_SPAN_INTERVAL" in warning
