"""`Server-Timing: trace;desc=...` and `traceresponse`: headers that tell the client its trace, for those who ask.

Draft of W3C Trace Context of June 2026; the CORS protocol for the header that lets scripts read them.
"""

from typing import Any

import pytest
from handmade_server import LAST_BODY, START, answering, http_scope, with_headers

from asgi.serving import SAMPLED, TRACE_ID, UNSAMPLED, body, run, start
from rvh_trace.testing import InMemoryExporter

TIMING, TRACERESPONSE, EXPOSE = b"server-timing", b"traceresponse", b"access-control-expose-headers"
Headers = list[tuple[bytes, bytes]]


def sent_headers(app: Any = None, scope: Any = None, **options: Any) -> Headers:
    return list(run(app, scope, **options)[0]["headers"])


def identity(spans: InMemoryExporter, flags: str = "03") -> bytes:
    (server,) = spans
    return f"00-{server.trace_id}-{server.span_id}-{flags}".encode()


def test_none_unless_asked_for(spans: InMemoryExporter) -> None:
    sent = run(answering(START, LAST_BODY))
    assert sent[0] is START
    assert sent[1] is LAST_BODY


@pytest.mark.parametrize(
    ("wanted", "exposed"),
    [
        ("server-timing", b"server-timing"),
        ("Server-Timing", b"server-timing"),
        ("traceresponse", b"traceresponse"),
        (["traceresponse", "server-timing"], b"server-timing, traceresponse"),
    ],
    ids=str,
)
def test_they_name_the_span_and_scripts_may_read_them(spans: InMemoryExporter, wanted: Any, exposed: bytes) -> None:
    headers = sent_headers(trace_response_headers=wanted)
    expected: Headers = []
    if b"server-timing" in exposed:
        expected.append((TIMING, b"trace;desc=" + identity(spans)))
    if b"traceresponse" in exposed:
        expected.append((TRACERESPONSE, identity(spans)))
    assert headers == [*expected, (EXPOSE, exposed)]


def test_headers_that_can_be_read_only_once_are_left_alone(spans: InMemoryExporter) -> None:
    own = [(b"x-id", b"1")]
    assert sent_headers(answering(start(headers=iter(own)), body()), trace_response_headers="server-timing") == own


@pytest.mark.parametrize("as_type", [list, tuple])
def test_they_stand_beside_the_applications_own(spans: InMemoryExporter, as_type: Any) -> None:
    own = [(TIMING, b"db;dur=53"), (b"x-id", b"1"), (EXPOSE, b"x-id")]
    headers = sent_headers(answering(start(headers=as_type(own)), body()), trace_response_headers="server-timing")
    assert headers[:3] == own
    assert headers[3:] == [(TIMING, b"trace;desc=" + identity(spans)), (EXPOSE, b"server-timing")]


def test_the_message_and_its_list_stay_the_applications(spans: InMemoryExporter) -> None:
    headers = [(b"x-id", b"1")]
    message = start(headers=headers, trailers=False)
    before = dict(message)
    for _ in range(2):  # an application may send the same one again
        sent = run(answering(message, body()), trace_response_headers="server-timing")[0]
        assert len(sent["headers"]) == 3
        assert sent["trailers"] is False
    assert headers == [(b"x-id", b"1")]
    assert message == before


def test_without_headers_of_its_own(spans: InMemoryExporter) -> None:
    message = {"type": "http.response.start", "status": 204}
    assert len(sent_headers(answering(message, body(b"")), trace_response_headers="traceresponse")) == 2


def test_only_the_start_of_a_response_carries_them(spans: InMemoryExporter) -> None:
    messages = [
        start(trailers=True),
        body(),
        {"type": "http.response.trailers", "headers": [(b"x-sum", b"1")], "more_trailers": False},
    ]
    early = {"type": "http.response.early_hint", "links": [b"</a.css>; rel=preload"]}
    sent = run(answering(early, *messages), trace_response_headers=["server-timing"])
    assert [sent[0], *sent[2:]] == [early, *messages[1:]]


def test_the_handshake_of_a_websocket_is_left_alone(spans: InMemoryExporter) -> None:
    """Servers that speak ASGI 2.0 take no headers there, and no script can read them."""
    accept = {"type": "websocket.accept", "headers": [(b"x-id", b"1")]}
    scope = http_scope() | {"type": "websocket", "scheme": "ws"}
    assert run(answering(accept), scope, trace_response_headers=["server-timing"]) == [accept]


def test_an_error_page_carries_them_too(spans: InMemoryExporter) -> None:
    headers = sent_headers(answering(start(500), body()), trace_response_headers="traceresponse")
    assert dict(headers)[TRACERESPONSE] == identity(spans)


class TestUnsampled:
    def test_the_callers_trace_is_named(self) -> None:
        with InMemoryExporter() as spans:
            headers = sent_headers(scope=with_headers(UNSAMPLED), trace_response_headers="traceresponse")
            assert list(spans) == []
        version, trace_id, span_id, flags = dict(headers)[TRACERESPONSE].split(b"-")
        assert (version, trace_id, flags) == (b"00", TRACE_ID.encode(), b"00")
        assert int(span_id, 16) != 0

    def test_a_new_trace_is_named(self) -> None:
        with InMemoryExporter(sampler="always_off"):
            headers = sent_headers(trace_response_headers="server-timing")
        assert dict(headers)[TIMING].startswith(b"trace;desc=00-")
        assert dict(headers)[TIMING].endswith((b"-00", b"-02"))


def test_variable(spans: InMemoryExporter, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RVH_TRACE_RESPONSE_HEADERS", "server-timing,traceresponse")
    headers = dict(sent_headers(scope=with_headers(SAMPLED)))
    assert set(headers) == {TIMING, TRACERESPONSE, EXPOSE}
    assert headers[TRACERESPONSE] == identity(spans, "01")
    assert sent_headers(trace_response_headers=[]) == []


@pytest.mark.parametrize("headers", [7, b"raw", [7], None], ids=repr)
def test_headers_that_are_none_are_the_servers_to_complain_of(spans: InMemoryExporter, headers: Any) -> None:
    message = {**start(), "headers": headers}
    run(answering(message, body()), trace_response_headers="traceresponse")
    assert message["headers"] == headers
    assert spans[0].attributes["http.response.status_code"] == 200
