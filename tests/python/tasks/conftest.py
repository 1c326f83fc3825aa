"""What the tests of task spans share: a loop of each kind with the factory on it."""

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import pytest
import uvloop

Start = Callable[[Coroutine[Any, Any, Any]], Any]


@pytest.fixture(params=[asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def start(request: pytest.FixtureRequest) -> Iterator[Start]:
    """Runs a coroutine on a loop that must have nothing to complain about."""
    complaints: list[dict[str, Any]] = []

    def start_checked(main: Coroutine[Any, Any, Any]) -> Any:
        async def checked() -> Any:
            asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
            return await main

        with asyncio.Runner(loop_factory=request.param) as runner:
            return runner.run(checked())

    yield start_checked
    assert complaints == []
