"""Standard variables, each set alone in a process of its own: what a backend then sees, or no longer sees.

That each is read at all, for every signal, is in `tests/every_variable_alone_has_its_effect.rs`; those of HTTP servers
are in `tests/python/asgi`, `OTEL_PROPAGATORS` in `test_propagators.py`.
"""

import socket
import ssl
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from asgi.serving import python_path_with_tests
from faults.certificates import Certificates
from interpreter import OPTIONS, run_quietly
from receiver import ReceivedSpan, Receiver

OTLP = "OTEL_EXPORTER_OTLP_"
ONE_SPAN = """
with rvh_trace.span("op"):
    pass
assert rvh_trace.shutdown()
"""
# A span, and a measurement.
REQUEST = """
from asgi.serving import run
run()
"""
ONE_REQUEST = f"{REQUEST}rvh_trace.shutdown()"
MANY = """
attributes = {f"key{number}": "value" for number in range(200)}
others = [rvh_trace.new_span("other") for _ in range(200)]
with rvh_trace.span("op", links=[(other, attributes) for other in others]) as op:
    op.set_attributes(attributes)
    for _ in range(200):
        op.add_event("happened", attributes)
assert rvh_trace.shutdown()
"""


def run_traced(script: str, arguments: str, **environ: str) -> str:
    script = f"import rvh_trace\nrvh_trace.init_tracing({arguments})\n{script}"
    return run_quietly(script, options=OPTIONS, **environ, PYTHONPATH=python_path_with_tests())


def run_muted(script: str, arguments: str, **environ: str) -> str:
    """What is lost on purpose is not complained of."""
    return run_traced(script, arguments, **environ, OTEL_LOG_LEVEL="none")


def received(receiver: Receiver, script: str, **environ: str) -> list[ReceivedSpan]:
    run_traced(script, f"endpoint={receiver.http_endpoint!r}", **environ)
    return [one for one in receiver.spans if one.name == "op"]


class TestGeneral:
    def test_service_name(self, receiver: Receiver) -> None:
        (sent,) = received(receiver, ONE_SPAN, OTEL_SERVICE_NAME="shop")
        assert sent.service == "shop"

    def test_resource_attributes(self, receiver: Receiver) -> None:
        (sent,) = received(receiver, ONE_SPAN, OTEL_RESOURCE_ATTRIBUTES="team=a%20b,service.name=attributed")
        resource = {pair.key: pair.value.string_value for pair in sent.resource.attributes}
        assert (resource["team"], resource["service.name"]) == ("a b", "attributed")

    def test_sdk_disabled(self, receiver: Receiver) -> None:
        assert received(receiver, ONE_SPAN, OTEL_SDK_DISABLED="true") == []

    @pytest.mark.parametrize("exporter", ["console", "none"])
    def test_traces_exporter(self, receiver: Receiver, exporter: str) -> None:
        printed = run_traced(ONE_SPAN, f"endpoint={receiver.http_endpoint!r}", OTEL_TRACES_EXPORTER=exporter)
        assert ("op" in printed, receiver.spans) == (exporter == "console", [])

    @pytest.mark.parametrize("exporter", ["console", "none"])
    def test_metrics_exporter(self, receiver: Receiver, exporter: str) -> None:
        arguments = f"endpoint={receiver.http_endpoint!r}, self_metrics=True"
        printed = run_traced(ONE_SPAN, arguments, OTEL_METRICS_EXPORTER=exporter)
        assert ("otel.sdk." in printed, receiver.metrics) == (exporter == "console", [])
        assert len(receiver.spans) == 1


