"""The comparison: one example without the middleware, then with it in every mode and with one set of options."""

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any

from rvh_trace import RvhTraceMiddleware
from rvh_trace.testing import InMemoryExporter
from transparency import tally
from transparency.drive import Wrap
from transparency.observation import Difference, Observation
from transparency.recipe import Make

__all__ = ("OPTIONS", "Options", "compare", "expected_server_spans")


@dataclass(frozen=True, eq=False)
class Options:
    """Keyword arguments of the middleware, and what they are meant to change.

    Attributes:
        name: What the tally calls them.
        arguments: The keyword arguments.
        added_headers: Lower-case names of the response headers that they add behind the application's own.
        makes_spans: Whether a request makes a SERVER span.
    """

    name: str
    arguments: dict[str, Any] = field(default_factory=dict[str, Any])
    added_headers: frozenset[bytes] = frozenset()
    makes_spans: bool = True

    def __str__(self) -> str:
        return self.name


def _hook(*arguments: Any) -> None:
    """Sees everything and changes nothing."""


# Everything that is switched off by default and may not show.
_UNSEEN: dict[str, Any] = {
    "capture_request_headers": ".*",
    "capture_response_headers": ".*",
    "error_outcomes": ["4xx", "5xx", "exception", "disconnected", "cancelled"],
    "opt_in": [
        "client.port",
        "user_agent.synthetic.type",
        "http.request.body.size",
        "http.response.body.size",
        "http.server.active_requests",
        "http.server.request.body.size",
        "http.server.response.body.size",
        "server.address",
    ],
    "phases": True,
    "public_endpoint": lambda scope: True,
    "request_hook": _hook,
    "response_hook": _hook,
    "span_name": lambda scope: "named",
    "task_spans": True,
    "trusted_proxies": "*",
    "websocket_messages": True,
}

OPTIONS: tuple[Options, ...] = (
    Options("defaults"),
    Options("everything", _UNSEEN),
    Options(
        "response headers",
        {"trace_response_headers": ["server-timing", "traceresponse"]},
        added_headers=frozenset({b"server-timing", b"traceresponse", b"access-control-expose-headers"}),
    ),
    Options("excluded", {"excluded_urls": "://"}, makes_spans=False),
)

_SAMPLED = InMemoryExporter(sampler="always_on")
_NOT_SAMPLED = InMemoryExporter(sampler="always_off")

# The drawn application with a middleware around it; `Wrap` of `RvhTraceMiddleware` with other options.
Middleware = Callable[..., Any]
Drive = Callable[[Wrap], Observation]


def expected_server_spans(scope: Any) -> range:
    """How many SERVER spans a request with this scope may make: one for HTTP, one for a websocket.

    A type that is a subclass of str may be taken for either or for nothing.
    """
    if type(scope) is not dict:
        return range(1)
    match scope.get("type"):
        case "http" | "websocket":
            return range(1, 2)
        case Make():
            return range(2)
        case _:
            return range(1)


def compare(
    family: str,
    drive: Drive,
    scope: Any,
    options: Options,
    *,
    middleware: Middleware = RvhTraceMiddleware,
    inside: Callable[[Options], Wrap] | None = None,
) -> None:
    """Runs one example without and with the middleware.

    Args:
        family: What the tally counts it as.
        drive: Runs the example with what it is given around its application.
        scope: The recipe of its scope.
        options: With which the middleware is made.
        middleware: What is to be transparent.
        inside: For a middleware that is not around the application: what makes the whole of both.

    Raises:
        Difference: Somebody could tell.
    """

    def made(application: Any) -> Any:
        return middleware(application, **options.arguments)

    plain = drive(lambda application: application)
    tally.count(family, options.name)
    wrap = inside(options) if inside else made
    try:
        for installed in (nullcontext(), _NOT_SAMPLED, _SAMPLED):
            with installed:
                traced = drive(wrap)
            tally.count_comparison(family)
            plain.compare(traced, options.added_headers, inside=inside is not None)
        _check_spans(scope, options)
    finally:
        _SAMPLED.clear()
        _NOT_SAMPLED.clear()


def _check_spans(scope: Any, options: Options) -> None:
    if len(_NOT_SAMPLED):
        raise Difference(f"what is not sampled was exported: {list(_NOT_SAMPLED)}")
    servers = [span for span in _SAMPLED if span.kind == "server"]
    allowed = expected_server_spans(scope) if options.makes_spans else range(1)
    if len(servers) not in allowed:
        raise Difference(f"{len(servers)} SERVER spans for {scope!r}")
    if any(span.end_unix_ns < span.start_unix_ns or not span.name for span in servers):
        raise Difference(f"a span that makes no sense: {servers}")
