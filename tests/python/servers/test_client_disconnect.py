"""A client that goes away in the middle of a response."""

import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Status

from .client import Run
from .connection import connect
from .request import LARGE, new_request, root_request
from .server import Server


@pytest.mark.parametrize("path", ["/held", "/endless"])
def test_a_client_that_goes_away_ends_the_span_and_is_no_server_error(server: Server, run: Run, path: str) -> None:
    abandoned = new_request(path)

    async def drive() -> None:
        async with connect(server.port) as connection:
            connection.write(abandoned)
            status, _ = await connection.read_head()
            assert status == 200
            assert await connection.read_chunk()

    run(drive())
    spans = server.assert_traces([abandoned])
    (span,) = (span for span in spans if span.kind == "server")
    assert span.span.status.code != Status.STATUS_CODE_ERROR
    assert "error.type" not in span.attributes


def test_a_client_that_goes_away_leaves_other_connections_alone(server: Server, run: Run) -> None:
    before, abandoned, after = root_request("/nested"), new_request("/endless"), root_request("/echo", LARGE)

    async def drive() -> None:
        async with connect(server.port) as other:
            assert (await other.exchange(before)).status == 200
            async with connect(server.port) as connection:
                connection.write(abandoned)
                await connection.read_head()
                await connection.read_chunk()
            assert (await other.exchange(after)).body == after.body

    run(drive())
    server.assert_traces([before, abandoned, after])
