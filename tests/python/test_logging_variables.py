"""Where log records go, and how: every variable alone, each run in a process of its own."""

import gzip
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from faults.certificates import Certificates
from faults.exchange import Exchange
from faults.server import FaultServer
from interpreter import OPTIONS, run_quietly, run_script
from log_scripts import BALANCED, FLUSHED, ONE, PREAMBLE
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from receiver import Receiver, attributes, logs


@dataclass
class Heard:
    """One request as it came."""

    path: str
    headers: dict[str, str]
    body: bytes


@dataclass
class Ear:
    """An HTTP server that takes everything and keeps it as it is."""

    heard: list[Heard] = field(default_factory=list[Heard])

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.server.server_port}"

    def listen(self) -> None:
        heard = self.heard

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                heard.append(Heard(self.path, {key.lower(): value for key, value in self.headers.items()}, body))
                self.send_response(200)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()


@pytest.fixture
def ear() -> Iterator[Ear]:
    ear = Ear()
    ear.listen()
    yield ear
    ear.server.shutdown()
    ear.server.server_close()


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates.make(tmp_path_factory.mktemp("certificates"))


class TestWhere:
    """`OTEL_LOGS_EXPORTER` and the variables of OTLP, each alone."""

    def test_without_a_place_to_go_nothing_starts_and_nothing_is_kept(self) -> None:
        run_quietly(
            ONE
            + "assert len(os.listdir('/proc/self/task')) == 1\n"
            + "assert rvh_trace.stats()['logs']['created'] == 0",
            OTEL_TRACES_EXPORTER="none",
        )

    def test_without_a_handler_nothing_starts(self, receiver: Receiver) -> None:
        run_quietly(
            """
            import logging, os
            import rvh_trace
            rvh_trace.init_tracing("shop")
            logging.getLogger().setLevel(1)
            logging.getLogger().addHandler(logging.NullHandler())
            logging.info("hello")
            assert len(os.listdir("/proc/self/task")) == 1
            """,
            OTEL_EXPORTER_OTLP_ENDPOINT=receiver.http_endpoint,
        )
        assert receiver.log_requests == []

    def test_records_before_set_up_are_passed_over(self, receiver: Receiver) -> None:
        script = FLUSHED.replace("rvh_trace.init_tracing", "logger.info('too early'); rvh_trace.init_tracing")
        run_quietly(script, OTEL_EXPORTER_OTLP_ENDPOINT=receiver.http_endpoint)
        assert [log.body for log in receiver.logs] == ["hello"]

    def test_the_general_endpoint_is_for_logs_too(self, receiver: Receiver) -> None:
        run_quietly(FLUSHED, OTEL_EXPORTER_OTLP_ENDPOINT=receiver.http_endpoint)
        (log,) = receiver.logs
        assert (log.body, log.scope.name) == ("hello", "shop")
        resource = attributes(log.resource.attributes)
        assert (resource["service.name"], resource["telemetry.sdk.name"]) == ("shop", "rvh_trace")

    @pytest.mark.parametrize("kind", ["http", "grpc"])
    def test_an_endpoint_of_its_own_is_used_as_it_is(self, receiver: Receiver, kind: Any) -> None:
        endpoint = receiver.endpoint(kind) + ("/v1/logs" if kind == "http" else "")
        run_quietly(
            FLUSHED,
            OTEL_TRACES_EXPORTER="none",
            OTEL_EXPORTER_OTLP_LOGS_ENDPOINT=endpoint,
            OTEL_EXPORTER_OTLP_LOGS_PROTOCOL="grpc" if kind == "grpc" else "http/protobuf",
        )
        assert [log.body for log in receiver.logs] == ["hello"]

    def test_an_endpoint_of_its_own_is_no_other_signals(self, receiver: Receiver, ear: Ear) -> None:
        run_quietly(
            ONE + "with rvh_trace.span('op'): pass\nassert rvh_trace.force_flush()",
            OTEL_EXPORTER_OTLP_ENDPOINT=receiver.http_endpoint,
            OTEL_EXPORTER_OTLP_LOGS_ENDPOINT=ear.endpoint + "/ingest/here",
        )
        assert [heard.path for heard in ear.heard] == ["/ingest/here"]
        assert (len(receiver.spans), receiver.logs) == (1, [])

    @pytest.mark.parametrize(("path", "paths"), [("/v1/logs", ["/v1/logs"]), ("/v1/traces", ["/v1/traces"])])
    def test_a_full_url_as_argument_is_for_its_signal_alone(self, ear: Ear, path: str, paths: list[str]) -> None:
        run_quietly(
            PREAMBLE
            + f"rvh_trace.init_tracing('shop', endpoint='{ear.endpoint}{path}')\n"
            + "logger.info('hello')\nwith rvh_trace.span('op'): pass\nassert rvh_trace.force_flush()",
            OTEL_LOG_LEVEL="error",
        )
        assert [heard.path for heard in ear.heard] == paths

    def test_the_exporter_may_be_none(self, receiver: Receiver) -> None:
        run_quietly(
            ONE + "assert rvh_trace.stats()['logs']['created'] == 0",
            OTEL_EXPORTER_OTLP_ENDPOINT=receiver.http_endpoint,
            OTEL_LOGS_EXPORTER="none",
        )

    def test_the_argument_goes_before_the_variable(self, receiver: Receiver) -> None:
        run_quietly(
            PREAMBLE
            + f"rvh_trace.init_tracing('shop', logs_exporter=rvh_trace.OtlpExporter('{receiver.http_endpoint}'))\n"
            + "logger.info('hello')\nassert rvh_trace.force_flush()",
            OTEL_LOGS_EXPORTER="none",
            OTEL_TRACES_EXPORTER="none",
        )
        assert [log.body for log in receiver.logs] == ["hello"]

    def test_the_console_prints_a_line_a_record(self) -> None:
        script = PREAMBLE + (
            "rvh_trace.init_tracing('shop')\n"
            "with rvh_trace.span('op') as op:\n"
            "    logger.warning('the cart\\n\\x1b[2Jis empty', extra={'cart.id': 7})\n"
            "try:\n    1 / 0\nexcept ZeroDivisionError:\n    logger.exception('failed')\n"
            "print(op.context.trace_id, flush=True)\nassert rvh_trace.force_flush()"
        )
        trace_id, *lines = run_quietly(script, OTEL_LOGS_EXPORTER="console", OTEL_TRACES_EXPORTER="none").splitlines()
        first, second, third, *rest = lines
        assert first[12:] == " WARNING shop: the cart"
        assert second.startswith("     [2Jis empty {")
        assert "cart.id=7" in second
        assert f"trace={trace_id} span=" in second
        assert " ERROR shop: failed {" in third
        assert rest[0] == "    Traceback (most recent call last):"
        assert rest[-1] == "    ZeroDivisionError: division by zero"

    def test_disabled_is_off(self, receiver: Receiver) -> None:
        run_quietly(
            ONE + "assert rvh_trace.stats()['logs']['created'] == 0",
            OTEL_EXPORTER_OTLP_ENDPOINT=receiver.http_endpoint,
            OTEL_SDK_DISABLED="true",
        )
        assert receiver.log_requests == []

    def test_several_destinations_get_every_record(self, receiver: Receiver, ear: Ear) -> None:
        run_quietly(
            PREAMBLE
            + "from rvh_trace import OtlpExporter\nrvh_trace.init_tracing('shop', exporter='none', logs_exporter=["
            + f"OtlpExporter('{receiver.http_endpoint}'), OtlpExporter('{ear.endpoint}', protocol='http/json')])\n"
            + "for number in range(700): logging.getLogger(f'shop.{number % 3}').info('%d', number)\n"
            + "assert rvh_trace.force_flush(), rvh_trace.stats()"
            + BALANCED
            + "assert logs['exported'] == 700, logs",
        )
        assert sorted(int(str(log.body)) for log in receiver.logs) == list(range(700))
        assert all(len(logs([request])) <= 512 for request in receiver.log_requests)
        records = [
            record["body"]["stringValue"]
            for heard in ear.heard
            for group in json.loads(heard.body)["resourceLogs"]
            for scope in group["scopeLogs"]
            for record in scope["logRecords"]
        ]
        assert sorted(map(int, records)) == list(range(700))

    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("OTEL_LOGS_EXPORTER", "pigeon"),
            ("OTEL_EXPORTER_OTLP_LOGS_ENDPOINT", "nowhere"),
            ("OTEL_EXPORTER_OTLP_LOGS_PROTOCOL", "smoke"),
            ("OTEL_EXPORTER_OTLP_LOGS_TIMEOUT", "soon"),
            ("OTEL_EXPORTER_OTLP_LOGS_COMPRESSION", "zip"),
            ("OTEL_EXPORTER_OTLP_LOGS_INSECURE", "yes"),
            ("OTEL_EXPORTER_OTLP_LOGS_CERTIFICATE", "/nowhere.pem"),
            ("OTEL_EXPORTER_OTLP_LOGS_CLIENT_CERTIFICATE", "/nowhere.pem"),
            ("OTEL_EXPORTER_OTLP_LOGS_CLIENT_KEY", "/nowhere.pem"),
            ("OTEL_EXPORTER_OTLP_LOGS_HEADERS", "no equals sign"),
            ("OTEL_BLRP_SCHEDULE_DELAY", "-1"),
            ("OTEL_BLRP_MAX_QUEUE_SIZE", "0"),
            ("OTEL_BLRP_MAX_EXPORT_BATCH_SIZE", "many"),
            ("OTEL_BLRP_EXPORT_TIMEOUT", "1.5"),
            ("OTEL_LOGRECORD_ATTRIBUTE_COUNT_LIMIT", "-1"),
        ],
    )
    def test_a_wrong_variable_is_one_warning(self, receiver: Receiver, name: str, value: str) -> None:
        environ = {"OTEL_EXPORTER_OTLP_ENDPOINT": receiver.http_endpoint, name: value}
        finished = run_script(FLUSHED, options=OPTIONS, **environ)
        (warning,) = finished.stderr.splitlines()
        assert warning.startswith(f"rvh_trace: warning: {name}: ")
        assert [log.body for log in receiver.logs] == ["hello"]

    def test_a_file_that_is_no_certificate_stops_logs_alone(self, receiver: Receiver, tmp_path: Path) -> None:
        wrong = tmp_path / "wrong.pem"
        wrong.write_text("no certificate")
        finished = run_script(
            PREAMBLE + "rvh_trace.init_tracing('shop')\nwith rvh_trace.span('op'): logger.info('hello')\n"
            "assert rvh_trace.force_flush()",
            OTEL_EXPORTER_OTLP_ENDPOINT=receiver.http_endpoint,
            OTEL_EXPORTER_OTLP_LOGS_ENDPOINT="https://127.0.0.1:1/v1/logs",
            OTEL_EXPORTER_OTLP_LOGS_CERTIFICATE=str(wrong),
        )
        assert finished.returncode == 0, finished.stderr
        (warning,) = finished.stderr.splitlines()
        assert "Logs are not exported" in warning
        assert len(receiver.spans) == 1


