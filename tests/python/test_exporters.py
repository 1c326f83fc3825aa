"""Exporters written in Python: what they get, on which thread, and that nothing they do hurts anybody else.

Each in a process of its own: it is about threads, exit and forks.
"""

import pytest
from interpreter import run_quietly, run_script
from receiver import Receiver

import rvh_trace
from rvh_trace.errors import ConfigurationError

KEEPER = """
import threading
import rvh_trace
from rvh_trace import span

class Keeper:
    def __init__(self):
        self.spans, self.calls, self.threads = [], [], set()
    def export(self, spans):
        self.calls.append("export")
        self.threads.add(threading.get_ident())
        self.spans += spans
    def force_flush(self):
        self.calls.append("force_flush")
    def shutdown(self):
        self.calls.append("shutdown")

keeper = Keeper()
"""

GATED = """
import threading
import rvh_trace
from rvh_trace import span

class Gated:
    def __init__(self):
        self.entered, self.gate, self.names = threading.Event(), threading.Event(), []
    def export(self, spans):
        self.entered.set()
        assert self.gate.wait(20)
        self.names += [span.name for span in spans]

gated = Gated()
"""


def names(receiver: Receiver) -> list[str]:
    return [one.name for one in receiver.spans]


class TestWhatItGets:
    def test_finished_spans_in_order_on_one_thread_that_is_not_the_programs(self) -> None:
        run_quietly(
            KEEPER
            + """
from rvh_trace.exporter import FinishedSpan
rvh_trace.init_tracing("shop", exporter=keeper, max_export_batch_size=10)
with span("parent"):
    for number in range(25):
        with span("child", number=number) as child:
            child.add_event("seen", {"a": 1.5})
assert rvh_trace.force_flush()
assert [one.name for one in keeper.spans] == ["child"] * 25 + ["parent"]
assert [one.attributes["number"] for one in keeper.spans[:-1]] == list(range(25))
parent, child = keeper.spans[-1], keeper.spans[0]
assert type(parent) is FinishedSpan and child.is_child_of(parent) and parent.parent_span_id is None
assert child.events[0].attributes == {"a": 1.5} and parent.resource["service.name"] == "shop"
assert keeper.threads and threading.get_ident() not in keeper.threads and len(keeper.threads) == 1
assert keeper.calls[-1] == "force_flush" and keeper.calls.count("export") >= 3, keeper.calls
stats = rvh_trace.stats()
assert stats["exported"] == stats["ended"] == 26, stats
"""
        )

    def test_its_shutdown_is_the_last_call_and_comes_once(self) -> None:
        run_quietly(
            KEEPER
            + """
rvh_trace.init_tracing("shop", exporter=[keeper])
with span("op"):
    pass
assert rvh_trace.shutdown() and rvh_trace.shutdown()
assert keeper.calls == ["export", "shutdown"], keeper.calls
"""
        )

    def test_at_exit_it_gets_the_last_spans_and_its_shutdown(self) -> None:
        printed = run_quietly(
            """
            import rvh_trace
            class Printer:
                def export(self, spans):
                    print(*[span.name for span in spans])
                def shutdown(self):
                    print("shutdown")
            rvh_trace.init_tracing("shop", exporter=Printer())
            with rvh_trace.span("last"):
                pass
            """
        )
        assert printed.splitlines() == ["last", "shutdown"]

    def test_export_alone_is_enough(self) -> None:
        run_quietly(
            """
            import rvh_trace
            class Exporter:
                seen = 0
                def export(self, spans):
                    self.seen += len(spans)
            exporter = Exporter()
            rvh_trace.init_tracing("shop", exporter=[exporter])
            with rvh_trace.span("op"):
                pass
            assert rvh_trace.force_flush() and exporter.seen == 1
            """
        )

    def test_a_module_with_an_export_function_is_one(self) -> None:
        run_quietly(
            """
            import types
            import rvh_trace
            module, seen = types.ModuleType("exporting"), []
            module.export = seen.extend
            rvh_trace.init_tracing("shop", exporter=module)
            with rvh_trace.span("op"):
                pass
            assert rvh_trace.force_flush() and [span.name for span in seen] == ["op"]
            """
        )

    def test_no_thread_starts_before_the_first_span(self) -> None:
        run_quietly(
            KEEPER
            + """
import os
rvh_trace.init_tracing("shop", exporter=["console", keeper])
assert len(os.listdir("/proc/self/task")) == 1
assert rvh_trace.force_flush() and rvh_trace.shutdown()
assert keeper.calls == [] and len(os.listdir("/proc/self/task")) == 1
"""
        )

    def test_what_it_traces_itself_is_not_exported(self) -> None:
        run_quietly(
            """
            import rvh_trace
            class Traced:
                names = []
                def export(self, spans):
                    with rvh_trace.span("export"):
                        self.names += [span.name for span in spans]
            exporter = Traced()
            rvh_trace.init_tracing("shop", exporter=exporter)
            with rvh_trace.span("op"):
                pass
            assert rvh_trace.force_flush() and rvh_trace.force_flush() and rvh_trace.force_flush()
            assert exporter.names == ["op"], exporter.names
            stats = rvh_trace.stats()
            assert (stats["ended"], stats["not_sampled"]) == (1, 1), stats
            """
        )


