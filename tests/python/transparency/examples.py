"""Examples with a script, by kind of scope and by who drives them."""

from itertools import product
from typing import Any

from hypothesis import strategies as st

from transparency.failures import FAILURES, INTERRUPTIONS, LOOP_FAILURES, SERVER_FAILURES
from transparency.known import KNOWN, LATE_SEND, RETURN_VALUE, ROUTE_OF_ODD_SCOPE, SEND_BY_KEYWORD
from transparency.messages import (
    RECEIVED,
    RECEIVED_BY_WEBSOCKET,
    RESPONSES,
    SENT,
    SENT_BY_WEBSOCKET,
    WEBSOCKET_ANSWERS,
)
from transparency.scopes import HTTP_SCOPES, OTHER_SCOPES, WEBSOCKET_SCOPES
from transparency.script import CLOSE, Example
from transparency.values import ODD

__all__ = ("HTTP", "LOOP", "OTHER", "WEBSOCKET")

_RESULTS = st.none() if RETURN_VALUE in KNOWN else ODD
_DISPATCHED = ["endpoint", "route", "router", "root_path"] * (ROUTE_OF_ODD_SCOPE not in KNOWN)
_KEYS = st.sampled_from(["path", "headers", "state", "method", "client", "path_params", "x", *_DISPATCHED])


@st.composite
def _weighted(draw: st.DrawFn, branches: list[tuple[int, st.SearchStrategy[Any]]]) -> Any:
    """One of the strategies, as often as its weight says; `one_of` takes equal ones for one."""
    number = draw(st.integers(1, sum(weight for weight, _ in branches)))
    for weight, strategy in branches:
        number -= weight
        if number <= 0:
            return draw(strategy)
    raise AssertionError("not reached")


def _actions(
    sent: st.SearchStrategy[Any], failures: st.SearchStrategy[Any]
) -> list[tuple[int, st.SearchStrategy[Any]]]:
    by_keyword = ["send by keyword"] * (SEND_BY_KEYWORD not in KNOWN)
    sending = st.sampled_from(["send", "send", "send", "suppress", "call send", *by_keyword])
    return [
        (12, st.tuples(sending, sent)),
        (3, st.just(("receive",))),
        (2, st.just(("suspend",))),
        (4, st.tuples(st.just("raise"), failures)),
        (1, st.tuples(st.just("raise while handling"), failures, failures)),
        (1, st.tuples(st.just("return"), _RESULTS)),
        (1, st.tuples(st.just("finally"), sent)),
        (1, st.tuples(st.just("await later"), sent, sent)),
        (1, st.tuples(st.just("change"), sent, st.sampled_from(["type", "body", "status"]), ODD)),
        (1, st.tuples(st.just("put"), _KEYS, ODD)),
        (1, st.just(("clear",))),
        (1, st.tuples(st.just("leave"), st.integers(0, 3))),
    ]


def _loop_actions(sent: st.SearchStrategy[Any]) -> list[tuple[int, st.SearchStrategy[Any]]]:
    several = st.lists(sent, min_size=1, max_size=3)
    # A task that nobody waits for may send after the application has returned.
    kinds = ["gather", "group", "time out"] + ["spawn"] * (LATE_SEND not in KNOWN)
    concurrent = st.tuples(st.sampled_from(kinds), several)
    return [*_actions(sent, LOOP_FAILURES), (12, concurrent), (3, st.just(("join",)))]


def _legal_first(received: list[Any], response: list[Any], others: list[Any], at: int) -> list[Any]:
    """A script that reads the request and answers, with other actions in between."""
    script: list[Any] = [("receive",)] * len(received) + [("send", message) for message in response]
    at = min(at, len(script))
    return script[:at] + others + script[at:]


@st.composite
def _examples(
    draw: st.DrawFn,
    scopes: st.SearchStrategy[Any],
    received: st.SearchStrategy[list[Any]],
    actions: list[tuple[int, st.SearchStrategy[Any]]],
    answers: st.SearchStrategy[list[Any]],
    failures: st.SearchStrategy[Any],
    surroundings: st.SearchStrategy[tuple[Any, ...]],
    interruptions: st.SearchStrategy[list[Any]],
    late: st.SearchStrategy[Any],
) -> Example:
    messages, action = draw(received), _weighted(actions)
    if draw(st.booleans()):
        script = _legal_first(messages, draw(answers), draw(st.lists(action, max_size=2)), draw(st.integers(0, 6)))
    else:
        script = draw(st.lists(action, min_size=1, max_size=8))
    application, send, (suspensions, fails_at), inside_span = draw(surroundings)
    return Example(
        scope=draw(scopes),
        received=messages,
        script=script,
        application=application,
        send=send,
        suspensions=suspensions,
        fails_at=fails_at,
        failure=draw(failures) if fails_at is not None or application == "raising" else None,
        interruptions=tuple(draw(interruptions)),
        late=() if LATE_SEND in KNOWN else tuple(draw(st.lists(late, max_size=2))),
        inside_span=inside_span,
    )


def _surroundings(sends: list[str]) -> st.SearchStrategy[tuple[Any, ...]]:
    """Everything about application and server that does not depend on the script, as one choice."""
    applications = ["function"] * 14 + ["instance", "instance", "awaitable", "awaitable", "raising", "unawaitable"]
    servers = [(0, None)] * 4 + [(1, None), (2, None), (0, 0), (0, 1), (0, 2), (0, 3), (1, 1)]
    choices = list(product(applications, sends, servers, [False] * 7 + [True]))
    return st.integers(0, len(choices) - 1).map(choices.__getitem__)


_BY_HAND = _surroundings(["coroutine"] * 4 + ["valued", "slowly", "awaitable", "at_once", "unawaitable"])
_ON_LOOP = _surroundings(["coroutine"] * 3 + ["valued", "slowly", "awaitable", "future", "future", "unawaitable"])
_THROWN = st.lists(st.tuples(st.integers(1, 4), INTERRUPTIONS | st.just(CLOSE)), max_size=1)
_CANCELLED = st.lists(st.tuples(st.integers(1, 4), st.just("cancel")), max_size=1)


def _by_hand(
    scopes: st.SearchStrategy[Any],
    received: st.SearchStrategy[list[Any]],
    sent: st.SearchStrategy[Any],
    answers: st.SearchStrategy[list[Any]],
) -> st.SearchStrategy[Example]:
    return _examples(scopes, received, _actions(sent, FAILURES), answers, SERVER_FAILURES, _BY_HAND, _THROWN, sent)


HTTP: st.SearchStrategy[Example] = _by_hand(HTTP_SCOPES, RECEIVED, SENT, RESPONSES)
WEBSOCKET: st.SearchStrategy[Example] = _by_hand(
    WEBSOCKET_SCOPES, RECEIVED_BY_WEBSOCKET, SENT_BY_WEBSOCKET, WEBSOCKET_ANSWERS
)
OTHER: st.SearchStrategy[Example] = _by_hand(OTHER_SCOPES, RECEIVED, SENT, RESPONSES)
LOOP: st.SearchStrategy[Example] = st.one_of(
    *[
        _examples(scopes, received, _loop_actions(sent), answers, SERVER_FAILURES, _ON_LOOP, _CANCELLED, sent)
        for scopes, received, sent, answers in (
            (HTTP_SCOPES, RECEIVED, SENT, RESPONSES),
            (HTTP_SCOPES, RECEIVED, SENT, RESPONSES),
            (WEBSOCKET_SCOPES, RECEIVED_BY_WEBSOCKET, SENT_BY_WEBSOCKET, WEBSOCKET_ANSWERS),
        )
    ]
)
