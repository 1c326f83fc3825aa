"""What a watch takes of a core while its event loop has nothing to do."""

import importlib.util
import subprocess
import sys

from .process import environment
from .sample import Pair

LOOPS = {"watch_loop(), asyncio": "asyncio", "watch_loop(), uvloop": "uvloop"}
SECONDS = 2

# The metric that comes with it is recorded as well; nothing is sent while it is idle.
_IDLE = """
import asyncio, time
import {loop}
import rvh_trace

rvh_trace.init_tracing("idle", exporter="none", metrics_exporter="otlp", metric_export_interval_ms=3_600_000)

async def main():
    if {watched}:
        rvh_trace.watch_loop()
    await asyncio.sleep(0.2)
    begun = time.process_time_ns()
    await asyncio.sleep({seconds})
    print((time.process_time_ns() - begun) // {seconds}, flush=True)

with asyncio.Runner(loop_factory={loop}.new_event_loop) as runner:
    runner.run(main())
import os
os._exit(0)
"""


def available(name: str) -> bool:
    """Whether the loop is installed."""
    return importlib.util.find_spec(LOOPS[name]) is not None


def _processor_ns(name: str, *, watched: bool) -> int:
    code = _IDLE.format(loop=LOOPS[name], watched=watched, seconds=SECONDS)
    run = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True, env=environment())
    run.check_returncode()
    return int(run.stdout)


def measure_idle(name: str) -> Pair:
    """Nanoseconds of processor time a second of an idle process, all threads, with and without a watch."""
    return Pair(_processor_ns(name, watched=True), _processor_ns(name, watched=False))
