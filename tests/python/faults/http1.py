"""OTLP/HTTP, HTTP/1.1 by hand."""

from collections.abc import Iterator
from http import HTTPStatus

from .exchange import Exchange, Refusal

CHUNK = b"10000\r\n" + b"x" * 0x10000 + b"\r\n"


class Http1Exchange(Exchange):
    """One request of a kept-alive connection."""

    def read_head(self, buffered: bytearray) -> int | None:
        """Reads the head; the length of the body, or None at the end of the connection."""
        while b"\r\n\r\n" not in buffered:
            data = self.sock.recv(65536)
            if not data:
                return None
            buffered += data
        head, _, rest = bytes(buffered).partition(b"\r\n\r\n")
        buffered[:] = rest
        request_line, *lines = head.decode("latin-1").split("\r\n")
        self.path = request_line.split(" ")[1]
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        self.content_type = headers["content-type"]
        self.encoding = headers.get("content-encoding", "")
        return int(headers["content-length"])

    def read_body(self, buffered: bytearray, length: int) -> bool:
        """Reads the body; False at the end of the connection."""
        while len(buffered) < length:
            data = self.sock.recv(65536)
            if not data:
                return False
            buffered += data
        self.body = bytes(buffered[:length])
        del buffered[:length]
        return True

    def succeed(self, body: bytes) -> None:
        self.write(self._answer(200, {"content-type": self.content_type}, body))

    def refuse(self, refusal: Refusal) -> None:
        headers = {"content-type": "text/plain", **dict(refusal.headers)}
        if refusal.after is not None:
            headers["retry-after"] = refusal.after
        self.write(self._answer(refusal.status, headers, refusal.message.encode()))

    def success_in_part(self) -> tuple[bytes, bytes]:
        whole = self._answer(200, {"content-type": self.content_type}, self.response())
        return whole[:-1], whole[-1:]

    def endless(self) -> None:
        self.write(b"HTTP/1.1 200 OK\r\ncontent-type: application/x-protobuf\r\ntransfer-encoding: chunked\r\n\r\n")
        while not self.stopped.is_set():
            self.write(CHUNK)

    def _answer(self, status: int, headers: dict[str, str], body: bytes) -> bytes:
        lines = [f"HTTP/1.1 {status} {HTTPStatus(status).phrase}", *(f"{name}: {headers[name]}" for name in headers)]
        lines += [f"content-length: {len(body)}", "", ""]
        return "\r\n".join(lines).encode() + body


def exchanges(first: Http1Exchange) -> Iterator[Http1Exchange]:
    """The exchanges of a connection; each is yielded when its head is here and when its body is."""
    buffered = bytearray()
    exchange = first
    while True:
        length = exchange.read_head(buffered)
        if length is None:
            return
        yield exchange
        if not exchange.read_body(buffered, length):
            return
        exchange.complete()
        yield exchange
        exchange = Http1Exchange(first.sock, first.ledger, first.stopped)
