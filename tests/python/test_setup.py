"""`init_tracing`: what bad arguments and variables get, and what nothing configured means."""

import socket
from pathlib import Path
from typing import Any

import pytest
from interpreter import run_quietly, run_script

import rvh_trace
from rvh_trace import ConfigurationError, init_tracing

WRONG: list[tuple[dict[str, Any], list[str]]] = [
    ({"service_name": 7}, ["service_name", "a string", "int"]),
    ({"service_name": " "}, ["service_name"]),
    ({"endpoint": 4318}, ["endpoint", "a string", "int"]),
    ({"endpoint": "not a url"}, ["endpoint", "not a url"]),
    ({"endpoint": "ftp://collector"}, ["endpoint", "http"]),
    ({"endpoint": "http://"}, ["endpoint"]),
    ({"protocol": "smoke"}, ["protocol", "smoke", "http/protobuf", "grpc"]),
    ({"protocol": 7}, ["protocol", "a string"]),
    ({"headers": 7}, ["headers", "mapping of strings"]),
    ({"headers": {"key": 7}}, ["headers", "strings"]),
    ({"headers": {"bad name": "x"}}, ["headers", "bad name"]),
    ({"headers": {"key": "line\nbreak"}}, ["headers", "key"]),
    ({"timeout_ms": "soon"}, ["timeout_ms", "a number", "str"]),
    ({"timeout_ms": -1}, ["timeout_ms", "milliseconds"]),
    ({"timeout_ms": float("nan")}, ["timeout_ms", "milliseconds"]),
    ({"compression": "zip"}, ["compression", "zip", "gzip", "none"]),
    ({"insecure": "yes"}, ["insecure", "True or False", "str"]),
    ({"certificate": 7}, ["certificate", "a path", "int"]),
    ({"exporter": "carrier pigeon"}, ["exporter", "carrier pigeon", "otlp", "console"]),
    ({"exporter": 7}, ["exporter", "a list of these"]),
    ({"metrics_exporter": "carrier pigeon"}, ["metrics_exporter", "carrier pigeon", "otlp", "console"]),
    ({"logs_exporter": "carrier pigeon"}, ["logs_exporter", "carrier pigeon", "otlp", "console"]),
    (
        {"logs_exporter": ["otlp", object()]},
        ["logs_exporter", "a string, an OtlpExporter or an OtlpFileExporter", "object"],
    ),
    ({"logs_exporter": ["none", rvh_trace.OtlpExporter()]}, ["logs_exporter", "none stands alone"]),
    ({"metric_export_interval_ms": -1}, ["metric_export_interval_ms", "milliseconds"]),
    ({"metric_cardinality_limit": 0}, ["metric_cardinality_limit", "between 1 and"]),
    ({"sampler": "sometimes"}, ["sampler", "sometimes", "always_on"]),
    ({"sampler_ratio": 1.5}, ["sampler_ratio", "1.5", "between 0 and 1"]),
    ({"sampler_ratio": -0.1}, ["sampler_ratio", "between 0 and 1"]),
    ({"sampler_ratio": "half"}, ["sampler_ratio", "a number", "str"]),
    ({"sampler": "always_on", "sampler_ratio": 0.5}, ["sampler_ratio", "traceidratio"]),
    ({"propagators": ["pigeon"]}, ["propagators", "pigeon", "tracecontext"]),
    ({"propagators": ["pigeon"]}, ["b3, b3multi, jaeger, xray, datadog"]),
    ({"propagators": "ottrace"}, ["propagators", "ottrace", "not supported"]),
    ({"resource_attributes": 7}, ["resource_attributes", "mapping"]),
    ({"resource_attributes": {7: "x"}}, ["resource_attributes", "string keys"]),
    ({"schedule_delay_ms": -1}, ["schedule_delay_ms", "milliseconds"]),
    ({"exit_timeout_ms": -1}, ["exit_timeout_ms", "milliseconds"]),
    ({"max_queue_size": 0}, ["max_queue_size"]),
    ({"max_queue_size": 1.5}, ["max_queue_size", "an integer", "float"]),
    ({"max_queue_bytes": -1}, ["max_queue_bytes"]),
    ({"max_export_batch_size": 0}, ["max_export_batch_size"]),
    ({"max_request_bytes": 0}, ["max_request_bytes"]),
    ({"export_timeout_ms": "x"}, ["export_timeout_ms", "a number"]),
    ({"spool_directory": 7}, ["spool_directory", "a path", "int"]),
    ({"spool_directory": " "}, ["spool_directory", "not a path"]),
    ({"spool_max_bytes": 0}, ["spool_max_bytes", "between 1 and"]),
    ({"rust_log": 7}, ["rust_log", "a string", "int"]),
    ({"rust_log": "info,hyper=loud"}, ["rust_log", "hyper=loud", "target=level"]),
    ({"rust_log": "app[load]=info"}, ["rust_log", "app[load]=info", "target and level"]),
    ({"rust_events": "loud"}, ["rust_events", "loud", "warning"]),
    ({"attribute_count_limit": -1}, ["attribute_count_limit"]),
    ({"attribute_value_length_limit": "x"}, ["attribute_value_length_limit", "an integer"]),
    ({"event_count_limit": -1}, ["event_count_limit"]),
    ({"link_count_limit": -1}, ["link_count_limit"]),
    ({"event_attribute_count_limit": -1}, ["event_attribute_count_limit"]),
    ({"link_attribute_count_limit": -1}, ["link_attribute_count_limit"]),
]


