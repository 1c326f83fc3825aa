"""The life of the interpreter: import, reload, sub-interpreters and every end; exit code and standard error asserted.

`test_lifecycle.py` has what the ordinary end delivers.
"""

import os
import re
import signal
import subprocess
import sys

import pytest
from interpreter import OPTIONS, clean_environ, run_quietly, run_script
from receiver import Receiver


def names(receiver: Receiver) -> list[str]:
    return sorted(one.name for one in receiver.spans)


class TestImport:
    @pytest.mark.parametrize(
        "module",
        ["rvh_trace", "rvh_trace.asgi", "rvh_trace.tasks", "rvh_trace.errors", "rvh_trace.testing", "rvh_trace.django"],
    )
    def test_starts_nothing(self, module: str) -> None:
        run_quietly(
            f"""
            import os, signal, sys, threading
            def state():
                handlers = [signal.getsignal(number) for number in signal.valid_signals()]
                hooks = (sys.excepthook, sys.unraisablehook, threading.excepthook, sys.gettrace(), sys.getprofile())
                files = sorted(os.listdir("/proc/self/fd"))
                return len(os.listdir("/proc/self/task")), threading.active_count(), handlers, hooks, files
            before = state()
            import {module}
            assert state() == before, (before, state())
            """
        )

    def test_in_a_thread_that_ends_is_as_good_as_any(self, receiver: Receiver) -> None:
        run_quietly(
            """
            import threading

            def load():
                import rvh_trace
                rvh_trace.init_tracing("shop")
                with rvh_trace.span("thread"):
                    pass

            thread = threading.Thread(target=load)
            thread.start()
            thread.join()
            import rvh_trace
            with rvh_trace.span("main"):
                pass
            """,
            OTEL_EXPORTER_OTLP_ENDPOINT=receiver.http_endpoint,
        )
        assert names(receiver) == ["main", "thread"]

    def test_from_many_threads_at_once(self, receiver: Receiver) -> None:
        run_quietly(
            """
            import threading
            barrier = threading.Barrier(8)

            def load(number):
                barrier.wait()
                import rvh_trace
                rvh_trace.init_tracing("shop")
                with rvh_trace.span("thread"):
                    pass

            threads = [threading.Thread(target=load, args=(number,)) for number in range(8)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            """,
            OTEL_EXPORTER_OTLP_ENDPOINT=receiver.http_endpoint,
        )
        assert names(receiver) == ["thread"] * 8


SUBINTERPRETER = """
try:
    import _interpreters as interpreters
except ImportError:
    import _xxsubinterpreters as interpreters

def import_in_subinterpreter():
    number = interpreters.create()
    failed = interpreters.run_string(
        number,
        "try:\\n"
        "    import rvh_trace\\n"
        "except ImportError as error:\\n"
        "    print(error, flush=True)\\n"
        "else:\\n"
        "    print('imported', flush=True)\\n",
    )
    interpreters.destroy(number)
    assert failed is None, failed
"""


class TestSubinterpreter:
    """PyO3 0.30 lets modules in; the second interpreter would work with the types of the first."""

    OPTIONS = ("-W", "error", "-W", "ignore::DeprecationWarning")

    @pytest.mark.parametrize("order", ["before", "after", "alone"])
    def test_is_told_where_to_import(self, receiver: Receiver, order: str) -> None:
        use = "import rvh_trace\nrvh_trace.init_tracing('shop')\nwith rvh_trace.span('op'):\n    pass\n"
        enter = "import_in_subinterpreter()\n"
        script = SUBINTERPRETER + {"before": enter + use, "after": use + enter + use, "alone": enter + enter}[order]
        printed = run_quietly(script, options=self.OPTIONS, OTEL_EXPORTER_OTLP_ENDPOINT=receiver.http_endpoint)
        for line in printed.splitlines():
            # CPython 3.12 and later say so themselves of an interpreter with a GIL of its own.
            assert re.search("rvh_trace.* (cannot be imported in a sub|does not support loading in sub)", line), line
        assert len(printed.splitlines()) == script.count(enter)
        assert names(receiver) == {"before": ["op"], "after": ["op", "op"], "alone": []}[order]