class TestWhatItBreaks:
    def test_one_that_raises_is_told_once_a_kind_and_called_again(self, receiver: Receiver) -> None:
        finished = run_script(
            """
            import rvh_trace
            class Raises:
                calls = 0
                def export(self, spans):
                    self.calls += 1
                    if self.calls == 3:
                        raise KeyError("other")
                    if self.calls < 6:
                        raise ValueError("too\\nbad")
            exporter = Raises()
            rvh_trace.init_tracing("shop", exporter=["otlp", exporter])
            for number in range(7):
                with rvh_trace.span(f"op{number}"):
                    pass
                assert rvh_trace.force_flush() is (number >= 5), number
            assert exporter.calls == 7
            stats = rvh_trace.stats()
            assert (stats["exported"], stats["dropped"]["rejected"], stats["pending"]) == (2, 5, 0), stats
            assert stats["last_error"] == "export: ValueError: too bad", stats
            """,
            OTEL_EXPORTER_OTLP_ENDPOINT=receiver.http_endpoint,
        )
        assert finished.returncode == 0, finished.stderr
        told = [line for line in finished.warnings if "failed: export:" in line and "python exporter" in line]
        assert ["ValueError: too bad" in line for line in told] == [True, False], finished.stderr
        assert "KeyError: 'other'" in told[1]
        assert finished.stderr.count("Traceback (most recent call last)") == 2
        assert names(receiver) == [f"op{number}" for number in range(7)]

    @pytest.mark.parametrize("raised", ["SystemExit(3)", "KeyboardInterrupt()", "GeneratorExit()", "Evil()"])
    def test_nothing_that_it_raises_ends_its_thread_or_the_process(self, raised: str) -> None:
        finished = run_script(
            f"""
            import rvh_trace
            class Evil(Exception):
                def __str__(self):
                    raise RuntimeError("no text")
            class Raises:
                calls = 0
                def export(self, spans):
                    self.calls += 1
                    raise {raised}
                def force_flush(self):
                    raise {raised}
                def shutdown(self):
                    raise {raised}
            exporter = Raises()
            rvh_trace.init_tracing("shop", exporter=exporter)
            for _ in range(3):
                with rvh_trace.span("op"):
                    pass
                assert rvh_trace.force_flush() is False
            assert exporter.calls == 3
            assert rvh_trace.stats()["dropped"]["rejected"] == 3
            """
        )
        assert finished.returncode == 0, finished.stderr
        # One each for export, force_flush and shutdown.
        assert finished.stderr.count("This is said once") == 3, finished.stderr

    def test_one_that_blocks_holds_up_nobody_and_its_queue_is_bounded(self) -> None:
        finished = run_script(
            GATED
            + KEEPER
            + """
import time
rvh_trace.init_tracing("shop", exporter=[gated, keeper], max_queue_size=40, max_export_batch_size=10)
def wait(condition):
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline, rvh_trace.stats()
        time.sleep(0.001)
for batch in range(10):
    for number in range(10):
        with span(f"{batch}.{number}"):
            pass
    # A full batch is sent without a flush, and the others get it whatever the blocked one does.
    wait(lambda: len(keeper.spans) == (batch + 1) * 10)
assert gated.entered.wait(20) and gated.names == []
wait(lambda: rvh_trace.stats()["dropped"]["queue_full"] == 60)
assert rvh_trace.stats()["pending"] == 40
gated.gate.set()
assert rvh_trace.force_flush(), rvh_trace.stats()
assert [one.name for one in keeper.spans] == [f"{batch}.{number}" for batch in range(10) for number in range(10)]
assert gated.names == [one.name for one in keeper.spans[:40]], gated.names
stats = rvh_trace.stats()
assert (stats["exported"], stats["dropped"]["queue_full"], stats["pending"]) == (40, 60, 0), stats
"""
        )
        assert finished.returncode == 0, finished.stderr
        assert len(finished.warnings) == 1, finished.stderr
        assert "do not reach python exporter Gated: its queue is full" in finished.warnings[0]

    def test_a_call_over_the_export_timeout_counts_as_failed_and_is_followed_by_others(self) -> None:
        finished = run_script(
            GATED
            + """
rvh_trace.init_tracing("shop", exporter=gated, export_timeout_ms=50)
with span("first"):
    pass
assert rvh_trace.force_flush() is False
assert rvh_trace.stats()["dropped"]["failed"] == 1, rvh_trace.stats()
with span("second"):
    pass
assert rvh_trace.force_flush() is False
gated.gate.set()
with span("third"):
    pass
assert rvh_trace.force_flush(), rvh_trace.stats()
# The second was given up on before it was begun.
assert gated.names == ["first", "third"], gated.names
"""
        )
        assert finished.returncode == 0, finished.stderr
        assert "no answer before the deadline" in finished.stderr

    def test_flush_and_shutdown_keep_their_deadline_whatever_it_does(self) -> None:
        finished = run_script(
            GATED
            + """
rvh_trace.init_tracing("shop", exporter=gated)
with span("op"):
    pass
try:
    rvh_trace.force_flush(timeout_ms=50, check=True)
except rvh_trace.ExportTimeout:
    pass
else:
    raise AssertionError("no timeout")
assert gated.entered.is_set()
assert rvh_trace.shutdown(timeout_ms=50) is False
stats = rvh_trace.stats()
assert stats["pending"] == 0 and stats["dropped"]["exit"] + stats["dropped"]["failed"] == 1, stats
# The process ends although the call is still running.
"""
        )
        assert finished.returncode == 0, finished.stderr
        assert "Fatal" not in finished.stderr
        assert "Traceback" not in finished.stderr

    def test_its_own_flush_may_hang_too(self) -> None:
        finished = run_script(
            """
            import threading
            import rvh_trace
            class Hangs:
                def export(self, spans):
                    pass
                def force_flush(self):
                    threading.Event().wait()
                shutdown = force_flush
            rvh_trace.init_tracing("shop", exporter=Hangs())
            with rvh_trace.span("op"):
                pass
            assert rvh_trace.force_flush(timeout_ms=50) is False
            rvh_trace.shutdown(timeout_ms=50)
            assert rvh_trace.stats()["exported"] == 1
            """
        )
        assert finished.returncode == 0, finished.stderr

    @pytest.mark.parametrize(
        "busy",
        [
            "while True: pass",
            "while True: time.sleep(0.0001)",
            "while True: rvh_trace.current_span(), rvh_trace.extract({})",
            "time.sleep(1000)",
            "sys.stdin.read()",
        ],
    )
    def test_the_interpreter_ends_while_it_runs(self, busy: str) -> None:
        finished = run_script(
            f"""
            import os, sys, threading, time
            import rvh_trace
            sys.stdin = open(os.pipe()[0])
            entered = threading.Event()
            class Busy:
                def export(self, spans):
                    entered.set()
                    {busy}
            rvh_trace.init_tracing("shop", exporter=Busy())
            with rvh_trace.span("op"):
                pass
            rvh_trace.force_flush(timeout_ms=1)
            assert entered.wait(20)
            rvh_trace.shutdown(timeout_ms=1)
            """,
            options=(),
        )
        assert finished.returncode == 0, finished.stderr
        assert [line for line in finished.stderr.splitlines() if not line.startswith("rvh_trace: ")] == []

    def test_a_forked_child_calls_its_own_copy_on_a_thread_of_its_own(self) -> None:
        run_quietly(
            KEEPER
            + """
import os
rvh_trace.init_tracing("shop", exporter=[keeper])
with span("before"):
    pass
assert rvh_trace.force_flush()
read, write = os.pipe()
child = os.fork()
if child == 0:
    keeper.spans.clear()
    with span("in the child"):
        pass
    assert rvh_trace.force_flush()
    os.write(write, " ".join(one.name for one in keeper.spans).encode())
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
assert os.read(read, 100) == b"in the child"
with span("after"):
    pass
assert rvh_trace.force_flush()
assert [one.name for one in keeper.spans] == ["before", "after"]
""",
            options=("-W", "error", "-W", "ignore:This process:DeprecationWarning"),
        )

    def test_a_fork_while_it_runs_leaves_the_child_able_to_export(self) -> None:
        run_quietly(
            """
            import os, threading
            import rvh_trace
            entered, gate = threading.Event(), threading.Event()
            names, parent = [], os.getpid()
            class Exporter:
                def export(self, spans):
                    if os.getpid() == parent:
                        entered.set()
                        gate.wait(20)
                    names.extend(span.name for span in spans)
            rvh_trace.init_tracing("shop", exporter=Exporter(), schedule_delay_ms=1)
            with rvh_trace.span("before"):
                pass
            assert entered.wait(20)
            child = os.fork()
            if child == 0:
                with rvh_trace.span("in the child"):
                    pass
                os._exit(0 if rvh_trace.force_flush() and names == ["in the child"] else 1)
            assert os.waitpid(child, 0)[1] == 0
            gate.set()
            assert rvh_trace.force_flush() and names == ["before"]
            """,
            options=("-W", "error", "-W", "ignore:This process:DeprecationWarning"),
        )

    def test_the_event_loop_runs_on_while_it_works(self) -> None:
        run_quietly(
            GATED
            + """
import asyncio
rvh_trace.init_tracing("shop", exporter=gated)
async def main():
    with span("op"):
        pass
    flush = asyncio.ensure_future(rvh_trace.aflush())
    ticks = 0
    while not gated.entered.is_set() or ticks < 100:
        await asyncio.sleep(0)
        ticks += 1
    assert not flush.done()
    gated.gate.set()
    assert await flush
asyncio.run(main())
"""
        )


