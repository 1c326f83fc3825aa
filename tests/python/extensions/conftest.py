"""The extension module of these tests: built once, apart from the library, as a user would build it."""

import asyncio
import faulthandler
import importlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from building import build
from interpreter import Finished, run_quietly, run_script

ROOT = Path(__file__).parents[3]
TARGET = ROOT / "target" / "extensions"
BUILD_TIMEOUT_S = 1200
UNTIL_S = 30.0


def build_extension(profile: str = "dev") -> Path:
    """Builds the extension for this interpreter; the directory that holds it and nothing else.

    Another profile than `dev` is for measuring.

    Raises:
        AssertionError: It does not build; with what cargo says.
    """
    # A first build takes longer than a test may, and has a limit of its own.
    faulthandler.cancel_dump_traceback_later()
    source = Path(__file__).parent / "extension"
    process = subprocess.run(
        ["cargo", "build", "--profile", profile, "--manifest-path", str(source / "Cargo.toml")],
        env=os.environ | {"CARGO_TARGET_DIR": str(TARGET), "PYO3_PYTHON": sys.executable},
        capture_output=True,
        check=False,
        text=True,
        timeout=BUILD_TIMEOUT_S,
    )
    assert process.returncode == 0, process.stderr
    tag = sys.implementation.cache_tag
    directory = TARGET / "modules" / f"{tag}-{profile}"
    directory.mkdir(parents=True, exist_ok=True)
    built = TARGET / ("debug" if profile == "dev" else profile) / "libtraced_extension.so"
    # Not over one that a process has open.
    shutil.copy2(built, directory / "new")
    (directory / "new").replace(directory / "traced_extension.so")
    return directory


@pytest.fixture(scope="session")
def extension_path() -> Path:
    """Where the extension is."""
    # The first build compiles PyO3 and more.
    return build_extension()


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
def run_extension(extension_path: Path) -> Any:
    """Runs a script that may import the extension, with exit code 0 and nothing on standard error; what it printed."""

    def run(script: str, **environ: str) -> str:
        return run_quietly(script, 60.0, **(with_extension(extension_path) | environ))

    return run


@pytest.fixture
def finish_extension(extension_path: Path) -> Any:
    """Runs a script that may import the extension; how it ended."""

    def run(script: str, **environ: str) -> Finished:
        return run_script(script, 60.0, **(with_extension(extension_path) | environ))

    return run


def with_extension(path: Path) -> dict[str, str]:
    before = os.environ.get("PYTHONPATH")
    return {"PYTHONPATH": os.pathsep.join([str(path), *([before] if before else [])])}


@pytest.fixture(scope="session")
def futures_directory() -> Path:
    """Where the module `futures_extension` is."""
    return build(Path(__file__).parent / "futures", "futures_extension")


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
