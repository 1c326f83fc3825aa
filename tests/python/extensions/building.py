"""Extension modules that tests need, built by cargo as their users would build theirs: apart from this workspace."""

import faulthandler
import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
# One for all of them, so that what they have in common is compiled once.
TARGET = ROOT / "target" / "extensions"
BUILD_TIMEOUT_S = 1200


def build(crate: Path, module: str, profile: str = "dev") -> Path:
    """Builds the crate in `crate` for this interpreter; the directory that holds the module `module` and nothing else.

    The versions of what it needs are those of this workspace's lock file, as far as it has them.

    Raises:
        AssertionError: It does not build; with what cargo says.
    """
    # A first build takes longer than a test may, and has a limit of its own.
    faulthandler.cancel_dump_traceback_later()
    shutil.copyfile(ROOT / "Cargo.lock", crate / "Cargo.lock")
    process = subprocess.run(
        ["cargo", "build", "--profile", profile, "--manifest-path", crate / "Cargo.toml", "--target-dir", TARGET],
        env=os.environ | {"PYO3_PYTHON": sys.executable},
        capture_output=True,
        check=False,
        text=True,
        timeout=BUILD_TIMEOUT_S,
    )
    assert process.returncode == 0, process.stderr
    directory = TARGET / "modules" / f"{module}-{sys.implementation.cache_tag}-{profile}"
    directory.mkdir(parents=True, exist_ok=True)
    built = TARGET / ("debug" if profile == "dev" else profile)
    # Not over one that a process has open.
    shutil.copy2(next(built.glob(f"lib{module}.[sd]*")), directory / "new")
    (directory / "new").replace(directory / f"{module}.so")
    return directory
