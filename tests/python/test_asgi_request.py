"""What a request's scope becomes on its SERVER span (`reference/http-server.md`, HTTP semantic conventions 1.44)."""

import asyncio
from typing import Any

import pytest
from handmade_server import answering, http_scope, serve, with_headers
from hypothesis import given
from hypothesis import strategies as st
from interpreter import run_quietly
from receiver import Receiver

from rvh_trace import RvhTraceMiddleware, current_span, inject, span
from rvh_trace.testing import FinishedSpan, InMemoryExporter

TRACE_ID, SPAN_ID = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
TRACEPARENT = f"00-{TRACE_ID}-{SPAN_ID}-01".encode()

PLAIN: dict[str, Any] = {
    "http.request.method": "GET",
    "url.path": "/items/7",
    "url.scheme": "http",
    "server.address": "shop.example",
    "client.address": "192.0.2.1",
    "network.peer.address": "192.0.2.1",
    "network.peer.port": 4711,
    "network.protocol.version": "1.1",
    "http.response.status_code": 200,
}


def traced(spans: InMemoryExporter, scope: dict[str, Any]) -> FinishedSpan:
    """The one span of a request with this scope."""
    spans.clear()
    asyncio.run(serve(RvhTraceMiddleware(answering()), scope))
    (sent,) = spans
    return sent


def without(*names: str, **instead: Any) -> dict[str, Any]:
    """`PLAIN` without some attributes and with others; dots in names are written `__`."""
    kept = {name: value for name, value in PLAIN.items() if name not in names}
    return kept | {name.replace("__", "."): value for name, value in instead.items()}


def test_a_plain_request_has_every_required_and_recommended_attribute(spans: InMemoryExporter) -> None:
    sent = traced(spans, http_scope())
    assert (sent.name, sent.kind, sent.status, sent.parent_span_id) == ("GET", "server", "unset", None)
    assert sent.attributes == PLAIN
    assert (sent.events, sent.links) == ((), ())


@pytest.mark.parametrize(
    ("scope", "expected"),
    [
        pytest.param(http_scope(method="QUERY"), without(http__request__method="QUERY"), id="known method"),
        pytest.param(http_scope(scheme="https"), without(url__scheme="https"), id="https"),
        pytest.param(http_scope(http_version="2"), without(network__protocol__version="2"), id="http/2"),
        pytest.param(
            http_scope(path="/app/items", root_path="/app"), without(url__path="/app/items"), id="root_path is in path"
        ),
        pytest.param(http_scope(path="/käse/\udcff"), None, id="path with surrogates"),
        pytest.param(http_scope(query_string=b"a=1&b=2"), without(url__query="a=1&b=2"), id="query"),
        pytest.param(
            http_scope(query_string=b"q=1&sig=secret&X-Amz-Signature=s&Signature=&AWSAccessKeyId=k"),
            without(url__query="q=1&sig=REDACTED&X-Amz-Signature=REDACTED&Signature=REDACTED&AWSAccessKeyId=REDACTED"),
            id="secrets in the query",
        ),
        pytest.param(
            http_scope(query_string=b"X-Goog-Signature=a&X-Amz-Credential=b&X-Amz-Security-Token=c&SIG=kept"),
            without(
                url__query="X-Goog-Signature=REDACTED&X-Amz-Credential=REDACTED&X-Amz-Security-Token=REDACTED&SIG=kept"
            ),
            id="more secrets in the query",
        ),
        pytest.param(http_scope(query_string=b"q=\xff"), without(url__query="q=ÿ"), id="Latin-1 query"),
        pytest.param(http_scope(query_string="text"), PLAIN, id="query that is no bytes"),
        pytest.param(http_scope(client=None), without("client.address", "network.peer.address", "network.peer.port"),
                     id="no client"),
        pytest.param(
            http_scope(client=("::1", 9)),
            without(client__address="::1", network__peer__address="::1", network__peer__port=9),
            id="IPv6 client",
        ),
        pytest.param(
            http_scope(client=["192.0.2.1", 4711]), PLAIN, id="client as a list"
        ),
        pytest.param(
            http_scope(client=("/run/client.sock", None)),
            without(
                "network.peer.port", client__address="/run/client.sock", network__peer__address="/run/client.sock"
            ),
            id="client on a unix socket",
        ),
        pytest.param(http_scope(server=None), PLAIN, id="no server, but a host"),
        pytest.param(with_headers(server=None), without("server.address"), id="neither server nor host"),
        pytest.param(
            with_headers(), without(server__address="127.0.0.1", server__port=8000), id="server, but no host"
        ),
        pytest.param(
            with_headers(server=("/run/app.sock", None)), without(server__address="/run/app.sock"), id="unix socket"
        ),
        pytest.param(
            with_headers(server=("::1", 8000)), without(server__address="::1", server__port=8000), id="IPv6 server"
        ),
        pytest.param(
            with_headers((b"host", b"shop.example:8443")), without(server__port=8443), id="host with a port"
        ),
        pytest.param(
            with_headers((b"host", b"[2001:db8::1]:8080")),
            without(server__address="2001:db8::1", server__port=8080),
            id="IPv6 host with a port",
        ),
        pytest.param(with_headers((b"host", b"[::1]")), without(server__address="::1"), id="IPv6 host"),
        pytest.param(
            with_headers((b"host", b"")), without(server__address="127.0.0.1", server__port=8000), id="empty host"
        ),
        pytest.param(with_headers((b"host", b"shop.example:http")), PLAIN, id="host with a port that is none"),
        pytest.param(with_headers((b"host", b"\xff\xfe")), without(server__address="ÿþ"), id="broken host"),
        pytest.param(
            with_headers((b"host", b"shop.example"), (b"user-agent", b"curl/8")),
            without(user_agent__original="curl/8"),
            id="user agent",
        ),
        pytest.param(
            with_headers((b"host", b"shop.example"), (b"user-agent", b"k\xe4se")),
            without(user_agent__original="käse"),
            id="Latin-1 user agent",
        ),
        pytest.param(
            http_scope(headers=((b"host", b"shop.example"), (b"x", b"y"))), PLAIN, id="headers as a tuple"
        ),
        pytest.param(
            http_scope(headers=[[b"host", b"shop.example"]]), PLAIN, id="header pairs as lists"
        ),
        pytest.param(
            http_scope(headers=[(b"host", b"shop.example"), (b"a",), b"ab", 7, ("x", "y"), (b"user-agent", None)]),
            PLAIN,
            id="headers that are none",
        ),
    ],
)  # fmt: skip
def test_scope_becomes_attributes(
    spans: InMemoryExporter, scope: dict[str, Any], expected: dict[str, Any] | None
) -> None:
    sent = traced(spans, scope)
    if expected is None:
        assert str(sent.attributes["url.path"]).startswith("/käse/")
    else:
        assert sent.attributes == expected
    assert sent.name == scope["method"]


