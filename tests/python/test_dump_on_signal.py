"""`dump_on_signal`: the open spans on standard error, whatever the process is doing."""

import os
import re
import signal
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from interpreter import KEPT, TIMEOUT_S

from rvh_trace import ConfigurationError, dump_on_signal, span
from rvh_trace.testing import InMemoryExporter

pytestmark = pytest.mark.skipif(not hasattr(signal, "SIGUSR1"), reason="needs SIGUSR1")

PRELUDE = """
import asyncio, os, signal, sys, threading, time
import rvh_trace
from rvh_trace import dump_on_signal, span
rvh_trace.init_tracing("shop", exporter="none")
from rvh_trace.testing import InMemoryExporter
InMemoryExporter().install()

def ready():
    print("ready", flush=True)
"""


@contextmanager
def running(script: str) -> Iterator["subprocess.Popen[str]"]:
    """A process that has said it is ready; it is ended, whatever happens."""
    process = subprocess.Popen(
        [sys.executable, "-W", "error", "-c", PRELUDE + textwrap.dedent(script)],
        env={name: value for name, value in os.environ.items() if name in KEPT},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    # A test that waits for a line in vain ends with its process.
    killer = threading.Timer(TIMEOUT_S, process.kill)
    killer.start()
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n", process.communicate(timeout=TIMEOUT_S)
        yield process
    finally:
        killer.cancel()
        process.kill()
        process.communicate()


def dumped(process: "subprocess.Popen[str]", signum: int = signal.SIGUSR1) -> list[str]:
    """Sends the signal; the lines of the dump."""
    process.send_signal(signum)
    assert process.stderr is not None
    first = process.stderr.readline()
    assert first.startswith("rvh_trace: "), first + process.stderr.read()
    count = int(first.removeprefix("rvh_trace: ").partition(" ")[0])
    return [first, *(process.stderr.readline() for _ in range(count))]


WAITING = """
async def wait_for_stock():
    with span("load stock"):
        asyncio.get_running_loop().call_soon(ready)
        await asyncio.Event().wait()

async def main():
    dump_on_signal()
    with span("checkout"):
        await asyncio.create_task(wait_for_stock(), name="stock")
"""


@pytest.mark.parametrize("loop", ["asyncio.new_event_loop", "uvloop.new_event_loop"])
def test_a_waiting_loop_shows_its_tasks(loop: str) -> None:
    script = WAITING + f"\nimport uvloop\nwith asyncio.Runner(loop_factory={loop}) as runner:\n    runner.run(main())\n"
    with running(script) as process:
        for _ in range(2):
            first, checkout, load = dumped(process)
            assert first == "rvh_trace: 2 open spans\n"
            assert checkout.startswith("checkout  ")
            assert "task 'Task-1' at <string>:" in checkout
            assert load.startswith("  load stock  ")
            assert "task 'stock' at " in load
            assert load.rstrip().endswith("Event.wait")
        assert process.poll() is None


@pytest.mark.parametrize("loop", ["asyncio.new_event_loop", "uvloop.new_event_loop"])
@pytest.mark.parametrize("blocking", ["time.sleep(60)", "while True: pass"], ids=["sleeps", "computes"])
def test_a_blocked_loop_shows_what_blocks_it(loop: str, blocking: str, tmp_path: Path) -> None:
    module = tmp_path / "shop.py"
    module.write_text(f"import time\n\ndef total(ready):\n    ready()\n    {blocking}\n", "utf-8")
    with running(
        f"""
        import uvloop
        sys.path[:0] = [{str(tmp_path)!r}]
        import shop

        async def main():
            dump_on_signal()
            with span("checkout"):
                shop.total(ready)

        with asyncio.Runner(loop_factory={loop}) as runner:
            runner.run(main())
        """
    ) as process:
        first, checkout = dumped(process)
        assert first == "rvh_trace: 1 open span\n"
        assert "task 'Task-1' at " in checkout
        # The signal may arrive just before the line after `ready()`.
        assert f"{module}:5 total" in checkout or f"{module}:4 total" in checkout or "ready" in checkout


def test_a_loop_in_another_thread_is_shown_by_the_main_one() -> None:
    with running(
        WAITING.replace("    dump_on_signal()\n", "")
        + """
dump_on_signal()
thread = threading.Thread(target=asyncio.run, args=(main(),))
thread.start()
thread.join()
"""
    ) as process:
        _, _, load = dumped(process)
        assert "task 'stock'" in load


def test_a_handler_that_was_there_is_called_too() -> None:
    with running(
        """
        def theirs(signum, frame):
            os.write(1, f"theirs {signum:d} {frame is not None}\\n".encode())

        signal.signal(signal.SIGUSR2, theirs)
        undo = dump_on_signal(signal.SIGUSR2)
        with span("outer"):
            ready()
            sys.stdin.readline()
            undo()
            ready()
            sys.stdin.readline()
        """
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        theirs = f"theirs {signal.SIGUSR2:d} True\n"
        assert len(dumped(process, signal.SIGUSR2)) == 2
        assert process.stdout.readline() == theirs
        process.stdin.write("\n")
        process.stdin.flush()
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGUSR2)
        assert process.stdout.readline() == theirs
        _, rest = process.communicate("\n", timeout=TIMEOUT_S)
        assert (process.returncode, rest) == (0, "")


def test_a_handler_of_the_loop_is_called_too() -> None:
    with running(
        """
        async def main():
            called = asyncio.Event()
            asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, called.set)
            dump_on_signal()
            ready()
            await called.wait()

        asyncio.run(main())
        """
    ) as process:
        assert dumped(process) == ["rvh_trace: 0 open spans\n"]
        process.communicate(timeout=TIMEOUT_S)
        assert process.returncode == 0


def test_it_works_while_standard_error_is_being_written() -> None:
    """`sys.stderr` refuses a writer that interrupts another one."""
    with running(
        """
        dump_on_signal()
        stop = threading.Event()
        threading.Thread(target=lambda: (sys.stdin.read(), stop.set())).start()
        ready()
        while not stop.is_set():
            sys.stderr.buffer.write(b"")
            sys.stderr.buffer.flush()
        """
    ) as process:
        for _ in range(50):
            assert dumped(process) == ["rvh_trace: 0 open spans\n"]
        _, rest = process.communicate("", timeout=TIMEOUT_S)
        assert (process.returncode, rest) == (0, "")


def test_a_closed_standard_error_disturbs_nobody() -> None:
    with running(
        """
        dump_on_signal()
        os.close(2)
        ready()
        sys.stdin.readline()
        """
    ) as process:
        process.send_signal(signal.SIGUSR1)
        process.communicate("\n", timeout=TIMEOUT_S)
        assert process.returncode == 0


class TestInstalling:
    def test_it_can_be_undone_and_installing_twice_is_installing_once(self) -> None:
        before = signal.getsignal(signal.SIGUSR1)
        undo = dump_on_signal()
        ours = signal.getsignal(signal.SIGUSR1)
        assert ours is not before
        assert dump_on_signal(signal.SIGUSR1) == undo
        assert signal.getsignal(signal.SIGUSR1) is ours
        undo()
        assert signal.getsignal(signal.SIGUSR1) is before
        undo()
        assert signal.getsignal(signal.SIGUSR1) is before

    def test_a_handler_on_top_of_ours_stays_and_ours_calls_the_one_before(
        self, capfd: pytest.CaptureFixture[str]
    ) -> None:
        calls: list[str] = []
        before = signal.signal(signal.SIGUSR2, lambda signum, frame: calls.append("before"))
        try:
            undo = dump_on_signal(signal.SIGUSR2)
            ours = signal.getsignal(signal.SIGUSR2)
            assert callable(ours)

            def on_top(signum: int, frame: object) -> None:
                calls.append("on top")
                ours(signum, None)

            signal.signal(signal.SIGUSR2, on_top)
            with InMemoryExporter(), span("outer"):
                signal.raise_signal(signal.SIGUSR2)
            assert re.search(r"^rvh_trace: \d+ open spans?\n(.*\n)*outer  ", capfd.readouterr().err)
            undo()
            assert signal.getsignal(signal.SIGUSR2) is on_top
            signal.raise_signal(signal.SIGUSR2)
            assert capfd.readouterr().err == ""
            assert calls == ["on top", "before"] * 2
        finally:
            signal.signal(signal.SIGUSR2, before)

    def test_a_signal_that_cannot_be_handled_is_said_at_once(self) -> None:
        for wrong in (signal.SIGKILL, 4711, "SIGUSR1"):
            with pytest.raises(ConfigurationError, match="dump_on_signal"):
                dump_on_signal(wrong)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]

    def test_only_the_main_thread_can_install_it(self) -> None:
        errors: list[BaseException] = []

        def install() -> None:
            try:
                dump_on_signal()
            except ConfigurationError as error:
                errors.append(error)

        thread = threading.Thread(target=install)
        thread.start()
        thread.join()
        assert "main thread" in str(errors)

    def test_a_platform_without_the_signal_is_told_what_to_do(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delattr(signal, "SIGUSR1")
        with pytest.raises(ConfigurationError, match=r"signal\.SIGBREAK"):
            dump_on_signal()
