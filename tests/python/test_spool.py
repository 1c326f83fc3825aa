"""The disk spool from Python: what a collector does not take survives the outage, and the process."""

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Self

import pytest
from interpreter import KEPT, run_quietly, run_script
from killable_collector import KillableCollector


@pytest.fixture
def collector(tmp_path: Path) -> Iterator[KillableCollector]:
    directory = tmp_path / "received"
    directory.mkdir()
    collector = KillableCollector(directory)
    yield collector
    collector.close()


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "spool"


class Application:
    """A script that answers lines on its standard input; ended with its own process id."""

    def __init__(self, script: str, **environ: str) -> None:
        kept = {name: value for name, value in os.environ.items() if name in KEPT}
        self._process = subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(script)],
            env=kept | environ,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def ask(self, line: str) -> dict[str, int]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self._process.kill()
        self._process.communicate(timeout=30)

    def end(self) -> int:
        self._process.communicate(timeout=60)
        return self._process.returncode


UNDER_LOAD = """
import json, sys, threading, time
import rvh_trace

rvh_trace.init_tracing("shop", schedule_delay_ms=20, max_export_batch_size=64)
stopped = threading.Event()
made = []

def work():
    while not stopped.is_set():
        for _ in range(20):
            with rvh_trace.span("op") as span:
                made.append(span.context.span_id)
        time.sleep(0.002)

def balanced():
    stats = rvh_trace.stats()
    dropped = sum(stats["dropped"].values())
    assert stats["ended"] == stats["exported"] + stats["spooled"] + stats["pending"] + dropped, stats
    return stats

thread = threading.Thread(target=work)
thread.start()
for line in sys.stdin:
    if line == "stop\\n":
        stopped.set()
        thread.join()
        deadline = time.monotonic() + 25
        while time.monotonic() < deadline:
            rvh_trace.force_flush(5_000)
            if not balanced()["spooled"]:
                break
    stats = balanced()
    print(json.dumps({key: stats[key] for key in ("ended", "exported", "spooled", "pending")}
        | {"dropped": sum(stats["dropped"].values()), "made": len(made)}), flush=True)
"""


def wait_until(application: Application, enough: str, at_least: int) -> None:
    deadline = time.monotonic() + 60
    while application.ask("stats")[enough] < at_least:
        assert time.monotonic() < deadline, f"{enough} never reached {at_least}"
        time.sleep(0.01)


def test_nothing_is_lost_when_the_collector_is_killed_under_load_and_comes_back(
    collector: KillableCollector, directory: Path
) -> None:
    collector.start()
    variables = {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.endpoint, "RVH_TRACE_SPOOL_DIRECTORY": str(directory)}
    with Application(UNDER_LOAD, **variables) as application:
        wait_until(application, "exported", 500)
        for spooled in (500, 1_000):
            collector.kill()
            wait_until(application, "spooled", spooled)
            collector.start()
            wait_until(application, "exported", application.ask("stats")["ended"])
        end = application.ask("stop")
        assert application.end() == 0
    assert end["dropped"] == end["spooled"] == end["pending"] == 0, end
    assert end["made"] == end["ended"] == end["exported"]
    # A request that was taken and not acknowledged when the collector was killed comes a second time.
    assert len({span.span_id for span in collector.spans}) == end["made"]
    assert not list(directory.iterdir())


def test_a_killed_process_leaves_its_spans_to_the_next(collector: KillableCollector, directory: Path) -> None:
    variables = {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.endpoint, "RVH_TRACE_SPOOL_DIRECTORY": str(directory)}
    with Application(UNDER_LOAD, **variables) as application:
        wait_until(application, "spooled", 1_000)
    assert list(directory.glob("*.spool"))
    collector.start()
    run_quietly(
        f"""
        import time
        import rvh_trace
        rvh_trace.init_tracing("shop", spool_directory={str(directory)!r}, spool_max_bytes=1 << 26)
        with rvh_trace.span("new"):
            pass
        deadline = time.monotonic() + 25
        while rvh_trace.stats()["recovered"] < 1_000 or rvh_trace.stats()["spooled_bytes"]:
            assert time.monotonic() < deadline, rvh_trace.stats()
            rvh_trace.force_flush()
        stats = rvh_trace.stats()
        assert stats["damaged_spool_files"] == stats["spooled"] == 0, stats
        """,
        OTEL_EXPORTER_OTLP_ENDPOINT=collector.endpoint,
    )
    spans = [span.span_id for span in collector.spans]
    assert len(spans) == len(set(spans)) > 1_000
    assert not list(directory.iterdir())


def test_what_is_left_at_exit_is_kept(collector: KillableCollector, directory: Path) -> None:
    finished = run_script(
        """
        import rvh_trace
        rvh_trace.init_tracing("shop")
        for number in range(700):
            with rvh_trace.span("op", number=number):
                pass
        """,
        OTEL_EXPORTER_OTLP_ENDPOINT=collector.endpoint,
        RVH_TRACE_SPOOL_DIRECTORY=str(directory),
    )
    assert finished.returncode == 0
    assert len(finished.warnings) == 1, finished.stderr
    collector.start()
    run_quietly(
        """
        import time
        import rvh_trace
        rvh_trace.init_tracing("shop")
        with rvh_trace.span("new"):
            pass
        deadline = time.monotonic() + 25
        while rvh_trace.stats()["recovered"] < 700:
            assert time.monotonic() < deadline, rvh_trace.stats()
            rvh_trace.force_flush()
        """,
        OTEL_EXPORTER_OTLP_ENDPOINT=collector.endpoint,
        RVH_TRACE_SPOOL_DIRECTORY=str(directory),
    )
    numbers = sorted(int(str(span.attributes["number"])) for span in collector.spans if span.name == "op")
    assert numbers == list(range(700))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="POSIX processes")
def test_a_forked_child_does_not_hold_what_its_killed_parent_left(
    collector: KillableCollector, directory: Path
) -> None:
    finished = run_script(
        f"""
        import fcntl, os, time
        from pathlib import Path
        import rvh_trace

        directory = Path({str(directory)!r})
        rvh_trace.init_tracing("shop", spool_directory=directory)

        def keep(name):
            with rvh_trace.span(name):
                pass
            rvh_trace.force_flush()
            assert rvh_trace.stats()["spooled"] == 1, rvh_trace.stats()

        keep("parent")
        read, write = os.pipe()
        if os.fork():
            os.kill(os.getpid(), 9)
        os.close(write)
        os.read(read, 1)  # until the parent is gone
        (lock,) = directory.glob("*.lock")
        deadline = time.monotonic() + 10
        with lock.open("w") as file:
            while True:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    assert time.monotonic() < deadline
        keep("child")
        print(len(list(directory.glob("*.spool"))))
        """,
        OTEL_EXPORTER_OTLP_ENDPOINT=collector.endpoint,
    )
    assert (finished.returncode, finished.stdout) == (-signal.SIGKILL, "2\n"), finished.stderr
