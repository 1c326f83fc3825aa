"""The table: what the collector does, and what must have become of the spans."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from email.utils import formatdate
from typing import Any

from .exchange import Exchange, Fault, Refusal

PROTOCOLS = ["http/protobuf", "http/json", "grpc"]
SPANS = 10

# gRPC status codes (grpc/grpc, doc/statuscodes.md).
INVALID_ARGUMENT, DEADLINE_EXCEEDED, NOT_FOUND, PERMISSION_DENIED = 3, 4, 5, 7
RESOURCE_EXHAUSTED, UNIMPLEMENTED, INTERNAL, UNAVAILABLE, UNAUTHENTICATED = 8, 12, 13, 14, 16

UNAVAILABLE_NOW = Refusal(503, UNAVAILABLE, "try later")
TOO_LARGE = Refusal(413, RESOURCE_EXHAUSTED, "grpc: received message larger than max (5 vs. 4)")


@dataclass(frozen=True)
class Scenario:
    """Ten spans, one flush, one shutdown."""

    name: str
    faults: Sequence[Fault] = ()
    always: Callable[[Exchange], None] = Exchange.take
    exported: int = SPANS
    failed: int = 0
    rejected: int = 0
    flushed: bool = True
    least_retries: int = 0
    may_arrive_twice: bool = False
    """A request was taken and its answer lost: OTLP has no way to tell, so it is sent again."""
    arguments: dict[str, Any] = field(default_factory=dict[str, Any])
    protocols: Sequence[str] = tuple(PROTOCOLS)
    says: str = ""
    """Part of `last_error`."""

    def __str__(self) -> str:
        return self.name


def refusing(refusal: Refusal) -> Callable[[Exchange], None]:
    return lambda exchange: exchange.refuse(refusal)


def once(act: Callable[[Exchange], None], name: str, **more: Any) -> Scenario:
    """A request that fails and is sent again."""
    return Scenario(name, [Fault("request", act)], least_retries=1, **more)


def for_ever(act: Callable[[Exchange], None], name: str, **more: Any) -> Scenario:
    """Nothing is ever taken: the spans are lost when the time of their export is over, and counted so."""
    arguments = {"timeout_ms": 200, "export_timeout_ms": 700} | more.pop("arguments", {})
    return Scenario(name, always=act, exported=0, failed=SPANS, flushed=False, arguments=arguments, **more)


def refused(status: int, code: int, name: str, **more: Any) -> Scenario:
    """Refused for good: not sent again, and counted so."""
    refusal = Refusal(status, code, headers=more.pop("headers", ()))
    return Scenario(name, always=refusing(refusal), exported=0, rejected=SPANS, flushed=False, **more)


def take_at_most(most: int) -> Callable[[Exchange], None]:
    def act(exchange: Exchange) -> None:
        if len(exchange.numbers) > most:
            exchange.refuse(TOO_LARGE)
        else:
            exchange.take()

    return act


def partly(rejected: int) -> Callable[[Exchange], None]:
    return lambda exchange: exchange.take(rejected=rejected, message="some are too old")


def broken_off(exchange: Exchange) -> None:
    first, _ = exchange.success_in_part()
    exchange.write(first)
    exchange.reset()


def trickled(exchange: Exchange) -> None:
    exchange.count_as_taken()
    exchange.trickle(b"".join(exchange.success_in_part()), 0.001)


def trickled_without_end(exchange: Exchange) -> None:
    exchange.trickle(b"".join(exchange.success_in_part()), 0.5)


def endless(exchange: Exchange) -> None:
    exchange.count_as_taken()
    exchange.endless()


def written(data: bytes) -> Callable[[Exchange], None]:
    def act(exchange: Exchange) -> None:
        exchange.write(data)
        exchange.close()

    return act


def informed(data: bytes) -> Callable[[Exchange], None]:
    def act(exchange: Exchange) -> None:
        exchange.write(data)
        exchange.take()

    return act


def taken_and_closed(exchange: Exchange) -> None:
    exchange.take()
    exchange.close()


def in_a_second() -> str:
    return formatdate(time.time() + 2, usegmt=True)


SHORT = {"timeout_ms": 300}
HTTP = ("http/protobuf", "http/json")
GRPC = ("grpc",)
GARBAGE = b"\x15\x03\x01\x00\x02\x02\x46 220 mail.test ESMTP\r\n"

SCENARIOS: Sequence[Scenario] = [
    Scenario("takes"),
    Scenario("takes gzip", arguments={"compression": "gzip"}),
    # Silence
    Scenario("hangs once after accept", [Fault("accept", Exchange.hang)], least_retries=1, arguments=SHORT),
    Scenario("hangs once after the headers", [Fault("head", Exchange.hang)], least_retries=1, arguments=SHORT),
    once(Exchange.hang, "hangs once after the request", arguments=SHORT),
    Scenario(
        "hangs for ever after accept",
        [Fault("accept", Exchange.hang)] * 9,
        exported=0,
        failed=SPANS,
        flushed=False,
        arguments={"timeout_ms": 200, "export_timeout_ms": 700},
    ),
    for_ever(Exchange.hang, "hangs for ever after the request"),
    # Connections that end
    Scenario("closes once at accept", [Fault("accept", Exchange.close)], least_retries=1),
    Scenario("resets once at accept", [Fault("accept", Exchange.reset)], least_retries=1),
    Scenario("resets once within the body", [Fault("head", Exchange.reset)], least_retries=1),
    once(Exchange.reset, "resets once after the request"),
    once(Exchange.close, "closes once after the request"),
    for_ever(Exchange.reset, "resets for ever"),
    Scenario("closes every connection after an answer", always=taken_and_closed),
    # Refusals for now
    once(refusing(UNAVAILABLE_NOW), "unavailable once"),
    once(refusing(Refusal(429, RESOURCE_EXHAUSTED, "slow down", after="0")), "throttles once"),
    once(refusing(Refusal(502, UNAVAILABLE)), "bad gateway once", protocols=HTTP),
    once(refusing(Refusal(504, DEADLINE_EXCEEDED)), "gateway timeout once"),
    for_ever(refusing(UNAVAILABLE_NOW), "unavailable for ever", least_retries=1, says="try later"),
    once(refusing(Refusal(503, UNAVAILABLE, after="1")), "asks for a second"),
    once(refusing(Refusal(503, UNAVAILABLE, after="-1")), "asks for a negative wait"),
    once(refusing(Refusal(503, UNAVAILABLE, after="soon")), "asks for nonsense", protocols=HTTP),
    once(
        lambda exchange: exchange.refuse(Refusal(503, UNAVAILABLE, after=in_a_second())), "names a time", protocols=HTTP
    ),
    for_ever(refusing(Refusal(503, UNAVAILABLE, after="999999999999")), "asks for ages"),
    # Refusals for good
    refused(400, INVALID_ARGUMENT, "bad request", says="no"),
    refused(401, UNAUTHENTICATED, "unauthenticated", says="OTEL_EXPORTER_OTLP_HEADERS"),
    refused(403, PERMISSION_DENIED, "forbidden", says="OTEL_EXPORTER_OTLP_HEADERS"),
    refused(404, UNIMPLEMENTED, "no such service"),
    refused(500, INTERNAL, "internal error"),
    refused(429, RESOURCE_EXHAUSTED, "out of quota", protocols=GRPC),
    refused(307, NOT_FOUND, "redirects", headers=(("location", "http://127.0.0.1:1/v1/traces"),)),
    # Size
    Scenario("takes three spans at most", always=take_at_most(3)),
    Scenario("takes one span at most", always=take_at_most(1)),
    Scenario("takes no span", always=take_at_most(0), exported=0, rejected=SPANS, flushed=False),
    # Success, and then some
    Scenario("rejects four", always=partly(4), exported=6, rejected=4, flushed=False, says="too old"),
    Scenario("rejects more than there are", always=partly(99), exported=0, rejected=SPANS, flushed=False),
    Scenario("warns", always=partly(0), says="too old"),
    Scenario("sends early hints", always=informed(b"HTTP/1.1 103 Early Hints\r\n\r\n"), protocols=HTTP),
    Scenario("continues", always=informed(b"HTTP/1.1 100 Continue\r\n\r\n"), protocols=HTTP),
    # Answers that are none
    once(written(GARBAGE), "garbage once"),
    for_ever(written(GARBAGE), "garbage for ever"),
    once(written(b"HTTP/1.1 200 OK\r\n"), "breaks off within the head", protocols=HTTP),
    once(broken_off, "breaks off within the answer", protocols=GRPC, may_arrive_twice=True),
    Scenario("trickles", always=trickled, arguments={"timeout_ms": 20_000}),
    for_ever(trickled_without_end, "trickles without end"),
    Scenario("answers without end", always=endless, arguments={"timeout_ms": 20_000}),
]
