"""The route of a Quart application, which leaves nothing of its dispatch in the scope.

Its `request_started` and `websocket_started` signals come after the match and have the request at hand. The middleware
connects to them when it is made and Quart is imported; nothing to do for the user, no cost for others.
"""

from __future__ import annotations

import sys
from typing import Any

from rvh_trace._routes import ROUTE_KEY


def connect() -> None:
    """Has every Quart application of this process say its route in the scope. Connecting again changes nothing."""
    signals = sys.modules["quart.signals"]
    signals.request_started.connect(_request_started, weak=False)
    signals.websocket_started.connect(_websocket_started, weak=False)


# Coroutines: a signal sends to a plain function through a thread.
async def _request_started(application: object, **_: object) -> None:
    quart = sys.modules["quart"]
    if quart.has_request_context():
        _say_route(quart.request)


async def _websocket_started(application: object, **_: object) -> None:
    quart = sys.modules["quart"]
    if quart.has_websocket_context():
        _say_route(quart.websocket)


def _say_route(request: Any) -> None:
    rule = getattr(getattr(request, "url_rule", None), "rule", None)
    scope = getattr(request, "scope", None)
    if isinstance(rule, str) and isinstance(scope, dict):
        scope[ROUTE_KEY] = rule
