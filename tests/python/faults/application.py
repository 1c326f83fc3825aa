"""The application of a scenario, in a process of its own."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from process import child_env

END_TIMEOUT_S = 60.0
WAIT_TIMEOUT_S = 30.0
POLL_INTERVAL_S = 0.01
OF_SPANS = {"schedule_delay_ms", "export_timeout_ms", "max_queue_size", "max_export_batch_size"}


@dataclass(frozen=True)
class Answer:
    """What one call came to."""

    result: Any
    took_s: float
    ticks: int
    stats: dict[str, Any]


class Application:
    """A running `child`, which swallows no error unless it is expected to."""

    def __init__(self, popen: subprocess.Popen[str]) -> None:
        self._popen = popen
        self.pid = popen.pid
        self.flushed: list[bool] = []
        self.may_swallow = False

    def ask(self, **asked: Any) -> Answer:
        assert self._popen.stdin is not None
        assert self._popen.stdout is not None
        self._popen.stdin.write(json.dumps(asked) + "\n")
        self._popen.stdin.flush()
        line = self._popen.stdout.readline()
        if not line:
            raise AssertionError(self._popen.communicate()[1])
        answer = Answer(**json.loads(line))
        assert self.may_swallow or answer.stats["swallowed_errors"] == 0, answer
        return answer

    def make(self, spans: int) -> None:
        self.ask(make=spans)

    def wait_until(self, condition: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """Waits until that is true of `rvh_trace.stats()`."""
        deadline = time.monotonic() + WAIT_TIMEOUT_S
        while not condition(stats := self.ask(look=True).stats):
            assert time.monotonic() < deadline, stats
            time.sleep(POLL_INTERVAL_S)
        return stats

    def flush(self, timeout_ms: float = 20_000) -> Answer:
        answer = self.ask(flush=timeout_ms)
        self.flushed.append(answer.result)
        return answer

    def kill(self) -> None:
        """`kill -9`."""
        self._popen.kill()
        self._popen.wait(END_TIMEOUT_S)

    def leave(self) -> float:
        """Ends the process without a shutdown; the seconds it took."""
        begun = time.monotonic()
        _, stderr = self._popen.communicate(timeout=END_TIMEOUT_S)
        assert self._popen.returncode == 0, stderr
        return time.monotonic() - begun

    def end(self, timeout_ms: float = 2_000) -> "Outcome":
        """Shuts down and waits for the end of the process, which must be a good one."""
        answer = self.ask(shutdown=timeout_ms)
        _, stderr = self._popen.communicate(timeout=END_TIMEOUT_S)
        assert self._popen.returncode == 0, stderr
        return Outcome(self.flushed, answer.result, answer.took_s, answer.ticks, answer.stats, stderr)


@dataclass(frozen=True)
class Outcome:
    """What became of an application."""

    flushed: list[bool]
    shut_down: bool
    took_s: float
    """Of the shutdown."""
    ticks: int
    """How often the loop got round to another task during the shutdown."""
    stats: dict[str, Any]
    stderr: str


@contextmanager
def application(
    endpoint: str, protocol: str, signal: str = "traces", /, *, run_by: Sequence[str] = (), **arguments: Any
) -> Generator[Application]:
    """An application with these arguments of `init_tracing`, for the `with` block. Only a flush makes it export.

    Arguments that are those of spans alone become the variables of log records where these are the `signal`.
    `run_by` is a command that becomes it.
    """
    environ = child_env(PYTHONPATH=os.pathsep.join([str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")]))
    arguments = {"schedule_delay_ms": 600_000, "endpoint": endpoint, "protocol": protocol} | arguments
    if signal != "traces":
        for name in set(arguments) & OF_SPANS:
            environ[f"OTEL_BLRP_{name.removesuffix('_ms').upper()}"] = str(arguments.pop(name))
    if signal == "logs":
        arguments["exporter"] = "none"
    popen = subprocess.Popen(
        [*run_by, sys.executable, "-W", "error", "-m", "faults.child", json.dumps(arguments), signal],
        env=environ,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with popen:
        try:
            yield Application(popen)
        finally:
            if popen.poll() is None:
                popen.kill()


def run_application(
    endpoint: str, protocol: str, signal: str = "traces", /, *, rounds: list[int], **arguments: Any
) -> Outcome:
    """Spans, or log records, and a flush for each round, and a shutdown."""
    with application(endpoint, protocol, signal, **arguments) as running:
        for spans in rounds:
            running.make(spans)
            running.flush()
        return running.end()
