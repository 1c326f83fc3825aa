"""The near end of a server process."""

import json
import os
import select
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from ..python.process import environment
from .contender import Entry

START_TIMEOUT_S = 60.0
ANSWER_TIMEOUT_S = 40.0
STOP_TIMEOUT_S = 10.0


class ServerError(Exception):
    """A server did not start or did not answer."""


class MissingError(Exception):
    """What a contender needs is not installed."""


@dataclass(frozen=True)
class Counts:
    """What a server has counted since it started."""

    served: int
    """Requests."""
    exported: int | None
    """Spans; None when the library does not count."""
    cpu_ns: int
    """Processor time of the whole process, all threads, what was exported included."""


class Server:
    """A server of a contender on one core. A context manager: leaving it ends the process."""

    def __init__(self, entry: Entry, endpoint: str, core: int, log: Path) -> None:
        self.entry = entry
        self.port = 0
        self.version = ""
        self._command = [sys.executable, "-m", f"{__package__}.worker", entry.name, endpoint]
        self._core = core
        self._log = log

    def __enter__(self) -> Self:
        with self._log.open("wb") as stderr:
            self._process = subprocess.Popen(
                self._command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stderr,
                env=environment(),
                # Ctrl-C reaches this process alone, which ends the other.
                start_new_session=True,
                preexec_fn=lambda: os.sched_setaffinity(0, {self._core}),
            )
        try:
            hello = self._answer(START_TIMEOUT_S)
            if "missing" in hello:
                raise MissingError(hello["missing"])
        except BaseException:
            self._stop()
            raise
        self.port, self.version = hello["port"], hello["version"]
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._stop()

    def counts(self) -> Counts:
        """What it has counted, when no request is under way and everything has been exported."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(b"\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            pass
        return Counts(**self._answer(ANSWER_TIMEOUT_S))

    def _answer(self, timeout_s: float) -> dict[str, Any]:
        assert self._process.stdout is not None
        if select.select([self._process.stdout], [], [], timeout_s)[0]:
            line = self._process.stdout.readline()
            if line:
                return json.loads(line)
            trouble = f"ended with code {self._process.wait()}"
        else:
            trouble = f"did not answer within {timeout_s:g} s"
        raise ServerError(f"{trouble}\n{self._log.read_text(errors='replace').strip()[-2000:]}")

    def _stop(self) -> None:
        try:
            self._process.communicate(timeout=STOP_TIMEOUT_S)
        except (subprocess.TimeoutExpired, OSError):
            self._process.kill()
            self._process.communicate()
