"""A live collector to export to: rotel, which takes OTLP in and throws it away."""

import importlib.util
import os
import socket
import subprocess
import time
from collections.abc import Generator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory

START_TIMEOUT_S = 60.0


class CollectorError(Exception):
    """There is no collector to export to."""


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def _agent() -> Path:
    spec = importlib.util.find_spec("rotel")
    if spec is None or spec.origin is None:
        raise CollectorError("rotel is not installed; install the `bench` group, or name a collector with --endpoint")
    return Path(spec.origin).with_name("rotel-agent")


def _wait_for(port: int, process: "subprocess.Popen[bytes]", output: Path) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline:
        if process.poll() is not None:
            break
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            time.sleep(0.05)
    raise CollectorError(f"rotel {version('rotel')} did not start:\n{output.read_text(errors='replace').strip()}")


@contextmanager
def collector() -> Generator[tuple[str, str], None, None]:
    """Runs rotel on free loopback ports; yields its description and its OTLP/HTTP endpoint."""
    agent = _agent()
    with TemporaryDirectory(prefix="rvh-trace-bench-") as directory:
        http_port, grpc_port = _free_port(), _free_port()
        output = Path(directory, "output")
        command = [
            *(str(agent), "start", "--exporter", "blackhole"),
            *("--otlp-http-endpoint", f"127.0.0.1:{http_port}", "--otlp-grpc-endpoint", f"127.0.0.1:{grpc_port}"),
            *("--pid-file", str(Path(directory, "pid")), "--log-file", str(Path(directory, "log"))),
        ]
        env = {key: value for key, value in os.environ.items() if not key.startswith("ROTEL_")}
        with output.open("wb") as stream:
            process = subprocess.Popen(command, stdout=stream, stderr=subprocess.STDOUT, env=env, cwd=directory)
        try:
            _wait_for(http_port, process, output)
            yield f"rotel {version('rotel')}", f"http://127.0.0.1:{http_port}"
        finally:
            process.terminate()
            try:
                process.wait(timeout=5)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
