"""Messages in both directions: legal sequences, the same disturbed, and anything at all."""

import operator
from typing import Any

from hypothesis import strategies as st

from transparency.recipe import Make
from transparency.values import ANYTHING, ODD, Octets, Table, Text, View, Whole

__all__ = ("RECEIVED", "RECEIVED_BY_WEBSOCKET", "RESPONSES", "SENT", "SENT_BY_WEBSOCKET", "WEBSOCKET_ANSWERS")

_STATUSES = st.one_of(
    st.sampled_from([200, 200, 204, 301, 304, 404, 499, 500, 503, 101, 103]),
    st.sampled_from([0, -1, 999, 10**30, True, "200", 200.0, None, Make(Whole, (201,)), Make(Whole, (502,))]),
    ODD,
)
_HEADERS = st.sampled_from(
    [
        [],
        [(b"content-type", b"text/plain")],
        [[b"content-length", b"3"], [b"server-timing", b"db;dur=53"]],
        ((b"set-cookie", b"a=1"), (b"set-cookie", b"b=2")),
        [("content-type", "text/plain")],
        [(b"access-control-expose-headers", b"x-id"), (b"traceresponse", b"")],
        None,
        [None, ()],
        Make(iter, ([(b"a", b"b")],)),
    ]
)
_BODIES = st.one_of(
    st.sampled_from(
        [
            b"ok",
            b"",
            Make(operator.mul, (b"x", 70_000)),
            Make(bytearray, (b"ok",)),
            Make(memoryview, (b"ok",)),
            Make(Octets, (b"ok",)),
            "text",
            None,
            [b"a"],
        ]
    ),
    st.binary(max_size=8),
)
_FLAGS = st.sampled_from([True, False, True, False, None, 1, 0, "", "false", [], Make(Whole, (1,))])


def _message(kind: str, required: dict[str, Any] | None = None, **optional: Any) -> st.SearchStrategy[Any]:
    return st.fixed_dictionaries({"type": st.just(kind), **(required or {})}, optional=optional)


_START = _message("http.response.start", {"status": _STATUSES}, headers=_HEADERS, trailers=_FLAGS)
_BODY = _message("http.response.body", body=_BODIES, more_body=_FLAGS)
_TRAILERS = _message("http.response.trailers", headers=_HEADERS, more_trailers=_FLAGS)
_HTTP = st.one_of(
    _START,
    _BODY,
    _BODY,
    _TRAILERS,
    _message("http.response.pathsend", path=st.sampled_from(["/tmp/file", b"/tmp/file", None])),
    _message("http.response.zerocopysend", file=st.just(3), offset=ODD, count=ODD, more_body=_FLAGS),
    _message("http.response.push", path=st.just("/style.css"), headers=_HEADERS),
    _message("http.response.debug", info=ANYTHING),
    _message("http.response.early_hint", links=st.just([b"</style.css>; rel=preload"])),
)
_WEBSOCKET = st.one_of(
    _message("websocket.accept", subprotocol=st.sampled_from(["chat", None, 1]), headers=_HEADERS),
    _message("websocket.send", bytes=_BODIES, text=st.sampled_from(["hi", None, "\ud800", b"hi"])),
    _message(
        "websocket.close",
        code=st.sampled_from([1000, 1011, None, "1000", 10**30]),
        reason=st.sampled_from(["", None, "bye"]),
    ),
    _message("websocket.http.response.start", {"status": _STATUSES}, headers=_HEADERS),
    _message("websocket.http.response.body", body=_BODIES, more_body=_FLAGS),
)
_TYPES = st.sampled_from(
    [
        "http.response.start",
        "http.response.body",
        "http.response.trailers",
        "websocket.accept",
        "lifespan.startup.complete",
    ]
)
_WRONG = st.one_of(
    st.builds(
        lambda kind, rest: {**rest, "type": kind},
        _TYPES | ODD,
        st.fixed_dictionaries({}, optional={"status": ODD, "more_body": ODD, "body": ODD, "trailers": ODD}),
    ),
    st.builds(lambda message, kind: {**message, "type": Make(Text, (kind,))}, _HTTP, _TYPES),
    st.builds(lambda message, kind: Make(kind, (message,)), _HTTP, st.sampled_from([Table, View])),
    st.just({}),
    ANYTHING,
)

SENT: st.SearchStrategy[Any] = st.one_of(_HTTP, _HTTP, _HTTP, _WRONG)
SENT_BY_WEBSOCKET: st.SearchStrategy[Any] = st.one_of(_WEBSOCKET, _WEBSOCKET, _WEBSOCKET, _WRONG)


def _response(status: int, bodies: list[Any], trailers: int | None, last_flag: bool) -> list[Any]:
    start: dict[str, Any] = {"type": "http.response.start", "status": status, "headers": [(b"a", b"b")]}
    if trailers is not None:
        start["trailers"] = True
    chunks: list[Any] = [{"type": "http.response.body", "body": body, "more_body": True} for body in bodies]
    chunks.append(
        {"type": "http.response.body", "more_body": False}
        if last_flag
        else {"type": "http.response.body", "body": b"end"}
    )
    ends = [
        {"type": "http.response.trailers", "headers": [(b"t", b"1")], "more_trailers": more > 0}
        for more in range(trailers or 0, -1, -1)
    ]
    return [start, *chunks, *(ends if trailers is not None else ())]


RESPONSES: st.SearchStrategy[list[Any]] = st.builds(
    _response,
    st.sampled_from([200, 200, 404, 500]),
    st.lists(st.sampled_from([b"", b"chunk", Make(operator.mul, (b"x", 70_000))]), max_size=3),
    st.sampled_from([None, None, 0, 1]),
    st.booleans(),
)
WEBSOCKET_ANSWERS: st.SearchStrategy[list[Any]] = st.sampled_from(
    [
        [
            {"type": "websocket.accept"},
            {"type": "websocket.send", "text": "hi"},
            {"type": "websocket.close", "code": 1000},
        ],
        [{"type": "websocket.accept", "subprotocol": "chat"}, {"type": "websocket.send", "bytes": b"hi"}],
        [{"type": "websocket.close"}],
        [
            {"type": "websocket.http.response.start", "status": 401, "headers": []},
            {"type": "websocket.http.response.body", "body": b"no"},
        ],
        [{"type": "websocket.accept"}],
    ]
)

_REQUEST = _message("http.request", body=_BODIES, more_body=_FLAGS)
RECEIVED: st.SearchStrategy[list[Any]] = st.lists(
    st.one_of(_REQUEST, _REQUEST, st.just({"type": "http.disconnect"}), ANYTHING), max_size=3
)
RECEIVED_BY_WEBSOCKET: st.SearchStrategy[list[Any]] = st.builds(
    lambda messages: [{"type": "websocket.connect"}, *messages],
    st.lists(
        st.one_of(
            _message("websocket.receive", bytes=_BODIES, text=st.sampled_from(["hi", None, "\ud800"])),
            _message("websocket.disconnect", code=st.sampled_from([1000, 1006, None, "1000"]), reason=st.just("")),
            ANYTHING,
        ),
        max_size=3,
    ),
)