class TestSetUp:
    @pytest.mark.parametrize(
        ("exporter", "words"),
        [
            (object(), ["exporter", "export(spans)", "object"]),
            ([7], ["exporter", "int"]),
            ({"otlp"}, ["exporter", "set"]),
            (type("NotCallable", (), {"export": 7})(), ["exporter", "NotCallable"]),
        ],
    )
    def test_what_cannot_export_is_refused(self, exporter: object, words: list[str]) -> None:
        with pytest.raises(ConfigurationError) as raised:
            rvh_trace.init_tracing("shop", exporter=exporter)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
        for word in words:
            assert word in str(raised.value)

    def test_a_coroutine_function_is_refused(self) -> None:
        class Async:
            async def export(self, spans: object) -> None: ...

        with pytest.raises(ConfigurationError, match="coroutine function"):
            rvh_trace.init_tracing("shop", exporter=["otlp", Async()])

    def test_none_stands_alone(self) -> None:
        class Exporter:
            def export(self, spans: object) -> None: ...

        with pytest.raises(ConfigurationError, match="none stands alone"):
            rvh_trace.init_tracing("shop", exporter=["none", Exporter()])

    def test_it_takes_no_metrics(self) -> None:
        class Exporter:
            def export(self, spans: object) -> None: ...

        with pytest.raises(ConfigurationError, match="metrics_exporter: must be a string, an OtlpExporter or an Otlp"):
            rvh_trace.init_tracing("shop", metrics_exporter=Exporter())  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]

    def test_the_same_object_again_is_the_same_set_up(self) -> None:
        finished = run_script(
            KEEPER
            + """
rvh_trace.init_tracing("shop", exporter=[keeper])
rvh_trace.init_tracing("shop", exporter=keeper)
rvh_trace.init_tracing("shop", exporter=[Keeper()])
"""
        )
        assert finished.returncode == 0
        assert len(finished.warnings) == 1, finished.stderr
        assert "again with other arguments" in finished.warnings[0]