class TestReload:
    RELOAD = "importlib.reload(rvh_trace)"
    IMPORT_AGAIN = """
for name in [name for name in sys.modules if name.partition('.')[0] == 'rvh_trace']:
    del sys.modules[name]
import rvh_trace
"""

    @pytest.mark.parametrize("again", [RELOAD, IMPORT_AGAIN], ids=["reload", "import again"])
    def test_keeps_tracer_and_current_span_and_sends_everything_once(self, receiver: Receiver, again: str) -> None:
        run_quietly(
            f"""
import importlib, os, sys
import rvh_trace
rvh_trace.init_tracing("shop")
old = rvh_trace
with rvh_trace.span("open") as op:
    {again.strip().replace(chr(10), chr(10) + "    ")}
    assert rvh_trace.current_span() is op
    rvh_trace.init_tracing("shop")
    with rvh_trace.span("inside"), old.span("of the old"):
        pass
pid = os.fork()
with rvh_trace.span("forked", pid=os.getpid()):
    pass
if pid:
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
            """,
            options=TestSubinterpreter.OPTIONS,
            OTEL_EXPORTER_OTLP_ENDPOINT=receiver.http_endpoint,
        )
        assert names(receiver) == ["forked", "forked", "inside", "of the old", "open"]
        assert len({one.span_id for one in receiver.spans}) == 5
        found = {one.name: one for one in receiver.spans}
        assert found["inside"].parent_id == found["open"].span_id
        assert found["of the old"].parent_id == found["inside"].span_id


# asyncio's word on a task that ends the program.
UNRETRIEVED = "Task exception was never retrieved"
TRACEBACK = "Traceback (most recent call last):"


