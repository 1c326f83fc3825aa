"""Python processes of a test's own: a clean environment, exit code and standard error asserted.

What a library does at import, at exit, after a fork or with a broken environment shows only there. `RVH_TRACE_STRICT`
is not set in them unless asked for, so they see what applications see: errors swallowed, counted and said once.
"""

import os
import subprocess
import sys
import textwrap
from dataclasses import dataclass

TIMEOUT_S = 30.0
OPTIONS = ("-W", "error")
KEPT = ("HOME", "LANG", "LD_LIBRARY_PATH", "PATH", "PYTHONPATH", "TMPDIR", "VIRTUAL_ENV")


@dataclass(frozen=True, slots=True)
class Finished:
    """How a script ended."""

    returncode: int
    stdout: str
    stderr: str

    @property
    def warnings(self) -> list[str]:
        """The lines that the library wrote to standard error."""
        return [line for line in self.stderr.splitlines() if line.startswith("rvh_trace: ")]


def clean_environ(**environ: str) -> dict[str, str]:
    """What every Python process needs, and `environ`."""
    kept = {name: value for name, value in os.environ.items() if name in KEPT}
    return kept | {"PYTHONIOENCODING": "utf-8"} | environ


def run_script(
    script: str, timeout_s: float = TIMEOUT_S, /, *, options: tuple[str, ...] = OPTIONS, **environ: str
) -> Finished:
    """Runs a script with nothing in its environment but what it needs and `environ`."""
    process = subprocess.run(
        [sys.executable, *options, "-c", textwrap.dedent(script)],
        env=clean_environ(**environ),
        capture_output=True,
        timeout=timeout_s,
        check=False,
        text=True,
        encoding="utf-8",
    )
    return Finished(process.returncode, process.stdout, process.stderr)


def run_quietly(
    script: str, timeout_s: float = TIMEOUT_S, /, *, options: tuple[str, ...] = OPTIONS, **environ: str
) -> str:
    """Runs a script that must succeed without a word on standard error; what it printed."""
    finished = run_script(script, timeout_s, options=options, **environ)
    if (finished.returncode, finished.stderr) != (0, ""):
        raise AssertionError(f"exit code {finished.returncode}\n{finished.stdout}{finished.stderr}")
    return finished.stdout
