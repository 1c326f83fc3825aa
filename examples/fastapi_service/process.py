"""Child processes of the demo and of the end-to-end tests.

A `Process` keeps its output in a log file, says so when it does not come up, and is stopped by its own id, on every
way out of its `with` block.
"""

import os
import signal
import socket
import subprocess
import time
from collections.abc import Generator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from types import FrameType
from typing import Self

LOOPBACK = "127.0.0.1"
LOG_TAIL_LINES = 20
STOP_TIMEOUT_S = 5.0
POLL_INTERVAL_S = 0.02


class StartError(Exception):
    """A child process could not be started, or did not come up. The message is for a person."""


def free_ports(count: int) -> list[int]:
    """Loopback ports that nobody listens on, all different."""
    with ExitStack() as held:
        sockets = [held.enter_context(socket.create_server((LOOPBACK, 0))) for _ in range(count)]
        return [int(bound.getsockname()[1]) for bound in sockets]


def require_free(port: int, option: str) -> int:
    """`port`, or `StartError` if someone listens there already."""
    try:
        socket.create_server((LOOPBACK, port)).close()
    except OSError as error:
        raise StartError(f"port {port} cannot be used ({error.strerror}): choose another one with {option}") from error
    return port


class Process:
    """A child process, running inside its `with` block and ready once `ports` accept connections."""

    def __init__(
        self,
        name: str,
        command: Sequence[str | Path],
        *,
        ports: Sequence[int],
        directory: Path,
        env: Mapping[str, str],
        start_timeout: float = 60.0,
    ) -> None:
        self.name = name
        self.log = directory / f"{name}.log"
        self._command = [str(part) for part in command]
        self._ports = tuple(ports)
        self._env = dict(env)
        self._start_timeout = start_timeout
        self._popen: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        try:
            with self.log.open("wb") as output, _signals_held_back():
                # A session of its own: Ctrl-C reaches the parent alone, which stops its children in order.
                self._popen = subprocess.Popen(
                    self._command,
                    env=self._env,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
            self._wait_until_ready(self._popen)
        except OSError as error:
            raise StartError(f"{self.name} cannot be started: {error}") from error
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_exc: object) -> None:
        self.stop()

    def stop(self) -> int | None:
        """Terminate and reap the process, by force after `STOP_TIMEOUT_S`. Returns its exit code."""
        if self._popen is None:
            return None
        self._popen.terminate()
        try:
            return self._popen.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._popen.kill()
            return self._popen.wait()

    def log_tail(self) -> str:
        """The last lines that the process wrote."""
        lines = self.log.read_text(errors="replace").splitlines() if self.log.exists() else []
        return "\n".join(f"  {self.name} | {line}" for line in lines[-LOG_TAIL_LINES:])

    def _wait_until_ready(self, popen: subprocess.Popen[bytes]) -> None:
        deadline = time.monotonic() + self._start_timeout
        while not all(_accepts(port) for port in self._ports):
            if popen.poll() is not None:
                raise StartError(f"{self.name} stopped with exit code {popen.returncode}\n{self.log_tail()}")
            if time.monotonic() > deadline:
                ports = ", ".join(map(str, self._ports))
                raise StartError(
                    f"{self.name} did not listen on {ports} within {self._start_timeout:g} s\n{self.log_tail()}"
                )
            time.sleep(POLL_INTERVAL_S)


def child_env(**extra: str) -> dict[str, str]:
    """This process's environment without telemetry settings or proxies for loopback, plus `extra`."""
    env = {key: value for key, value in os.environ.items() if not key.startswith(("OTEL_", "ROTEL_"))}
    return env | {"NO_PROXY": LOOPBACK, "no_proxy": LOOPBACK} | extra


def _accepts(port: int) -> bool:
    with closing(socket.socket()) as probe:
        probe.settimeout(1.0)
        # A probe whose own port happens to be `port` connects to itself.
        return probe.connect_ex((LOOPBACK, port)) == 0 and probe.getsockname() != probe.getpeername()


@contextmanager
def _signals_held_back() -> Generator[None]:
    """Deliver Python signal handlers after the block: one that raises inside it would lose the id of the new child."""
    pending: list[tuple[int, FrameType | None]] = []
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    held = {number: handler for number, handler in handlers.items() if callable(handler)}
    try:
        for number in held:
            signal.signal(number, lambda received, frame: pending.append((received, frame)))
    except ValueError:  # not the main thread: handlers never run here
        held = {}
    try:
        yield
    finally:
        for number, handler in held.items():
            signal.signal(number, handler)
        for received, frame in pending:
            held[signal.Signals(received)](received, frame)
