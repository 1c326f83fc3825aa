"""A request starts clean: what the last one on its connection brought with it is gone."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from .client import Run, assert_answered
from .connection import connect
from .request import LARGE, Parent, Request, root_request
from .server import Server, uvicorn

PARENT = Parent("0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331")

# Each ends in another way; the context of the first two is also what reads the rest of the connection.
PATHS = {"/echo": LARGE, "/mirror": LARGE, "/sent-in-span": b"", "/unavailable": b""}


def tenant_request(path: str) -> Request:
    return replace(root_request(path, PATHS[path]), parent=PARENT, baggage="tenant=acme")


async def kept_alive(port: int, first: Request) -> Sequence[dict[str, str]]:
    """What two requests without a context of their own would pass on, when they follow `first` on its connection."""
    async with connect(port) as connection:
        assert_answered(first, await connection.exchange(first))
        return [json.loads((await connection.exchange(root_request("/context"))).body) for _ in range(2)]


async def pipelined(port: int, first: Request) -> Sequence[dict[str, str]]:
    """The same, when they are sent together with `first`."""
    async with connect(port) as connection:
        connection.write(first, root_request("/context"), root_request("/context"))
        assert_answered(first, await connection.read())
        return [json.loads((await connection.read()).body) for _ in range(2)]


@pytest.mark.parametrize("send", [kept_alive, pipelined])
@pytest.mark.parametrize("path", PATHS)
def test_the_trace_of_a_request_is_not_passed_on_by_the_next_one(server: Server, run: Run, path: str, send) -> None:
    for headers in run(send(server.port, tenant_request(path))):
        assert PARENT.trace_id not in headers["traceparent"]


def test_baggage_before_a_body_over_64_kib_is_not_passed_on_by_the_next_requests(server: Server, run: Run) -> None:
    found = {path: run(kept_alive(server.port, tenant_request(path))) for path in PATHS}
    assert [path for path, contexts in found.items() for headers in contexts if "baggage" in headers] == []


def test_baggage_of_a_pipelined_request_is_not_passed_on_by_the_next_requests(server: Server, run: Run) -> None:
    found = {path: run(pipelined(server.port, tenant_request(path))) for path in PATHS}
    assert [path for path, contexts in found.items() for headers in contexts if "baggage" in headers] == []


@pytest.mark.parametrize("send", [kept_alive, pipelined])
def test_nothing_is_passed_on_by_the_next_requests_when_tracing_is_off(tmp_path: Path, run: Run, send) -> None:
    with Server(uvicorn("httptools", "asyncio"), tmp_path, OTEL_SDK_DISABLED="true") as server:
        found = {path: run(send(server.port, tenant_request(path))) for path in PATHS}
    assert found == {path: [{}, {}] for path in PATHS}
