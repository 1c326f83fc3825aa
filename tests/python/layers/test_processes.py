"""Layers at the exit, after forks and over time; each in a process of its own."""

import os
import sys

import pytest
from interpreter import run_quietly, run_script
from receiver import Receiver

# Since 3.12 a fork with another thread alive is a DeprecationWarning of Python's.
FORKING = ("-W", "error", "-W", "ignore::DeprecationWarning")

PRINTER = """
import os, sys, threading
import rvh_trace
from rvh_trace import add_layer, span

print_nothing = lambda *told: None
write = os.write

class Printer:
    def on_new_span(self, span):
        write(1, f"new {span.name}\\n".encode())
        return span.name
    def on_close(self, span, state):
        assert state == span.name
        write(1, f"close {span.name}\\n".encode())

printer = Printer()
"""
FULL = {"layers do not see everything"}
ENDINGS = ["", "sys.exit()", "import atexit; atexit.register(os.write, 1, b'')"]


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("immediate", [False, True])
def test_at_exit_what_waits_is_delivered(immediate: bool, ending: str) -> None:
    printed = run_quietly(
        PRINTER
        + f"""
rvh_trace.init_tracing("shop", exporter="none")
add_layer(printer, immediate={immediate})
for number in range(3):
    with span(f"op {{number}}"):
        pass
{ending}
"""
    )
    assert printed.split("\n") == [f"{what} op {number}" for number in range(3) for what in ("new", "close")] + [""]


def test_an_aflush_and_a_shutdown_deliver_too() -> None:
    run_quietly(
        """
        import asyncio
        import rvh_trace
        class Counter:
            closed = 0
            def on_close(self, span, state):
                self.closed += 1
        counter = Counter()
        rvh_trace.add_layer(counter)
        rvh_trace.init_tracing("shop", exporter="none")
        async def main():
            with rvh_trace.span("op"):
                pass
            assert await rvh_trace.aflush()
            assert counter.closed == 1
            with rvh_trace.span("op"):
                pass
            assert await rvh_trace.ashutdown()
            assert counter.closed == 2
        asyncio.run(main())
        """
    )


def test_no_thread_starts_before_the_first_span() -> None:
    run_quietly(
        PRINTER.replace("os.write", "print_nothing")
        + """
rvh_trace.init_tracing("shop", exporter="none")
add_layer(printer)
assert len(os.listdir("/proc/self/task")) == 1
with span("op"):
    pass
assert rvh_trace.force_flush()
assert len(os.listdir("/proc/self/task")) == 2
"""
    )


@pytest.mark.parametrize("immediate", [False, True])
def test_a_layer_that_never_returns_does_not_keep_the_process_alive(immediate: bool) -> None:
    finished = run_script(
        f"""
        import threading
        import rvh_trace
        class Stuck:
            def on_close(self, span, state):
                threading.Event().wait()
        rvh_trace.init_tracing("shop", exporter="none", exit_timeout_ms=100)
        rvh_trace.add_layer(Stuck(), immediate={immediate})
        def work():
            with rvh_trace.span("op"):
                pass
        thread = threading.Thread(target=work, daemon=True)
        thread.start()
        thread.join(None if not {immediate} else 0.1)
        """
    )
    said = [] if immediate else ["layers were not done within 100 ms; 2 records were still to be delivered"]
    assert (finished.returncode, len(finished.warnings)) == (0, len(said)), finished.stderr
    assert all(line in finished.stderr for line in said)


