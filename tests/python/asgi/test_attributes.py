"""Every attribute rule of the HTTP semantic conventions 1.44 for servers, as a table."""

import asyncio
from typing import Any

import pytest
from handmade_server import answering, http_scope, serve, with_headers

from asgi.serving import Receive, Scope, Send, body, run, server_span, start
from rvh_trace import RvhTraceMiddleware
from rvh_trace.testing import InMemoryExporter

ABSENT = object()
HOST = (b"host", b"shop.example")


class SoldOutError(Exception):
    """An error of the application's own."""


@pytest.mark.parametrize(
    ("scope", "expected"),
    [
        # http.request.method
        *[(http_scope(method=method), {"http.request.method": method, "http.request.method_original": ABSENT})
          for method in ["GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH", "QUERY"]],
        *[(http_scope(method=method), {"http.request.method": "_OTHER", "http.request.method_original": method})
          for method in ("get", "Post", "PROPFIND", "", "käse", "GET ")],
        (http_scope(method=b"GET"), {"http.request.method": "_OTHER", "http.request.method_original": ABSENT}),
        # url.path
        (http_scope("/"), {"url.path": "/"}),
        (http_scope("/app/x", root_path="/app"), {"url.path": "/app/x"}),
        (http_scope("/käse/%2F ?#"), {"url.path": "/käse/%2F ?#"}),
        (http_scope("*"), {"url.path": "*"}),
        (http_scope() | {"path": None}, {"url.path": ABSENT}),
        # url.scheme
        (http_scope(scheme="https"), {"url.scheme": "https"}),
        (with_headers(HOST, (b"x-forwarded-proto", b"https")), {"url.scheme": "http"}),
        (with_headers(HOST, (b"forwarded", b"proto=https;host=evil.example")),
         {"url.scheme": "http", "server.address": "shop.example"}),
        # url.query
        (http_scope(query_string=b""), {"url.query": ABSENT}),
        (http_scope(query_string=b"a=%20b&c"), {"url.query": "a=%20b&c"}),
        (http_scope(query_string="käse".encode()), {"url.query": "käse"}),
        (http_scope(query_string=b"k\xe4se=\xff"), {"url.query": "käse=ÿ"}),
        *[(http_scope(query_string=b"a=1&%s=secret&b=2" % key), {"url.query": f"a=1&{key.decode()}=REDACTED&b=2"})
          for key in (b"AWSAccessKeyId", b"Signature", b"sig", b"X-Goog-Signature", b"X-Amz-Signature",
                      b"X-Amz-Credential", b"X-Amz-Security-Token")],
        (http_scope(query_string=b"sig=a&sig=b"), {"url.query": "sig=REDACTED&sig=REDACTED"}),
        (http_scope(query_string=b"sig&Sig=kept&xsig=kept"), {"url.query": "sig&Sig=kept&xsig=kept"}),
        (http_scope(query_string=b"sig=\xff&a=\xff"), {"url.query": "sig=REDACTED&a=ÿ"}),
        # server.address, server.port
        (with_headers((b"host", b"shop.example:8443")), {"server.address": "shop.example", "server.port": 8443}),
        (with_headers((b"host", b"[2001:db8::1]:80")), {"server.address": "2001:db8::1", "server.port": 80}),
        (with_headers((b"host", b"[2001:db8::1]")), {"server.address": "2001:db8::1", "server.port": ABSENT}),
        (with_headers((b"host", b"a.example"), (b":authority", b"b.example:1")),
         {"server.address": "b.example", "server.port": 1}),
        (with_headers((b":authority", b"b.example"), (b"host", b"a.example:1")),
         {"server.address": "b.example", "server.port": ABSENT}),
        (with_headers((b"host", b"first.example"), (b"host", b"second.example")), {"server.address": "first.example"}),
        (with_headers((b"host", b"k\xe4se.example")), {"server.address": "käse.example"}),
        (with_headers((b"host", b"shop.example:99999")), {"server.address": "shop.example", "server.port": ABSENT}),
        (with_headers(), {"server.address": "127.0.0.1", "server.port": 8000}),
        (with_headers(server=["::1", 8000]), {"server.address": "::1", "server.port": 8000}),
        (with_headers(server=("/run/shop.sock", None)), {"server.address": "/run/shop.sock", "server.port": ABSENT}),
        (with_headers(server=None), {"server.address": ABSENT, "server.port": ABSENT}),
        (with_headers(server=()), {"server.address": ABSENT, "server.port": ABSENT}),
        (with_headers(server="shop"), {"server.address": ABSENT, "server.port": ABSENT}),
        # client.address, network.peer.*
        (http_scope(client=("2001:db8::9", 1)),
         {"client.address": "2001:db8::9", "network.peer.address": "2001:db8::9", "network.peer.port": 1}),
        (http_scope(client=["192.0.2.9", 1]), {"client.address": "192.0.2.9", "network.peer.port": 1}),
        (http_scope(client=("192.0.2.9", 1)), {"client.port": ABSENT}),
        (http_scope(client=None),
         {"client.address": ABSENT, "network.peer.address": ABSENT, "network.peer.port": ABSENT}),
        (http_scope(client=("", 0)), {"client.address": ABSENT, "network.peer.address": ABSENT}),
        (with_headers(HOST, (b"x-forwarded-for", b"203.0.113.1")), {"client.address": "192.0.2.1"}),
        # network.protocol.*
        *[(http_scope(http_version=version), {"network.protocol.version": version, "network.protocol.name": ABSENT})
          for version in ("1.0", "1.1", "2", "3")],
        (http_scope(http_version=None), {"network.protocol.version": ABSENT}),
        # user_agent.original
        (with_headers(HOST, (b"user-agent", b"curl/8")), {"user_agent.original": "curl/8"}),
        (with_headers(HOST, (b"user-agent", b"k\xe4se")), {"user_agent.original": "käse"}),
        (with_headers(HOST, (b"user-agent", "Käse".encode())), {"user_agent.original": "Käse"}),
        (with_headers(HOST, (b"user-agent", b"Googlebot/2.1")), {"user_agent.synthetic.type": ABSENT}),
        (with_headers(HOST), {"user_agent.original": ABSENT}),
        # Nothing else unless asked for.
        (with_headers(HOST, (b"x-id", b"1")), {"http.request.header.x-id": ABSENT, "http.request.body.size": ABSENT}),
    ],
    ids=lambda value: None if isinstance(value, dict) and "type" in value else str(value)[:60],
)  # fmt: skip
def test_a_request_becomes_attributes(spans: InMemoryExporter, scope: Scope, expected: dict[str, Any]) -> None:
    attributes = server_span(spans, scope=scope).attributes
    assert {name: attributes.get(name, ABSENT) for name in expected} == expected


