"""`ConsoleExporter` and `OtlpFileExporter`: every line is read back, and what becomes of files that fail."""

import json
import os
import re
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from interpreter import TIMEOUT_S, clean_environ, run_quietly, run_script
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from receiver import Receiver, attributes
from test_destinations import REQUEST, read_json

import rvh_trace
from rvh_trace import ConfigurationError, ConsoleExporter, OtlpFileExporter
from rvh_trace.exporter import FinishedSpan

TRACED = """
import rvh_trace
from rvh_trace import ConsoleExporter, OtlpExporter, OtlpFileExporter
rvh_trace.init_tracing("shop", exporter={exporter})
values = {{"cart.id": 7, "who": 'Ann "A"\\n', "raw": b"\\x00\\xff", "nan": float("nan"), "big": 2**62,
          "list": [1.5, 2.0], "none\\x1b[31m": "\\x1b]0;title\\x07"}}
with rvh_trace.span("check out", values, kind="server") as parent:
    parent.add_event("retry", {{"attempt": 2}})
    with rvh_trace.span("load\\nline", links=[parent]):
        pass
    parent.set_status("error", "no stock")
assert rvh_trace.force_flush(), rvh_trace.stats()
assert rvh_trace.stats()["exported"] == 2, rvh_trace.stats()
"""

COMPACT = re.compile(
    r"(?P<time>\S+) (?P<duration>[\d.]+(?:ns|µs|ms|s)) shop (?P<name>.+?)"
    r" trace_id=(?P<trace_id>[0-9a-f]{32}) span_id=(?P<span_id>[0-9a-f]{16})"
    r"(?: parent_span_id=(?P<parent>[0-9a-f]{16}))?(?: kind=(?P<kind>\w+))?(?: status=(?P<status>\w+))?"
    r"(?: status_description=(?P<description>\"[^\"]*\"))?(?P<attributes>[^|]*?)"
    r"(?: \| \+(?P<after>\S+) (?P<event>.*))?"
)


def is_recent(time: str) -> bool:
    """Whether it is a time of this day or of a day beside it, to the microsecond in UTC."""
    read = datetime.strptime(time, "%Y-%m-%dT%H:%M:%S.%fZ").replace(tzinfo=UTC)
    return abs((datetime.now(UTC) - read).total_seconds()) < 86_400


def read_otlp_lines(path: Path) -> list[ExportTraceServiceRequest]:
    """Each line by the official JSON mapping, which must write it in the same way."""
    text = path.read_text("utf-8")
    assert text.endswith("\n")
    requests: list[ExportTraceServiceRequest] = []
    for line in text.split("\n")[:-1]:
        requests.append(ExportTraceServiceRequest())
        read_json(line.encode(), requests[-1])
    return requests


def otlp_names(path: Path) -> list[str]:
    return [
        one.name
        for request in read_otlp_lines(path)
        for resource_spans in request.resource_spans
        for scope_spans in resource_spans.scope_spans
        for one in scope_spans.spans
    ]


