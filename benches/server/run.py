"""The rounds: every contender once a round, each under a server of its own, the order turned round every time."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

from .contender import Entry
from .server import MissingError, Server, ServerError
from .wrk import Load, load

WARM_UP_S = 1


@dataclass(frozen=True)
class Sample:
    """One contender in one round."""

    load: Load
    cpu_us: float
    """Processor time of the server process for a request, all threads, the export included."""
    spans: int
    """Spans that the requests, those of the warm-up too, should have exported."""
    exported: int | None
    """Spans that they did; None when the library does not count."""

    @property
    def lost(self) -> int:
        return 0 if self.exported is None else self.spans - self.exported


@dataclass
class Measured:
    """Everything one run found."""

    samples: dict[str, dict[int, Sample]] = field(default_factory=dict[str, dict[int, Sample]])
    """By name of the contender and number of the round."""
    versions: dict[str, str] = field(default_factory=dict[str, str])
    missing: dict[str, str] = field(default_factory=dict[str, str])
    failures: dict[str, str] = field(default_factory=dict[str, str])


def _progress(text: str) -> None:
    if sys.stderr.isatty():
        sys.stderr.write(f"\r\x1b[K{text}")
        sys.stderr.flush()


def measure(server: Server, seconds: int) -> Sample:
    """Warms a server up and loads it."""
    entry = server.entry
    load(server.port, entry.traceparent, WARM_UP_S)
    before = server.counts()
    found = load(server.port, entry.traceparent, seconds)
    after = server.counts()
    return Sample(
        found,
        (after.cpu_ns - before.cpu_ns) / (after.served - before.served) / 1e3,
        after.served * entry.spans,
        after.exported,
    )


def measure_rounds(entries: Sequence[Entry], endpoint: str, core: int, rounds: int, seconds: int) -> Measured:
    """Every sample. A contender that is missing or broke is left out from then on."""
    measured = Measured({entry.name: {} for entry in entries})
    with TemporaryDirectory(prefix="rvh-trace-bench-") as directory:
        for number in range(rounds):
            for entry in entries if number % 2 == 0 else reversed(entries):
                name = entry.name
                if name in measured.missing or name in measured.failures:
                    continue
                _progress(f"round {number + 1} of {rounds}: {entry.who}")
                try:
                    with Server(entry, endpoint, core, Path(directory, f"{name}.log")) as server:
                        measured.samples[name][number] = measure(server, seconds)
                        measured.versions[name] = server.version
                except MissingError as error:
                    measured.missing[name] = str(error)
                except ServerError as error:
                    measured.failures[name] = str(error)
    _progress("")
    return measured