REMOVABLE = ["asgi", "http_version", "method", "scheme", "path", "raw_path", "query_string", "root_path", "headers",
             "client", "server", "state"]  # fmt: skip


@pytest.mark.parametrize("missing", REMOVABLE)
@pytest.mark.parametrize("instead", [ABSENT, None, 7, b"\xff", "\udcff", object()], ids=repr)
def test_a_key_that_is_missing_or_odd_costs_its_own_attributes_alone(
    spans: InMemoryExporter, missing: str, instead: object
) -> None:
    """A scope like that would raise in many places (open-telemetry/opentelemetry-python-contrib#1478)."""
    scope = http_scope()
    del scope[missing]
    if instead is not ABSENT:
        scope[missing] = instead
    # The server span of an honest request, which the attributes of the others must equal.
    honest = server_span(spans, scope=http_scope()).attributes
    sent = server_span(spans, scope=scope).attributes
    of_key = {
        "method": {"http.request.method", "http.request.method_original"},
        "client": {"client.address", "network.peer.address", "network.peer.port"},
        "headers": {"server.address", "server.port"},
        "http_version": {"network.protocol.version"},
        "scheme": {"url.scheme"},
        "path": {"url.path"},
        "query_string": {"url.query"},
    }.get(missing, set())
    assert {name: sent[name] for name in sent if name not in of_key} == {
        name: honest[name] for name in honest if name not in of_key
    }