class TestFormats:
    def test_a_compact_line_is_one_span_with_its_events(self, tmp_path: Path) -> None:
        path = tmp_path / "trace.log"
        run_quietly(TRACED.format(exporter=f"ConsoleExporter({str(path)!r}, format='compact')"))
        lines = path.read_text("utf-8").split("\n")
        assert lines.pop() == ""
        load, checkout = (COMPACT.fullmatch(line) for line in lines)
        assert load, lines[0]
        assert checkout, lines[1]
        assert is_recent(checkout["time"])
        assert (load["name"], load["parent"], load["kind"]) == ("load line", checkout["span_id"], None)
        assert load["attributes"] == " links=1"
        assert load["trace_id"] == checkout["trace_id"]
        assert (checkout["name"], checkout["kind"], checkout["parent"]) == ("check out", "server", None)
        assert (checkout["status"], checkout["description"]) == ("error", '"no stock"')
        pairs = checkout["attributes"].split(" ")
        assert pairs[:2] == ["", "cart.id=7"]
        assert 'raw="AP8="' in pairs
        assert 'nan="NaN"' in pairs
        assert "list=[1.5,2.0]" in pairs
        assert r'who="Ann \"A\"\u000a"' in checkout["attributes"]
        assert checkout["event"] == "retry attempt=2"
        assert "\x1b" not in lines[1]
        assert "\x07" not in lines[1]

    def test_a_json_line_is_one_span_under_the_names_of_finished_span(self, tmp_path: Path) -> None:
        path = tmp_path / "trace.jsonl"
        run_quietly(TRACED.format(exporter=f"ConsoleExporter({str(path)!r}, format='json')"))
        load, checkout = (json.loads(line) for line in path.read_text("utf-8").splitlines())
        assert is_recent(checkout.pop("time"))
        assert load["name"] == "load\nline"
        assert load["parent_span_id"] == checkout["span_id"]
        assert load["links"] == [{"trace_id": checkout["trace_id"], "span_id": checkout["span_id"], "attributes": {}}]
        assert checkout["attributes"] == {
            "cart.id": 7,
            "who": 'Ann "A"\n',
            "raw": "AP8=",
            "nan": "NaN",
            "big": 2**62,
            "list": [1.5, 2.0],
            "none\x1b[31m": "\x1b]0;title\x07",
        }
        (event,) = checkout["events"]
        assert (event["name"], event["attributes"]) == ("retry", {"attempt": 2})
        assert checkout["start_unix_ns"] <= event["unix_ns"] <= checkout["end_unix_ns"]
        assert checkout["duration_ns"] == checkout["end_unix_ns"] - checkout["start_unix_ns"]
        assert checkout["service"] == "shop"
        assert checkout["parent_span_id"] is None
        assert (checkout["kind"], checkout["status"], checkout["status_description"]) == ("server", "error", "no stock")
        assert set(checkout) - {"service", "duration_ns"} <= set(FinishedSpan.__slots__)

    def test_pretty_is_the_waterfall_without_colours(self, tmp_path: Path) -> None:
        path = tmp_path / "trace.txt"
        run_quietly(TRACED.format(exporter=f"ConsoleExporter({str(path)!r})"))
        text = path.read_text("utf-8")
        header, checkout, event, load, *_ = text.splitlines()
        assert header.startswith("trace ")
        assert "shop · 2 spans" in header
        assert checkout.startswith("check out (server)")
        assert "retry attempt=2" in event
        assert "load line" in load
        assert "\x1b" not in text

    def test_otlp_lines_are_read_by_the_official_mapping(self, tmp_path: Path) -> None:
        path = tmp_path / "spans.jsonl"
        run_quietly(TRACED.format(exporter=f"OtlpFileExporter({str(path)!r})"))
        (request,) = read_otlp_lines(path)
        (resource_spans,) = request.resource_spans
        assert attributes(resource_spans.resource.attributes)["service.name"] == "shop"
        load, checkout = resource_spans.scope_spans[0].spans
        assert load.parent_span_id == checkout.span_id
        values = attributes(checkout.attributes)
        assert values["who"] == 'Ann "A"\n'
        assert values["raw"] == b"\x00\xff"
        assert [event.name for event in checkout.events] == ["retry"]

    def test_metrics_have_a_file_of_their_own(self, tmp_path: Path) -> None:
        path = tmp_path / "metrics.jsonl"
        run_quietly(
            REQUEST.format(exporters=f"exporter='none', metrics_exporter=rvh_trace.OtlpFileExporter({str(path)!r})")
        )
        line = path.read_text("utf-8").splitlines()[0]
        request = ExportMetricsServiceRequest()
        read_json(line.encode(), request)
        names = {metric.name for metric in request.resource_metrics[0].scope_metrics[0].metrics}
        assert "http.server.request.duration" in names

    def test_the_console_takes_no_metrics(self) -> None:
        with pytest.raises(ConfigurationError, match="metrics_exporter: must be a string, an OtlpExporter or an Otlp"):
            rvh_trace.init_tracing("shop", metrics_exporter=ConsoleExporter())  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


