"""The comparison: one example without the middleware, then with it in every mode and with every set of options."""

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


@dataclass(frozen=True)
class Options:
    """Keyword arguments of the middleware, and what they are meant to change.

    Attributes:
        arguments: The keyword arguments.
        added_headers: Lower-case names of the response headers that they add behind the application's own.
        server_spans: How many SERVER spans a request makes.
    """

    arguments: dict[str, Any] = field(default_factory=dict[str, Any])
    added_headers: frozenset[bytes] = frozenset()
    server_spans: int = 1


OPTIONS: tuple[Options, ...] = (Options(),)

_SAMPLED = InMemoryExporter(sampler="always_on")
_NOT_SAMPLED = InMemoryExporter(sampler="always_off")

# The drawn application with a middleware around it; `Wrap` of `RvhTraceMiddleware` with other options.
Middleware = Callable[..., Any]
Drive = Callable[[Wrap], Observation]


def expected_server_spans(scope: Any) -> range:
    """How many SERVER spans a request with this scope may make: one for HTTP, at most one for a websocket.

    A type that is a subclass of str may be taken for either or for nothing.
    """
    if type(scope) is not dict:
        return range(1)
    match scope.get("type"):
        case "http":
            return range(1, 2)
        case "websocket" | Make():
            return range(2)
        case _:
            return range(1)


def compare(
    family: str,
    drive: Drive,
    scope: Any,
    *,
    middleware: Middleware = RvhTraceMiddleware,
    inside: Callable[[int], Wrap] | None = None,
) -> None:
    """Runs one example without and with the middleware.

    Args:
        family: What the tally counts it as.
        drive: Runs the example with what it is given around its application.
        scope: The recipe of its scope.
        middleware: What is to be transparent.
        inside: For a middleware that is not around the application: what makes the whole of both, given the index
            into `OPTIONS`.

    Raises:
        Difference: Somebody could tell.
    """
    plain = drive(lambda application: application)
    tally.count(family)
    for index, options in enumerate(OPTIONS):

        def made(application: Any, arguments: dict[str, Any] = options.arguments) -> Any:
            return middleware(application, **arguments)

        wrap = inside(index) if inside else made
        try:
            for installed in (nullcontext(), _NOT_SAMPLED, _SAMPLED):
                with installed:
                    traced = drive(wrap)
                tally.count_comparison(family)
                plain.compare(traced, options.added_headers)
            _check_spans(scope, options)
        finally:
            _SAMPLED.clear()
            _NOT_SAMPLED.clear()


def _check_spans(scope: Any, options: Options) -> None:
    if len(_NOT_SAMPLED):
        raise Difference(f"what is not sampled was exported: {list(_NOT_SAMPLED)}")
    servers = [span for span in _SAMPLED if span.kind == "server"]
    allowed = expected_server_spans(scope)
    if not allowed.start * options.server_spans <= len(servers) < allowed.stop:
        raise Difference(f"{len(servers)} SERVER spans for {scope!r}")
    if any(span.end_unix_ns < span.start_unix_ns or not span.name for span in servers):
        raise Difference(f"a span that makes no sense: {servers}")
