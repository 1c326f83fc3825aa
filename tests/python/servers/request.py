"""What is sent to a server, and the spans that have to come of it."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from typing import NamedTuple

LARGE = b"0123456789abcdef" * 16 * 1024  # 256 KiB: beyond the 64 KiB at which servers stop reading a body ahead

CHILDREN = {
    "/echo": ("read body",),
    "/stream": ("produce",),
    "/nested": ("outer", "inner", "look_up", "query"),
    "/meet": ("wait",),
    "/fail": ("doomed",),
    "/held": ("hold",),
    "/sent-in-span": ("respond",),
}
STATUSES = {"/fail": 500, "/unavailable": 503}
ERROR_TYPES = {"/fail": "LookupError", "/unavailable": "503"}
METHODS = {"/echo": "POST", "/mirror": "POST"}


class Parent(NamedTuple):
    """The caller's span."""

    trace_id: str
    span_id: str

    @property
    def traceparent(self) -> str:
        return f"00-{self.trace_id}-{self.span_id}-01"


@dataclass(frozen=True)
class Request:
    """A request of its own `number`."""

    number: int
    path: str
    parent: Parent | None
    body: bytes = b""
    parameters: str = ""
    baggage: str = ""

    @property
    def method(self) -> str:
        return METHODS.get(self.path, "GET")

    @property
    def query(self) -> str:
        return f"request={self.number}{self.parameters}"

    @property
    def target(self) -> str:
        return f"{self.path}?{self.query}"

    @property
    def headers(self) -> dict[str, str]:
        """Those of the trace; the connection adds what frames the message."""
        headers = {"traceparent": self.parent.traceparent} if self.parent else {}
        return headers | ({"baggage": self.baggage} if self.baggage else {})

    @property
    def status(self) -> int:
        return STATUSES.get(self.path, 200)

    @property
    def error_type(self) -> str | None:
        return ERROR_TYPES.get(self.path)

    @property
    def raises(self) -> bool:
        """Whether the application answers with an exception."""
        return self.path == "/fail"

    @property
    def children(self) -> Sequence[str]:
        """Names of all spans below the server span that the application itself makes."""
        return CHILDREN.get(self.path, ())


_numbers = count(1)
SHARED_TRACE = "5ba7ed" + "0" * 25 + "1"


def _parent(number: int) -> Parent | None:
    """In turn: none, a trace of its own, none, a trace that other requests are part of as well."""
    match number % 4:
        case 1:
            return Parent(f"{0xFEED0000 + number:032x}", f"{number:016x}")
        case 3:
            return Parent(SHARED_TRACE, f"{number:016x}")
        case _:
            return None


def new_request(path: str, body: bytes = b"", *, parameters: str = "", baggage: str = "") -> Request:
    """The next request: some come with a caller's span, some without."""
    number = next(_numbers)
    return Request(number, path, _parent(number), body, parameters, baggage)


def root_request(path: str, body: bytes = b"") -> Request:
    """A request without a caller's span."""
    return Request(next(_numbers), path, None, body)


def mixture(rounds: int, mirrored: bytes = LARGE) -> Iterator[Request]:
    """Requests of every kind that leaves its connection usable; the body `mirrored` is sent back as it comes."""
    for _ in range(rounds):
        yield new_request("/plain")
        yield new_request("/echo", LARGE)
        yield new_request("/nested")
        yield new_request("/stream")
        yield new_request("/unavailable")
        yield new_request("/echo", b"small")
        yield new_request("/sent-in-span")
        yield new_request("/mirror", mirrored)
        yield new_request("/plain")
