"""A spool on a disk that is full, on one that may not be written to, and in a directory that somebody removes.

None of it is fatal: what cannot be kept is counted with its reason and said once, and what fits later is kept again.
"""

import os
import resource
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol

import pytest

from .application import Application, application
from .server import FaultServer

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="a full disk is made by means of Linux")

FEW, MANY = 10, 200
"""Spans of one request; many take several pages of a file."""
MORE = 20
"""Requests that a full disk gets."""


class Disk(Protocol):
    """Where the spool directory is."""

    directory: Path

    def fill(self, running: Application) -> None:
        """Leaves no room, or less than a request takes."""
        ...

    def make_room(self, running: Application) -> None:
        """Undoes it."""
        ...


class SmallDisk:
    """A file system of its own, filled up by a file."""

    def __init__(self, mounted: Path) -> None:
        self.directory = mounted / "spool"
        self._ballast = mounted / "ballast"

    def fill(self, _running: Application) -> None:
        free = os.statvfs(self._ballast.parent)
        with self._ballast.open("wb", buffering=0) as file:
            os.posix_fallocate(file.fileno(), 0, free.f_bavail * free.f_frsize)

    def make_room(self, _running: Application) -> None:
        self._ballast.unlink()


class SmallFiles:
    """A limit on what the process may write into one file, less than a request: for one without the right to mount."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory / "spool"

    def fill(self, running: Application) -> None:
        limit_file_size(running, 1024)

    def make_room(self, running: Application) -> None:
        limit_file_size(running, resource.RLIM_INFINITY)


def limit_file_size(running: Application, size: int) -> None:
    _, hard = resource.prlimit(running.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(running.pid, resource.RLIMIT_FSIZE, (size, hard))


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[SmallDisk]:
    mounted = tmp_path / "disk"
    mounted.mkdir()
    mounting = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(mounted)], capture_output=True, text=True, check=False
    )
    if mounting.returncode != 0:
        pytest.skip(f"no file system can be mounted: {mounting.stderr.strip()}")
    yield SmallDisk(mounted)
    subprocess.run(["umount", str(mounted)], check=True)


@pytest.fixture(params=["small disk", "small files"])
def disk(request: pytest.FixtureRequest, tmp_path: Path) -> Disk:
    return SmallFiles(tmp_path) if request.param == "small files" else request.getfixturevalue("small_disk")


@pytest.fixture
def collector() -> Iterator[FaultServer]:
    """Down until it is told to listen."""
    with FaultServer("http/protobuf", listens=False) as collector:
        yield collector


def spooling(
    collector: FaultServer, directory: Path, *, run_by: tuple[str, ...] = ()
) -> AbstractContextManager[Application]:
    return application(
        collector.endpoint,
        collector.protocol,
        run_by=run_by,
        spool_directory=str(directory),
        export_timeout_ms=1_000,
        # Only the flush sends.
        max_export_batch_size=2 * MANY,
    )


def send(running: Application, spans: int) -> bool:
    """One request; whether nothing of it was lost."""
    running.make(spans)
    return running.flush().result


def about_spool(stderr: str) -> list[str]:
    return [line for line in stderr.splitlines() if "spool" in line]


def test_what_a_full_disk_does_not_take_is_counted_and_the_rest_is_kept(disk: Disk, collector: FaultServer) -> None:
    with spooling(collector, disk.directory) as running:
        assert send(running, FEW)
        disk.fill(running)
        assert not any(send(running, MANY) for _ in range(MORE))
        stats = running.ask(look=True).stats
        assert (stats["spooled"], stats["dropped"]["spool_full"]) == (FEW, MORE * MANY), stats
        assert len(list(disk.directory.iterdir())) <= 3, "a lock, what was kept, and the file that has no room"
        disk.make_room(running)
        assert send(running, MANY)
        assert running.ask(look=True).stats["spooled"] == FEW + MANY
        collector.listen()
        running.wait_until(lambda stats: stats["spooled"] == 0)
        outcome = running.end()
    stats = outcome.stats
    assert (stats["exported"], stats["damaged_spool_files"], stats["spooled_bytes"]) == (FEW + MANY, 0, 0), stats
    first_after = FEW + MORE * MANY
    assert Counter(collector.ledger.taken) == Counter([*range(FEW), *range(first_after, first_after + MANY)])
    (said,) = about_spool(outcome.stderr)
    assert str(disk.directory) in said
    assert "RVH_TRACE_SPOOL_DIRECTORY" in said


def test_a_limit_of_one_file_costs_nothing(collector: FaultServer, tmp_path: Path) -> None:
    directory = tmp_path / "spool"
    with spooling(collector, directory) as running:
        limit_file_size(running, 64 * 1024)
        assert all(send(running, MANY) for _ in range(MORE))
        assert len(list(directory.glob("*.spool"))) > 1
        collector.listen()
        running.wait_until(lambda stats: stats["exported"] == MORE * MANY)
        outcome = running.end()
    assert not any(outcome.stats["dropped"].values())
    assert Counter(collector.ledger.taken) == Counter(range(MORE * MANY))
    assert not about_spool(outcome.stderr)


def without_rights_of_root() -> tuple[str, ...]:
    """What a command is run by that has to heed the mode of a directory."""
    if os.geteuid() != 0:
        return ()
    setpriv = shutil.which("setpriv")
    if setpriv is None:
        pytest.skip("root writes where it likes, and there is no setpriv to stop it")
    return (setpriv, "--bounding-set", "-dac_override,-dac_read_search")


def test_a_directory_that_may_not_be_written_to_is_as_good_as_none(collector: FaultServer, tmp_path: Path) -> None:
    directory = tmp_path / "spool"
    directory.mkdir(0o500)
    with spooling(collector, directory, run_by=without_rights_of_root()) as running:
        running.may_swallow = True
        assert not send(running, FEW)
        stats = running.ask(look=True).stats
        assert (stats["spooled"], stats["dropped"]["failed"]) == (0, FEW), stats
        assert stats["swallowed_errors"] > 0
        directory.chmod(0o700)
        assert send(running, FEW)
        # The lock and the file that is written to stay open; a new one is not made.
        directory.chmod(0o500)
        assert send(running, FEW)
        assert running.ask(look=True).stats["spooled"] == 2 * FEW
        directory.chmod(0o700)
        collector.listen()
        running.wait_until(lambda stats: stats["spooled"] == 0)
        outcome = running.end()
    assert (outcome.stats["exported"], outcome.stats["dropped"]["failed"]) == (2 * FEW, FEW)
    assert Counter(collector.ledger.taken) == Counter(range(FEW, 3 * FEW))
    (said,) = about_spool(outcome.stderr)
    assert "Permission denied" in said
    assert "RVH_TRACE_SPOOL_DIRECTORY" in said


def test_a_directory_that_is_removed_is_made_anew(collector: FaultServer, tmp_path: Path) -> None:
    directory = tmp_path / "spool"
    with spooling(collector, directory) as running:
        for _ in range(2):
            running.make(FEW)
            running.flush()
            directory.rename(tmp_path / "gone")
            shutil.rmtree(tmp_path / "gone")
        running.make(FEW)
        running.flush()
        stats = running.wait_until(lambda stats: stats["dropped"]["spool_damaged"] == 2 * FEW)
        assert stats["spooled"] == FEW, stats
        assert directory.stat().st_mode & 0o777 == 0o700
        assert sorted(path.suffix for path in directory.iterdir()) == [".lock", ".spool"]
        collector.listen()
        running.wait_until(lambda stats: stats["spooled"] == 0)
        outcome = running.end()
    stats = outcome.stats
    assert (stats["exported"], stats["dropped"]["spool_damaged"], stats["damaged_spool_files"]) == (FEW, 2 * FEW, 2)
    assert Counter(collector.ledger.taken) == Counter(range(2 * FEW, 3 * FEW))
    (said,) = about_spool(outcome.stderr)
    assert "not there any more" in said
    assert not list(directory.iterdir())
