"""Applications that play a script: nobody can tell whether the middleware is there."""

import asyncio
from collections.abc import Iterator
from functools import partial

import pytest

from transparency.comparison import Options, compare
from transparency.drive import by_hand, on_loop
from transparency.examples import HTTP, LOOP, OTHER, WEBSOCKET
from transparency.rounds import draw_round
from transparency.script import Example

pytestmark = pytest.mark.usefixtures("quiet")


@pytest.fixture(scope="module")
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    loop = asyncio.new_event_loop()
    yield loop
    loop.close()


def check_by_hand(family: str, example: Example, options: Options) -> None:
    compare(family, partial(by_hand, example), example.scope, options)


@pytest.mark.family("http")
def test_http(round_number: int) -> None:
    draw_round(round_number, HTTP, partial(check_by_hand, "http"))


@pytest.mark.family("websocket")
def test_websocket(round_number: int) -> None:
    draw_round(round_number, WEBSOCKET, partial(check_by_hand, "websocket"))


@pytest.mark.family("other")
def test_other_scopes(round_number: int) -> None:
    draw_round(round_number, OTHER, partial(check_by_hand, "other"))


@pytest.mark.family("loop")
def test_tasks_and_cancellation(round_number: int, loop: asyncio.AbstractEventLoop) -> None:
    complaints: list[object] = []
    loop.set_exception_handler(lambda _, context: complaints.append(context))

    def check(example: Example, options: Options) -> None:
        compare("loop", partial(on_loop, loop, example), example.scope, options)

    draw_round(round_number, LOOP, check)
    assert complaints == []