class TestStreams:
    @pytest.mark.parametrize("exporter", ["ConsoleExporter(format='json')", "ConsoleExporter('stdout', format='json')"])
    def test_standard_output_is_the_default(self, exporter: str) -> None:
        lines = run_quietly(TRACED.format(exporter=exporter)).splitlines()
        assert [json.loads(line)["name"] for line in lines] == ["load\nline", "check out"]

    def test_standard_error(self) -> None:
        finished = run_script(TRACED.format(exporter="OtlpFileExporter('stderr')"))
        assert (finished.returncode, finished.stdout) == (0, "")
        (line,) = finished.stderr.splitlines()
        read_json(line.encode(), ExportTraceServiceRequest())

    def test_an_object_without_arguments_is_what_the_name_is(self) -> None:
        def words(text: str) -> list[str]:
            return re.findall(r"[a-zA-Z=()]{3,}", re.sub(r"[0-9a-f]{32}", "", text))

        by_object = words(run_quietly(TRACED.format(exporter="ConsoleExporter()")))
        assert by_object == words(run_quietly(TRACED.format(exporter="'console'")))
        assert by_object[0] == "trace"

    def test_several_at_once_and_the_collector_get_the_same(self, receiver: Receiver, tmp_path: Path) -> None:
        exporter = (
            f"[ConsoleExporter('a.log', format='json'), ConsoleExporter('b.log', format='compact'), "
            f"OtlpFileExporter('c.jsonl'), OtlpExporter({receiver.http_endpoint!r})]"
        )
        run_quietly(f"import os; os.chdir({str(tmp_path)!r})\n" + TRACED.format(exporter=exporter))
        assert [one.name for one in receiver.spans] == ["load\nline", "check out"]
        assert otlp_names(tmp_path / "c.jsonl") == ["load\nline", "check out"]
        assert [json.loads(line)["name"] for line in (tmp_path / "a.log").read_text().splitlines()] == [
            "load\nline",
            "check out",
        ]
        assert len((tmp_path / "b.log").read_text().splitlines()) == 2

    def test_standard_output_is_what_the_program_has_made_of_it(self, tmp_path: Path) -> None:
        path = tmp_path / "later.jsonl"
        printed = run_quietly(
            f"""
            import os
            import rvh_trace
            rvh_trace.init_tracing("shop", exporter=rvh_trace.OtlpFileExporter())
            os.dup2(os.open({str(path)!r}, os.O_WRONLY | os.O_CREAT), 1)
            with rvh_trace.span("op"):
                pass
            assert rvh_trace.force_flush()
            """
        )
        assert printed == ""
        assert otlp_names(path) == ["op"]

    @pytest.mark.parametrize("way", ["closed", "reader gone"])
    def test_readable_lines_that_nobody_reads_are_no_loss_and_otlp_is(self, way: str) -> None:
        shut = "os.close(1)" if way == "closed" else "r, w = os.pipe(); os.dup2(w, 1); os.close(w); os.close(r)"
        script = f"""
            import os
            import rvh_trace
            rvh_trace.init_tracing("shop", exporter=rvh_trace.{{exporter}})
            # What is opened from here on may become the new standard output.
            with rvh_trace.span("first"):
                pass
            assert rvh_trace.force_flush()
            {shut}
            with rvh_trace.span("op"):
                pass
            delivered = rvh_trace.force_flush()
            os.write(2, f"{{{{delivered}}}} {{{{rvh_trace.stats()['dropped']['rejected']}}}}".encode())
            os._exit(0)
            """
        for exporter in ("ConsoleExporter()", "ConsoleExporter(format='compact')"):
            finished = run_script(script.format(exporter=exporter))
            assert finished.stderr == "True 0"
            assert "first" in finished.stdout
        finished = run_script(script.format(exporter="OtlpFileExporter()"))
        assert finished.stderr.endswith("False 1")
        assert "otlp file stdout refused 1 spans: cannot write" in finished.warnings[0]


