"""What `import` adds to an empty interpreter, and how large the native modules are."""

import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter_ns

from .process import environment
from .sample import Pair

IMPORTS = {
    "rvh_trace": "import rvh_trace",
    "opentelemetry": (
        "import opentelemetry.sdk.trace, opentelemetry.sdk.trace.export, "
        "opentelemetry.exporter.otlp.proto.http.trace_exporter"
    ),
    "pytracingx": "import pytracingx",
}
NATIVE_MODULES = {"rvh_trace": "rvh_trace._rvh_trace", "pytracingx": "pytracingx._native"}


def _run(code: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True, env=environment())


def _timed(code: str) -> int:
    start = perf_counter_ns()
    _run(code)
    return perf_counter_ns() - start


def importable(name: str) -> bool:
    """Whether the import works; it also warms the file cache and writes the bytecode."""
    return _run(IMPORTS[name]).returncode == 0


def measure_import(name: str, first: bool) -> Pair:
    """A pair of interpreters; `first` says whether the importing one starts first."""
    if first:
        subject = _timed(IMPORTS[name])
        return Pair(subject, _timed("pass"))
    baseline = _timed("pass")
    return Pair(_timed(IMPORTS[name]), baseline)


@dataclass(frozen=True)
class ModuleSize:
    """Bytes of a native module; `stripped` is None where there is no `strip`."""

    as_built: int
    stripped: int | None


def module_size(name: str) -> ModuleSize | None:
    """The size of a library's native module, None when there is none."""
    found = _run(f"import {NATIVE_MODULES[name]} as native; print(native.__file__)")
    if found.returncode != 0:
        return None
    path = Path(found.stdout.strip())
    strip = shutil.which("strip")
    if strip is None:
        return ModuleSize(path.stat().st_size, None)
    with TemporaryDirectory(prefix="rvh-trace-bench-") as directory:
        copy = Path(shutil.copy(path, directory))
        done = subprocess.run([strip, "-x" if sys.platform == "darwin" else "--strip-all", str(copy)])
        return ModuleSize(path.stat().st_size, copy.stat().st_size if done.returncode == 0 else None)
