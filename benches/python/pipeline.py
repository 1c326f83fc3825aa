"""What the exporter thread takes, how many spans a second it sends, and what memory it holds."""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from .process import environment

MIB = 1024 * 1024
# Nobody listens on the discard port of a test machine.
NOBODY = "http://127.0.0.1:9"


@dataclass(frozen=True)
class Load:
    """What one run of `load` found."""

    ended: int
    exported: int
    elapsed_s: float
    exporter_cpu_ns: int
    added_bytes: int
    growth_bytes: int


@dataclass(frozen=True)
class Pipeline:
    """Runs of each kind; none where the system is not Linux."""

    sent: Sequence[Load]
    undelivered: Sequence[Load]

    @property
    def cpu_ns_per_span(self) -> list[float]:
        """Of the exporter thread."""
        return [load.exporter_cpu_ns / load.exported for load in self.sent if load.exported]

    @property
    def per_second(self) -> list[float]:
        """Spans that were exported, by the time that it took to make them."""
        return [load.exported / load.elapsed_s for load in self.sent]

    @property
    def lost(self) -> int:
        """Spans that did not get to the collector."""
        return sum(load.ended - load.exported for load in self.sent)


def measure_pipeline(endpoint: str, rounds: int) -> Pipeline:
    """`rounds` times a million spans to the collector, on one core, a little over the target's rate; and to nobody."""
    if sys.platform != "linux":
        return Pipeline([], [])
    core = max(os.sched_getaffinity(0))
    sent = ["--endpoint", endpoint, "--spans", "1000000", "--rate", "210000", "--core", str(core), "--flush"]
    undelivered = ["--endpoint", NOBODY, "--spans", "1000000", "--rate", "200000"]
    return Pipeline([_run(sent) for _ in range(rounds)], [_run(undelivered) for _ in range(rounds)])


def _run(arguments: Sequence[str]) -> Load:
    finished = subprocess.run(
        [sys.executable, "-m", f"{__package__}.load", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=environment(),
        timeout=300,
        check=True,
        text=True,
    )
    return Load(**json.loads(finished.stdout))
