"""`watch_loop` and the life of a process, in development mode: fork, exit, signals. Nothing is said on stderr."""

import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from interpreter import TIMEOUT_S, run_quietly
from receiver import Receiver

TESTS = str(Path(__file__).parent)
# A loop that is left open is asyncio's own complaint.
DEV = ("-X", "dev", "-W", "error", "-W", "ignore::ResourceWarning")
# Since 3.12 a fork while another thread is alive is a DeprecationWarning of Python's.
FORKING = (*DEV, "-W", "ignore::DeprecationWarning")

LOOPS = pytest.mark.parametrize("loops", ["asyncio", "uvloop"])

# Python says in development mode how long steps took; that they did is what is tested.
PREPARED = """
import asyncio, logging, os, sys, threading, time
sys.path.insert(0, {tests!r})
import uvloop
import rvh_trace
from loop_block import asleep, block, until, until_it_is_back, watching_threads

logging.getLogger("asyncio").setLevel(logging.ERROR)
new_loop = {loops}.new_event_loop

def run(main):
    with asyncio.Runner(loop_factory=new_loop) as runner:
        return runner.run(main)
"""


def script(body: str, loops: str) -> str:
    return PREPARED.format(tests=TESTS, loops=loops) + textwrap.dedent(body)


class TestExit:
    @LOOPS
    @pytest.mark.parametrize("times", range(3))
    @pytest.mark.parametrize(
        "body",
        [
            pytest.param(
                """
                async def main():
                    rvh_trace.watch_loop(threshold_ms=20)
                run(main())
                """,
                id="a loop that was closed",
            ),
            pytest.param(
                """
                loop = new_loop()
                rvh_trace.watch_loop(loop, threshold_ms=20)
                # In debug mode CPython 3.13.0 prints a traceback when any loop is left open, with and without us.
                loop.set_debug(False)
                loop.run_until_complete(asyncio.sleep(0.05))
                loop.stop()
                """,
                id="a loop that was not closed",
            ),
            pytest.param(
                """
                async def main():
                    rvh_trace.watch_loop(threshold_ms=20)
                    ready.set()
                    await asyncio.sleep(3600)
                ready = threading.Event()
                threading.Thread(target=run, args=(main(),), daemon=True).start()
                ready.wait()
                """,
                id="a loop that runs in a daemon thread",
            ),
            pytest.param(
                """
                async def main():
                    watch = rvh_trace.watch_loop(threshold_ms=20)
                    threading.Thread(target=until, args=(lambda: watch.is_blocked, ready.set)).start()
                    asleep(watch)
                    ready.set()
                    time.sleep(3600)
                ready = threading.Event()
                threading.Thread(target=run, args=(main(),), daemon=True).start()
                ready.wait()
                """,
                id="a loop that is blocked in a daemon thread",
            ),
            pytest.param(
                """
                async def main():
                    rvh_trace.watch_loop(threshold_ms=20)
                    while True:
                        time.sleep(0.03)
                        await asyncio.sleep(0)
                        ready.set()
                ready = threading.Event()
                for _ in range(4):
                    threading.Thread(target=run, args=(main(),), daemon=True).start()
                ready.wait()
                """,
                id="loops that are blocked now and then in daemon threads",
            ),
            pytest.param(
                """
                async def main():
                    asleep(rvh_trace.watch_loop(threshold_ms=20))
                    sys.exit()
                run(main())
                """,
                id="SystemExit out of a block",
            ),
        ],
    )
    def test_it_is_clean_with(self, body: str, loops: str, times: int) -> None:
        run_quietly(script(body, loops), options=DEV, OTEL_TRACES_EXPORTER="none")

    @LOOPS
    def test_a_block_that_is_not_over_is_reported_as_it_is(self, receiver: Receiver, loops: str) -> None:
        body = """
        rvh_trace.init_tracing("shop")
        async def main():
            watch = rvh_trace.watch_loop(threshold_ms=20)
            asleep(watch)
            ready.set()
            time.sleep(3600)
        ready = threading.Event()
        threading.Thread(target=run, args=(main(),), daemon=True).start()
        ready.wait()
        """
        run_quietly(script(body, loops), options=DEV, OTEL_EXPORTER_OTLP_ENDPOINT=receiver.http_endpoint)
        (reported,) = receiver.spans
        assert reported.name == "rvh_trace.loop.blocked"
        assert float(str(reported.attributes["rvh_trace.loop.blocked_time"])) >= 0.02


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
class TestFork:
    @LOOPS
    def test_a_child_watches_loops_of_its_own_and_the_parent_goes_on(self, receiver: Receiver, loops: str) -> None:
        body = """
        rvh_trace.init_tracing("shop")

        async def main(name):
            with rvh_trace.watch_loop(threshold_ms=200) as watch:
                # The first beat after the loop did not run.
                await asyncio.sleep(0.03)
                with rvh_trace.span(name):
                    asleep(watch)
                await until_it_is_back(watch)

        loop = new_loop()
        watch = rvh_trace.watch_loop(loop, threshold_ms=200)
        loop.run_until_complete(asyncio.sleep(0.03))
        until(lambda: watching_threads() == 1)
        pid = os.fork()
        if not pid:
            assert watching_threads() == 0
            run(main("in the child"))
            assert rvh_trace.shutdown()
            os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        loop.run_until_complete(main("in the parent"))
        loop.close()
        """
        run_quietly(script(body, loops), options=FORKING, OTEL_EXPORTER_OTLP_ENDPOINT=receiver.http_endpoint)
        assert sorted((one.name, len(one.span.events)) for one in receiver.spans) == [
            ("in the child", 1),
            ("in the parent", 1),
        ]

    def test_a_child_that_goes_on_with_its_parents_loop_goes_on_watching_it(self, receiver: Receiver) -> None:
        """Also if it was forked out of a block that is not over."""
        body = """
        rvh_trace.init_tracing("shop")

        async def main(name):
            await asyncio.sleep(0.03)
            with rvh_trace.span(name):
                asleep(watch)
            await until_it_is_back(watch)

        loop = new_loop()
        watch = rvh_trace.watch_loop(loop, threshold_ms=200)
        pids = []

        async def fork():
            with rvh_trace.span("forked"):
                asleep(watch)
                pids.append(os.fork())
        try:
            loop.run_until_complete(fork())
            loop.run_until_complete(until_it_is_back(watch))
            loop.run_until_complete(main("in the child" if not pids[0] else "in the parent"))
            assert rvh_trace.shutdown()
        finally:
            if not pids[0]:
                os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(pids[0], 0)[1]) == 0
        loop.close()
        """
        run_quietly(script(body, "asyncio"), options=FORKING, OTEL_EXPORTER_OTLP_ENDPOINT=receiver.http_endpoint)
        assert sorted((one.name, len(one.span.events)) for one in receiver.spans) == [
            ("forked", 1),
            ("in the child", 1),
            ("in the parent", 1),
        ]