class TestEnd:
    @pytest.mark.parametrize(
        ("ending", "code", "first_line"),
        [
            ("sys.exit(3)", 3, ""),
            ("raise KeyboardInterrupt", -signal.SIGINT, TRACEBACK),
            ("raise LookupError", 1, TRACEBACK),
            ("asyncio.create_task(leave()); await asyncio.sleep(30)", 4, UNRETRIEVED),
            (
                "async with asyncio.TaskGroup() as group: group.create_task(leave()); await asyncio.sleep(30)",
                4,
                UNRETRIEVED,
            ),
            ("asyncio.get_running_loop().call_soon(sys.exit, 5); await asyncio.sleep(30)", 5, ""),
            ("os.kill(os.getpid(), signal.SIGINT); await asyncio.sleep(30)", -signal.SIGINT, TRACEBACK),
        ],
    )
    @pytest.mark.parametrize("factory", [False, True], ids=["", "task factory"])
    def test_of_an_event_loop_sends_what_was_open_inside(
        self, receiver: Receiver, ending: str, code: int, first_line: str, factory: bool
    ) -> None:
        finished = run_script(
            f"""
            import asyncio, os, signal, sys
            import rvh_trace

            async def leave():
                async with rvh_trace.span("task"):
                    await asyncio.sleep(0)
                    sys.exit(4)

            async def main():
                if {factory}:
                    rvh_trace.install_task_factory()
                async with rvh_trace.span("main"):
                    {ending}

            rvh_trace.init_tracing("shop")
            asyncio.run(main())
            """,
            OTEL_EXPORTER_OTLP_ENDPOINT=receiver.http_endpoint,
        )
        assert finished.returncode == code, finished.stderr
        assert (finished.stderr.splitlines() or [""])[0] == first_line
        assert finished.warnings == []
        assert {"main"} <= set(names(receiver))
        assert ("task" in names(receiver)) == ("leave()" in ending)

    @pytest.mark.parametrize(
        ("ending", "last_line"),
        [
            ("atexit.register(fail)", "LookupError: at the end"),
            ("threading.Thread(target=fail).start()", "LookupError: at the end"),
            ("keep = Late()", "LookupError: at the end"),
        ],
    )
    def test_exceptions_are_python_s_to_report(self, receiver: Receiver, ending: str, last_line: str) -> None:
        finished = run_script(
            f"""
            import atexit, threading
            import rvh_trace

            def fail():
                with rvh_trace.span("failing"):
                    raise LookupError("at the end")

            class Late:
                def __del__(self, fail=fail):
                    fail()

            rvh_trace.init_tracing("shop")
            with rvh_trace.span("op"):
                pass
            {ending}
            """,
            OTEL_EXPORTER_OTLP_ENDPOINT=receiver.http_endpoint,
        )
        assert finished.returncode == 0, finished.stderr
        assert finished.stderr.splitlines()[-1] == last_line, finished.stderr
        assert finished.warnings == []
        # What `Late` makes comes after the last flush.
        assert names(receiver) == (["op"] if "Late" in ending else ["failing", "op"])

    @pytest.mark.parametrize("round_number", range(5))
    def test_while_threads_of_every_kind_make_spans(self, receiver: Receiver, round_number: int) -> None:
        run_quietly(
            """
            import asyncio, sys, threading
            import rvh_trace
            sys.setswitchinterval(1e-5)
            rvh_trace.init_tracing("shop", schedule_delay_ms=1, max_queue_size=500)
            # The line about a full queue is not what is asked here.
            running = threading.Barrier(6)

            def forever(work):
                running.wait()
                while True:
                    work()

            def spans():
                with rvh_trace.span("thread", {"key": [1, 2]}) as one:
                    one.add_event("event")

            async def main():
                rvh_trace.install_task_factory()
                running.wait()
                while True:
                    async with rvh_trace.span("loop"):
                        await asyncio.create_task(asyncio.sleep(0))

            works = [
                lambda: forever(spans),
                lambda: forever(spans),
                lambda: forever(lambda: rvh_trace.force_flush(50)),
                lambda: forever(rvh_trace.stats),
                lambda: asyncio.run(main()),
            ]
            for work in works:
                threading.Thread(target=work, daemon=True).start()
            running.wait()
            with rvh_trace.span("op"):
                pass
            """,
            OTEL_LOG_LEVEL="none",
            OTEL_EXPORTER_OTLP_ENDPOINT=receiver.http_endpoint,
        )

    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
    def test_by_a_signal_is_as_without_us(self, number: signal.Signals) -> None:
        script = (
            "import rvh_trace\n"
            "rvh_trace.init_tracing('shop', endpoint='http://127.0.0.1:1', schedule_delay_ms=1)\n"
            "with rvh_trace.span('op'):\n    print('ready', flush=True)\n"
            "while True:\n    with rvh_trace.span('op'): pass\n"
        )
        with subprocess.Popen(
            [sys.executable, *OPTIONS, "-c", script],
            env=clean_environ(OTEL_LOG_LEVEL="none"),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        ) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == b"ready\n"
            process.send_signal(number)
            _, errors = process.communicate(timeout=30)
        assert (process.returncode, errors) == (-number, b"")

    def test_of_a_pending_span_future(self, receiver: Receiver) -> None:
        """Its Tokio threads are there when the interpreter goes."""
        run_quietly(
            """
            import asyncio
            import rvh_trace
            rvh_trace.init_tracing("shop")

            async def main():
                future = rvh_trace.span_future("future", asyncio.sleep(30))
                await asyncio.wait([asyncio.ensure_future(future)], timeout=0.01)

            asyncio.run(main())
            """,
            OTEL_EXPORTER_OTLP_ENDPOINT=receiver.http_endpoint,
        )


pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="POSIX processes")