class TestSampler:
    @pytest.mark.parametrize(
        ("sampler", "root", "child_of_sampled", "child_of_unsampled"),
        [
            ("always_on", True, True, True),
            ("always_off", False, False, False),
            ("traceidratio", True, True, True),
            ("parentbased_always_on", True, True, False),
            ("parentbased_always_off", False, True, False),
            ("parentbased_traceidratio", True, True, False),
        ],
    )
    def test_name(
        self, receiver: Receiver, sampler: str, root: bool, child_of_sampled: bool, child_of_unsampled: bool
    ) -> None:
        script = """
with rvh_trace.span("op", {"parent": "none"}):
    pass
for flags in ("01", "00"):
    header = f"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-{flags}"
    with rvh_trace.use_context(rvh_trace.extract({"traceparent": header})), rvh_trace.span("op", {"parent": flags}):
        pass
assert rvh_trace.shutdown()
"""
        sent = {str(one.attributes["parent"]) for one in received(receiver, script, OTEL_TRACES_SAMPLER=sampler)}
        decisions = {"none": root, "01": child_of_sampled, "00": child_of_unsampled}
        assert sent == {parent for parent, sampled in decisions.items() if sampled}

    def test_argument(self, receiver: Receiver) -> None:
        ratio = {"OTEL_TRACES_SAMPLER": "traceidratio", "OTEL_TRACES_SAMPLER_ARG": "0"}
        assert received(receiver, ONE_SPAN, **ratio) == []


class TestLimits:
    @pytest.mark.parametrize(
        ("variable", "expected"),
        [
            ("OTEL_ATTRIBUTE_COUNT_LIMIT", (3, 128, 128, 3, 3)),
            ("OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT", (3, 128, 128, 128, 128)),
            ("OTEL_SPAN_EVENT_COUNT_LIMIT", (128, 3, 128, 128, 128)),
            ("OTEL_SPAN_LINK_COUNT_LIMIT", (128, 128, 3, 128, 128)),
            ("OTEL_EVENT_ATTRIBUTE_COUNT_LIMIT", (128, 128, 128, 3, 128)),
            ("OTEL_LINK_ATTRIBUTE_COUNT_LIMIT", (128, 128, 128, 128, 3)),
        ],
    )
    def test_count(self, receiver: Receiver, variable: str, expected: tuple[int, ...]) -> None:
        (sent,) = received(receiver, MANY, **{variable: "3"})
        op = sent.span
        assert expected == (
            *(len(op.attributes), len(op.events), len(op.links)),
            *(len(op.events[0].attributes), len(op.links[0].attributes)),
        )

    @pytest.mark.parametrize(
        "variable", ["OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT", "OTEL_SPAN_ATTRIBUTE_VALUE_LENGTH_LIMIT"]
    )
    def test_length(self, receiver: Receiver, variable: str) -> None:
        (sent,) = received(receiver, MANY, **{variable: "3"})
        assert all(value == "val" for value in sent.attributes.values())


@pytest.fixture
def silent() -> Iterator[tuple[str, list[socket.socket]]]:
    """The URL of a collector that takes connections and never answers, and the connections it took."""
    taken: list[socket.socket] = []
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def take() -> None:
            try:
                while True:
                    taken.append(listening.accept()[0])
            except OSError:
                return

        threading.Thread(target=take, daemon=True).start()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}", taken
        listening.shutdown(socket.SHUT_RDWR)
    for connection in taken:
        connection.close()


# Without the variable these are over only when the flush has waited for so long.
GIVES_UP = """
with rvh_trace.span("op"):
    pass
try:
    rvh_trace.force_flush(20_000, check=True)
except rvh_trace.ExportError as error:
    print(type(error).__name__)
"""


