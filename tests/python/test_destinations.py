"""Several OTLP destinations, OTLP/JSON, proxies and Unix sockets: each in a process of its own."""

import base64
import json
import math
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest
from google.protobuf import json_format
from interpreter import run_quietly, run_script
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from receiver import Receiver, attributes

import rvh_trace
from rvh_trace import OtlpExporter
from rvh_trace.errors import ConfigurationError


@pytest.fixture
def another_receiver() -> Iterator[Receiver]:
    with Receiver() as listening:
        yield listening


@pytest.fixture
def deaf_port() -> Iterator[int]:
    """A port that is bound, so that nobody else gets it, and on which nobody listens."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield bound.getsockname()[1]


def names(receiver: Receiver) -> list[str]:
    return [one.name for one in receiver.spans]


REQUEST = """
import asyncio
import rvh_trace
from rvh_trace import OtlpExporter, RvhTraceMiddleware

async def app(scope, receive, send):
    await send({{"type": "http.response.start", "status": 200, "headers": []}})
    await send({{"type": "http.response.body", "body": b""}})

async def receive():
    return {{"type": "http.request"}}

async def send(message):
    pass

rvh_trace.init_tracing("shop", {exporters})
scope = {{"type": "http", "method": "GET", "path": "/", "headers": [], "scheme": "http"}}
asyncio.run(RvhTraceMiddleware(app)(scope, receive, send))
assert rvh_trace.force_flush(), rvh_trace.stats()
"""


class HeadServer:
    """Notes each request that comes, answers 200 to it and closes the connection."""

    def __init__(self) -> None:
        self.heads: list[str] = []
        self.bodies: list[bytes] = []
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._socket.getsockname()[1]
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            with connection, connection.makefile("rb") as stream:
                head = b"".join(iter(stream.readline, b"\r\n"))
                lines = head.decode().lower().splitlines()
                length = [int(line.partition(":")[2]) for line in lines if line.startswith("content-length:")]
                self.bodies.append(stream.read(*length or [0]))
                self.heads.append(head.decode())
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def head_server() -> Iterator[HeadServer]:
    server = HeadServer()
    yield server
    server.close()


class TestSeveral:
    @pytest.mark.parametrize("second", ["grpc", "http/json", "http/protobuf"])
    def test_every_destination_gets_every_span_by_its_own_protocol(
        self, receiver: Receiver, another_receiver: Receiver, head_server: HeadServer, second: str
    ) -> None:
        to_json = f"http://127.0.0.1:{head_server.port}"
        endpoint = {
            "grpc": another_receiver.endpoint("grpc"),
            "http/json": to_json,
            "http/protobuf": another_receiver.http_endpoint,
        }[second]
        run_quietly(
            f"""
            import rvh_trace
            from rvh_trace import OtlpExporter
            exporters = [OtlpExporter({receiver.http_endpoint!r}, compression="gzip"),
                         OtlpExporter({endpoint!r}, protocol={second!r}, headers={{"x-tenant": "second"}})]
            rvh_trace.init_tracing("shop", exporter=exporters)
            for number in range(3):
                with rvh_trace.span(f"op{{number}}"):
                    pass
            assert rvh_trace.force_flush(), rvh_trace.stats()
            assert rvh_trace.stats()["exported"] == 3, rvh_trace.stats()
            """,
            OTEL_METRICS_EXPORTER="none",
        )
        assert names(receiver) == ["op0", "op1", "op2"]
        if second == "http/json":
            (head,) = head_server.heads
            assert head.startswith("POST /v1/traces HTTP/1.1\r\n")
            assert "x-tenant: second\r\n" in head
            assert "content-type: application/json\r\n" in head
        else:
            assert names(another_receiver) == ["op0", "op1", "op2"]

    def test_a_dead_one_takes_nothing_from_the_others(self, receiver: Receiver, deaf_port: int) -> None:
        finished = run_script(
            f"""
            import rvh_trace
            from rvh_trace import OtlpExporter
            dead = OtlpExporter("http://127.0.0.1:{deaf_port}")
            rvh_trace.init_tracing("shop", exporter=["otlp", dead], max_export_batch_size=10)
            for number in range(100):
                with rvh_trace.span(f"op{{number}}"):
                    pass
            rvh_trace.shutdown(timeout_ms=5_000)
            stats = rvh_trace.stats()
            assert stats["exported"] == 0 and stats["pending"] == 0, stats
            assert stats["dropped"]["failed"] + stats["dropped"]["exit"] == 100, stats
            """,
            OTEL_EXPORTER_OTLP_ENDPOINT=receiver.http_endpoint,
        )
        assert finished.returncode == 0, finished.stderr
        assert names(receiver) == [f"op{number}" for number in range(100)]
        assert any("connection refused" in line for line in finished.warnings), finished.stderr

    def test_standard_output_that_nobody_reads_holds_up_no_other(self, receiver: Receiver) -> None:
        finished = run_script(
            """
            import os
            import rvh_trace
            read, write = os.pipe()
            os.dup2(write, 1)
            rvh_trace.init_tracing("shop", exporter=["otlp", "console"], max_export_batch_size=100)
            for number in range(2000):
                with rvh_trace.span(f"a name that fills the pipe after some hundred spans, number {number}"):
                    pass
            assert rvh_trace.shutdown(timeout_ms=2_000) is False
            os._exit(0)
            """,
            OTEL_EXPORTER_OTLP_ENDPOINT=receiver.http_endpoint,
        )
        assert finished.returncode == 0, finished.stderr
        assert len(names(receiver)) == 2000

    def test_metrics_have_destinations_of_their_own(self, receiver: Receiver, another_receiver: Receiver) -> None:
        exporters = f"""exporter=OtlpExporter({receiver.http_endpoint!r}),
            metrics_exporter=[OtlpExporter({another_receiver.http_endpoint!r})]"""
        run_quietly(REQUEST.format(exporters=exporters))
        assert names(receiver) == ["GET"]
        assert names(another_receiver) == []
        assert "http.server.request.duration" in {metric.name for metric in another_receiver.metrics}
        assert not receiver.metrics

    def test_what_one_does_not_say_comes_from_the_variables(self, head_server: HeadServer) -> None:
        run_quietly(
            """
            import rvh_trace
            from rvh_trace import OtlpExporter
            rvh_trace.init_tracing("shop", exporter=[OtlpExporter(), OtlpExporter(headers={})])
            with rvh_trace.span("op"):
                pass
            assert rvh_trace.force_flush()
            """,
            OTEL_EXPORTER_OTLP_ENDPOINT=f"http://127.0.0.1:{head_server.port}",
            OTEL_EXPORTER_OTLP_HEADERS="api-key=secret",
            OTEL_METRICS_EXPORTER="none",
        )
        assert sorted("api-key: secret" in head for head in head_server.heads) == [False, True]

    @pytest.mark.parametrize(
        ("arguments", "words"),
        [
            ({"endpoint": "ftp://collector"}, ["endpoint", "http://collector:4318"]),
            ({"endpoint": 7}, ["endpoint", "must be a string, not int"]),
            ({"protocol": "udp"}, ["protocol", "http/protobuf, http/json or grpc"]),
            ({"headers": "a=b"}, ["headers", "mapping"]),
            ({"headers": {"a b": "secret"}}, ["headers"]),
            ({"timeout_ms": -1}, ["timeout_ms"]),
            ({"compression": "zstd"}, ["compression", "gzip"]),
            ({"certificate": "/nowhere.pem"}, ["certificate", "not a file"]),
        ],
    )
    def test_a_wrong_argument_is_told_where_it_is_given(self, arguments: dict[str, object], words: list[str]) -> None:
        with pytest.raises(ConfigurationError) as raised:
            OtlpExporter(**arguments)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
        for word in words:
            assert word in str(raised.value)
        assert "secret" not in str(raised.value)

    def test_a_full_url_for_the_other_signal_is_refused(self) -> None:
        with pytest.raises(ConfigurationError, match="is for metrics, and spans are to go to it"):
            rvh_trace.init_tracing("shop", exporter=OtlpExporter("http://collector:4318/v1/metrics"))

    def test_its_repr_keeps_secrets(self) -> None:
        shown = repr(OtlpExporter("https://user:secret@host/x?key=secret", headers={"api-key": "secret"}))
        assert shown == "OtlpExporter('https://***@host/x')"
        assert repr(OtlpExporter()) == "OtlpExporter()"

    def test_a_bad_certificate_in_an_object_is_an_error(self, tmp_path: Path) -> None:
        bad = tmp_path / "bad.pem"
        bad.write_text("no certificate")
        with pytest.raises(ConfigurationError, match="certificate"):
            rvh_trace.init_tracing("shop", exporter=OtlpExporter("https://localhost:1", certificate=bad))


def with_base64_ids(value: Any) -> Any:
    """What OTLP/JSON writes in hexadecimal, as protobuf's own JSON has it: ids are OTLP's one exception."""
    if isinstance(value, list):
        return [with_base64_ids(member) for member in cast("list[Any]", value)]
    if not isinstance(value, dict):
        return value
    members = cast("dict[str, Any]", value)
    return {
        key: base64.b64encode(bytes.fromhex(member)).decode()
        if key in ("traceId", "spanId", "parentSpanId")
        else with_base64_ids(member)
        for key, member in members.items()
    }


def read_json(body: bytes, message: ExportTraceServiceRequest | ExportMetricsServiceRequest) -> None:
    """Reads `body` into `message` by the official JSON mapping, which refuses what it does not know, and checks that it
    is written as the official writer would: the same keys, numbers as strings or not, nothing else.
    """
    members = with_base64_ids(json.loads(body))
    json_format.ParseDict(members, message)
    assert json_format.MessageToDict(message, use_integers_for_enums=True) == members


class TestJson:
    """rotel, the collector of the end-to-end tests, answers 400 to any JSON; so the official reader stands for one."""

    def test_spans_read_back_by_the_official_mapping(self, head_server: HeadServer) -> None:
        run_quietly(
            """
            import rvh_trace
            rvh_trace.init_tracing("shop", protocol="http/json")
            with rvh_trace.span("parent", {"text": 'é"\\n\x01', "int": -(2**63), "float": 0.1, "nan": float("nan"),
                                           "infinity": float("-inf"), "bytes": b"\\x00\\xff",
                                           "list": ["a", "b"], "numbers": [1, 2]}) as parent:
                parent.add_event("seen", {"n": 1})
                with rvh_trace.span("child", kind="client", links=[parent]):
                    pass
                parent.set_status("error", "bad")
            assert rvh_trace.force_flush(), rvh_trace.stats()
            assert rvh_trace.stats()["exported"] == 2, rvh_trace.stats()
            """,
            OTEL_EXPORTER_OTLP_ENDPOINT=f"http://127.0.0.1:{head_server.port}",
            OTEL_METRICS_EXPORTER="none",
        )
        (body,) = head_server.bodies
        request = ExportTraceServiceRequest()
        read_json(body, request)
        (resource_spans,) = request.resource_spans
        child, parent = resource_spans.scope_spans[0].spans
        assert attributes(resource_spans.resource.attributes)["service.name"] == "shop"
        assert (len(child.trace_id), len(child.span_id)) == (16, 8)
        assert (child.trace_id, child.parent_span_id, child.kind) == (parent.trace_id, parent.span_id, 3)
        assert [link.span_id for link in child.links] == [parent.span_id]
        values = attributes(parent.attributes)
        nan = values.pop("nan")
        assert isinstance(nan, float)
        assert math.isnan(nan)
        assert values == {
            "text": 'é"\n\x01',
            "int": -(2**63),
            "float": 0.1,
            "infinity": -math.inf,
            "bytes": b"\x00\xff",
            "list": ["a", "b"],
            "numbers": [1, 2],
        }
        assert [(event.name, attributes(event.attributes)) for event in parent.events] == [("seen", {"n": 1})]
        assert (parent.status.code, parent.status.message) == (2, "bad")
        assert 0 < parent.start_time_unix_nano < parent.end_time_unix_nano

    def test_metrics_read_back_by_the_official_mapping(self, head_server: HeadServer) -> None:
        run_quietly(
            REQUEST.format(exporters='protocol="http/json"'),
            OTEL_EXPORTER_OTLP_ENDPOINT=f"http://127.0.0.1:{head_server.port}",
            OTEL_TRACES_EXPORTER="none",
        )
        # The second one comes at exit.
        head, body = head_server.heads[0], head_server.bodies[0]
        assert head.startswith("POST /v1/metrics HTTP/1.1\r\n")
        request = ExportMetricsServiceRequest()
        read_json(body, request)
        metrics = {metric.name: metric for metric in request.resource_metrics[0].scope_metrics[0].metrics}
        (point,) = metrics["http.server.request.duration"].histogram.data_points
        assert point.count == sum(point.bucket_counts) == 1
        assert len(point.bucket_counts) == len(point.explicit_bounds) + 1


class TestTheWayThere:
    SCRIPT = """
        import rvh_trace
        rvh_trace.init_tracing("shop", timeout_ms=5_000, export_timeout_ms=5_000)
        with rvh_trace.span("op"):
            pass
        print(rvh_trace.force_flush(timeout_ms={timeout_ms}))
        rvh_trace.shutdown(timeout_ms=0)
        """

    def run(self, environ: dict[str, str], timeout_ms: int = 10_000) -> str:
        script = self.SCRIPT.format(timeout_ms=timeout_ms)
        finished = run_script(script, **{"OTEL_METRICS_EXPORTER": "none"} | environ)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
        assert finished.returncode == 0, finished.stderr
        return finished.stdout.strip()

    @pytest.mark.parametrize("variable", ["HTTP_PROXY", "http_proxy", "ALL_PROXY"])
    def test_http_goes_through_the_proxy_of_the_environment(self, head_server: HeadServer, variable: str) -> None:
        delivered = self.run(
            {
                "OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector.invalid:4318",
                variable: f"http://user:secret@127.0.0.1:{head_server.port}",
            },
        )
        assert delivered == "True"
        (head,) = head_server.heads
        assert head.startswith("POST http://collector.invalid:4318/v1/traces HTTP/1.1\r\n"), head
        assert "proxy-authorization: basic dxnlcjpzzwnyzxq=" in head.lower()

    @pytest.mark.parametrize(
        ("endpoint", "protocol", "variable"),
        [
            ("https://collector.invalid:4318", "http/protobuf", "HTTPS_PROXY"),
            ("https://collector.invalid:4317", "grpc", "HTTPS_PROXY"),
            ("http://collector.invalid:4317", "grpc", "HTTP_PROXY"),
        ],
    )
    def test_a_tunnel_is_asked_for_where_the_proxy_must_not_look_inside(
        self, head_server: HeadServer, endpoint: str, protocol: str, variable: str
    ) -> None:
        # The tunnel leads nowhere: what counts is where it was asked to lead.
        self.run(
            {
                "OTEL_EXPORTER_OTLP_ENDPOINT": endpoint,
                "OTEL_EXPORTER_OTLP_PROTOCOL": protocol,
                variable: f"http://127.0.0.1:{head_server.port}",
            },
            timeout_ms=300,
        )
        host = endpoint.partition("//")[2]
        assert head_server.heads[0].startswith(f"CONNECT {host} HTTP/1.1\r\n"), head_server.heads

    @pytest.mark.parametrize("protocol", ["http/protobuf", "grpc"])
    @pytest.mark.parametrize("environ", [{}, {"NO_PROXY": "127.0.0.1"}])
    def test_a_receiver_on_this_machine_is_never_behind_it(
        self, receiver: Receiver, head_server: HeadServer, protocol: str, environ: dict[str, str]
    ) -> None:
        delivered = self.run(
            {
                "OTEL_EXPORTER_OTLP_ENDPOINT": receiver.endpoint("grpc" if protocol == "grpc" else "http"),
                "OTEL_EXPORTER_OTLP_PROTOCOL": protocol,
                "HTTP_PROXY": f"http://127.0.0.1:{head_server.port}",
                **environ,
            },
        )
        assert delivered == "True"
        assert names(receiver) == ["op"]
        assert head_server.heads == []

    @pytest.mark.parametrize("protocol", ["http/protobuf", "grpc"])
    def test_no_proxy_names_hosts_that_are_reached_directly(self, head_server: HeadServer, protocol: str) -> None:
        self.run(
            {
                "OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector.invalid:4317",
                "OTEL_EXPORTER_OTLP_PROTOCOL": protocol,
                "HTTP_PROXY": f"http://127.0.0.1:{head_server.port}",
                "NO_PROXY": "elsewhere,.invalid",
            },
            timeout_ms=300,
        )
        assert head_server.heads == []

    @pytest.mark.parametrize("protocol", ["http/protobuf", "http/json", "grpc"])
    def test_a_unix_socket_is_an_endpoint(self, tmp_path: Path, protocol: str) -> None:
        path = tmp_path / "otel collector.sock"
        heard: list[bytes] = []
        with socket.socket(socket.AF_UNIX) as listening:
            listening.bind(str(path))
            listening.listen()

            def hear() -> None:
                connection, _ = listening.accept()
                with connection:
                    heard.append(connection.recv(14))
                    if protocol != "grpc":
                        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")

            thread = threading.Thread(target=hear, daemon=True)
            thread.start()
            delivered = self.run(
                {
                    "OTEL_EXPORTER_OTLP_ENDPOINT": f"unix://{path}",
                    "OTEL_EXPORTER_OTLP_PROTOCOL": protocol,
                    "HTTP_PROXY": "http://proxy.invalid:1",
                },
                timeout_ms=1_000 if protocol == "grpc" else 10_000,
            )
            thread.join(10)
        # Of gRPC the preface of HTTP/2 is enough; the whole call is in the tests of the exporter.
        assert heard == [b"PRI * HTTP/2.0" if protocol == "grpc" else b"POST /v1/trace"]
        assert (delivered == "True") is (protocol != "grpc")
