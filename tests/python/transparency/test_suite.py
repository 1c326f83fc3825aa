"""The suite itself: what is broken on purpose is found in the first few rounds' worth of the same examples."""

import asyncio
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest

from transparency import broken, tally
from transparency.comparison import Options, compare
from transparency.drive import by_hand, on_loop
from transparency.examples import HTTP, LOOP, WEBSOCKET
from transparency.observation import Difference, Observation
from transparency.recipe import frozen
from transparency.rounds import draw_round
from transparency.script import Example

FEW_ROUNDS = 4 * tally.ROUND
NOT_BROKEN = (broken.Traced, broken.SendsThrough)
BROKEN = [
    each
    for each in vars(broken).values()
    if isinstance(each, type) and each.__module__ == broken.__name__ and each not in NOT_BROKEN
]
ON_LOOP = [
    broken.RunsInATask,
    broken.SuspendsOnce,
    broken.SwallowsCancellation,
    broken.DropsABody,
    broken.CopiesMessages,
]


@pytest.fixture(scope="module")
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    loop = asyncio.new_event_loop()
    yield loop
    loop.close()


def check_by_hand(middleware: Any, example: Example, options: Options) -> None:
    compare("suite", partial(by_hand, example), example.scope, options, middleware=middleware)


@pytest.mark.parametrize("middleware", [each for each in BROKEN if each is not broken.RunsInATask])
def test_what_is_broken_is_found_by_hand(middleware: Any) -> None:
    with pytest.raises(Difference):
        draw_round(0, HTTP | WEBSOCKET, partial(check_by_hand, middleware), max_examples=FEW_ROUNDS, shrink=False)


@pytest.mark.parametrize("middleware", NOT_BROKEN)
def test_what_is_not_broken_is_not_found(middleware: Any) -> None:
    draw_round(0, HTTP | WEBSOCKET, partial(check_by_hand, middleware), shrink=False)


@pytest.mark.parametrize("middleware", ON_LOOP)
def test_what_is_broken_is_found_on_a_loop(middleware: Any, loop: asyncio.AbstractEventLoop) -> None:
    def check(example: Example, options: Options) -> None:
        compare("suite", partial(on_loop, loop, example), example.scope, options, middleware=middleware)

    with pytest.raises(Difference):
        draw_round(0, LOOP, check, max_examples=FEW_ROUNDS, shrink=False)


def sent(*headers: Any) -> Observation:
    """An observation of one message with these headers."""
    observation = Observation()
    observation.note("sent", (None, frozen({"type": "http.response.start", "status": 200, "headers": list(headers)})))
    return observation


OWN = (b"a", b"b")
ADDED = (b"Server-Timing", b"trace")


def test_headers_that_were_asked_for_may_stand_behind_the_own_ones() -> None:
    sent(OWN).compare(sent(OWN, ADDED), frozenset({b"server-timing"}))


@pytest.mark.parametrize(
    "traced", [sent(OWN, ADDED, OWN), sent(ADDED), sent(ADDED, OWN), sent(), sent(OWN, (b"c", b"d"))]
)
def test_other_headers_are_a_difference(traced: Observation) -> None:
    with pytest.raises(Difference):
        sent(OWN).compare(traced, frozenset({b"server-timing"}))


def test_headers_that_were_asked_for_may_stand_before_those_of_middlewares_around() -> None:
    sent(OWN, OWN).compare(sent(OWN, ADDED, OWN), frozenset({b"server-timing"}), inside=True)
    for traced in (sent(OWN), sent(OWN, ADDED), sent(OWN, (b"c", b"d"), OWN), sent(ADDED, OWN, ADDED, OWN)):
        with pytest.raises(Difference):
            sent(OWN, OWN).compare(traced, frozenset({b"server-timing"}), inside=True)


def test_added_headers_are_a_difference_when_none_were_asked_for() -> None:
    with pytest.raises(Difference):
        sent(OWN).compare(sent(OWN, ADDED))