class TestBatch:
    def test_max_export_batch_size(self, receiver: Receiver) -> None:
        script = f"for _ in range(5):\n    with rvh_trace.span('op'):\n        pass\n{ONE_SPAN}"
        assert len(received(receiver, script, OTEL_BSP_MAX_EXPORT_BATCH_SIZE="2")) == 6
        sizes = [
            len(scope.spans)
            for one in receiver.requests
            for rs in one.message.resource_spans
            for scope in rs.scope_spans
        ]
        assert max(sizes) == 2

    def test_max_queue_size(self, silent: tuple[str, list[socket.socket]]) -> None:
        script = """
for _ in range(100):
    with rvh_trace.span("op"):
        pass
stats = rvh_trace.stats()
assert stats["dropped"]["queue_full"] >= 80, stats
import os
os._exit(0)
"""
        run_muted(script, f"endpoint={silent[0]!r}", OTEL_BSP_MAX_QUEUE_SIZE="5")

    def test_schedule_delay(self, receiver: Receiver) -> None:
        """Without it the span goes after 5 s, before the metrics."""
        script = """
import os, time
with rvh_trace.span("op"):
    pass
deadline = time.monotonic() + 25
while not rvh_trace.stats()["metric_exports"]:
    assert time.monotonic() < deadline, rvh_trace.stats()
    time.sleep(0.01)
assert rvh_trace.stats()["exported"] == 0, rvh_trace.stats()
os._exit(0)
"""
        arguments = f"endpoint={receiver.http_endpoint!r}, self_metrics=True, metric_export_interval_ms=6_000"
        run_traced(script, arguments, OTEL_BSP_SCHEDULE_DELAY="3600000")

    def test_export_timeout(self, silent: tuple[str, list[socket.socket]]) -> None:
        arguments = f"endpoint={silent[0]!r}, timeout_ms=60_000, exit_timeout_ms=0, metrics_exporter='none'"
        assert "ExportError" in run_muted(GIVES_UP, arguments, OTEL_BSP_EXPORT_TIMEOUT="200")


class TestMetrics:
    def test_export_interval(self, receiver: Receiver) -> None:
        """Without it they would be sent after a minute, or at the end."""
        script = """
import time
with rvh_trace.span("op"):
    pass
deadline = time.monotonic() + 30
while not rvh_trace.stats()["metric_exports"]:
    assert time.monotonic() < deadline, rvh_trace.stats()
    time.sleep(0.005)
import os
os._exit(0)
"""
        arguments = f"endpoint={receiver.http_endpoint!r}, self_metrics=True"
        run_traced(script, arguments, OTEL_METRIC_EXPORT_INTERVAL="20")
        assert receiver.metrics

    def test_export_timeout(self, silent: tuple[str, list[socket.socket]]) -> None:
        endpoint = f"{silent[0]}/v1/metrics"
        arguments = f"endpoint={endpoint!r}, timeout_ms=60_000, exit_timeout_ms=0"
        script = f"""{REQUEST}
rvh_trace.force_flush(20_000)
print(rvh_trace.stats()["metric_exports_failed"])
"""
        assert run_muted(script, arguments, OTEL_METRIC_EXPORT_TIMEOUT="200") == "1\n"


@dataclass
class Recorder:
    """An OTLP/HTTP collector that keeps what the requests look like."""

    requests: list[tuple[str, dict[str, str]]] = field(default_factory=list)

    def start(self, tls: ssl.SSLContext | None = None) -> ThreadingHTTPServer:
        requests = self.requests

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                self.rfile.read(int(self.headers["content-length"]))
                requests.append((self.path, {name.lower(): value for name, value in self.headers.items()}))
                self.send_response(200)
                self.send_header("content-type", self.headers["content-type"])
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None: ...  # noqa: A002 (named by the base class)

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        if tls is not None:
            server.socket = tls.wrap_socket(server.socket, server_side=True)
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        return server

    def of(self, signal: str) -> list[tuple[str, dict[str, str]]]:
        return [one for one in self.requests if one[0].endswith(signal)]


@pytest.fixture
def recorder() -> Iterator[tuple[Recorder, str]]:
    recorder = Recorder()
    server = recorder.start()
    yield recorder, f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


SIGNALS = {"": ("traces", "metrics"), "TRACES_": ("traces",), "METRICS_": ("metrics",)}