@pytest.mark.parametrize(("arguments", "said"), WRONG, ids=[str(arguments) for arguments, _ in WRONG])
def test_a_wrong_argument_is_named_with_what_would_be_right(arguments: dict[str, Any], said: list[str]) -> None:
    with pytest.raises(ConfigurationError) as raised:
        init_tracing(**arguments)
    assert all(part in str(raised.value) for part in said), str(raised.value)
    assert isinstance(raised.value, ValueError)


def test_a_certificate_that_cannot_be_read_is_a_configuration_error() -> None:
    with pytest.raises(ConfigurationError, match=r"certificate.*/nowhere\.pem"):
        init_tracing(endpoint="https://127.0.0.1:1", certificate="/nowhere.pem")


def test_a_misspelt_argument_is_a_type_error() -> None:
    with pytest.raises(TypeError, match="servicename"):
        init_tracing(servicename="shop")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]


def test_a_secret_is_in_no_message() -> None:
    with pytest.raises(ConfigurationError) as raised:
        init_tracing(headers={"authorization": "hunter2\n"})
    assert "hunter2" not in str(raised.value)


BAD_ENVIRONMENT = [
    ("OTEL_EXPORTER_OTLP_ENDPOINT", "nonsense"),
    ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "ftp://collector"),
    ("OTEL_EXPORTER_OTLP_PROTOCOL", "smoke"),
    ("OTEL_EXPORTER_OTLP_TIMEOUT", "soon"),
    ("OTEL_EXPORTER_OTLP_COMPRESSION", "zip"),
    ("OTEL_EXPORTER_OTLP_HEADERS", "no equals sign"),
    ("OTEL_TRACES_EXPORTER", "pigeon"),
    ("OTEL_TRACES_SAMPLER", "sometimes"),
    ("OTEL_PROPAGATORS", "pigeon"),
    ("OTEL_RESOURCE_ATTRIBUTES", "no equals sign"),
    ("OTEL_BSP_SCHEDULE_DELAY", "-1"),
    ("OTEL_BSP_MAX_QUEUE_SIZE", "0"),
    ("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "many"),
    ("OTEL_BSP_EXPORT_TIMEOUT", "1.5"),
    ("OTEL_ATTRIBUTE_COUNT_LIMIT", "-1"),
    ("OTEL_SPAN_ATTRIBUTE_VALUE_LENGTH_LIMIT", "x"),
    ("OTEL_SPAN_EVENT_COUNT_LIMIT", "x"),
    ("OTEL_SPAN_LINK_COUNT_LIMIT", "x"),
    ("OTEL_SDK_DISABLED", "perhaps"),
    ("OTEL_LOG_LEVEL", "loud"),
    ("OTEL_INSTRUMENTATION_HTTP_KNOWN_METHODS", "not a method"),
    ("RVH_TRACE_RUST_LOG", "hyper=loud"),
    ("RVH_TRACE_RUST_EVENTS", "loud"),
]


