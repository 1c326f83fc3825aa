"""Runs the application of a scenario to its end."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from process import child_env

TIMEOUT_S = 60.0


@dataclass(frozen=True)
class Outcome:
    """What the application saw."""

    flushed: list[bool]
    shut_down: bool
    took_s: float
    ticks: int
    stats: dict[str, Any]
    stderr: str


def run_application(
    endpoint: str,
    protocol: str,
    *,
    rounds: list[int],
    flush_ms: float | None = 20_000,
    shutdown_ms: float = 2_000,
    **arguments: Any,
) -> Outcome:
    """`rvh_trace.init_tracing(**arguments)`, spans and a flush for each round, and a shutdown."""
    asked = {
        "arguments": {"endpoint": endpoint, "protocol": protocol, **arguments},
        "rounds": rounds,
        "flush_ms": flush_ms,
        "shutdown_ms": shutdown_ms,
    }
    environ = child_env(PYTHONPATH=os.pathsep.join([str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")]))
    finished = subprocess.run(
        [sys.executable, "-W", "error", "-m", "faults.child", json.dumps(asked)],
        env=environ,
        capture_output=True,
        timeout=TIMEOUT_S,
        check=False,
        text=True,
    )
    assert finished.returncode == 0, finished.stderr
    return Outcome(**json.loads(finished.stdout), stderr=finished.stderr)
