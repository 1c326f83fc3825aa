"""OTLP/gRPC, HTTP/2 frames through h2."""

import base64
import struct
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from typing import Any

from google.protobuf.any_pb2 import Any as Packed
from google.protobuf.duration_pb2 import Duration
from google.rpc.error_details_pb2 import RetryInfo
from google.rpc.status_pb2 import Status
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import ConnectionTerminated, DataReceived, RequestReceived, StreamEnded
from h2.exceptions import H2Error

from .exchange import Exchange, Refusal

HEADERS = [(":status", "200"), ("content-type", "application/grpc")]
FRAME_BYTES = 16_384


class GrpcExchange(Exchange):
    """One call."""

    def attach(self, connection: H2Connection, lock: threading.RLock, stream: int) -> None:
        self.connection = connection
        self.lock = lock
        """Held around every use of the connection."""
        self.stream = stream

    def flush(self) -> None:
        self.sock.sendall(self.connection.data_to_send())

    def succeed(self, body: bytes) -> None:
        self.send_headers(HEADERS)
        self.connection.send_data(self.stream, _framed(body))
        self.end("0")

    def refuse(self, refusal: Refusal) -> None:
        trailers = [("grpc-message", refusal.message)]
        if refusal.after is not None:
            trailers.append(("grpc-status-details-bin", _retry_info(refusal)))
        self.send_headers([*HEADERS, ("grpc-status", str(refusal.code)), *trailers], end_stream=True)

    def success_in_part(self) -> tuple[bytes, bytes]:
        self.connection.send_headers(self.stream, HEADERS)
        self.connection.send_data(self.stream, _framed(self.response()))
        self.connection.send_headers(self.stream, [("grpc-status", "0")], end_stream=True)
        whole = self.connection.data_to_send()
        return whole[:-1], whole[-1:]

    def endless(self) -> None:
        """A message that is announced as 16 MiB, on a thread of its own as far as the windows let it through."""
        self.send_headers(HEADERS)
        self.connection.send_data(self.stream, struct.pack(">BI", 0, 1 << 24))
        threading.Thread(target=self._go_on, name="fault-endless", daemon=True).start()

    def _go_on(self) -> None:
        # Until the stream or the connection is reset.
        with suppress(H2Error, OSError):
            while not self.stopped.wait(0.001):
                with self.lock:
                    room = min(self.connection.local_flow_control_window(self.stream), FRAME_BYTES)
                    self.connection.send_data(self.stream, b"\0" * room)
                    self.flush()

    def send_headers(self, headers: Sequence[tuple[str, str]], *, end_stream: bool = False) -> None:
        self.connection.send_headers(self.stream, list(headers), end_stream=end_stream)
        self.flush()

    def end(self, status: str) -> None:
        self.send_headers([("grpc-status", status)], end_stream=True)


def exchanges(first: GrpcExchange) -> Iterator[GrpcExchange]:
    """The calls of a connection; each is yielded when its headers are here and when its message is."""
    connection = H2Connection(H2Configuration(client_side=False, header_encoding="utf-8"))
    connection.initiate_connection()
    first.sock.sendall(connection.data_to_send())
    lock = threading.RLock()
    calls: dict[int, GrpcExchange] = {}
    while data := first.sock.recv(65536):
        with lock:
            for event in connection.receive_data(data):
                match event:
                    case RequestReceived(stream_id=int(stream), headers=headers):
                        call = calls[stream] = GrpcExchange(first.sock, first.ledger, first.stopped)
                        call.attach(connection, lock, stream)
                        call.path = _text(headers, ":path")
                        call.encoding = _text(headers, "grpc-encoding")
                        yield call
                    case DataReceived(stream_id=int(stream), data=bytes(part)):
                        calls[stream].body += part
                        connection.acknowledge_received_data(event.flow_controlled_length or 0, stream)
                    case StreamEnded(stream_id=int(stream)):
                        call = calls.pop(stream)
                        call.body = call.body[5:]
                        call.complete()
                        yield call
                    case ConnectionTerminated():
                        return
                    case _:
                        pass
            first.sock.sendall(connection.data_to_send())


def _text(headers: Iterable[Any] | None, name: str) -> str:
    return next((str(value) for key, value in headers or () if key == name), "")


def _framed(message: bytes) -> bytes:
    """gRPC's Length-Prefixed-Message."""
    return struct.pack(">BI", 0, len(message)) + message


def _retry_info(refusal: Refusal) -> str:
    detail = Packed()
    seconds = int(refusal.after or 0)
    detail.Pack(RetryInfo(retry_delay=Duration(seconds=seconds)))
    status = Status(code=refusal.code, message=refusal.message, details=[detail])
    return base64.b64encode(status.SerializeToString()).decode().rstrip("=")