@pytest.mark.parametrize(("variable", "value"), BAD_ENVIRONMENT)
def test_a_bad_variable_warns_once_and_the_application_goes_on(variable: str, value: str) -> None:
    finished = run_script(
        """
        import rvh_trace
        rvh_trace.init_tracing("shop", exporter="none")
        rvh_trace.init_tracing("shop", exporter="none")
        with rvh_trace.span("op"):
            print("application")
        """
        if variable != "OTEL_TRACES_EXPORTER"
        else """
        import rvh_trace
        rvh_trace.init_tracing("shop", endpoint="http://127.0.0.1:1")
        print("application")
        """,
        options=("-W", "error"),
        **{variable: value},
    )
    assert (finished.returncode, finished.stdout) == (0, "application\n")
    (line,) = finished.stderr.splitlines()
    assert line.startswith(f"rvh_trace: warning: {variable}: ")
    assert "; using " in line


def test_a_bad_sampler_argument_warns_and_keeps_everything() -> None:
    finished = run_script(
        """
        import rvh_trace
        rvh_trace.init_tracing("shop", exporter="console")
        with rvh_trace.span("kept"):
            pass
        """,
        OTEL_TRACES_SAMPLER="traceidratio",
        OTEL_TRACES_SAMPLER_ARG="1.5",
    )
    assert finished.returncode == 0
    assert len(finished.stderr.splitlines()) == 1
    assert "OTEL_TRACES_SAMPLER_ARG" in finished.stderr
    assert "kept" in finished.stdout


def test_an_empty_variable_is_unset() -> None:
    run_quietly(
        'import rvh_trace; rvh_trace.init_tracing(exporter="none")',
        options=("-W", "error"),
        **dict.fromkeys([variable for variable, _ in BAD_ENVIRONMENT], ""),
    )


def test_without_an_endpoint_one_line_says_how_to_turn_export_on() -> None:
    finished = run_script(
        """
        import rvh_trace
        rvh_trace.init_tracing("shop")
        with rvh_trace.span("op") as op:
            headers = {}
            rvh_trace.inject(headers)
            assert headers["traceparent"].split("-")[1] == op.context.trace_id
        assert rvh_trace.force_flush() and rvh_trace.shutdown()
        """
    )
    assert finished.returncode == 0
    (line,) = finished.stderr.splitlines()
    assert "OTEL_EXPORTER_OTLP_ENDPOINT" in line


@pytest.mark.parametrize("environ", [{"OTEL_TRACES_EXPORTER": "none"}, {"OTEL_LOG_LEVEL": "none"}])
def test_the_line_can_be_silenced(environ: dict[str, str]) -> None:
    run_quietly('import rvh_trace; rvh_trace.init_tracing("shop")', options=("-W", "error"), **environ)


def test_the_console_prints_a_waterfall() -> None:
    output = run_quietly(
        """
        import rvh_trace
        rvh_trace.init_tracing("shop", exporter="console")
        with rvh_trace.span("checkout", {"cart.id": 7}):
            with rvh_trace.span("load"):
                pass
        """
    )
    lines = output.splitlines()
    (checkout,) = (number for number, line in enumerate(lines) if "checkout" in line)
    (load,) = (number for number, line in enumerate(lines) if "load" in line)
    assert checkout < load
    assert lines[load].index("load") > lines[checkout].index("checkout")
    assert "cart.id" in output


def test_a_second_call_with_the_same_arguments_is_silent() -> None:
    run_quietly(
        """
        import rvh_trace
        for _ in range(2):
            rvh_trace.init_tracing("shop", exporter="none", headers={"a": "b"}, resource_attributes={"x": 1})
        """
    )


def test_a_second_call_with_other_arguments_says_so_and_changes_nothing() -> None:
    finished = run_script(
        """
        import rvh_trace
        rvh_trace.init_tracing("shop", exporter="console")
        rvh_trace.init_tracing("other", exporter="none")
        with rvh_trace.span("still printed"):
            pass
        """
    )
    assert finished.returncode == 0
    (line,) = finished.stderr.splitlines()
    assert "init_tracing" in line
    assert "still printed" in finished.stdout


def test_a_failed_set_up_leaves_nothing_behind_and_may_be_repeated() -> None:
    run_quietly(
        """
        import rvh_trace
        try:
            rvh_trace.init_tracing("shop", sampler_ratio=2)
        except rvh_trace.ConfigurationError:
            pass
        with rvh_trace.span("op") as op:
            assert not op.context.is_valid
        rvh_trace.init_tracing("shop", exporter="none")
        with rvh_trace.span("op") as op:
            assert op.context.is_valid
        """
    )


