"""Headers as attributes: `http.request.header.<name>` and `http.response.header.<name>`, for those who ask."""

from collections.abc import Sequence
from typing import Any

import pytest
from handmade_server import answering, http_scope, with_headers

from asgi.serving import body, run, server_span, start
from rvh_trace import RvhTraceMiddleware
from rvh_trace.errors import ConfigurationError
from rvh_trace.testing import FinishedSpan, InMemoryExporter

Captured = dict[str, list[object]]

HEADERS = [
    (b"host", b"shop.example"),
    (b"x-request-id", b"7"),
    (b"accept", b"text/html"),
    (b"accept", b"*/*"),
    (b"x_under_score", b"u"),
    (b"authorization", b"Bearer secret"),
    (b"cookie", b"session=secret"),
    (b"x-latin", b"k\xe4se"),
]


def captured(sent: FinishedSpan, direction: str = "request") -> Captured:
    """What was captured, by name: string arrays."""
    prefix = f"http.{direction}.header."
    found: Captured = {}
    for name, values in sent.attributes.items():
        if name.startswith(prefix):
            assert isinstance(values, Sequence)
            assert not isinstance(values, str)
            found[name.removeprefix(prefix)] = list(values)
    return found


def of_request(spans: InMemoryExporter, **options: Any) -> Captured:
    return captured(server_span(spans, scope=with_headers(*HEADERS), **options))


def of_response(spans: InMemoryExporter, headers: Any, **options: Any) -> Captured:
    app = answering(start(headers=headers), body())
    return captured(server_span(spans, app, **options), "response")


class TestRequest:
    def test_nothing_unless_asked_for(self, spans: InMemoryExporter) -> None:
        assert of_request(spans) == {}

    @pytest.mark.parametrize(
        ("wanted", "expected"),
        [
            ("x-request-id", {"x-request-id": ["7"]}),
            ("X-Request-ID", {"x-request-id": ["7"]}),
            (["x-request-id", "x-missing"], {"x-request-id": ["7"]}),
            ("request", {}),
            ("x-.*", {"x-request-id": ["7"], "x-latin": ["käse"]}),
            ("x_under_score", {"x_under_score": ["u"]}),
            ([], {}),
        ],
        ids=str,
    )
    def test_whole_names_in_any_case(self, spans: InMemoryExporter, wanted: Any, expected: Captured) -> None:
        found = of_request(spans, capture_request_headers=wanted)
        assert found == expected

    def test_repeated_headers_keep_their_order(self, spans: InMemoryExporter) -> None:
        assert of_request(spans, capture_request_headers="accept")["accept"] == ["text/html", "*/*"]

    def test_names_keep_their_dashes_and_lose_their_case(self, spans: InMemoryExporter) -> None:
        scope = with_headers((b"X-Mixed-Case", b"1"), (b"x-mixed-case", b"2"))
        found = captured(server_span(spans, scope=scope, capture_request_headers="x-mixed-case"))
        assert found == {"x-mixed-case": ["1", "2"]}


class TestSanitising:
    def test_credentials_are_redacted_by_default(self, spans: InMemoryExporter) -> None:
        found = of_request(spans, capture_request_headers=".*")
        assert found["authorization"] == found["cookie"] == ["[REDACTED]"]
        assert found["x-request-id"] == ["7"]

    def test_a_list_replaces_the_default_and_finds_parts_of_names(self, spans: InMemoryExporter) -> None:
        found = of_request(spans, capture_request_headers=".*", sanitize_headers="REQUEST")
        assert found["x-request-id"] == ["[REDACTED]"]
        assert found["authorization"] == ["Bearer secret"]

    def test_every_value_of_a_repeated_header_is_redacted(self, spans: InMemoryExporter) -> None:
        headers = [(b"set-cookie", b"a=secret"), (b"Set-Cookie", b"b=secret")]
        found = of_response(spans, headers, capture_response_headers="set-cookie")
        assert found["set-cookie"] == ["[REDACTED]"] * 2

    def test_variable(self, spans: InMemoryExporter, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("OTEL_INSTRUMENTATION_HTTP_CAPTURE_HEADERS_SERVER_REQUEST", "x-request-id,accept")
        monkeypatch.setenv("OTEL_INSTRUMENTATION_HTTP_CAPTURE_HEADERS_SANITIZE_FIELDS", "accept")
        found = of_request(spans)
        assert found == {"x-request-id": ["7"], "accept": ["[REDACTED]"] * 2}


class TestResponse:
    @pytest.mark.parametrize(
        ("headers", "expected"),
        [
            ([(b"x-id", b"1"), (b"x-id", b"2")], ["1", "2"]),
            (((b"x-id", b"1"),), ["1"]),
            ([[b"X-Id", b"1"]], ["1"]),
            ([(b"x-id", b"\xff")], ["ÿ"]),
            ([(b"x-id",), 7, (b"x-id", "text"), (b"x-id", b"ok")], ["ok"]),
            ([], None),
            (None, None),
        ],
        ids=repr,
    )
    def test_is_captured(self, spans: InMemoryExporter, headers: Any, expected: list[str] | None) -> None:
        found = of_response(spans, headers, capture_response_headers="x-id").get("x-id")
        assert found == expected

    def test_an_iterator_of_headers_is_left_to_the_server(self, spans: InMemoryExporter) -> None:
        headers = iter([(b"x-id", b"1")])
        sent = run(answering(start(headers=headers), body()), capture_response_headers="x-id")
        assert list(sent[0]["headers"]) == [(b"x-id", b"1")]
        assert captured(spans[0], "response") == {}

    def test_variable(self, spans: InMemoryExporter, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("OTEL_INSTRUMENTATION_HTTP_CAPTURE_HEADERS_SERVER_RESPONSE", "x-.*")
        assert list(of_response(spans, [(b"x-id", b"1"), (b"y", b"2")])) == ["x-id"]


@pytest.mark.parametrize("argument", ["capture_request_headers", "capture_response_headers", "sanitize_headers"])
@pytest.mark.parametrize("wrong", [["ok", "(open"], 7, [7], {"a": 1}], ids=repr)
def test_a_wrong_argument_is_named(argument: str, wrong: Any) -> None:
    with pytest.raises(ConfigurationError, match=argument):
        RvhTraceMiddleware(http_scope, **{argument: wrong})  # type: ignore[arg-type]
