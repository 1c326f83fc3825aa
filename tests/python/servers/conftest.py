"""The `server` fixture: every kind of server, started once for all tests."""

from collections.abc import Iterator

import pytest

from .server import KINDS, Server


@pytest.fixture(scope="session", params=KINDS, ids=str)
def running(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server for many tests. It has to end with an empty log."""
    with Server(request.param, tmp_path_factory.mktemp(request.param.name)) as server:
        yield server
        server.assert_stopped_cleanly(server.stop())


@pytest.fixture
def server(running: Server) -> Server:
    """A server that has nothing left to do and nothing left to export."""
    running.settle()
    return running