def test_a_layer_that_is_called_while_the_interpreter_goes_does_no_harm() -> None:
    """Threads of the program go on making spans when the exit functions have run."""
    for _ in range(3):
        run_quietly(
            """
            import threading
            import time
            import rvh_trace
            class Layer:
                def on_new_span(self, span):
                    return [span]
                def on_close(self, span, state):
                    state.clear()
            rvh_trace.init_tracing("shop", exporter="none")
            rvh_trace.add_layer(Layer())
            rvh_trace.add_layer(Layer(), immediate=True)
            def work():
                while True:
                    with rvh_trace.span("op") as op:
                        op.add_event("event")
                    # Not more than the layers can be told of, which would be said.
                    time.sleep(0.0005)
            begun = threading.Event()
            for _ in range(3):
                threading.Thread(target=work, daemon=True).start()
            with rvh_trace.span("op"):
                pass
            """
        )


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
@pytest.mark.parametrize("immediate", [False, True])
def test_a_forked_child_has_the_same_layers_and_a_thread_of_its_own(immediate: bool) -> None:
    finished = run_script(
        PRINTER
        + f"""
rvh_trace.init_tracing("shop", exporter="none")
class Other:
    def on_close(self, span, state): ...
add_layer(Other())
for _ in range(10):
    with span("before it was added"):
        pass
handle = add_layer(printer, immediate={immediate})
with span("before"):
    pass
assert rvh_trace.force_flush()
with span("across") as across:
    assert rvh_trace.force_flush()
    pid = os.fork()
    if not pid:
        across.set_attribute("a", 1)
        with span("child"):
            pass
        across.end()
        assert rvh_trace.force_flush() and handle.is_active and handle._states == {{}}
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
"""
        + "with span('after'):\n    pass\n",
        options=FORKING,
    )
    assert (finished.returncode, finished.stderr) == (0, "")
    assert finished.stdout.splitlines() == [
        *("new before", "close before", "new across", "new child", "close child"),
        *("close across", "new after", "close after"),
    ]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
def test_a_child_of_multiprocessing_delivers_at_its_end() -> None:
    finished = run_script(
        PRINTER
        + """
import multiprocessing
def work():
    with span("child"):
        pass
if __name__ == "__main__":
    rvh_trace.init_tracing("shop", exporter="none")
    add_layer(printer)
    with span("parent"):
        pass
    assert rvh_trace.force_flush()
    child = multiprocessing.get_context("fork").Process(target=work)
    child.start()
    child.join()
    assert child.exitcode == 0
""",
        options=FORKING,
    )
    assert (finished.returncode, finished.stderr) == (0, "")
    assert finished.stdout.splitlines() == ["new parent", "close parent", "new child", "close child"]


def test_what_is_exported_is_the_same_with_a_layer(receiver: Receiver) -> None:
    run_quietly(
        PRINTER.replace("os.write", "print_nothing")
        + f"""
rvh_trace.init_tracing("shop", endpoint="{receiver.http_endpoint}")
add_layer(printer)
for number in range(100):
    with span("op", number=number) as op:
        op.add_event("event")
assert rvh_trace.force_flush(check=True)
stats = rvh_trace.stats()
assert stats["started"] == stats["ended"] == stats["exported"] == 100, stats
"""
    )
    assert [one.attributes["number"] for one in receiver.spans] == list(range(100))


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("immediate", [False, True])
def test_memory_stays_flat(immediate: bool) -> None:
    """Also when spans are made faster than a layer takes them."""
    finished = run_script(
        f"""
        from pathlib import Path
        import rvh_trace
        def resident():
            status = Path("/proc/self/status").read_text()
            return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS:")) * 1024
        class Layer:
            closed = 0
            def on_new_span(self, span):
                return [span] * 10
            def on_close(self, span, state):
                self.closed += 1
        rvh_trace.init_tracing("shop", exporter="none")
        layer = Layer()
        handle = rvh_trace.add_layer(layer, immediate={immediate})
        seen = []
        for _ in range(100):
            for number in range(1_000):
                with rvh_trace.span("op", number=number) as op:
                    op.set_attribute("text", "a value of some length")
            seen.append(resident())
        assert rvh_trace.force_flush()
        assert layer.closed + handle.dropped >= 100_000 and handle._states == {{}}
        print(max(seen[50:]) - max(seen[:50]))
        """,
        120.0,
    )
    said = [line.split(":")[2].strip() for line in finished.warnings]
    assert (finished.returncode, set(said) | FULL) == (0, FULL), finished.stderr
    assert int(finished.stdout) < 12 * 1024 * 1024
