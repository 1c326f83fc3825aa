"""What a request to an application came to."""

from collections.abc import Callable
from typing import NamedTuple

from rvh_trace.testing import FinishedSpan


class Answered(NamedTuple):
    """The only span of the request, and the status that was sent."""

    span: FinishedSpan
    status: int

    @property
    def route(self) -> object:
        """`http.route`; the span's name must go with it."""
        route = self.span.attributes.get("http.route")
        method = self.span.attributes["http.request.method"]
        assert self.span.name == (method if route is None else f"{method} {route}")
        return route


Traced = Callable[..., Answered]