def test_disabled_by_the_environment_it_records_nothing_and_passes_context_on() -> None:
    run_quietly(
        """
        import os
        import rvh_trace
        rvh_trace.init_tracing("shop", endpoint="http://127.0.0.1:1")
        incoming = {"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}
        with rvh_trace.use_context(rvh_trace.extract(incoming)), rvh_trace.span("op") as op:
            assert not op.is_recording
            outgoing = {}
            rvh_trace.inject(outgoing)
        assert outgoing == incoming, outgoing
        assert rvh_trace.stats()["ended"] == 0
        assert len(os.listdir("/proc/self/task")) == 1
        """,
        OTEL_SDK_DISABLED="true",
    )


def test_with_the_collector_absent_the_application_is_unaffected_and_told_once() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    finished = run_script(
        f"""
        import time
        import rvh_trace
        rvh_trace.init_tracing("shop", endpoint="http://127.0.0.1:{port}", schedule_delay_ms=1, export_timeout_ms=20)
        for round in (1, 2, 3):
            for _ in range(10):
                with rvh_trace.span("op"):
                    pass
            while rvh_trace.stats()["dropped"]["failed"] < 10 * round:
                time.sleep(0.001)
        stats = rvh_trace.stats()
        assert stats["ended"] == stats["dropped"]["failed"] == 30, stats
        assert stats["exported"] == stats["pending"] == 0, stats
        assert stats["last_error"]
        with rvh_trace.span("lost at exit"):
            print("application")
        """
    )
    assert (finished.returncode, finished.stdout) == (0, "application\n")
    assert finished.stderr.splitlines() == finished.warnings
    assert len(finished.warnings) == 1, finished.stderr
    assert str(port) in finished.stderr


def test_a_flush_that_loses_spans_returns_false_and_raises_only_when_asked() -> None:
    finished = run_script(
        """
        import rvh_trace
        rvh_trace.init_tracing("shop", endpoint="http://127.0.0.1:1", export_timeout_ms=20)
        for check in (False, True):
            with rvh_trace.span("op"):
                pass
            try:
                print(rvh_trace.force_flush(check=check))
            except rvh_trace.ExportError as error:
                print(type(error).__name__)
        """
    )
    assert (finished.returncode, finished.stdout) == (0, "False\nExportError\n")


class TestErrors:
    def test_hierarchy(self) -> None:
        assert issubclass(rvh_trace.RvhTraceError, Exception)
        assert issubclass(rvh_trace.ConfigurationError, rvh_trace.RvhTraceError)
        assert issubclass(rvh_trace.ConfigurationError, ValueError)
        assert issubclass(rvh_trace.ExportError, rvh_trace.RvhTraceError)
        assert issubclass(rvh_trace.ExportTimeout, rvh_trace.RvhTraceError)
        assert issubclass(rvh_trace.ExportTimeout, TimeoutError)


def test_a_certificate_file_that_is_none_is_an_error_as_an_argument_and_a_warning_as_a_variable(tmp_path: Path) -> None:
    wrong = tmp_path / "ca.pem"
    wrong.write_text("no certificate")
    finished = run_script(
        f"""
        import rvh_trace
        try:
            rvh_trace.init_tracing("shop", endpoint="https://localhost:4318", certificate={str(wrong)!r})
        except rvh_trace.ConfigurationError as error:
            assert str(error).startswith("certificate: "), error
        else:
            raise AssertionError("no error")
        """
    )
    assert (finished.returncode, finished.stderr) == (0, "")
    finished = run_script(
        """
        import rvh_trace
        rvh_trace.init_tracing("shop")
        with rvh_trace.span("op"):
            print("application")
        """,
        OTEL_EXPORTER_OTLP_ENDPOINT="https://localhost:4318",
        OTEL_EXPORTER_OTLP_CERTIFICATE=str(wrong),
    )
    assert (finished.returncode, finished.stdout) == (0, "application\n"), finished.stderr
    assert len(finished.stderr.splitlines()) == 1
    assert "OTEL_EXPORTER_OTLP_CERTIFICATE" in finished.stderr
