"""`public_endpoint`: anybody may call, so the caller's context is a link of a new trace and its baggage is dropped.

Otherwise any client decides what is sampled and which trace its request shows up in.
"""

from typing import Any

import pytest
from handmade_server import answering, http_scope, with_headers

from asgi.serving import SAMPLED, SPAN_ID, TRACE_ID, UNSAMPLED, Receive, Scope, Send, run, server_span
from rvh_trace import RvhTraceMiddleware, inject
from rvh_trace.errors import ConfigurationError
from rvh_trace.testing import FinishedSpan, InMemoryExporter

VARIABLE = "RVH_TRACE_PUBLIC_ENDPOINT"


def call(**overrides: Any) -> dict[str, Any]:
    return with_headers(SAMPLED, (b"tracestate", b"a=1"), (b"baggage", b"tenant=evil"), **overrides)


def is_linked(sent: FinishedSpan) -> bool:
    """Whether it is the root of a new trace that links the caller; else it must be the caller's child."""
    if sent.trace_id == TRACE_ID:
        assert (sent.parent_span_id, sent.links, sent.trace_state) == (SPAN_ID, (), "a=1")
        return False
    assert (sent.parent_span_id, sent.trace_state) == (None, "")
    assert [(link.trace_id, link.span_id) for link in sent.links] == [(TRACE_ID, SPAN_ID)]
    return True


@pytest.mark.parametrize("public", [True, False, None, lambda scope: True, lambda scope: False])
def test_the_caller_is_a_link_of_a_new_root(spans: InMemoryExporter, public: Any) -> None:
    expected = public(None) if callable(public) else bool(public)
    assert is_linked(server_span(spans, scope=call(), public_endpoint=public)) is expected


def test_without_a_caller_there_is_no_link(spans: InMemoryExporter) -> None:
    sent = server_span(spans, scope=http_scope(), public_endpoint=True)
    assert (sent.links, sent.parent_span_id) == ((), None)


def test_a_public_endpoint_does_not_let_any_client_force_sampling() -> None:
    with InMemoryExporter(sampler="parentbased_always_off") as spans:
        run(scope=call())
        assert len(spans) == 1
        spans.clear()
        run(scope=call(), public_endpoint=True)
        assert list(spans) == []


def test_nor_forbid_it(spans: InMemoryExporter) -> None:
    sent = server_span(spans, scope=with_headers(UNSAMPLED), public_endpoint=True)
    assert sent.trace_id != TRACE_ID
    assert len(sent.links) == 1


@pytest.mark.parametrize("public", [True, False])
def test_baggage_of_strangers_is_dropped(spans: InMemoryExporter, public: bool) -> None:
    seen: dict[str, str] = {}

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        inject(seen)
        await answering()(scope, receive, send)

    run(app, call(), public_endpoint=public)
    assert seen.get("baggage") == (None if public else "tenant=evil")
    assert (TRACE_ID in seen["traceparent"]) is not public


def test_a_function_sees_the_scope_and_decides_for_each_request(spans: InMemoryExporter) -> None:
    seen: list[Scope] = []

    def is_public(scope: Scope) -> bool:
        seen.append(scope)
        return scope["path"].startswith("/public")

    scopes = [call(path="/public/1"), call(path="/internal/1")]
    assert [is_linked(server_span(spans, scope=scope, public_endpoint=is_public)) for scope in scopes] == [True, False]
    assert seen[0] is scopes[0]


def test_a_function_that_raises_is_called_no_more_and_the_request_goes_on(
    spans: InMemoryExporter, capfd: pytest.CaptureFixture[str]
) -> None:
    calls: list[object] = []

    def is_public(scope: Scope) -> bool:
        calls.append(scope)
        raise RuntimeError("no idea")

    middleware = RvhTraceMiddleware(answering(), public_endpoint=is_public)
    for _ in range(3):
        run_middleware(middleware)
    assert (len(spans), len(calls)) == (3, 1)
    (line,) = capfd.readouterr().err.splitlines()
    assert "public_endpoint" in line
    assert "no idea" in line


def test_who_cannot_be_asked_is_a_stranger(spans: InMemoryExporter, capfd: pytest.CaptureFixture[str]) -> None:
    """The function was given because some callers are not to be trusted: failing must not trust them all."""

    def is_public(scope: Scope) -> bool:
        raise RuntimeError("no idea")

    middleware = RvhTraceMiddleware(answering(), public_endpoint=is_public)
    for _ in range(2):
        spans.clear()
        run_middleware(middleware)
        assert is_linked(spans[0])
    assert len(capfd.readouterr().err.splitlines()) == 1


@pytest.mark.parametrize("result", [1, "yes", [], None], ids=repr)
def test_any_result_counts_by_its_truth(spans: InMemoryExporter, result: object) -> None:
    sent = server_span(spans, scope=call(), public_endpoint=lambda scope: result)
    assert is_linked(sent) is bool(result)


def test_variable(spans: InMemoryExporter, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "true")
    assert is_linked(server_span(spans, scope=call()))
    assert not is_linked(server_span(spans, scope=call(), public_endpoint=False))
    assert not is_linked(server_span(spans, scope=call(), public_endpoint=lambda scope: False))


@pytest.mark.parametrize("wrong", [7, "yes", ["/public"]], ids=repr)
def test_a_wrong_argument_is_named(wrong: Any) -> None:
    with pytest.raises(ConfigurationError, match="public_endpoint"):
        RvhTraceMiddleware(answering(), public_endpoint=wrong)


def run_middleware(middleware: RvhTraceMiddleware) -> None:
    """One such call to a middleware that is there already."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await middleware(scope, receive, send)

    # The outer one excludes everything, so it is not there.
    run(app, call(), excluded_urls=".")
