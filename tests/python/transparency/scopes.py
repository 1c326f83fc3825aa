"""Scopes: what servers give, what they must not give, and what nobody expects."""

import operator
from collections import deque
from itertools import product
from typing import Any

from hypothesis import strategies as st

from transparency.known import KNOWN, ONE_SHOT_HEADERS, ROUTE_OF_ODD_SCOPE, UNREADABLE_HEADERS
from transparency.recipe import Make
from transparency.values import ANYTHING, HOSTILE, ODD, Octets, Pairs, Table, Text, View

__all__ = ("HEADERS", "HTTP_SCOPES", "OTHER_SCOPES", "PATHS", "QUERIES", "WEBSOCKET_SCOPES")

_TRACEPARENT = b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def _mutated(index: int, replacement: bytes) -> bytes:
    return _TRACEPARENT[:index] + replacement + _TRACEPARENT[index + 1 :]


_TRACEPARENTS = st.one_of(
    st.sampled_from(
        [
            _TRACEPARENT,
            _TRACEPARENT[:-1] + b"0",
            _TRACEPARENT[:-2] + b"ff",
            _TRACEPARENT + b"-more",
            b"cc" + _TRACEPARENT[2:] + b"-what",
            b"ff" + _TRACEPARENT[2:],
            b"00-" + b"0" * 32 + _TRACEPARENT[35:],
            _TRACEPARENT.upper(),
            b"",
            b"00",
        ]
    ),
    st.builds(_mutated, st.integers(0, 54), st.binary(max_size=1)),
)
_TRACESTATES = st.sampled_from(
    [
        b"a=1,b=2",
        b"a=1,a=2",
        b"",
        b",",
        b"=",
        b"a@b=1",
        b"\xff=1",
        b"a=" + b"v" * 257,
        b",".join([b"k=v"] * 40),
        b" a=1 ,",
    ]
)
_BAGGAGES = st.sampled_from(
    [
        b"tenant=acme",
        b"tenant=acme;p=1,user=%C3%BC",
        b"%",
        b"a=%FF",
        b"=",
        b"\xff=\xff",
        Make(operator.mul, (b"key=v,", 1500)),
        Make(operator.mul, (b"k=vvvvvv", 1200)),
        b"a=1," * 70,
    ]
)
_NAMED = {
    b"host": [
        b"shop.example",
        b"shop.example:8080",
        b"[2001:db8::1]:443",
        b"[::1",
        b"a:b:c",
        b"",
        b":",
        b"\xff\xfe:99999999",
    ],
    b"user-agent": [b"curl/8", b"", b"\xe9t\xe9", b"\xff" * 30],
    b"forwarded": [
        b'for=192.0.2.60;proto=https;host="shop.example"',
        b'for="[2001:db8::1]:4711"',
        b"for=",
        b'"',
        b";;,,=",
    ],
    b"x-forwarded-for": [b"203.0.113.9, 10.0.0.1", b"unknown", b"", b"2001:db8::1", b"\xff"],
    b"x-forwarded-proto": [b"https", b"https,http", b"", b"\xff"],
    b"x-forwarded-host": [b"public.example:443", b"", b"\x00"],
    b"content-length": [b"3", b"-1", b"", b"9" * 40, b"\xff"],
    b"content-type": [b"application/json", b"text/plain; charset=x"],
    b"origin": [b"https://other.example", b"null"],
    b"access-control-request-method": [b"POST", b""],
    b"authorization": [b"Bearer secret", b"\xff"],
    b"server-timing": [b"db;dur=53"],
    b"": [b"", b"x"],
}
_NAMED_PAIRS = st.sampled_from([(name, value) for name, values in _NAMED.items() for value in values])
_PAIRS = st.one_of(
    _NAMED_PAIRS,
    st.tuples(st.just(b"traceparent"), _TRACEPARENTS),
    st.tuples(st.just(b"tracestate"), _TRACESTATES),
    st.tuples(st.just(b"baggage"), _BAGGAGES),
    st.tuples(st.binary(max_size=12), st.binary(max_size=12)),
)
_ODD_PAIRS = st.one_of(
    _NAMED_PAIRS.map(list),
    _NAMED_PAIRS.map(lambda pair: (*pair, b"third")),
    _NAMED_PAIRS.map(lambda pair: (Make(Octets, (pair[0],)), Make(Octets, (pair[1],)))),
    _NAMED_PAIRS.map(lambda pair: (pair[0].upper(), pair[1])),
    _NAMED_PAIRS.map(lambda pair: tuple(part.decode("latin-1") for part in pair)),
    _NAMED_PAIRS.map(lambda pair: (Make(bytearray, (pair[0],)), Make(memoryview, (pair[1],)))),
    _NAMED_PAIRS.map(lambda pair: pair[:1]),
    st.tuples(st.sampled_from([b"host", b"traceparent", b"baggage", b"user-agent"]), ODD),
    st.tuples(ODD, st.just(b"value")),
    ODD,
)