class TestFiles:
    def test_it_is_appended_to(self, tmp_path: Path) -> None:
        path = tmp_path / "spans.jsonl"
        for _ in range(2):
            run_quietly(TRACED.format(exporter=f"OtlpFileExporter({str(path)!r})"))
        assert otlp_names(path) == ["load\nline", "check out"] * 2

    @pytest.mark.parametrize("exporter", ["ConsoleExporter", "OtlpFileExporter"])
    def test_a_file_that_cannot_be_opened_is_an_error_at_set_up(self, exporter: str, tmp_path: Path) -> None:
        make = getattr(rvh_trace, exporter)
        for path, words in [
            (tmp_path / "no" / "where.log", f"there is no folder {tmp_path / 'no'}; make it first"),
            (tmp_path, "it is a folder; name a file in it"),
            (Path("/dev/null/x"), "/dev/null is not a folder"),
        ]:
            for enter in (
                lambda path=path: rvh_trace.init_tracing("shop", exporter=make(path)),
                lambda path=path: rvh_trace.tracing("shop", exporter=make(path)).__enter__(),
            ):
                with pytest.raises(ConfigurationError) as raised:
                    enter()
                assert str(raised.value).startswith(f"output_stream: {path} cannot be opened: "), raised.value
                assert words in str(raised.value)
        with rvh_trace.span("nothing was left behind") as op:
            assert not op.is_recording

    def test_a_pipe_without_a_reader_is_an_error_and_no_wait(self, tmp_path: Path) -> None:
        pipe = tmp_path / "pipe"
        os.mkfifo(pipe)
        with pytest.raises(ConfigurationError, match="nobody reads from it"):
            rvh_trace.init_tracing("shop", exporter=OtlpFileExporter(pipe))

    def test_a_pipe_with_a_reader_is_written_to(self, tmp_path: Path) -> None:
        pipe = tmp_path / "pipe"
        os.mkfifo(pipe)
        # The file is opened when the process is set up, and `cat` lives for as long as that is.
        with subprocess.Popen(["cat", str(pipe)], stdout=subprocess.PIPE) as cat:
            wait_for_reader = f"held = os.open({str(pipe)!r}, os.O_WRONLY)"
            run_quietly(f"import os\n{wait_for_reader}\n" + TRACED.format(exporter=f"OtlpFileExporter({str(pipe)!r})"))
            text, _ = cat.communicate(timeout=TIMEOUT_S)
        read_json(text, ExportTraceServiceRequest())

    def test_a_relative_path_stays_where_it_was_and_the_file_is_open_from_the_start(self, tmp_path: Path) -> None:
        (tmp_path / "folder").mkdir()
        run_quietly(
            f"""
            import os
            import rvh_trace
            os.chdir({str(tmp_path)!r})
            exporters = [rvh_trace.OtlpFileExporter("a.jsonl"), rvh_trace.OtlpFileExporter("folder/b.jsonl")]
            rvh_trace.init_tracing("shop", exporter=exporters)
            os.chdir("/")
            os.rename({str(tmp_path / "folder")!r}, {str(tmp_path / "moved")!r})
            with rvh_trace.span("op"):
                pass
            assert rvh_trace.force_flush(), rvh_trace.stats()
            """
        )
        assert otlp_names(tmp_path / "a.jsonl") == otlp_names(tmp_path / "moved" / "b.jsonl") == ["op"]

    def test_a_url_of_a_file_and_a_path_named_like_a_stream(self, tmp_path: Path) -> None:
        assert repr(OtlpFileExporter("file:///a%20b.jsonl")) == 'OtlpFileExporter("/a b.jsonl")'
        assert repr(ConsoleExporter(Path("stdout"))) == f'ConsoleExporter("{Path.cwd() / "stdout"}", format="pretty")'
        assert repr(ConsoleExporter(format="compact")) == 'ConsoleExporter("stdout", format="compact")'

    @pytest.mark.parametrize(
        ("arguments", "words"),
        [
            ({"output_stream": 7}, ["output_stream", "stdout, stderr or a path", "int"]),
            ({"output_stream": ""}, ["output_stream", "not stdout, stderr or a path"]),
            ({"output_stream": "file:x"}, ["output_stream", "file:///folder/name"]),
            ({"format": "fancy"}, ["format", "fancy", "compact, pretty or json"]),
            ({"format": 7}, ["format", "a string", "int"]),
        ],
    )
    def test_a_wrong_argument_is_told_where_it_is_given(self, arguments: dict[str, Any], words: list[str]) -> None:
        with pytest.raises(ConfigurationError) as raised:
            ConsoleExporter(**arguments)
        assert all(word in str(raised.value) for word in words), str(raised.value)


