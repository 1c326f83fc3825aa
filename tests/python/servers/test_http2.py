"""HTTP/2 without TLS: streams of one connection, at the same time."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import httpx
import pytest
from process import LOOPBACK

from .client import Run
from .connection import TIMEOUT_S
from .request import LARGE, Request, mixture, new_request, root_request
from .server import HTTP2, Server

pytestmark = pytest.mark.parametrize("running", HTTP2, ids=str, indirect=True)

STREAMS = 16


@asynccontextmanager
async def connect(port: int) -> AsyncIterator[httpx.AsyncClient]:
    """A client that has one connection, for the `with` block, which ends after `TIMEOUT_S` at the latest."""
    async with (
        asyncio.timeout(TIMEOUT_S),
        httpx.AsyncClient(
            base_url=f"http://{LOOPBACK}:{port}",
            http1=False,
            http2=True,
            limits=httpx.Limits(max_connections=1),
            timeout=TIMEOUT_S,
            trust_env=False,
        ) as client,
    ):
        yield client


async def exchange(client: httpx.AsyncClient, request: Request) -> None:
    response = await client.request(
        request.method, request.target, headers=request.headers, content=request.body or None
    )
    assert (response.status_code, response.http_version) == (request.status, "HTTP/2"), request.target
    if request.method == "POST":
        assert response.content == request.body, request.target


async def at_the_same_time(client: httpx.AsyncClient, requests: Sequence[Request]) -> None:
    async with asyncio.TaskGroup() as group:
        for request in requests:
            group.create_task(exchange(client, request))


def assert_one_connection(server: Server, requests: Sequence[Request]) -> None:
    spans = server.assert_traces(requests)
    servers = [span for span in spans if span.kind == "server"]
    assert {str(span.attributes["network.protocol.version"]) for span in servers} == {"2"}
    assert len({str(span.attributes.get("network.peer.port")) for span in servers}) == 1


def test_streams_of_one_connection_do_not_merge_into_one_trace(server: Server, run: Run) -> None:
    meeting = [new_request("/meet", parameters=f"&parties={STREAMS}") for _ in range(STREAMS)]
    requests = [*meeting, *mixture(rounds=3), new_request("/fail")]

    async def drive() -> None:
        async with connect(server.port) as client:
            await at_the_same_time(client, requests)

    run(drive())
    assert_one_connection(server, requests)


def test_a_body_over_64_kib_does_not_lend_its_context_to_the_next_streams(server: Server, run: Run) -> None:
    requests = [new_request("/echo", LARGE), *(root_request("/nested") for _ in range(3)), root_request("/fail")]

    async def drive() -> None:
        async with connect(server.port) as client:
            for request in requests:
                await exchange(client, request)

    run(drive())
    assert_one_connection(server, requests)


@pytest.mark.parametrize("path", ["/held", "/endless"])
def test_a_stream_that_the_client_resets_leaves_the_others_alone(server: Server, run: Run, path: str) -> None:
    abandoned, last = new_request(path), root_request("/nested")
    others = list(mixture(rounds=1))

    async def drive() -> None:
        async with connect(server.port) as client:
            async with client.stream("GET", abandoned.target, headers=abandoned.headers) as response:
                await anext(response.aiter_raw())
                if path == "/held":  # the endless one would use up the connection's window
                    await at_the_same_time(client, others)
            await exchange(client, last)

    run(drive())
    sent = others if path == "/held" else []
    assert_one_connection(server, [abandoned, *sent, last])