class TestOptIn:
    def test_client_port(self, spans: InMemoryExporter) -> None:
        assert server_span(spans, opt_in="client.port").attributes["client.port"] == 4711

    def test_client_port_of_a_unix_socket_is_absent(self, spans: InMemoryExporter) -> None:
        sent = server_span(spans, scope=http_scope(client=("/run/c.sock", None)), opt_in="client.port")
        assert "client.port" not in sent.attributes
        assert sent.attributes["client.address"] == "/run/c.sock"

    @pytest.mark.parametrize(
        ("user_agent", "expected"),
        [(b"Mozilla/5.0 (compatible; Googlebot/2.1)", "bot"), (b"kube-probe/1.30", "test"), (b"curl/8", None)],
    )
    def test_synthetic_type(self, spans: InMemoryExporter, user_agent: bytes, expected: str | None) -> None:
        scope = with_headers(HOST, (b"user-agent", user_agent))
        sent = server_span(spans, scope=scope, opt_in=["user_agent.synthetic.type"])
        assert sent.attributes.get("user_agent.synthetic.type") == expected

    def test_variable(self, spans: InMemoryExporter, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("RVH_TRACE_OPT_IN", "client.port, http.response.body.size")
        sent = server_span(spans)
        assert (sent.attributes["client.port"], sent.attributes["http.response.body.size"]) == (4711, 2)
        assert "http.request.body.size" not in sent.attributes


class TestKnownMethods:
    def test_the_argument_replaces_the_list(self, spans: InMemoryExporter) -> None:
        options: dict[str, Any] = {"known_methods": ["PURGE", "get"]}
        for method, reported, name in [
            ("PURGE", "PURGE", "PURGE"),
            ("get", "get", "get"),
            ("GET", "_OTHER", "HTTP"),
        ]:
            sent = server_span(spans, scope=http_scope(method=method), **options)
            assert (sent.attributes["http.request.method"], sent.name) == (reported, name)

    def test_the_variable_replaces_the_list(self, spans: InMemoryExporter, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("OTEL_INSTRUMENTATION_HTTP_KNOWN_METHODS", "PURGE")
        assert server_span(spans, scope=http_scope(method="PURGE")).name == "PURGE"
        assert server_span(spans, scope=http_scope(method="GET")).attributes["http.request.method"] == "_OTHER"

    def test_the_argument_comes_before_the_variable(
        self, spans: InMemoryExporter, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("OTEL_INSTRUMENTATION_HTTP_KNOWN_METHODS", "PURGE")
        assert server_span(spans, scope=http_scope(method="PURGE"), known_methods="GET").name == "HTTP"


class TestName:
    """`{method} {http.route}` if there is a route, else `{method}`; `HTTP` for an unknown method; never a path."""

    @pytest.mark.parametrize(
        ("method", "route", "name"),
        [
            ("GET", None, "GET"),
            ("GET", "/items/{id}", "GET /items/{id}"),
            ("PURGE", "/items/{id}", "HTTP /items/{id}"),
            ("PURGE", None, "HTTP"),
            ("GET", "/", "GET /"),
        ],
    )
    def test_is_method_and_route(self, spans: InMemoryExporter, method: str, route: str | None, name: str) -> None:
        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            if route is not None:
                scope["rvh_trace.http.route"] = route
            await answering()(scope, receive, send)

        sent = server_span(spans, app, http_scope("/items/7", method=method))
        assert (sent.name, sent.attributes.get("http.route"), sent.kind) == (name, route, "server")


class TestStatusAndErrorType:
    @pytest.mark.parametrize("status", [100, 199, 200, 204, 301, 304, 400, 404, 418, 499])
    def test_below_500_is_unset(self, spans: InMemoryExporter, status: int) -> None:
        sent = server_span(spans, answering(start(status), body()))
        assert (sent.status, sent.status_description, sent.attributes["http.response.status_code"]) == (
            "unset",
            "",
            status,
        )
        assert "error.type" not in sent.attributes

    @pytest.mark.parametrize("status", [500, 502, 599, 999])
    def test_from_500_on_it_is_an_error_without_a_description(self, spans: InMemoryExporter, status: int) -> None:
        sent = server_span(spans, answering(start(status), body()))
        assert (sent.status, sent.status_description, sent.events) == ("error", "", ())
        assert (sent.attributes["error.type"], sent.attributes["http.response.status_code"]) == (str(status), status)

    @pytest.mark.parametrize("status", ["200", None, 2.0, 1 << 80], ids=repr)
    def test_what_is_no_status_is_left_out(self, spans: InMemoryExporter, status: object) -> None:
        sent = server_span(spans, answering({**start(), "status": status}, body()))
        assert "http.response.status_code" not in sent.attributes
        assert sent.status == "unset"

    @pytest.mark.parametrize(
        ("error", "name"), [(SoldOutError("tea"), f"{__name__}.SoldOutError"), (ValueError("tea"), "ValueError")]
    )
    def test_an_exception_before_the_start_is_the_type_by_its_full_name(
        self, spans: InMemoryExporter, error: Exception, name: str
    ) -> None:
        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            raise error

        with pytest.raises(type(error)) as caught:
            run(app)
        assert caught.value is error
        (sent,) = spans
        assert (sent.attributes["error.type"], sent.status, sent.status_description) == (name, "error", "tea")
        assert "http.response.status_code" not in sent.attributes
        assert [event.attributes["exception.type"] for event in sent.events] == [name]
        assert "exception.escaped" not in sent.events[0].attributes

    def test_an_error_that_was_handled_inside_is_not_recorded(self, spans: InMemoryExporter) -> None:
        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            try:
                raise SoldOutError
            except SoldOutError:
                await answering(start(404), body())(scope, receive, send)

        sent = server_span(spans, app)
        assert (sent.status, sent.events) == ("unset", ())
        assert "error.type" not in sent.attributes


@pytest.mark.parametrize("kind", ["webtransport", "", None, 7], ids=repr)
def test_scopes_of_other_types_pass_through_untouched(spans: InMemoryExporter, kind: object) -> None:
    seen: list[tuple[object, ...]] = []

    async def app(*arguments: object) -> None:
        seen.append(arguments)

    async def receive() -> dict[str, Any]:
        raise AssertionError

    async def send(message: object) -> None:
        raise AssertionError

    scope = {"type": kind}
    asyncio.run(RvhTraceMiddleware(app)(scope, receive, send))
    assert seen == [(scope, receive, send)]
    assert seen[0][0] is scope
    assert scope == {"type": kind}
    assert list(spans) == []


def test_response_size_of_concurrent_requests_is_their_own(spans: InMemoryExporter) -> None:
    """It is kept on the middleware object elsewhere, and overwritten by whoever comes next."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        size = int(scope["path"][1:])
        await send(start())
        for _ in range(size):
            await asyncio.sleep(0)
            await send(body(b"x", more=True))
        await send(body(b""))

    async def main() -> None:
        traced = RvhTraceMiddleware(app, opt_in="http.response.body.size")
        await asyncio.gather(*(serve(traced, http_scope(f"/{size}")) for size in range(20)))

    asyncio.run(main())
    sizes = {(one.attributes["url.path"], one.attributes["http.response.body.size"]) for one in spans}
    assert sizes == {(f"/{size}", size) for size in range(20)}
