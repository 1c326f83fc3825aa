"""The near end of a worker process."""

import json
import os
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Any

from .sample import Sample


def environment() -> dict[str, str]:
    """This process's environment without what would configure a tracing library."""
    return {key: value for key, value in os.environ.items() if not key.startswith(("OTEL_", "RVH_TRACE_"))}


class ContenderProcess:
    """A library that is measured. A context manager: leaving it ends the process.

    `missing` says why it could not be imported, `failure` how its process ended before its time.
    """

    def __init__(self, name: str, endpoint: str, log: Path) -> None:
        self.name = name
        self.version = ""
        self.cases: frozenset[str] = frozenset()
        self.missing: str | None = None
        self.failure: str | None = None
        self._log = log
        with log.open("wb") as stderr:
            self._process = subprocess.Popen(
                [sys.executable, "-m", f"{__package__}.worker", name, endpoint],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stderr,
                text=True,
                env=environment(),
            )
        hello = self._answer()
        if hello is None:
            return
        self.missing = hello.get("missing")
        self.version = hello.get("version", "")
        self.cases = frozenset(hello.get("cases", ()))

    def __enter__(self) -> "ContenderProcess":
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            self._process.communicate(timeout=15)
        except (subprocess.TimeoutExpired, OSError):
            self._process.kill()
            self._process.wait()

    def _answer(self) -> dict[str, Any] | None:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if line:
            return json.loads(line)
        log = self._log.read_text(errors="replace").strip()
        self.failure = f"ended with code {self._process.wait()}\n{log[-2000:]}"
        return None

    def measure(self, case: str, budget_s: float) -> Sample | None:
        """One round of a case; None once the process has failed."""
        if self.failure is not None:
            return None
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps({"case": case, "budget_s": budget_s}) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            pass
        answer = self._answer()
        return None if answer is None else Sample(**answer)