def _generated(pairs: list[Any]) -> Any:
    yield from pairs


# Containers of pairs as ASGI allows them: "an iterable of [name, value]".
_CONTAINERS: list[Any] = [list, list, list, list, tuple, deque, Pairs]
if ONE_SHOT_HEADERS not in KNOWN:
    _CONTAINERS += [iter, _generated, reversed, lambda pairs: map(tuple, pairs)]


def _contained(container: Any, pairs: list[Any]) -> Any:
    return pairs if container is list else Make(container, (pairs,))


_LEGAL_HEADERS = st.lists(_PAIRS, max_size=5)
_ODD_HEADERS = st.builds(_contained, st.sampled_from(_CONTAINERS), st.lists(_PAIRS | _ODD_PAIRS, max_size=5))
# One duplicate makes a traceparent invalid and a tracestate longer.
_REPEATED_HEADERS = st.builds(lambda pairs, times: pairs * times, _LEGAL_HEADERS, st.integers(2, 3))
HEADERS = st.one_of(_LEGAL_HEADERS, _LEGAL_HEADERS, _ODD_HEADERS, _REPEATED_HEADERS)

PATHS = st.sampled_from(
    ["/", "/items/7", "/items/ü", "", "*", "no-slash", "/%2e%2e/", "/\ud800", "/a//b", Make(operator.mul, ("/x", 1500))]
)
QUERIES = st.sampled_from(
    [b"", b"a=1&b=2", b"sig=secret&x=1", b"AWSAccessKeyId=1", b"\xff\xfe=%", b"&&==", Make(operator.mul, (b"q=", 1500))]
)
_METHODS = st.sampled_from(["GET", "GET", "POST", "HEAD", "OPTIONS", "QUERY", "get", "BREW", "", "G\ud800T", "é"])
_CLIENTS: list[Any] = [
    ("192.0.2.1", 4711),
    None,
    ["192.0.2.1", 4711],
    ("::1", 0),
    ("", None),
    (None, 1),
    ("192.0.2.1", "4711"),
    ("a", 2**70),
]
_SERVERS: list[Any] = [
    ("127.0.0.1", 8000),
    None,
    ("/run/app.sock", None),
    ["::1", 443],
    ("host", "80"),
    ("host", -1),
]
_EXTENSIONS: list[Any] = [
    {},
    {"http.response.trailers": {}, "http.response.pathsend": {}},
    {"http.response.debug": {}, "tls": {"cipher_suite": 1}},
]


def _surroundings(schemes: list[str], **constant: Any) -> st.SearchStrategy[dict[str, Any]]:
    """Everything in a scope that does not depend on the request, as one choice: a choice costs more than a run."""
    choices = list(
        product(["1.1", "1.0", "2", "3"], schemes, ["", "", "/api", "/api/"], _CLIENTS, _SERVERS, _EXTENSIONS)
    )
    keys = ("http_version", "scheme", "root_path", "client", "server", "extensions")

    def chosen(number: int) -> dict[str, Any]:
        return {**constant, **dict(zip(keys, choices[number], strict=True))}

    return st.integers(0, len(choices) - 1).map(chosen)


