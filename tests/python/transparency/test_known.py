"""What has once made a difference, see `known`: with every set of options, none does now that is not in `KNOWN`."""

from functools import partial
from typing import Any

import pytest

from transparency.comparison import OPTIONS, Options, compare
from transparency.drive import by_hand
from transparency.known import (
    FASTAPI_OF_ODD_TYPE,
    KNOWN,
    LATE_SEND,
    ONE_SHOT_HEADERS,
    RETURN_VALUE,
    ROUTE_OF_ODD_SCOPE,
    SEND_BY_KEYWORD,
    UNREADABLE_HEADERS,
)
from transparency.recipe import Make
from transparency.script import Example

SCOPE: dict[str, Any] = {"type": "http", "method": "GET", "path": "/", "headers": [(b"host", b"shop.example")]}
START: dict[str, Any] = {"type": "http.response.start", "status": 200, "headers": []}
BODY: dict[str, Any] = {"type": "http.response.body", "body": b"ok"}
ANSWER: list[Any] = [("send", START), ("send", BODY)]


class Route:
    """What a framework leaves in the scope."""

    path_format = "/items/{item}"


class Router:
    """The outermost router."""

    routes = ()


EXAMPLES: dict[str, Example] = {
    ONE_SHOT_HEADERS: Example({**SCOPE, "headers": Make(iter, ([(b"host", b"shop.example")],))}, [], ANSWER),
    UNREADABLE_HEADERS: Example({**SCOPE, "headers": None}, [], ANSWER),
    LATE_SEND: Example(SCOPE, [], [("send", START)], late=(BODY,)),
    RETURN_VALUE: Example(SCOPE, [], [*ANSWER, ("return", 7)]),
    SEND_BY_KEYWORD: Example(SCOPE, [], [("send by keyword", START)]),
    FASTAPI_OF_ODD_TYPE: Example({**SCOPE, "endpoint": 7, "router": Make(Router), "fastapi": True}, [], ANSWER),
    ROUTE_OF_ODD_SCOPE: Example({**SCOPE, "endpoint": 7, "route": Make(Route), "app_root_path": b"/api"}, [], ANSWER),
}


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.xfail(strict=True)) if name in KNOWN else name for name in EXAMPLES]
)
@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_it_makes_no_difference(name: str, options: Options) -> None:
    compare("known", partial(by_hand, EXAMPLES[name]), EXAMPLES[name].scope, options)


def test_every_known_difference_is_shown() -> None:
    assert EXAMPLES.keys() >= KNOWN
