"""A handler blocks the loop of a real server: exactly one report, during the block, on the right span and frame."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import httpx
import pytest
from process import LOOPBACK
from receiver import ReceivedSpan, attributes

from .server import APPLICATION, UVICORN, Server

BLOCKED = "rvh_trace.loop.blocked"
# Not imported: it sets tracing up, for the process that it is imported in.
MODULE = f"{__package__}.blocking"
FILE = Path(__file__).with_name("blocking.py")


@pytest.fixture(scope="module", params=UVICORN, ids=str)
def blocked_server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    def command(port: int) -> list[str]:
        application = f"{MODULE}:app"
        return [application if part == APPLICATION else part for part in request.param.command(port)]

    with Server(replace(request.param, command=command), tmp_path_factory.mktemp(request.param.name)) as server:
        yield server
        server.assert_stopped_cleanly(server.stop())


def get(server: Server, path: str) -> list[ReceivedSpan]:
    """The spans of a request."""
    server.settle()
    response = httpx.get(f"http://{LOOPBACK}:{server.port}{path}", timeout=20, trust_env=False)
    assert response.text == "blocked"
    return server.settle()


@pytest.mark.parametrize(
    ("path", "name", "function"),
    [("/block", "GET /block", "block"), ("/block-in-span", "to blame", "block_in_span")],
)
def test_a_handler_that_sleeps_is_reported_once_on_its_span(
    blocked_server: Server, path: str, name: str, function: str
) -> None:
    spans = get(blocked_server, path)
    assert BLOCKED not in [one.name for one in spans]
    ((reported, event),) = [(one, event) for one in spans for event in one.span.events if event.name == BLOCKED]
    said = attributes(event.attributes)
    assert (reported.name, said["code.function.name"]) == (name, f"{MODULE}.{function}")
    # Where it stands is where it sleeps: it was looked at during the block.
    file, line = said["code.file.path"], said["code.line.number"]
    assert file == str(FILE)
    assert isinstance(file, str)
    assert isinstance(line, int)
    assert Path(file).read_text("utf-8").splitlines()[line - 1].strip().startswith("time.sleep(BLOCKED_S)")
    assert str(said["code.stacktrace"]).endswith(f'\n  File "{file}", line {line}, in {function}')
    assert float(str(said["rvh_trace.loop.blocked_time"])) >= 0.1
    assert float(str(said["rvh_trace.loop.gc_share"])) < 0.5


def test_a_server_with_nothing_to_do_is_not_blocked(blocked_server: Server) -> None:
    assert blocked_server.settle() == []
