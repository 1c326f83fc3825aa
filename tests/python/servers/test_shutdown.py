"""SIGTERM: the server ends in bounded time, and with it every span is with the receiver.

The application's lifespan awaits `rvh_trace.ashutdown()`; nothing else exports, the schedule delay is ten minutes.
"""

import signal
from pathlib import Path

import pytest

from .client import Run
from .connection import connect, head
from .request import mixture, new_request
from .server import KINDS, Kind, Server
from .traces import assert_traces


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_no_span_is_lost_when_the_server_is_told_to_end(kind: Kind, tmp_path: Path, run: Run) -> None:
    requests = list(mixture(rounds=2))
    unfinished = new_request("/mirror", b"first" + b"second")

    async def drive(server: Server) -> None:
        async with connect(server.port) as idle, connect(server.port) as busy:
            for request in requests:
                await idle.exchange(request)
            busy.writer.write(head(unfinished) + b"first")
            await busy.read_head()
            assert await busy.read_chunk() == b"first"
            server.send_signal(signal.SIGTERM)
            busy.writer.write(b"second")
            assert await busy.read_chunk() == b"second"
            assert await busy.read_chunk() == b""

    with Server(kind, tmp_path) as server:
        run(drive(server))
        server.assert_stopped_cleanly(server.wait())
        assert_traces([*requests, unfinished], kind.without_known(server.take()))
