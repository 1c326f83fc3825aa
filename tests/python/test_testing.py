"""`rvh_trace.testing`: the in-memory exporter, the decoder, and the pytest plugin."""

import subprocess
import sys
from pathlib import Path

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from rvh_trace import RvhTraceMiddleware, current_span, new_span, span
from rvh_trace.testing import InMemoryExporter, decode, decode_spans, render_waterfall


class TestInMemoryExporter:
    def test_is_a_sequence_of_the_spans_in_the_order_of_their_end(self) -> None:
        with InMemoryExporter() as spans:
            assert (len(spans), list(spans), list(spans[:])) == (0, [], [])
            with span("outer"), span("inner"):
                pass
            assert [one.name for one in spans] == ["inner", "outer"]
            assert (spans[0].name, spans[-1].name, len(spans)) == ("inner", "outer", 2)
            assert [one.name for one in spans[1:]] == ["outer"]
            assert spans[0] in spans
            assert repr(spans) == "<InMemoryExporter: ['inner', 'outer']>"

    def test_finds_by_name_and_says_what_there_is(self) -> None:
        with InMemoryExporter() as spans:
            for name in ("a", "b", "b"):
                with span(name):
                    pass
            assert spans.one("a").name == "a"
            assert len(spans.named("b")) == 2
            assert spans.named("c") == []
            for name in ("b", "c"):
                with pytest.raises(LookupError, match=r"\['a', 'b', 'b'\]"):
                    spans.one(name)

    def test_keeps_what_it_has_after_it_was_uninstalled_and_gets_no_more(self) -> None:
        with InMemoryExporter() as spans, span("inside"):
            pass
        with span("outside") as outside:
            assert not outside.is_recording
        assert [one.name for one in spans] == ["inside"]

    def test_the_inner_of_two_gets_the_spans(self) -> None:
        with InMemoryExporter() as outer:
            with InMemoryExporter() as inner, span("inner"):
                pass
            with span("outer"):
                pass
        assert [one.name for one in inner] == ["inner"]
        assert [one.name for one in outer] == ["outer"]

    def test_uninstalled_in_the_wrong_order_it_still_gives_tracing_back(self) -> None:
        first, second = InMemoryExporter(), InMemoryExporter()
        first.install()
        second.install()
        first.uninstall()
        with span("second"):
            pass
        second.uninstall()
        assert [one.name for one in second] == ["second"]
        with span("nobody's") as nobodys:
            assert not nobodys.is_recording

    def test_clear_forgets(self) -> None:
        with InMemoryExporter() as spans:
            with span("first"):
                pass
            spans.clear()
            assert (len(spans), len(spans.requests)) == (0, 0)
            with span("second"):
                pass
            assert [one.name for one in spans] == ["second"]

    def test_a_span_that_is_open_at_the_end_goes_to_the_exporter_it_was_started_with(self) -> None:
        with InMemoryExporter() as first:
            op = new_span("op")
        with InMemoryExporter() as second:
            op.end()
            assert list(second) == []
        assert [one.name for one in first] in ([], ["op"])

    def test_takes_a_sampler(self) -> None:
        with InMemoryExporter(sampler="always_off") as spans, span("op"):
            pass
        assert list(spans) == []
        with pytest.raises(ValueError, match="sampler_ratio"):
            InMemoryExporter(sampler_ratio=2)

    def test_does_not_depend_on_the_environment(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("OTEL_SDK_DISABLED", "true")
        monkeypatch.setenv("OTEL_TRACES_SAMPLER", "always_off")
        with InMemoryExporter() as spans:
            with span("op"):
                pass
            assert len(spans) == 1

    def test_shows_a_waterfall(self) -> None:
        with InMemoryExporter() as spans:
            with span("outer"), span("inner"):
                pass
            text = spans.waterfall()
        assert text.index("outer") < text.index("inner")


class TestDecode:
    def test_requests_are_what_the_official_definitions_decode(self) -> None:
        with InMemoryExporter() as spans:
            with span("op", {"key": "value"}, kind="client") as op:
                op.add_event("event", {"a": 1})
                op.set_status("error", "why")
            (request,) = spans.requests
            (decoded,) = decode(request)
            assert decoded == spans[0]
            assert decode_spans(request)[0]["name"] == "op"
        message = ExportTraceServiceRequest.FromString(request)
        assert message.SerializeToString()
        (official,) = message.resource_spans[0].scope_spans[0].spans
        assert (official.name, official.kind, official.status.message) == ("op", 3, "why")
        assert (official.trace_id.hex(), official.span_id.hex()) == (decoded.trace_id, decoded.span_id)
        assert (official.start_time_unix_nano, official.end_time_unix_nano) == (
            decoded.start_unix_ns,
            decoded.end_unix_ns,
        )
        assert decoded.resource["service.name"] == "test"

    @pytest.mark.parametrize("bad", [b"\xff", b"not protobuf at all"])
    def test_other_bytes_are_a_value_error(self, bad: bytes) -> None:
        with pytest.raises(ValueError, match="ExportTraceServiceRequest"):
            decode(bad)
        with pytest.raises(ValueError, match="ExportTraceServiceRequest"):
            render_waterfall([bad])

    def test_nothing_decodes_to_nothing(self) -> None:
        assert decode(b"") == []
        assert render_waterfall([]).strip() == ""


class TestPlugin:
    def test_the_fixture_is_there_fresh_for_every_test(self, tmp_path: Path) -> None:
        (tmp_path / "test_shop.py").write_text(
            """
from rvh_trace import span
from rvh_trace.testing import InMemoryExporter

def test_first(spans):
    assert isinstance(spans, InMemoryExporter)
    with span("first"): pass
    assert [one.name for one in spans] == ["first"]

def test_second(spans):
    assert list(spans) == []

def test_without():
    with span("nobody's") as op:
        assert not op.is_recording
"""
        )
        finished = subprocess.run(
            [
                sys.executable,
                "-m",
                "pytest",
                "-q",
                "-p",
                "no:cacheprovider",
                "-p",
                "no:asyncio",
                "-W",
                "error",
                tmp_path,
            ],
            capture_output=True,
            cwd=tmp_path,
            check=False,
            text=True,
            timeout=60,
        )
        assert finished.returncode == 0, finished.stdout + finished.stderr
        assert "3 passed" in finished.stdout

    def test_it_is_documented_for_pytest_fixtures(self, tmp_path: Path) -> None:
        finished = subprocess.run(
            [sys.executable, "-m", "pytest", "--fixtures", "-p", "no:cacheprovider", tmp_path],
            capture_output=True,
            cwd=tmp_path,
            check=False,
            text=True,
            timeout=60,
        )
        assert "spans" in finished.stdout
        assert "The spans that end during the test" in finished.stdout


def test_the_fixture_of_this_suite_takes_the_place_of_everything(spans: InMemoryExporter) -> None:
    with span("op"):
        assert current_span().is_recording
    assert spans.one("op")
    assert RvhTraceMiddleware