class TestHow:
    """The rest of the variables of OTLP for logs alone, each with its effect on logs and none on spans."""

    def test_headers(self, ear: Ear) -> None:
        run_quietly(
            ONE + "with rvh_trace.span('op'): pass\nassert rvh_trace.force_flush()",
            OTEL_EXPORTER_OTLP_ENDPOINT=ear.endpoint,
            OTEL_EXPORTER_OTLP_LOGS_HEADERS="api-key=of%20logs,tenant=7",
        )
        by_path = {heard.path: heard.headers for heard in ear.heard}
        assert by_path["/v1/logs"]["api-key"] == "of logs"
        assert by_path["/v1/logs"]["tenant"] == "7"
        assert "api-key" not in by_path["/v1/traces"]

    def test_compression(self, ear: Ear) -> None:
        run_quietly(FLUSHED, OTEL_EXPORTER_OTLP_ENDPOINT=ear.endpoint, OTEL_EXPORTER_OTLP_LOGS_COMPRESSION="gzip")
        (heard,) = ear.heard
        assert heard.headers["content-encoding"] == "gzip"
        (log,) = logs([ExportLogsServiceRequest.FromString(gzip.decompress(heard.body))])
        assert log.body == "hello"

    def test_json(self, ear: Ear) -> None:
        run_quietly(
            PREAMBLE + "rvh_trace.init_tracing('shop')\nwith rvh_trace.span('op') as op:\n"
            "    logger.info('hello', extra={'cart.id': 7})\nassert rvh_trace.force_flush()",
            OTEL_TRACES_EXPORTER="none",
            OTEL_EXPORTER_OTLP_ENDPOINT=ear.endpoint,
            OTEL_EXPORTER_OTLP_LOGS_PROTOCOL="http/json",
        )
        (heard,) = ear.heard
        assert (heard.path, heard.headers["content-type"]) == ("/v1/logs", "application/json")
        (group,) = json.loads(heard.body)["resourceLogs"]
        (scope,) = group["scopeLogs"]
        (record,) = scope["logRecords"]
        assert scope["scope"] == {"name": "shop"}
        assert (record["body"], record["severityNumber"], record["severityText"]) == (
            {"stringValue": "hello"},
            9,
            "INFO",
        )
        assert {"key": "cart.id", "value": {"intValue": "7"}} in record["attributes"]
        assert (len(record["traceId"]), len(record["spanId"]), record["flags"]) == (32, 16, 3)
        assert int(record["observedTimeUnixNano"]) >= int(record["timeUnixNano"]) - 1_000

    def test_timeout(self) -> None:
        with FaultServer("http/protobuf", always=Exchange.hang) as server:
            finished = run_script(
                ONE + "assert not rvh_trace.force_flush()\n" + BALANCED,
                OTEL_TRACES_EXPORTER="none",
                OTEL_EXPORTER_OTLP_ENDPOINT=server.endpoint,
                OTEL_EXPORTER_OTLP_LOGS_TIMEOUT="100",
                OTEL_BLRP_EXPORT_TIMEOUT="400",
            )
            assert finished.returncode == 0, finished.stderr
            assert "100 ms" in finished.stderr
            # An attempt of 100 ms is followed by another in the 400 ms of the export.
            assert server.ledger.requests >= 2

    def test_insecure(self, receiver: Receiver) -> None:
        run_quietly(
            FLUSHED,
            OTEL_TRACES_EXPORTER="none",
            OTEL_EXPORTER_OTLP_LOGS_ENDPOINT=receiver.grpc_endpoint.removeprefix("http://"),
            OTEL_EXPORTER_OTLP_LOGS_PROTOCOL="grpc",
            OTEL_EXPORTER_OTLP_LOGS_INSECURE="true",
        )
        assert [log.body for log in receiver.logs] == ["hello"]

    @pytest.mark.parametrize("protocol", ["http/protobuf", "grpc"])
    def test_certificates(self, certificates: Certificates, protocol: str) -> None:
        tls = {
            "OTEL_EXPORTER_OTLP_LOGS_CERTIFICATE": certificates.trusted,
            "OTEL_EXPORTER_OTLP_LOGS_CLIENT_CERTIFICATE": certificates.client,
            "OTEL_EXPORTER_OTLP_LOGS_CLIENT_KEY": certificates.client_key,
        }
        with FaultServer(protocol, tls=certificates.context("client required")) as server:
            path = "/v1/logs" if protocol == "http/protobuf" else ""
            environ = {
                "OTEL_TRACES_EXPORTER": "none",
                "OTEL_EXPORTER_OTLP_LOGS_ENDPOINT": server.endpoint + path,
                "OTEL_EXPORTER_OTLP_LOGS_PROTOCOL": protocol,
                "OTEL_BLRP_EXPORT_TIMEOUT": "700",
            }
            run_quietly(
                FLUSHED.replace("'hello'", "'hello', extra={'number': 7}"),
                options=OPTIONS,
                **environ,
                **{name: str(path) for name, path in tls.items()},
            )
            assert server.ledger.taken == [7]
            finished = run_script(ONE + "assert not rvh_trace.force_flush()", options=OPTIONS, **environ)
            assert finished.returncode == 0, finished.stderr
            assert server.ledger.taken == [7]
