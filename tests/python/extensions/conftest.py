"""The extension module of these tests: built once, apart from the library, as a user would build it."""

import asyncio
import faulthandler
import importlib
import os
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import ModuleType

import pytest
from extension_build import FUTURES_EXTENSION, TRACED_EXTENSION, build
from interpreter import Finished, run_quietly, run_script

TIMEOUT_S = 60.0
UNTIL_S = 30.0


def build_in_time(source: Path) -> Path:
    """Where the module is. A first build takes longer than a test may, and has a limit of its own."""
    faulthandler.cancel_dump_traceback_later()
    return build(source)


@pytest.fixture(scope="session")
def extension_path() -> Path:
    """Where the extension is."""
    return build_in_time(TRACED_EXTENSION)


@pytest.fixture(scope="session")
def extension(extension_path: Path) -> ModuleType:
    """The extension, connected to the rvh_trace of this process."""
    sys.path.insert(0, str(extension_path))
    try:
        import traced_extension  # pyright: ignore[reportMissingImports]
    finally:
        sys.path.remove(str(extension_path))
    module: ModuleType = traced_extension
    assert module.is_connected(), module.connect()
    return module


@pytest.fixture
def run_extension(extension_path: Path) -> Callable[..., str]:
    """Runs a script that may import the extension, with exit code 0 and nothing on standard error; what it printed."""

    def run(script: str, endpoint: str = "") -> str:
        path = python_path(extension_path)
        return run_quietly(script, TIMEOUT_S, PYTHONPATH=path, OTEL_EXPORTER_OTLP_ENDPOINT=endpoint)

    return run


@pytest.fixture
def finish_extension(extension_path: Path) -> Callable[..., Finished]:
    """Runs a script that may import the extension; how it ended."""

    def run(script: str, endpoint: str = "") -> Finished:
        path = python_path(extension_path)
        return run_script(script, TIMEOUT_S, PYTHONPATH=path, OTEL_EXPORTER_OTLP_ENDPOINT=endpoint)

    return run


def python_path(directory: Path) -> str:
    """`PYTHONPATH` with one directory more, before the others."""
    return os.pathsep.join(filter(None, [str(directory), os.environ.get("PYTHONPATH")]))


@pytest.fixture(scope="session")
def futures_directory() -> Path:
    """Where the module `futures_extension` is."""
    return build_in_time(FUTURES_EXTENSION)


@pytest.fixture(scope="session")
def futures(futures_directory: Path) -> ModuleType:
    """The module `futures_extension`: Rust futures and streams under Python."""
    sys.path.insert(0, str(futures_directory))
    try:
        return importlib.import_module("futures_extension")
    finally:
        sys.path.remove(str(futures_directory))


@pytest.fixture
def until() -> Callable[[Callable[[], object]], Awaitable[None]]:
    """Waits for a condition, which another thread makes true."""

    async def until(condition: Callable[[], object]) -> None:
        deadline = time.monotonic() + UNTIL_S
        while not condition():
            assert time.monotonic() < deadline, "it never came true"
            await asyncio.sleep(0.001)

    return until
