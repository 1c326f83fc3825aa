"""Requests that are not traced, by their URL: they make no span."""

from typing import Any

import pytest
from handmade_server import answering, http_scope, with_headers

from asgi.serving import SAMPLED, Receive, Scope, Send, run
from rvh_trace import RvhTraceMiddleware, current_span, span
from rvh_trace.errors import ConfigurationError
from rvh_trace.testing import InMemoryExporter

VARIABLE = "OTEL_PYTHON_EXCLUDED_URLS"


def is_traced(spans: InMemoryExporter, path: str = "/health", scope: Any = None, **options: Any) -> bool:
    spans.clear()
    run(scope=scope or http_scope(path), **options)
    return len(spans) == 1


@pytest.mark.parametrize(
    ("excluded", "path", "expected"),
    [
        ("/health", "/health", False),
        ("/health", "/api/healthz", False),
        ("/health$", "/healthz", True),
        ("/Health", "/health", True),
        (["/metrics", "/health$"], "/health", False),
        ("^http://shop.example/h", "/health", False),
        ("^https://", "/health", True),
        ("a=1", "/health", True),
        ([], "/health", True),
        ("none", "/none", True),
        ("käse", "/käse", False),
    ],
)
def test_patterns_are_searched_for_in_the_url(
    spans: InMemoryExporter, excluded: Any, path: str, expected: bool
) -> None:
    scope = http_scope(path, query_string=b"a=1")
    assert is_traced(spans, scope=scope, excluded_urls=excluded) is expected


def test_what_is_traced_inside_is_a_trace_of_its_own(spans: InMemoryExporter) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        assert not current_span().is_recording
        with span("work"):
            await answering()(scope, receive, send)

    run(app, http_scope("/health"), excluded_urls="/health")
    assert [(one.kind, one.parent_span_id) for one in spans] == [("internal", None)]


def test_websockets_are_excluded_too(spans: InMemoryExporter) -> None:
    scope = http_scope("/health") | {"type": "websocket", "scheme": "ws"}
    run(answering({"type": "websocket.accept"}), scope, excluded_urls="^ws://shop.example/health")
    assert list(spans) == []


class TestVariables:
    def test_the_general_one(self, spans: InMemoryExporter, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv(VARIABLE, "metrics, /health$")
        assert not is_traced(spans)
        assert is_traced(spans, "/other")
        assert is_traced(spans, excluded_urls=[])

    @pytest.mark.parametrize("framework", ["fastapi", "starlette", "django"])
    def test_that_of_the_framework_comes_first(
        self, spans: InMemoryExporter, monkeypatch: pytest.MonkeyPatch, framework: str
    ) -> None:
        monkeypatch.setenv(VARIABLE, "/general")
        monkeypatch.setenv(f"OTEL_PYTHON_{framework.upper()}_EXCLUDED_URLS", "/own")
        assert is_traced(spans, "/own")
        assert not is_traced(spans, "/own", framework=framework)
        assert is_traced(spans, "/general", framework=framework)

    def test_a_framework_without_a_variable_of_its_own_has_the_general_one(
        self, spans: InMemoryExporter, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv(VARIABLE, "/general")
        assert not is_traced(spans, "/general", framework="fastapi")


def test_a_request_with_broken_bytes_is_matched_or_not_and_never_harmed(spans: InMemoryExporter) -> None:
    scope = with_headers((b"host", b"\xff\xfe"), SAMPLED, path="/\udcff")
    assert is_traced(spans, scope=scope, excluded_urls="/health")
    assert not is_traced(spans, scope=scope, excluded_urls="^http://ÿþ/")


@pytest.mark.parametrize("wrong", ["(open", ["ok", "[a-"], 7, [None]], ids=repr)
def test_a_wrong_argument_is_named(wrong: Any) -> None:
    with pytest.raises(ConfigurationError, match="excluded_urls"):
        RvhTraceMiddleware(answering(), excluded_urls=wrong)


@pytest.mark.parametrize("left", [True, False])
def test_a_middleware_inside_one_that_excludes_the_request_is_the_only_one(spans: InMemoryExporter, left: bool) -> None:
    """Whatever was left in the context that the server runs the request in (Kludex/uvicorn#2167)."""
    asked: list[object] = []
    inner = RvhTraceMiddleware(answering())

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await inner(scope, receive, send)

    def call() -> None:
        run(app, http_scope("/items"), excluded_urls="/items", request_hook=lambda *given: asked.append(given))

    if left:
        with span("of another request"):
            call()
    else:
        call()
    assert [(one.name, one.parent_span_id) for one in spans if one.kind == "server"] == [("GET", None)]
    assert asked == []
