"""Builds an extension module apart from the library, as a user would: for tests, and released for `make bench`."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parent.parent
TARGET = ROOT / "target" / "extensions"
TRACED_EXTENSION = ROOT / "tests" / "python" / "extensions" / "extension"
FUTURES_EXTENSION = TRACED_EXTENSION.with_name("futures")
BUILD_TIMEOUT_S = 1800


class BuildError(Exception):
    """It does not build; says what cargo said."""


def directory_of(source: Path, profile: str = "dev") -> Path:
    """Where the module of a crate is for this interpreter, once it is built, and nothing else."""
    return TARGET / "modules" / f"{_name(source)}-{sys.implementation.cache_tag}-{profile}"


def build(source: Path, profile: str = "dev") -> Path:
    """Builds the crate in `source` with cargo; the directory that holds the module, for `sys.path`.

    Extensions share a directory of what cargo has compiled, so that PyO3 is compiled once.

    Raises:
        BuildError: It does not build.
        subprocess.TimeoutExpired: It took longer than half an hour.
    """
    process = subprocess.run(
        ["cargo", "build", "--profile", profile, "--manifest-path", str(source / "Cargo.toml")],
        env=os.environ | {"CARGO_TARGET_DIR": str(TARGET), "PYO3_PYTHON": sys.executable},
        capture_output=True,
        check=False,
        text=True,
        timeout=BUILD_TIMEOUT_S,
    )
    if process.returncode != 0:
        raise BuildError(process.stderr)
    directory = directory_of(source, profile)
    directory.mkdir(parents=True, exist_ok=True)
    built = TARGET / ("debug" if profile == "dev" else profile) / f"lib{_name(source)}.so"
    # Not over one that a process has mapped.
    shutil.copy2(built, directory / "new")
    (directory / "new").replace(directory / f"{_name(source)}.so")
    return directory


def _name(source: Path) -> str:
    return str(tomllib.loads((source / "Cargo.toml").read_text())["package"]["name"])


if __name__ == "__main__":
    for source in (TRACED_EXTENSION, FUTURES_EXTENSION):
        print(build(source, "release"))