@LOOPS
@pytest.mark.skipif(not hasattr(signal, "SIGSTOP"), reason="needs SIGSTOP")
def test_a_process_that_was_stopped_was_not_blocked(receiver: Receiver, loops: str) -> None:
    body = """
    rvh_trace.init_tracing("shop")

    async def main():
        with rvh_trace.watch_loop(threshold_ms=200):
            loop = asyncio.get_running_loop()
            for _ in range(2):
                print("ready", flush=True)
                assert await loop.run_in_executor(None, sys.stdin.readline)
    run(main())
    """
    environment = {"OTEL_EXPORTER_OTLP_ENDPOINT": receiver.http_endpoint}
    child = subprocess.Popen(
        [sys.executable, *DEV, "-c", script(body, loops)],
        env={name: value for name, value in os.environ.items() if not name.startswith("OTEL_")} | environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with child:
        assert child.stdin is not None
        assert child.stdout is not None
        try:
            assert child.stdout.readline() == "ready\n"
            child.send_signal(signal.SIGSTOP)
            # Not a thread's sleep that hopes: it is how long the process is stopped.
            with pytest.raises(subprocess.TimeoutExpired):
                child.wait(1)
            child.send_signal(signal.SIGCONT)
            child.stdin.write("go on\n")
            child.stdin.flush()
            assert child.stdout.readline() == "ready\n"
            _, said = child.communicate("end\n", timeout=TIMEOUT_S)
        except BaseException:
            child.kill()
            raise
    assert (child.returncode, said) == (0, "")
    assert receiver.spans == []
