"""HTTP/2 without TLS: streams of one connection, at the same time."""

import asyncio
from collections.abc import Sequence

import pytest

from .client import Run, assert_answered
from .http2_connection import Http2Connection, connect
from .request import LARGE, Request, mixture, new_request, root_request
from .server import HTTP2, Server

pytestmark = pytest.mark.parametrize("running", HTTP2, ids=str, indirect=True)

STREAMS = 16
# hypercorn stops reading the connection, window updates included, while ten parts of a body wait for the application,
# which may itself wait for the window: a larger one could wait for ever.
MIRRORED = LARGE[: 32 * 1024]


async def exchange(connection: Http2Connection, request: Request) -> None:
    assert_answered(request, await connection.exchange(request))


async def at_the_same_time(connection: Http2Connection, requests: Sequence[Request]) -> None:
    async with asyncio.TaskGroup() as group:
        for request in requests:
            group.create_task(exchange(connection, request))


def assert_one_connection(server: Server, requests: Sequence[Request]) -> None:
    spans = server.assert_traces(requests)
    assert {str(span.attributes["network.protocol.version"]) for span in spans if span.kind == "server"} == {"2"}


def test_streams_of_one_connection_do_not_merge_into_one_trace(server: Server, run: Run) -> None:
    meeting = [new_request("/meet", parameters=f"&parties={STREAMS}") for _ in range(STREAMS)]
    requests = [*meeting, *mixture(rounds=3, mirrored=MIRRORED), new_request("/fail")]

    async def drive() -> None:
        async with connect(server.port) as connection:
            await at_the_same_time(connection, requests)

    run(drive())
    assert_one_connection(server, requests)


def test_a_body_over_64_kib_does_not_lend_its_context_to_the_next_streams(server: Server, run: Run) -> None:
    requests = [new_request("/echo", LARGE), *(root_request("/nested") for _ in range(3)), root_request("/fail")]

    async def drive() -> None:
        async with connect(server.port) as connection:
            for request in requests:
                await exchange(connection, request)

    run(drive())
    assert_one_connection(server, requests)


@pytest.mark.parametrize("path", ["/held", "/endless"])
def test_a_stream_that_the_client_resets_leaves_the_others_alone(server: Server, run: Run, path: str) -> None:
    abandoned, last = new_request(path), root_request("/nested")
    others = list(mixture(rounds=1, mirrored=MIRRORED))

    async def drive() -> None:
        async with connect(server.port) as connection:
            stream = connection.send(abandoned)
            await stream.begun.wait()
            await at_the_same_time(connection, others)
            connection.reset(stream)
            await exchange(connection, last)

    run(drive())
    assert_one_connection(server, [abandoned, *others, last])