class TestFailure:
    @pytest.mark.parametrize(
        "beside", ["", ", rvh_trace.ConsoleExporter('/dev/null')"], ids=["alone", "beside another"]
    )
    @pytest.mark.parametrize(
        "exporter",
        [
            "OtlpFileExporter('/dev/full')",
            *(f"ConsoleExporter('/dev/full', format={f!r})" for f in ("compact", "json", "pretty")),
        ],
    )
    def test_a_full_disk_is_counted_and_said_once(self, exporter: str, beside: str) -> None:
        finished = run_script(
            f"""
            import rvh_trace
            rvh_trace.init_tracing("shop", exporter=[rvh_trace.{exporter}{beside}])
            for _ in range(3):
                with rvh_trace.span("op"):
                    pass
                assert rvh_trace.force_flush() is False
            stats = rvh_trace.stats()
            assert stats["dropped"]["rejected"] == stats["ended"] == 3, stats
            assert "No space left on device" in stats["last_error"], stats
            print("application")
            """
        )
        assert (finished.returncode, finished.stdout) == (0, "application\n"), finished.stderr
        refusals = [line for line in finished.warnings if "/dev/full refused 1 spans: cannot write: No space" in line]
        assert len(refusals) == 1, finished.stderr
        assert "Traceback" not in finished.stderr

    def test_a_line_that_was_cut_is_whole_once_there_is_room(self, tmp_path: Path) -> None:
        path = tmp_path / "spans.jsonl"
        finished = run_script(
            f"""
            import resource
            import rvh_trace
            rvh_trace.init_tracing("shop", exporter=rvh_trace.OtlpFileExporter({str(path)!r}), max_export_batch_size=1)
            def op(number):
                lost = rvh_trace.stats()["dropped"]["rejected"]
                with rvh_trace.span(f"op{{number}}"):
                    pass
                # What it says is of the spans that still waited: this one may have been refused before.
                rvh_trace.force_flush()
                return rvh_trace.stats()["dropped"]["rejected"] == lost
            assert op(0)
            most, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
            resource.setrlimit(resource.RLIMIT_FSIZE, (2500, hard))
            taken = [op(number) for number in range(1, 5)]
            assert not all(taken)
            resource.setrlimit(resource.RLIMIT_FSIZE, (most, hard))
            assert op(5)
            print(taken.count(True))
            """
        )
        assert finished.returncode == 0, finished.stderr
        first_cut = 1 + int(finished.stdout)
        # The line that was cut is there, and counted as lost all the same.
        assert otlp_names(path) == [*(f"op{number}" for number in range(first_cut)), f"op{first_cut}", "op5"]

    def test_a_file_that_goes_away_in_a_child_is_counted_there(self, tmp_path: Path) -> None:
        folder = tmp_path / "folder"
        folder.mkdir()
        finished = run_script(
            f"""
            import os, sys
            import rvh_trace
            rvh_trace.init_tracing("shop", exporter=rvh_trace.OtlpFileExporter({str(folder / "spans.jsonl")!r}))
            os.remove({str(folder / "spans.jsonl")!r})
            os.rmdir({str(folder)!r})
            child = os.fork()
            if child == 0:
                with rvh_trace.span("op"):
                    pass
                assert rvh_trace.force_flush() is False
                os.mkdir({str(folder)!r})
                with rvh_trace.span("later"):
                    pass
                os._exit(0 if rvh_trace.force_flush() else 1)
            assert os.waitpid(child, 0)[1] == 0
            """
        )
        assert finished.returncode == 0, finished.stderr
        assert "refused 1 spans: cannot write: No such file" in finished.stderr
        assert otlp_names(folder / "spans.jsonl") == ["later"]


def test_processes_that_share_a_file_write_whole_lines(tmp_path: Path) -> None:
    path = tmp_path / "spans.jsonl"
    run_quietly(
        f"""
        import os
        import rvh_trace
        rvh_trace.init_tracing("shop", exporter=rvh_trace.OtlpFileExporter({str(path)!r}), max_export_batch_size=20)
        with rvh_trace.span("parent"):
            pass
        children = []
        for child in range(4):
            pid = os.fork()
            if pid == 0:
                for number in range(500):
                    with rvh_trace.span(f"{{child}} {{number}}"):
                        pass
                os._exit(0 if rvh_trace.force_flush() else 1)
            children.append(pid)
        assert [os.waitpid(pid, 0)[1] for pid in children] == [0] * 4
        """
    )
    names = otlp_names(path)
    assert sorted(names) == sorted(["parent", *(f"{child} {number}" for child in range(4) for number in range(500))])


def test_standard_output_that_nobody_reads_blocks_neither_program_nor_exit() -> None:
    script = """
        import os
        import rvh_trace
        rvh_trace.init_tracing("shop", exporter=rvh_trace.ConsoleExporter(format="compact"), exit_timeout_ms=300)
        for number in range(5000):
            with rvh_trace.span(f"a name that fills the pipe after some hundred spans, number {number}"):
                pass
        os.write(2, b"done")
        """
    with subprocess.Popen(
        [sys.executable, "-c", "import textwrap; exec(textwrap.dedent(" + repr(script) + "))"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=clean_environ(),
    ) as process:
        # Nobody reads standard output until the process has ended.
        assert process.wait(TIMEOUT_S) == 0
        assert process.stderr is not None
        assert b"done" in process.stderr.read()
