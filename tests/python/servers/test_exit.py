"""Servers that are told to end deliver the last spans of an application that does nothing for it, within the deadline.

Nothing is exported before: the schedule delay is ten minutes. SIGTERM reaches the server's own process, as from a
supervisor; SIGINT all of its processes, as from a terminal.
"""

import os
import signal
import socket
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import httpx
import pytest
from process import LOOPBACK, Process, child_env, free_ports
from receiver import Receiver

APPLICATION = "servers.ending:app"
ATTEMPT_S = 10.0
"""What an exporter waits for an answer (`OTEL_EXPORTER_OTLP_TIMEOUT`)."""
END_TIMEOUT_S = 30.0
QUIET = ["--log-level", "critical"]

COMMANDS: dict[str, list[str]] = {
    "uvicorn-asyncio": ["uvicorn", APPLICATION, "--host", LOOPBACK, "--port", "{port}", "--loop", "asyncio", *QUIET],
    "uvicorn-uvloop": ["uvicorn", APPLICATION, "--host", LOOPBACK, "--port", "{port}", "--loop", "uvloop", *QUIET],
    "uvicorn-workers": ["uvicorn", APPLICATION, "--host", LOOPBACK, "--port", "{port}", "--workers", "2", *QUIET],
    "hypercorn-asyncio": ["hypercorn", APPLICATION, "--bind", LOOPBACK + ":{port}", *QUIET],
    "hypercorn-uvloop": ["hypercorn", APPLICATION, "--bind", LOOPBACK + ":{port}", "--worker-class", "uvloop", *QUIET],
    "hypercorn-trio": ["hypercorn", APPLICATION, "--bind", LOOPBACK + ":{port}", "--worker-class", "trio", *QUIET],
    "granian": ["granian", APPLICATION, "--interface", "asgi", "--host", LOOPBACK, "--port", "{port}", *QUIET],
    "gunicorn": [
        *("gunicorn", APPLICATION, "--bind", LOOPBACK + ":{port}", "--no-control-socket", *QUIET),
        *("--worker-class", "uvicorn_worker.UvicornWorker"),
    ],
}


class Ending(Process):
    """A server from `with` entry until it was told to end."""

    def __init__(self, name: str, directory: Path, endpoint: str, *options: str, **env: str) -> None:
        (self.port,) = free_ports(1)
        variables = {
            "OTEL_EXPORTER_OTLP_ENDPOINT": endpoint,
            "OTEL_METRICS_EXPORTER": "none",
            "OTEL_BSP_SCHEDULE_DELAY": "600000",
            "PYTHONPATH": str(Path(__file__).parents[1]),
        }
        command = [part.format(port=self.port) for part in COMMANDS[name]]
        super().__init__(
            name,
            [sys.executable, "-m", *command, *options],
            ports=[self.port],
            directory=directory,
            env=child_env(**(variables | env)),
        )

    def work(self) -> None:
        httpx.get(f"http://{LOOPBACK}:{self.port}/work", timeout=20, trust_env=False).raise_for_status()

    def end(self, number: signal.Signals) -> float:
        """Tells the server to end; the seconds it took."""
        assert self._popen is not None
        begun = time.monotonic()
        if number == signal.SIGINT:
            os.killpg(self._popen.pid, number)
        else:
            self._popen.send_signal(number)
        self._popen.wait(END_TIMEOUT_S)
        return time.monotonic() - begun

    def stop(self) -> int | None:
        if self._popen is not None:
            try:
                os.killpg(self._popen.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        return super().stop()


def names(receiver: Receiver) -> Sequence[str]:
    return sorted(one.name for one in receiver.spans)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=lambda number: number.name)
@pytest.mark.parametrize("name", COMMANDS)
def test_the_last_spans_are_delivered(name: str, number: signal.Signals, tmp_path: Path, receiver: Receiver) -> None:
    with Ending(name, tmp_path, receiver.http_endpoint) as server:
        server.work()
        assert names(receiver) == []
        server.end(number)
        assert names(receiver) == ["GET /work", "work"], server.log_tail()


@pytest.mark.parametrize("name", ["uvicorn-asyncio", "uvicorn-workers", "hypercorn-asyncio", "granian", "gunicorn"])
def test_a_collector_that_never_answers_adds_the_deadline_at_most(name: str, tmp_path: Path) -> None:
    with (
        socket.create_server((LOOPBACK, 0)) as silent,
        Ending(name, tmp_path, f"http://{LOOPBACK}:{silent.getsockname()[1]}", RVH_TRACE_EXIT_TIMEOUT="500") as server,
    ):
        server.work()
        # The time of one attempt is ten seconds.
        assert server.end(signal.SIGTERM) < ATTEMPT_S