@pytest.mark.parametrize("method", ["get", "PURGE", "", "G" * 300])
def test_unknown_methods_are_other_with_the_original_beside_it(spans: InMemoryExporter, method: str) -> None:
    sent = traced(spans, http_scope(method=method))
    assert sent.name == "HTTP"
    assert sent.attributes == PLAIN | {"http.request.method": "_OTHER", "http.request.method_original": method}


def test_known_methods_are_configurable(receiver: Receiver) -> None:
    run_quietly(
        """
        import asyncio
        from handmade_server import answering, http_scope, serve
        import rvh_trace
        rvh_trace.init_tracing("shop")
        app = rvh_trace.RvhTraceMiddleware(answering())
        for method in ("PURGE", "GET"):
            asyncio.run(serve(app, http_scope(method=method)))
        assert rvh_trace.force_flush()
        """,
        OTEL_EXPORTER_OTLP_ENDPOINT=receiver.http_endpoint,
        OTEL_INSTRUMENTATION_HTTP_KNOWN_METHODS="PURGE,get",
        PYTHONPATH=with_tests_on_path(),
    )
    purge, get = receiver.spans
    assert (purge.name, purge.attributes["http.request.method"]) == ("PURGE", "PURGE")
    assert (get.name, get.attributes["http.request.method"]) == ("HTTP", "_OTHER")
    assert get.attributes["http.request.method_original"] == "GET"


def with_tests_on_path() -> str:
    import os
    from pathlib import Path

    return os.pathsep.join(filter(None, [str(Path(__file__).parent), os.environ.get("PYTHONPATH")]))


@given(
    path=st.text(),
    method=st.text(max_size=10),
    query=st.binary(max_size=30),
    headers=st.lists(
        st.tuples(st.sampled_from([b"host", b"user-agent", b"traceparent", b"tracestate", b"baggage"]), st.binary())
        | st.tuples(st.binary(), st.binary())
        | st.none()
    ),
    client=st.none() | st.tuples(st.text(), st.integers() | st.none()) | st.lists(st.integers(), max_size=2),
    server=st.none() | st.tuples(st.text(), st.integers() | st.none()) | st.text(max_size=2),
)
def test_no_request_whatever_it_holds_is_harmed(spans: InMemoryExporter, **parts: Any) -> None:
    parts["query_string"] = parts.pop("query")
    sent = traced(spans, http_scope(**parts))
    assert sent.attributes["http.response.status_code"] == 200


def test_a_scope_with_hardly_anything_in_it_is_served(spans: InMemoryExporter) -> None:
    sent = traced(spans, {"type": "http"})
    assert sent.attributes["http.response.status_code"] == 200