@pytest.mark.parametrize("signal", SIGNALS)
class TestOtlp:
    def test_endpoint(self, recorder: tuple[Recorder, str], signal: str) -> None:
        kept, url = recorder
        path = "" if not signal else f"/in/{SIGNALS[signal][0]}"
        run_muted(ONE_REQUEST, "", **{f"{OTLP}{signal}ENDPOINT": url + path})
        expected = {f"/v1/{name}" for name in SIGNALS[signal]} if not signal else {path}
        assert {path for path, _ in kept.requests} == expected

    @pytest.mark.parametrize(
        ("setting", "value", "header", "shows"),
        [
            ("PROTOCOL", "http/json", "content-type", "application/json"),
            ("HEADERS", "api-key=a%20b", "api-key", "a b"),
            ("COMPRESSION", "gzip", "content-encoding", "gzip"),
        ],
    )
    def test_what_shows_in_a_request(
        self, recorder: tuple[Recorder, str], signal: str, setting: str, value: str, header: str, shows: str
    ) -> None:
        kept, url = recorder
        run_muted(ONE_REQUEST, f"endpoint={url!r}", **{f"{OTLP}{signal}{setting}": value})
        for name in ("traces", "metrics"):
            headers = [headers.get(header) for _, headers in kept.of(name)]
            assert headers
            assert {one == shows for one in headers} == {name in SIGNALS[signal]}

    def test_grpc_and_insecure(self, receiver: Receiver, signal: str) -> None:
        """An endpoint without a scheme is encrypted, unless it is said not to be."""
        endpoint = receiver.grpc_endpoint.removeprefix("http://")
        run_muted(
            ONE_REQUEST,
            "export_timeout_ms=2_000, exit_timeout_ms=0",
            **{f"{OTLP}{signal}PROTOCOL": "grpc", f"{OTLP}{signal}ENDPOINT": endpoint},
            **{f"{OTLP}{signal}INSECURE": "true"},
        )
        assert {"traces": len(receiver.spans) == 1, "metrics": bool(receiver.metrics)} == {
            name: name in SIGNALS[signal] for name in ("traces", "metrics")
        }

    def test_timeout(self, silent: tuple[str, list[socket.socket]], signal: str) -> None:
        """Of one attempt: there is time for more of them."""
        url, taken = silent
        other = {"": "metrics_exporter='none'", "TRACES_": "metrics_exporter='none'", "METRICS_": "exporter='none'"}
        arguments = f"endpoint={url!r}, export_timeout_ms=3_000, exit_timeout_ms=0, {other[signal]}"
        script = f"{REQUEST}rvh_trace.force_flush(20_000)"
        brief = {"OTEL_METRIC_EXPORT_TIMEOUT": "3000"} if signal == "METRICS_" else {}
        run_muted(script, arguments, **{f"{OTLP}{signal}TIMEOUT": "50"}, **brief)
        assert len(taken) > 1

    def test_certificate_and_client_identity(self, tmp_path: Path, signal: str) -> None:
        certificates, recorder = Certificates.make(tmp_path), Recorder()
        server = recorder.start(certificates.context("client required"))
        try:
            identity = {
                f"{OTLP}{signal}CERTIFICATE": str(certificates.trusted),
                f"{OTLP}{signal}CLIENT_CERTIFICATE": str(certificates.client),
                f"{OTLP}{signal}CLIENT_KEY": str(certificates.client_key),
            }
            endpoint = f"https://127.0.0.1:{server.server_port}"
            arguments = f"endpoint={endpoint!r}, export_timeout_ms=2_000, exit_timeout_ms=0"
            for left_out in (None, *identity):
                recorder.requests.clear()
                environ = {name: value for name, value in identity.items() if name != left_out}
                run_muted(ONE_REQUEST, arguments, **environ)
                expected = set() if left_out else {f"/v1/{name}" for name in SIGNALS[signal]}
                assert {path for path, _ in recorder.requests} == expected
        finally:
            server.shutdown()
            server.server_close()
