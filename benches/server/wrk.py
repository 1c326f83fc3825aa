"""The load: wrk, with the headers of a browser behind a proxy on every request."""

import json
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from ..python.server import request

CONNECTIONS = 32
OVERTIME_S = 30.0
REPORT = Path(__file__).with_name("report.lua")
# Those that wrk sets itself.
OWN_HEADERS = {"host", "connection"}


class WrkError(Exception):
    """wrk is not there, or it broke."""


@dataclass(frozen=True)
class Load:
    """What wrk found. Latencies are microseconds from the request to the end of its response, in wrk."""

    requests: int
    duration_us: int
    p50_us: int
    p99_us: int
    failed: int

    @property
    def requests_per_s(self) -> float:
        return self.requests / self.duration_us * 1e6


def executable() -> str:
    """Where wrk is."""
    found = shutil.which("wrk")
    if found is None:
        raise WrkError("bench-server needs wrk to make the load: apt-get install wrk")
    return found


def load(port: int, traceparent: str, seconds: int) -> Load:
    """Requests as fast as they are answered, on `CONNECTIONS` connections at the same time."""
    scope = request(traceparent)
    headers = [(name.decode(), value.decode()) for name, value in scope["headers"]]
    url = f"http://127.0.0.1:{port}{scope['path']}?{scope['query_string'].decode()}"
    command = [
        *(executable(), "--threads", "1", "--connections", str(CONNECTIONS), "--duration", f"{seconds}s"),
        *("--script", str(REPORT)),
        *(part for name, value in headers if name not in OWN_HEADERS for part in ("--header", f"{name}: {value}")),
        url,
    ]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=seconds + OVERTIME_S)
    except subprocess.TimeoutExpired as error:
        raise WrkError(f"wrk did not end {OVERTIME_S:g} s after its time") from error
    if done.returncode != 0:
        raise WrkError(f"wrk ended with code {done.returncode}: {done.stderr.strip()}")
    return Load(**json.loads(done.stdout.splitlines()[-1]))
