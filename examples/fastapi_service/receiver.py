"""An OTLP receiver for one process: what a tracing backend sees, kept as it arrived.

It listens on two free loopback ports, OTLP/HTTP with protobuf bodies and OTLP/gRPC, decodes every export request of
traces, metrics and logs with the official protobuf definitions and keeps it; those of traces beside their bytes. A
request that does not decode is refused, as a real backend would. `Receiver.wait_for` blocks on a condition that each
arriving request notifies.

Any thread may call any method; the servers run on daemon threads of their own.
"""

import gzip
import threading
import time
import zlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Literal, Self, cast

import grpc
from google.protobuf.message import DecodeError
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest, ExportLogsServiceResponse
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
    ExportMetricsServiceResponse,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, InstrumentationScope, KeyValue
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord
from opentelemetry.proto.metrics.v1.metrics_pb2 import Metric
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import Span

Protocol = Literal["grpc", "http"]
Value = str | bool | int | float | bytes | list["Value"] | dict[str, "Value"] | None

TRACE_SERVICE = "opentelemetry.proto.collector.trace.v1.TraceService"
METRICS_SERVICE = "opentelemetry.proto.collector.metrics.v1.MetricsService"
LOGS_SERVICE = "opentelemetry.proto.collector.logs.v1.LogsService"
MAX_BODY_BYTES = 64 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class ExportRequest:
    """One export request: the protobuf bytes, uncompressed, and what they decode to."""

    protocol: Protocol
    raw: bytes
    message: ExportTraceServiceRequest


@dataclass(frozen=True, slots=True)
class ReceivedSpan:
    """One span with the resource and the scope it came under."""

    span: Span
    scope: InstrumentationScope
    resource: Resource
    scope_schema_url: str
    resource_schema_url: str

    @property
    def name(self) -> str:
        return self.span.name

    @property
    def kind(self) -> str:
        """The kind as `server`, `client`, `internal`, ..."""
        return Span.SpanKind.Name(self.span.kind).removeprefix("SPAN_KIND_").lower()

    @property
    def trace_id(self) -> str:
        return self.span.trace_id.hex()

    @property
    def span_id(self) -> str:
        return self.span.span_id.hex()

    @property
    def parent_id(self) -> str:
        """Sixteen hexadecimal digits; empty for a root."""
        return self.span.parent_span_id.hex()

    @property
    def service(self) -> str:
        return str(attributes(self.resource.attributes).get("service.name", ""))

    @property
    def attributes(self) -> dict[str, Value]:
        return attributes(self.span.attributes)


@dataclass(frozen=True, slots=True)
class ReceivedLog:
    """One log record with the resource and the scope it came under."""

    record: LogRecord
    scope: InstrumentationScope
    resource: Resource

    @property
    def body(self) -> Value:
        return _value(self.record.body)

    @property
    def trace_id(self) -> str:
        """Empty outside of a span, like `span_id`."""
        return self.record.trace_id.hex()

    @property
    def span_id(self) -> str:
        return self.record.span_id.hex()

    @property
    def attributes(self) -> dict[str, Value]:
        return attributes(self.record.attributes)


def attributes(pairs: Sequence[KeyValue]) -> dict[str, Value]:
    """The attributes as a dict; a key sent twice is an error of the sender."""
    decoded = {pair.key: _value(pair.value) for pair in pairs}
    if len(decoded) != len(pairs):
        raise ValueError(f"an attribute key is repeated: {[pair.key for pair in pairs]}")
    return decoded


def _value(value: AnyValue) -> Value:
    match value.WhichOneof("value"):
        case None:
            return None
        case "array_value":
            return [_value(item) for item in value.array_value.values]
        case "kvlist_value":
            return {pair.key: _value(pair.value) for pair in value.kvlist_value.values}
        case field:
            return cast("str | bool | int | float | bytes", getattr(value, field))


def spans(requests: Sequence[ExportRequest]) -> list[ReceivedSpan]:
    """Every span of `requests`, in the order of arrival."""
    return [
        ReceivedSpan(span, scope_spans.scope, group.resource, scope_spans.schema_url, group.schema_url)
        for request in requests
        for group in request.message.resource_spans
        for scope_spans in group.scope_spans
        for span in scope_spans.spans
    ]


def metrics(requests: Sequence[ExportMetricsServiceRequest]) -> list[Metric]:
    """Every metric of `requests`, in the order of arrival."""
    return [
        metric
        for request in requests
        for group in request.resource_metrics
        for scope_metrics in group.scope_metrics
        for metric in scope_metrics.metrics
    ]


def logs(requests: Sequence[ExportLogsServiceRequest]) -> list[ReceivedLog]:
    """Every log record of `requests`, in the order of arrival."""
    return [
        ReceivedLog(record, scope_logs.scope, group.resource)
        for request in requests
        for group in request.resource_logs
        for scope_logs in group.scope_logs
        for record in scope_logs.log_records
    ]


