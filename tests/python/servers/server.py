"""A server in a process of its own, and the receiver that it exports to."""

import os
import signal
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import httpx
import pytest
from _pytest.mark import ParameterSet
from process import LOOPBACK, Process, child_env, free_ports
from receiver import ReceivedSpan, Receiver, spans

from .request import Request
from .traces import assert_traces

APPLICATION = "servers.application:app"
SETTLE_TIMEOUT_S = 20.0
END_TIMEOUT_S = 20.0
COLLECTED_GENERATOR = "async_generator_athrow"


@dataclass(frozen=True)
class Kind:
    """A server with its settings. It logs nothing: what is in the log is an error that nobody expected."""

    name: str
    command: Callable[[int], Sequence[str]]
    """Arguments after `python -m`, for a port."""
    exit_code: int = 0
    """After SIGTERM."""
    own_tasks: frozenset[str] = frozenset()
    """Tasks of the server that are known to become spans; see `test_server_tasks`."""

    def __str__(self) -> str:
        return self.name

    def without_known(self, received: Sequence[ReceivedSpan]) -> list[ReceivedSpan]:
        """`received` without the spans that `test_server_tasks` is about, which come or do not."""
        return [span for span in received if span.name not in self.own_tasks | {COLLECTED_GENERATOR}]


def uvicorn(http: str, loop: str) -> Kind:
    options = ["--http", http, "--loop", loop, "--lifespan", "on", "--log-level", "critical", "--no-access-log"]
    return Kind(
        f"uvicorn-{http}-{loop}",
        lambda port: ["uvicorn", APPLICATION, "--host", LOOPBACK, "--port", str(port), *options],
        # uvicorn raises the signal again once it has shut down.
        exit_code=-signal.SIGTERM,
        own_tasks=frozenset({"RequestResponseCycle.run_asgi"}),
    )


def hypercorn(loop: str) -> Kind:
    return Kind(
        f"hypercorn-{loop}",
        lambda port: [
            *("hypercorn", APPLICATION, "--bind", f"{LOOPBACK}:{port}"),
            *("--worker-class", loop, "--log-level", "critical"),
        ],
        own_tasks=frozenset({"EventWrapper.wait", "TCPServer._idle_timeout"}),
    )


def granian(loop: str) -> Kind:
    return Kind(
        f"granian-{loop}",
        lambda port: [
            *("granian", APPLICATION, "--interface", "asgi", "--host", LOOPBACK, "--port", str(port)),
            *("--loop", loop, "--log-level", "critical"),
        ],
    )


UVICORN = [uvicorn(http, loop) for http in ("h11", "httptools") for loop in ("asyncio", "uvloop")]
HTTP2 = [hypercorn("asyncio"), hypercorn("uvloop"), granian("asyncio"), granian("uvloop")]
KINDS = [*UVICORN, *HTTP2]


def all_but(failing: Sequence[Kind], reason: str) -> list[ParameterSet]:
    """Every kind, for a test that is known to fail under some of them."""
    mark = pytest.mark.xfail(strict=True, raises=AssertionError, reason=reason)
    return [pytest.param(kind, id=str(kind), marks=[mark] if kind in failing else []) for kind in KINDS]


class Server(Process):
    """A server of a kind, from `with` entry to exit. Nothing is exported before `settle` or the end of the server."""

    def __init__(self, kind: Kind, directory: Path, **env: str) -> None:
        self.kind = kind
        self.receiver = Receiver()
        (self.port,) = free_ports(1)
        variables = {
            "OTEL_EXPORTER_OTLP_ENDPOINT": self.receiver.http_endpoint,
            "OTEL_BSP_SCHEDULE_DELAY": "600000",
            "PYTHONPATH": str(Path(__file__).parents[1]),
            "PYTHONWARNINGS": "always",
            "RVH_TRACE_STRICT": "1",
        }
        super().__init__(
            kind.name,
            [sys.executable, "-m", *kind.command(self.port)],
            ports=[self.port],
            directory=directory,
            env=child_env(**(variables | env)),
        )

    def __enter__(self) -> Self:
        self.receiver.__enter__()
        try:
            return super().__enter__()
        except BaseException:
            self.receiver.__exit__()
            raise

    def __exit__(self, *exc: object) -> None:
        super().__exit__(*exc)
        self.receiver.__exit__()

    def stop(self) -> int | None:
        code = super().stop()
        if self._popen is not None:
            # hypercorn and granian serve from a child, in the process group that `Process` starts.
            with suppress(ProcessLookupError):
                os.killpg(self._popen.pid, signal.SIGKILL)
        return code

    def send_signal(self, number: signal.Signals) -> None:
        assert self._popen is not None
        self._popen.send_signal(number)

    def wait(self) -> int:
        """The exit code of a server that was told to end; `subprocess.TimeoutExpired` after `END_TIMEOUT_S`."""
        assert self._popen is not None
        return self._popen.wait(END_TIMEOUT_S)

    def settle(self) -> list[ReceivedSpan]:
        """Wait until no request is under way; return every span that was made since the last call."""
        url = f"http://{LOOPBACK}:{self.port}/settle"
        stats: dict[str, Any] = httpx.get(url, timeout=SETTLE_TIMEOUT_S, trust_env=False).raise_for_status().json()
        assert (stats["swallowed_errors"], stats["last_error"]) == (0, None)
        assert (stats["ended"], stats["pending"]) == (stats["exported"], 0)
        return self.take()

    def take(self) -> list[ReceivedSpan]:
        """What has arrived since the last call."""
        return spans(self.receiver.take())

    def assert_traces(self, requests: Sequence[Request]) -> list[ReceivedSpan]:
        """See `traces.assert_traces`; returns the spans that were made since the last call."""
        received = self.kind.without_known(self.settle())
        assert_traces(requests, received)
        return received

    def assert_stopped_cleanly(self, code: int | None) -> None:
        assert not self.log_tail(), self.log_tail()
        assert code == self.kind.exit_code