_ALWAYS: dict[str, Any] = {"asgi": {"version": "3.0", "spec_version": "2.4"}, "raw_path": b"/items/7", "state": {}}
_REQUEST = {"path": PATHS, "query_string": QUERIES, "headers": HEADERS}
_HTTP = st.builds(
    operator.or_,
    _surroundings(["http", "https"], type="http", **_ALWAYS),
    st.fixed_dictionaries({"method": _METHODS, **_REQUEST}),
)
_WEBSOCKET = st.builds(
    operator.or_,
    _surroundings(["ws", "wss"], type="websocket", subprotocols=["chat"], **_ALWAYS),
    st.fixed_dictionaries(_REQUEST),
)
_KEYS = ["type", "asgi", "http_version", "method", "scheme", "path", "raw_path", "query_string", "root_path", "headers"]
_KEYS += ["client", "server", "state", "extensions", "subprotocols"]

# What frameworks leave in the scope, here before any framework has seen it.
_DISPATCHED = ["endpoint", "route", "router", "path_params", "app_root_path", "fastapi", "app"]
_ABSENT = object()


class _Route:
    path = "/items/{item}"
    path_format = "/items/{item}"

    def endpoint(self) -> None: ...


def _disturbed(usual: dict[Any, Any], disturbances: list[tuple[Any, Any]]) -> Any:
    scope = dict(usual)
    for key, value in disturbances:
        if value is _ABSENT:
            scope.pop(key, None)
        else:
            scope[key] = value
    return scope if _readable(scope) else usual


def _readable(scope: dict[Any, Any]) -> bool:
    """Whether nothing known to differ is in it."""
    headers = scope.get("headers", [])
    if ONE_SHOT_HEADERS in KNOWN and isinstance(headers, Make) and headers.make is iter:
        return False
    if UNREADABLE_HEADERS in KNOWN and not _iterable(headers):
        return False
    return ROUTE_OF_ODD_SCOPE not in KNOWN or (
        scope.keys().isdisjoint(_DISPATCHED) and isinstance(scope.get("root_path", ""), str)
    )


def _iterable(recipe: Any) -> bool:
    if isinstance(recipe, Make):
        return recipe not in HOSTILE and (not isinstance(recipe.make, type) or hasattr(recipe.make, "__iter__"))
    return hasattr(type(recipe), "__iter__")


def _scopes(plain: st.SearchStrategy[dict[str, Any]]) -> st.SearchStrategy[Any]:
    keys = st.sampled_from([*_KEYS, *_DISPATCHED])
    values = st.one_of(st.just(_ABSENT), ODD, st.sampled_from([Make(_Route), {"item": 7}, "/api"]), ANYTHING)
    disturbances = st.lists(st.tuples(keys, values), max_size=4)
    return st.one_of(plain, st.builds(_disturbed, plain, disturbances))


HTTP_SCOPES: st.SearchStrategy[Any] = _scopes(_HTTP)
WEBSOCKET_SCOPES: st.SearchStrategy[Any] = _scopes(_WEBSOCKET)

_KINDS = st.sampled_from(
    ["lifespan", "http.tunnel", "HTTP", "", None, 1, b"http", Make(Text, ("http",)), Make(Text, ("x",))]
)
OTHER_SCOPES: st.SearchStrategy[Any] = st.one_of(
    st.fixed_dictionaries({"type": st.just("lifespan"), "asgi": st.just({"version": "3.0"}), "state": st.just({})}),
    st.builds(lambda scope, kind: {**scope, "type": kind}, HTTP_SCOPES, _KINDS),
    st.builds(lambda scope, kind: Make(kind, (scope,)), HTTP_SCOPES, st.sampled_from([View, Table])),
    st.dictionaries(st.text(max_size=4) | st.integers(), ANYTHING, max_size=3),
    ODD,
)
