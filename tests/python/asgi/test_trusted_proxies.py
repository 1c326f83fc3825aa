"""`Forwarded` and `X-Forwarded-*` are believed as far as trusted proxies wrote them. Nobody is trusted by default."""

from typing import Any

import pytest
from handmade_server import http_scope, with_headers

from asgi.serving import server_span
from rvh_trace import RvhTraceMiddleware
from rvh_trace.errors import ConfigurationError
from rvh_trace.testing import InMemoryExporter

HOST = (b"host", b"inside.example:8000")
FORWARDED = (b"forwarded", b'for="[2001:db8::1]:4711";proto=https;host="shop.example:8443"')
LISTS = ((b"x-forwarded-for", b"203.0.113.9"), (b"x-forwarded-proto", b"https"), (b"x-forwarded-host", b"shop.example"))
WATCHED = ("client.address", "client.port", "server.address", "server.port", "url.scheme")

AS_SENT = {
    "client.address": "10.0.0.7",
    "client.port": 4711,
    "server.address": "inside.example",
    "server.port": 8000,
    "url.scheme": "http",
}
FROM_FORWARDED = {
    "client.address": "2001:db8::1",
    "client.port": 4711,
    "server.address": "shop.example",
    "server.port": 8443,
    "url.scheme": "https",
}
# Lists of addresses have no ports.
OF_CLIENT = {
    "client.address": "203.0.113.9",
    "server.address": "inside.example",
    "server.port": 8000,
    "url.scheme": "http",
}
FROM_LISTS = {"client.address": "203.0.113.9", "server.address": "shop.example", "url.scheme": "https"}


def request(*headers: tuple[bytes, bytes], **overrides: Any) -> dict[str, Any]:
    return with_headers(HOST, *headers, **{"client": ("10.0.0.7", 4711)} | overrides)


def found(spans: InMemoryExporter, scope: dict[str, Any], **options: Any) -> dict[str, object]:
    sent = server_span(spans, scope=scope, opt_in="client.port", **options)
    return {name: sent.attributes[name] for name in WATCHED if name in sent.attributes}


@pytest.mark.parametrize(
    ("trusted", "headers", "expected"),
    [
        (None, [FORWARDED], AS_SENT),
        (None, LISTS, AS_SENT),
        ("none", LISTS, AS_SENT),
        ([], LISTS, AS_SENT),
        ("192.0.2.0/24", [FORWARDED], AS_SENT),
        ("10.0.0.7", [FORWARDED], FROM_FORWARDED),
        ("10.0.0.0/8", [FORWARDED], FROM_FORWARDED),
        ("*", [FORWARDED], FROM_FORWARDED),
        (["192.0.2.1", "10.0.0.0/8"], LISTS, FROM_LISTS),
        ("10.0.0.0/8", [FORWARDED, *LISTS], FROM_FORWARDED),
        # What a client says stands to the left of what the proxy says.
        ("10.0.0.0/8", [(b"x-forwarded-for", b"6.6.6.6, 203.0.113.9")], OF_CLIENT),
        ("10.0.0.0/8", [(b"x-forwarded-for", b"6.6.6.6, 203.0.113.9, 10.0.0.3")],
         OF_CLIENT),
        ("10.0.0.0/8", [(b"x-forwarded-for", b"6.6.6.6"), (b"x-forwarded-for", b"203.0.113.9")],
         OF_CLIENT),
        ("10.0.0.0/8", [(b"x-forwarded-proto", b"javascript")], AS_SENT),
        ("10.0.0.0/8", [(b"forwarded", b"\xff;;;=,for")], AS_SENT),
        ("10.0.0.0/8", [(b"x-forwarded-for", b"")], AS_SENT),
    ],
)  # fmt: skip
def test_who_is_believed(
    spans: InMemoryExporter, trusted: Any, headers: list[tuple[bytes, bytes]], expected: dict[str, object]
) -> None:
    assert found(spans, request(*headers), trusted_proxies=trusted) == expected


def test_the_peer_stays_the_proxy(spans: InMemoryExporter) -> None:
    sent = server_span(spans, scope=request(FORWARDED), trusted_proxies="*")
    assert (sent.attributes["network.peer.address"], sent.attributes["network.peer.port"]) == ("10.0.0.7", 4711)


def test_the_port_of_the_proxy_is_not_that_of_the_client(spans: InMemoryExporter) -> None:
    assert "client.port" not in found(spans, request((b"x-forwarded-for", b"203.0.113.9")), trusted_proxies="*")


@pytest.mark.parametrize("client", [None, ("/run/proxy.sock", None), ("", 0)])
def test_a_proxy_on_a_unix_socket(spans: InMemoryExporter, client: Any) -> None:
    scope = request(FORWARDED, client=client)
    assert found(spans, scope, trusted_proxies="unix") == FROM_FORWARDED
    assert found(spans, scope, trusted_proxies="10.0.0.0/8")["url.scheme"] == "http"


def test_variable(spans: InMemoryExporter, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RVH_TRACE_TRUSTED_PROXIES", "192.0.2.1, 10.0.0.0/8")
    assert found(spans, request(FORWARDED)) == FROM_FORWARDED
    assert found(spans, request(FORWARDED), trusted_proxies=[]) == AS_SENT


@pytest.mark.parametrize("wrong", ["proxy.example", "10.0.0.1/8", ["10.0.0.0/8", 7], 7])
def test_a_wrong_argument_is_named(wrong: Any) -> None:
    with pytest.raises(ConfigurationError, match="trusted_proxies"):
        RvhTraceMiddleware(http_scope, trusted_proxies=wrong)  # type: ignore[arg-type]