def one_trace(requests: Sequence[ExportRequest], trace_id: str) -> list[bytes]:
    """The parts of `requests` that belong to one trace, as export requests again."""
    wanted = bytes.fromhex(trace_id)
    parts: list[bytes] = []
    for request in requests:
        part = ExportTraceServiceRequest()
        part.CopyFrom(request.message)
        for group in part.resource_spans:
            for scope_spans in group.scope_spans:
                kept = [span for span in scope_spans.spans if span.trace_id == wanted]
                del scope_spans.spans[:]
                scope_spans.spans.extend(kept)
        if any(scope_spans.spans for group in part.resource_spans for scope_spans in group.scope_spans):
            parts.append(part.SerializeToString())
    return parts


class Receiver:
    """Listens from `with` entry to exit.

    >>> with Receiver() as receiver:
    ...     export_to(receiver.http_endpoint)
    ...     receiver.wait_for(lambda requests: len(spans(requests)) == 3, timeout=5.0)
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._requests: list[ExportRequest] = []
        self._metric_requests: list[ExportMetricsServiceRequest] = []
        self._log_requests: list[ExportLogsServiceRequest] = []
        self._http = _HTTPServer(self)
        self._grpc = grpc.server(ThreadPoolExecutor(max_workers=2, thread_name_prefix="otlp-grpc"))
        export: grpc.RpcMethodHandler[bytes, ExportTraceServiceResponse] = grpc.unary_unary_rpc_method_handler(
            self._export_grpc,  # no deserializer: the handler gets the bytes
            response_serializer=ExportTraceServiceResponse.SerializeToString,
        )
        export_metrics: grpc.RpcMethodHandler[bytes, ExportMetricsServiceResponse] = (
            grpc.unary_unary_rpc_method_handler(
                self._export_metrics_grpc,
                response_serializer=ExportMetricsServiceResponse.SerializeToString,
            )
        )
        export_logs: grpc.RpcMethodHandler[bytes, ExportLogsServiceResponse] = grpc.unary_unary_rpc_method_handler(
            self._export_logs_grpc,
            response_serializer=ExportLogsServiceResponse.SerializeToString,
        )
        self._grpc.add_generic_rpc_handlers(
            (
                grpc.method_handlers_generic_handler(TRACE_SERVICE, {"Export": export}),
                grpc.method_handlers_generic_handler(METRICS_SERVICE, {"Export": export_metrics}),
                grpc.method_handlers_generic_handler(LOGS_SERVICE, {"Export": export_logs}),
            )
        )
        self._grpc_port = self._grpc.add_insecure_port("127.0.0.1:0")

    def __enter__(self) -> Self:
        threading.Thread(target=self._http.serve_forever, args=(0.05,), name="otlp-http", daemon=True).start()
        self._grpc.start()
        return self

    def __exit__(self, *_exc: object) -> None:
        self._http.shutdown()
        self._http.server_close()
        self._grpc.stop(grace=0.5).wait()

    @property
    def http_endpoint(self) -> str:
        """The base URL for OTLP/HTTP, without `/v1/traces`."""
        return f"http://127.0.0.1:{self._http.server_port}"

    @property
    def grpc_endpoint(self) -> str:
        return f"http://127.0.0.1:{self._grpc_port}"

    def endpoint(self, protocol: Protocol) -> str:
        return self.grpc_endpoint if protocol == "grpc" else self.http_endpoint

    @property
    def requests(self) -> list[ExportRequest]:
        """What has arrived so far."""
        with self._changed:
            return list(self._requests)

    @property
    def spans(self) -> list[ReceivedSpan]:
        """Every span that has arrived so far."""
        return spans(self.requests)

    @property
    def metric_requests(self) -> list[ExportMetricsServiceRequest]:
        """The export requests of metrics that have arrived so far."""
        with self._changed:
            return list(self._metric_requests)

    @property
    def metrics(self) -> list[Metric]:
        """Every metric that has arrived so far, in the order of arrival: cumulative ones more than once."""
        return metrics(self.metric_requests)

    @property
    def log_requests(self) -> list[ExportLogsServiceRequest]:
        """The export requests of log records that have arrived so far."""
        with self._changed:
            return list(self._log_requests)

    @property
    def logs(self) -> list[ReceivedLog]:
        """Every log record that has arrived so far."""
        return logs(self.log_requests)

    def wait_for_logs(self, count: int, timeout: float) -> list[ReceivedLog]:
        """Block until that many log records have arrived; raises `TimeoutError` after `timeout` seconds."""
        with self._changed:
            if not self._changed.wait_for(lambda: len(logs(self._log_requests)) >= count, timeout):
                arrived = [one.body for one in logs(self._log_requests)]
                raise TimeoutError(f"not within {timeout:g} s; log records received: {arrived}")
            return logs(self._log_requests)

    def wait_for_metrics(
        self, predicate: Callable[[Sequence[Metric]], bool], timeout: float
    ) -> list[ExportMetricsServiceRequest]:
        """Block until `predicate` holds for all metrics that have arrived.

        Raises `TimeoutError`, naming those that did arrive, after `timeout` seconds.
        """
        deadline = time.monotonic() + timeout
        with self._changed:
            while not predicate(metrics(self._metric_requests)):
                remaining = deadline - time.monotonic()
                if remaining <= 0 or not self._changed.wait(remaining):
                    arrived = ", ".join(sorted(metric.name for metric in metrics(self._metric_requests))) or "none"
                    raise TimeoutError(f"not within {timeout:g} s; metrics received: {arrived}")
            return list(self._metric_requests)

    def take(self) -> list[ExportRequest]:
        """What has arrived, forgotten here: for a receiver that runs for a long time."""
        with self._changed:
            taken, self._requests = self._requests, []
            return taken

    def wait_for(self, predicate: Callable[[Sequence[ExportRequest]], bool], timeout: float) -> list[ExportRequest]:
        """Block until `predicate` holds for all that has arrived; return it.

        Raises `TimeoutError`, naming the spans that did arrive, after `timeout` seconds.
        """
        deadline = time.monotonic() + timeout
        with self._changed:
            while not predicate(self._requests):
                remaining = deadline - time.monotonic()
                if remaining <= 0 or not self._changed.wait(remaining):
                    arrived = ", ".join(sorted(span.name for span in spans(self._requests))) or "none"
                    raise TimeoutError(f"not within {timeout:g} s; spans received: {arrived}")
            return list(self._requests)

    def accept(self, protocol: Protocol, raw: bytes) -> ExportTraceServiceResponse:
        """Decode and keep one request; raises `DecodeError` and keeps nothing if it is not one."""
        message = ExportTraceServiceRequest.FromString(raw)
        with self._changed:
            self._requests.append(ExportRequest(protocol, raw, message))
            self._changed.notify_all()
        return ExportTraceServiceResponse()

    def accept_metrics(self, raw: bytes) -> ExportMetricsServiceResponse:
        """Decode and keep one request of metrics; raises `DecodeError` and keeps nothing if it is not one."""
        message = ExportMetricsServiceRequest.FromString(raw)
        with self._changed:
            self._metric_requests.append(message)
            self._changed.notify_all()
        return ExportMetricsServiceResponse()

    def accept_logs(self, raw: bytes) -> ExportLogsServiceResponse:
        """Decode and keep one request of log records; raises `DecodeError` and keeps nothing if it is not one."""
        message = ExportLogsServiceRequest.FromString(raw)
        with self._changed:
            self._log_requests.append(message)
            self._changed.notify_all()
        return ExportLogsServiceResponse()

    def _export_logs_grpc(self, raw: bytes, context: grpc.ServicerContext) -> ExportLogsServiceResponse:
        try:
            return self.accept_logs(raw)
        except DecodeError as error:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))

    def _export_metrics_grpc(self, raw: bytes, context: grpc.ServicerContext) -> ExportMetricsServiceResponse:
        try:
            return self.accept_metrics(raw)
        except DecodeError as error:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))

    def _export_grpc(self, raw: bytes, context: grpc.ServicerContext) -> ExportTraceServiceResponse:
        try:
            return self.accept("grpc", raw)
        except DecodeError as error:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))


class _HTTPServer(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, receiver: Receiver) -> None:
        super().__init__(("127.0.0.1", 0), _HTTPHandler)
        self.receiver = receiver


class _HTTPHandler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _HTTPServer  # pyright: ignore[reportIncompatibleVariableOverride]: always made by that server

    def do_POST(self) -> None:
        body = self.rfile.read(min(int(self.headers.get("content-length", 0)), MAX_BODY_BYTES))
        if self.path not in ("/v1/traces", "/v1/metrics", "/v1/logs"):
            return self._answer(404, b"only /v1/traces, /v1/metrics and /v1/logs are served")
        if self.headers.get_content_type() != "application/x-protobuf":
            return self._answer(415, b"only application/x-protobuf is accepted")
        try:
            raw = gzip.decompress(body) if self.headers.get("content-encoding") == "gzip" else body
            receiver = self.server.receiver
            match self.path:
                case "/v1/traces":
                    response = receiver.accept("http", raw)
                case "/v1/metrics":
                    response = receiver.accept_metrics(raw)
                case _:
                    response = receiver.accept_logs(raw)
        except (DecodeError, OSError, EOFError, zlib.error) as error:
            return self._answer(400, str(error).encode())
        return self._answer(200, response.SerializeToString(), "application/x-protobuf")

    def _answer(self, status: int, body: bytes, content_type: str = "text/plain") -> None:
        self.send_response(status)
        self.send_header("content-type", content_type)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 (named by the base class)
        """Stay quiet: the caller reads `Receiver.requests`."""