class TestParent:
    """The trace that a request continues."""

    def test_traceparent_is_continued(self, spans: InMemoryExporter) -> None:
        sent = traced(
            spans, with_headers((b"traceparent", TRACEPARENT), (b"tracestate", b"a=1"), (b"tracestate", b"b=2"))
        )
        assert (sent.trace_id, sent.parent_span_id, sent.trace_state) == (TRACE_ID, SPAN_ID, "a=1,b=2")

    @pytest.mark.parametrize(
        "headers",
        [
            [],
            [(b"traceparent", b"nonsense")],
            [(b"traceparent", b"\xff" * 55)],
            [(b"traceparent", TRACEPARENT), (b"traceparent", TRACEPARENT)],
            [(b"traceparent", TRACEPARENT), (b"traceparent", b"x")],
        ],
        ids=["none", "malformed", "no text", "twice the same", "two"],
    )
    def test_without_a_valid_one_a_new_trace_starts(self, spans: InMemoryExporter, headers: list[Any]) -> None:
        sent = traced(spans, with_headers(*headers, (b"tracestate", b"a=1")))
        assert sent.parent_span_id is None
        assert sent.trace_id != TRACE_ID
        assert sent.trace_state == ""

    def test_a_span_leaked_by_the_last_request_of_a_connection_is_ignored(self, spans: InMemoryExporter) -> None:
        async def main() -> None:
            app = RvhTraceMiddleware(answering())
            with span("leaked"):
                await serve(app)
                await serve(app, with_headers((b"traceparent", TRACEPARENT)))

        asyncio.run(main())
        first, second = spans.named("GET")
        assert first.parent_span_id is None
        assert first.trace_id != spans.one("leaked").trace_id
        assert (second.trace_id, second.parent_span_id) == (TRACE_ID, SPAN_ID)

    def test_the_next_request_in_the_context_of_the_last_starts_clean(self, spans: InMemoryExporter) -> None:
        """uvicorn starts a pipelined request in the context of the one before (Kludex/uvicorn#2167)."""

        async def main() -> None:
            nested: list[Any] = []

            async def app(scope: Any, receive: Any, send: Any) -> None:
                if not nested:  # the second request begins inside the first, which has not ended
                    nested.append(True)
                    await asyncio.create_task(serve(traced_app, http_scope("/second")))
                with span("work"):
                    await answering()(scope, receive, send)

            traced_app = RvhTraceMiddleware(app)
            await serve(traced_app, http_scope("/first"))

        asyncio.run(main())
        first, second = (
            next(one for one in spans if one.attributes.get("url.path") == path) for path in ("/first", "/second")
        )
        assert first.trace_id != second.trace_id
        assert second.parent_span_id is None
        assert [len(spans.children(one)) for one in (first, second)] == [1, 1]

    def test_nothing_is_current_after_the_request(self, spans: InMemoryExporter) -> None:
        async def main() -> None:
            await serve(
                RvhTraceMiddleware(answering()), with_headers((b"baggage", b"a=1"), (b"traceparent", TRACEPARENT))
            )
            assert not current_span().context.is_valid
            headers: dict[str, str] = {}
            inject(headers)
            assert headers == {}

        asyncio.run(main())

    def test_baggage_of_the_request_is_current_in_it(self, spans: InMemoryExporter) -> None:
        seen: dict[str, str] = {}

        async def app(scope: Any, receive: Any, send: Any) -> None:
            inject(seen)
            await answering()(scope, receive, send)

        asyncio.run(serve(RvhTraceMiddleware(app), with_headers((b"baggage", b"tenant=acme"))))
        assert seen["baggage"] == "tenant=acme"
        assert seen["traceparent"].split("-")[1:3] == [spans[0].trace_id, spans[0].span_id]

    @pytest.mark.parametrize("flags", [b"00", b"01"])
    def test_an_unsampled_request_makes_no_span_and_is_still_propagated(self, flags: bytes) -> None:
        seen: dict[str, str] = {}

        async def app(scope: Any, receive: Any, send: Any) -> None:
            with span("work") as work:
                assert not work.is_recording
                inject(seen)
            await answering()(scope, receive, send)

        scope = with_headers((b"traceparent", TRACEPARENT[:-2] + flags), (b"tracestate", b"a=1"), (b"baggage", b"b=2"))
        with InMemoryExporter(sampler="always_off" if flags == b"01" else None) as spans:
            asyncio.run(serve(RvhTraceMiddleware(app), scope))
            assert list(spans) == []
        assert seen["traceparent"].startswith(f"00-{TRACE_ID}-")
        assert seen["traceparent"].endswith("-00")
        assert (seen["tracestate"], seen["baggage"]) == ("a=1", "b=2")

    def test_without_tracing_the_context_of_the_request_is_passed_on(self) -> None:
        run_quietly(
            """
            import asyncio
            from handmade_server import answering, serve, with_headers
            from rvh_trace import RvhTraceMiddleware, inject
            seen = {}
            async def app(scope, receive, send):
                inject(seen)
                await answering()(scope, receive, send)
            traceparent = b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
            asyncio.run(serve(RvhTraceMiddleware(app), with_headers((b"traceparent", traceparent))))
            assert seen == {"traceparent": traceparent.decode()}, seen
            """,
            PYTHONPATH=with_tests_on_path(),
        )
