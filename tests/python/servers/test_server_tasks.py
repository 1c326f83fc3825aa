"""What the server itself does on behalf of a connection is in nobody's trace.

The server's `send` runs inside the application's task. A task that it creates there (uvicorn: the next pipelined
request; hypercorn: the wait for room in the socket, the idle timeout of the connection) inherits the application's
context, and with a task factory becomes a child of the span that is current: of another request, or for longer than
its own.

The same befalls the generator of a response that nobody waits for any more: asyncio closes it, once it is collected, in
a task with the context of whatever runs at that moment.

Once these pass, `Kind.own_tasks` and `Kind.without_known` can go.
"""

import asyncio
import gc
from collections.abc import AsyncIterator

import pytest

from rvh_trace import install_task_factory, span
from rvh_trace.testing import InMemoryExporter

from .client import Run, all_at_once
from .connection import TIMEOUT_S
from .request import LARGE, root_request
from .server import COLLECTED_GENERATOR, KINDS, Server, all_but

FAILING = [kind for kind in KINDS if kind.own_tasks]
REASON = "the server's `send` runs with the request's span current, so the task factory traces the server's own tasks"


@pytest.mark.parametrize("running", all_but(FAILING, REASON), indirect=True)
def test_a_task_that_the_server_creates_in_send_is_no_child_of_the_request(server: Server, run: Run) -> None:
    requests = [root_request("/sent-in-span"), root_request("/unavailable"), root_request("/echo", LARGE)]
    run(all_at_once(server.port, [*requests, root_request("/plain")]))
    names = {span.name for span in server.settle() if span.kind != "server"}
    assert names - {COLLECTED_GENERATOR} == {"respond", "read body"}


@pytest.mark.xfail(strict=True, raises=AssertionError, reason="the task that closes a collected generator is traced")
def test_a_generator_that_is_collected_during_another_request_is_not_closed_in_its_trace(
    spans: InMemoryExporter, run: Run
) -> None:
    closed = asyncio.Event()

    async def produce() -> AsyncIterator[bytes]:
        try:
            yield b"begun"
        finally:
            closed.set()

    async def main() -> None:
        install_task_factory()
        abandoned = produce()
        await anext(abandoned)
        with span("another request"):
            del abandoned
            gc.collect()
            async with asyncio.timeout(TIMEOUT_S):
                await closed.wait()

    run(main())
    assert [span.name for span in spans] == ["another request"]
