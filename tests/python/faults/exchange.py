"""One request of an exporter, as far as the server has let it come, and what the server does to it.

`http1.Http1Exchange` and `grpc2.GrpcExchange` are the two transports; a fault is written once for both.
"""

import base64
import gzip
import json
import socket
import struct
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

from google.protobuf import json_format
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import (
    ExportLogsPartialSuccess,
    ExportLogsServiceRequest,
    ExportLogsServiceResponse,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTracePartialSuccess,
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

PROTOBUF, JSON = "application/x-protobuf", "application/json"
ID_BYTES = {"traceId": 16, "spanId": 8, "parentSpanId": 8}

Stage = Literal["accept", "head", "request"]
"""A connection is there; a request has begun; a request is complete."""


@dataclass(frozen=True)
class Refusal:
    """The same refusal in the words of both transports."""

    status: int
    """Of HTTP."""
    code: int
    """Of gRPC."""
    message: str = "no"
    after: str | None = None
    """`Retry-After`; as seconds in gRPC's `RetryInfo`."""
    headers: tuple[tuple[str, str], ...] = ()
    """Of HTTP."""


@dataclass
class Ledger:
    """What the server has seen, from any thread."""

    changed: threading.Condition = field(default_factory=threading.Condition)
    taken: list[int] = field(default_factory=list)
    """The numbers of the spans, or log records, whose requests were answered with success."""
    seen: list[int] = field(default_factory=list)
    """The numbers of the spans, or log records, of every complete request."""
    requests: int = 0
    connections: int = 0


class Exchange:
    """One request on one connection."""

    def __init__(self, sock: socket.socket, ledger: Ledger, stopped: threading.Event) -> None:
        self.sock = sock
        self.ledger = ledger
        self.stopped = stopped
        self.path = ""
        """Of the resource or the method: it names the signal."""
        self.content_type = PROTOBUF
        self.encoding = ""
        self.body = b""
        self.is_complete = False

    def complete(self) -> None:
        """Notes the spans of a request whose body is here."""
        self.is_complete = True
        with self.ledger.changed:
            self.ledger.requests += 1
            self.ledger.seen.extend(self.numbers)
            self.ledger.changed.notify_all()

    @cached_property
    def numbers(self) -> list[int]:
        """The attribute `number` of every span, or log record, of the request."""
        raw = gzip.decompress(self.body) if self.encoding == "gzip" else self.body
        if self.is_of_logs:
            return _numbers_of_logs(raw, self.content_type == JSON)
        return _numbers_of_json(raw) if self.content_type == JSON else _numbers_of_protobuf(raw)

    @property
    def is_of_logs(self) -> bool:
        return "logs" in self.path

    def hang(self) -> None:
        """Nothing more, and what is unread when the server is stopped stays so."""
        self.stopped.wait()
        self.close()

    def reset(self) -> None:
        """Ends the connection by RST, with whatever is unread."""
        with suppress(OSError):
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close()

    def close(self) -> None:
        """Ends the connection."""
        with suppress(OSError):
            self.sock.close()

    def write(self, data: bytes) -> None:
        """Exactly these bytes, whatever the protocol."""
        self.sock.sendall(data)

    def trickle(self, data: bytes, pause_s: float) -> None:
        """One byte at a time."""
        for index in range(len(data)):
            if self.stopped.wait(pause_s):
                return
            self.sock.sendall(data[index : index + 1])

    def count_as_taken(self) -> None:
        """The exporter may believe that the spans of this request are delivered."""
        with self.ledger.changed:
            self.ledger.taken.extend(self.numbers)
            self.ledger.changed.notify_all()

    def take(self, *, rejected: int = 0, message: str = "") -> None:
        """Success, partial if some are rejected."""
        self.count_as_taken()
        self.succeed(self.response(rejected, message))

    def response(self, rejected: int = 0, message: str = "") -> bytes:
        """An encoded `ExportTraceServiceResponse`."""
        if not rejected and not message:
            return b"{}" if self.content_type == JSON else b""
        if self.content_type == JSON:
            return json.dumps({"partialSuccess": {"rejectedSpans": str(rejected), "errorMessage": message}}).encode()
        if self.is_of_logs:
            partial_of_logs = ExportLogsPartialSuccess(rejected_log_records=rejected, error_message=message)
            return ExportLogsServiceResponse(partial_success=partial_of_logs).SerializeToString()
        partial = ExportTracePartialSuccess(rejected_spans=rejected, error_message=message)
        return ExportTraceServiceResponse(partial_success=partial).SerializeToString()

    def succeed(self, body: bytes) -> None:
        """An answer of success with this message."""
        raise NotImplementedError

    def refuse(self, refusal: Refusal) -> None:
        """An answer of failure."""
        raise NotImplementedError

    def success_in_part(self) -> tuple[bytes, bytes]:
        """The bytes of an answer of success, cut where it has said that it is one and is not complete."""
        raise NotImplementedError

    def endless(self) -> None:
        """An answer of success that never ends, as fast as it is read."""
        raise NotImplementedError


@dataclass(frozen=True)
class Fault:
    """What the server does once a request has come to this stage."""

    stage: Stage
    act: Callable[[Exchange], None]


def _numbers_of_protobuf(raw: bytes) -> list[int]:
    return _numbers_of(ExportTraceServiceRequest.FromString(raw))


def _numbers_of_json(raw: bytes) -> list[int]:
    """By the protobuf JSON mapping, but for the ids, which are hexadecimal (OTLP specification, "OTLP/HTTP")."""
    request: dict[str, Any] = json.loads(raw)
    for group in request["resourceSpans"]:
        for scope_spans in group["scopeSpans"]:
            for span in scope_spans["spans"]:
                for carrier in (span, *span.get("links", [])):
                    _turn_ids_into_base64(carrier)
    # Raises for names and values that the mapping does not have.
    return _numbers_of(json_format.ParseDict(request, ExportTraceServiceRequest()))


def _turn_ids_into_base64(carrier: dict[str, Any]) -> None:
    for name, length in ID_BYTES.items():
        if name in carrier:
            bytes_of_id = bytes.fromhex(carrier[name])
            assert len(bytes_of_id) == length, carrier
            carrier[name] = base64.b64encode(bytes_of_id).decode()


def _numbers_of(request: ExportTraceServiceRequest) -> list[int]:
    return [
        attribute.value.int_value
        for group in request.resource_spans
        for scope_spans in group.scope_spans
        for span in scope_spans.spans
        for attribute in span.attributes
        if attribute.key == "number"
    ]


def _numbers_of_logs(raw: bytes, is_json: bool) -> list[int]:
    if is_json:
        from_json: dict[str, Any] = json.loads(raw)
        for group in from_json["resourceLogs"]:
            for scope_logs in group["scopeLogs"]:
                for record in scope_logs["logRecords"]:
                    _turn_ids_into_base64(record)
        request = json_format.ParseDict(from_json, ExportLogsServiceRequest())
    else:
        request = ExportLogsServiceRequest.FromString(raw)
    return [
        attribute.value.int_value
        for group in request.resource_logs
        for scope_logs in group.scope_logs
        for record in scope_logs.log_records
        for attribute in record.attributes
        if attribute.key == "number"
    ]
