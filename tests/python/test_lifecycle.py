"""Flush, shutdown and exit: what is delivered, what the deadline means, what the process says."""

import os
import socket
from collections.abc import Iterator

import pytest
from interpreter import run_quietly, run_script
from receiver import Receiver


@pytest.fixture
def silent_port() -> Iterator[int]:
    """A server that accepts connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def names(receiver: Receiver) -> list[str]:
    return sorted(one.name for one in receiver.spans)


class TestDelivery:
    @pytest.mark.parametrize(
        "call",
        [
            "assert rvh_trace.force_flush() is True",
            "assert rvh_trace.shutdown() is True",
            "assert asyncio.run(rvh_trace.aflush()) is True",
            "assert asyncio.run(rvh_trace.ashutdown()) is True",
            "assert rvh_trace.force_flush(timeout_ms=5_000, check=True) is True",
            "assert asyncio.run(rvh_trace.ashutdown(5_000, check=True)) is True",
        ],
    )
    @pytest.mark.parametrize("protocol", ["http/protobuf", "grpc"])
    def test_everything_that_ended_before_the_call_has_arrived_after_it(
        self, receiver: Receiver, call: str, protocol: str
    ) -> None:
        run_quietly(
            f"""
            import asyncio, os
            import rvh_trace
            rvh_trace.init_tracing("shop")
            with rvh_trace.span("open"):
                for number in range(1000):
                    with rvh_trace.span("op", number=number):
                        pass
                {call}
                assert rvh_trace.stats()["exported"] == 1000, rvh_trace.stats()
                os._exit(0)
            """,
            OTEL_EXPORTER_OTLP_ENDPOINT=receiver.endpoint("grpc" if protocol == "grpc" else "http"),
            OTEL_EXPORTER_OTLP_PROTOCOL=protocol,
        )
        assert sorted(one.attributes["number"] for one in receiver.spans) == list(range(1000))  # type: ignore[type-var]  # pyright: ignore[reportArgumentType]

    def test_without_a_flush_the_worker_sends_after_the_delay(self, receiver: Receiver) -> None:
        run_quietly(
            """
            import time
            import rvh_trace
            rvh_trace.init_tracing("shop", schedule_delay_ms=10)
            with rvh_trace.span("op"):
                pass
            while rvh_trace.stats()["exported"] == 0:
                time.sleep(0.001)
            """,
            OTEL_EXPORTER_OTLP_ENDPOINT=receiver.http_endpoint,
        )
        assert names(receiver) == ["op"]

    def test_flushing_twice_sends_nothing_twice(self, receiver: Receiver) -> None:
        run_quietly(
            """
            import rvh_trace
            rvh_trace.init_tracing("shop")
            for _ in range(3):
                with rvh_trace.span("op"):
                    pass
                assert rvh_trace.force_flush() and rvh_trace.force_flush()
            """,
            OTEL_EXPORTER_OTLP_ENDPOINT=receiver.http_endpoint,
        )
        assert names(receiver) == ["op"] * 3

    def test_limits_of_set_up_hold_on_the_wire(self, receiver: Receiver) -> None:
        run_quietly(
            """
            import rvh_trace
            rvh_trace.init_tracing(
                "shop", attribute_count_limit=2, attribute_value_length_limit=3, event_count_limit=1,
                link_count_limit=1, event_attribute_count_limit=1, link_attribute_count_limit=1,
                resource_attributes={"deployment.environment.name": "test", "number": 7},
            )
            with rvh_trace.span("limited", {"text": "äöüß", "list": ["abcdef"], "third": 1}) as op:
                op.add_event("one", {"a": 1, "b": 2})
                op.add_event("two")
                op.add_link(op, {"a": 1, "b": 2})
                op.add_link(op)
            assert rvh_trace.force_flush()
            """,
            OTEL_EXPORTER_OTLP_ENDPOINT=receiver.http_endpoint,
        )
        (one,) = receiver.spans
        assert one.attributes == {"text": "äöü", "list": ["abc"]}
        sent = one.span
        assert (sent.dropped_attributes_count, sent.dropped_events_count, sent.dropped_links_count) == (1, 1, 1)
        assert (len(sent.events), sent.events[0].dropped_attributes_count) == (1, 1)
        assert (len(sent.links), sent.links[0].dropped_attributes_count) == (1, 1)
        assert one.service == "shop"


class TestDeadline:
    """With a server that accepts and never answers. The script's own time limit catches a deadline that is ignored."""

    @pytest.mark.parametrize(
        ("call", "printed"),
        [
            ("print(rvh_trace.force_flush(timeout_ms=50))", "False"),
            ("print(rvh_trace.shutdown(timeout_ms=50))", "False"),
            ("print(asyncio.run(rvh_trace.aflush(timeout_ms=50)))", "False"),
            ("print(asyncio.run(rvh_trace.ashutdown(timeout_ms=50)))", "False"),
            ("print(rvh_trace.force_flush(timeout_ms=0))", "False"),
            ("attempt(lambda: rvh_trace.force_flush(timeout_ms=50, check=True))", "ExportTimeout"),
            ("attempt(lambda: rvh_trace.shutdown(timeout_ms=50, check=True))", "ExportTimeout"),
            ("attempt(lambda: asyncio.run(rvh_trace.aflush(timeout_ms=50, check=True)))", "ExportTimeout"),
        ],
    )
    @pytest.mark.parametrize("protocol", ["http/protobuf", "grpc"])
    def test_is_kept(self, silent_port: int, protocol: str, call: str, printed: str) -> None:
        finished = run_script(
            f"""
            import asyncio, os, sys
            import rvh_trace

            def attempt(call):
                try:
                    call()
                except TimeoutError as error:
                    print(type(error).__name__)

            rvh_trace.init_tracing("shop", endpoint="http://127.0.0.1:{silent_port}", protocol="{protocol}")
            with rvh_trace.span("op"):
                pass
            {call}
            sys.stdout.flush()
            os._exit(0)
            """
        )
        assert (finished.returncode, finished.stdout) == (0, printed + "\n"), finished.stderr
        assert finished.stderr.splitlines() == finished.warnings

    @pytest.mark.parametrize("timeout", ["-1", "float('nan')", "float('inf')"])
    def test_an_impossible_one_is_a_configuration_error(self, timeout: str) -> None:
        run_quietly(
            f"""
            import asyncio
            import rvh_trace
            for call in (rvh_trace.force_flush, rvh_trace.shutdown):
                try:
                    call(timeout_ms={timeout})
                except rvh_trace.ConfigurationError as error:
                    assert "timeout_ms" in str(error)
                else:
                    raise AssertionError
            try:
                asyncio.run(rvh_trace.aflush(timeout_ms={timeout}))
            except rvh_trace.ConfigurationError as error:
                assert "timeout_ms" in str(error)
            else:
                raise AssertionError
            """
        )

    def test_the_process_ends_although_the_collector_hangs(self, silent_port: int) -> None:
        finished = run_script(
            f"""
            import rvh_trace
            rvh_trace.init_tracing("shop", endpoint="http://127.0.0.1:{silent_port}")
            with rvh_trace.span("op"):
                pass
            print("application")
            """
        )
        assert (finished.returncode, finished.stdout) == (0, "application\n")
        assert finished.stderr.splitlines() == finished.warnings


GATED_COLLECTOR = """
import asyncio, threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
import rvh_trace

asked, gate = threading.Event(), threading.Event()

class Collector(BaseHTTPRequestHandler):
    def do_POST(self):
        self.rfile.read(int(self.headers["content-length"]))
        asked.set()
        gate.wait()
        self.send_response(200)
        self.send_header("content-type", "application/x-protobuf")
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *args):
        pass

server = ThreadingHTTPServer(("127.0.0.1", 0), Collector)
server.daemon_threads = True
threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
rvh_trace.init_tracing("shop", endpoint=f"http://127.0.0.1:{server.server_port}")
with rvh_trace.span("op"):
    pass
"""


class TestTheLoop:
    @pytest.mark.parametrize("call", ["aflush", "ashutdown"])
    def test_is_not_blocked_while_the_collector_takes_its_time(self, call: str) -> None:
        run_quietly(
            GATED_COLLECTOR
            + f"""
async def main():
    pending = asyncio.create_task(rvh_trace.{call}())
    while not asked.is_set():
        await asyncio.sleep(0)
    for _ in range(100):  # the loop turns while the answer is out
        await asyncio.sleep(0)
    assert not pending.done()
    gate.set()
    assert await pending is True
asyncio.run(main())
"""
        )

    def test_cancelling_the_flush_leaves_the_loop_and_the_process_well(self) -> None:
        run_quietly(
            GATED_COLLECTOR
            + """
async def main():
    pending = asyncio.create_task(rvh_trace.aflush())
    while not asked.is_set():
        await asyncio.sleep(0)
    pending.cancel()
    try:
        await pending
    except asyncio.CancelledError:
        print("cancelled")
    gate.set()
asyncio.run(main())
assert rvh_trace.force_flush()
"""
        )

    def test_other_threads_run_while_a_flush_waits(self) -> None:
        run_quietly(
            GATED_COLLECTOR
            + """
def open_the_gate():
    asked.wait()
    gate.set()
threading.Thread(target=open_the_gate).start()
assert rvh_trace.force_flush()
"""
        )


class TestAfterShutdown:
    def test_spans_are_dropped_and_counted_and_nothing_raises(self, receiver: Receiver) -> None:
        run_quietly(
            """
            import rvh_trace
            rvh_trace.init_tracing("shop")
            with rvh_trace.span("before"):
                pass
            assert rvh_trace.shutdown()
            with rvh_trace.span("after") as after:
                after.set_attribute("key", 1)
            stats = rvh_trace.stats()
            assert (stats["exported"], stats["dropped"]["exit"]) == (1, 1), stats
            assert stats["ended"] == 2
            """,
            OTEL_EXPORTER_OTLP_ENDPOINT=receiver.http_endpoint,
        )
        assert names(receiver) == ["before"]


class TestExit:
    @pytest.mark.parametrize(
        ("ending", "code"),
        [
            ("", 0),
            ("sys.exit(3)", 3),
            ("sys.exit(0)", 0),
            ("raise LookupError('the application failed')", 1),
            ("threading.Thread(target=work).start()", 0),
            ("import atexit; atexit.register(work)", 0),
        ],
    )
    def test_the_last_spans_are_delivered_and_the_exit_code_is_kept(
        self, receiver: Receiver, ending: str, code: int
    ) -> None:
        finished = run_script(
            f"""
            import sys, threading
            import rvh_trace

            def work():
                with rvh_trace.span("last"):
                    pass

            rvh_trace.init_tracing("shop")
            with rvh_trace.span("op"):
                pass
            {ending}
            """,
            OTEL_EXPORTER_OTLP_ENDPOINT=receiver.http_endpoint,
        )
        assert finished.returncode == code
        if code == 1:
            assert finished.stderr.splitlines()[0] == "Traceback (most recent call last):"
            assert finished.stderr.splitlines()[-1] == "LookupError: the application failed"
        else:
            assert finished.stderr == ""
        assert names(receiver) == (["last", "op"] if "work" in ending else ["op"])

    def test_spans_used_while_the_interpreter_goes_down_are_harmless(self, receiver: Receiver) -> None:
        run_quietly(
            """
            import asyncio, threading
            import rvh_trace
            rvh_trace.init_tracing("shop")

            class Late:
                def __del__(self):
                    with rvh_trace.span("late") as late:
                        late.set_attribute("key", [1])
                    rvh_trace.current_span()
                    rvh_trace.inject({})
                    rvh_trace.force_flush()

            keep = Late()
            keep.me = keep
            open_span = rvh_trace.new_span("never ended")
            entered = rvh_trace.span("never left")
            entered.__enter__()

            def forever():
                while True:
                    with rvh_trace.span("thread"):
                        pass
            threading.Thread(target=forever, daemon=True).start()
            with rvh_trace.span("op"):
                pass
            """,
            OTEL_EXPORTER_OTLP_ENDPOINT=receiver.http_endpoint,
        )
        assert "op" in names(receiver)


class TestStats:
    def test_every_span_is_accounted_for(self, receiver: Receiver) -> None:
        run_quietly(
            """
            import rvh_trace
            rvh_trace.init_tracing("shop", sampler_ratio=0.5)
            for _ in range(100):
                with rvh_trace.span("op"):
                    pass
            stats = rvh_trace.stats()
            assert stats["ended"] + stats["not_sampled"] == 100, stats
            assert stats["ended"] == stats["exported"] + stats["pending"] + sum(stats["dropped"].values())
            assert rvh_trace.force_flush()
            stats = rvh_trace.stats()
            assert stats["exported"] == stats["ended"] > 0
            assert stats["exported_bytes"] > 0
            assert stats["last_error"] is None
            assert set(stats) == {
                "started", "ended", "not_sampled", "pending", "queued", "queued_bytes", "in_flight", "exported",
                "dropped", "spooled", "spooled_bytes", "recovered", "damaged_spool_files", "retries", "exported_bytes",
                "metric_exports", "metric_exports_failed", "logs", "worker_alive", "swallowed_errors",
                "rust_events_dropped", "last_error",
            }
            assert set(stats["dropped"]) == {
                "queue_full", "rejected", "failed", "exit", "spool_full", "spool_damaged"
            }
            assert stats["started"] == stats["ended"]
            assert stats["worker_alive"]
            """,
            OTEL_EXPORTER_OTLP_ENDPOINT=receiver.http_endpoint,
        )

    def test_a_full_queue_drops_and_counts_and_never_blocks(self, silent_port: int) -> None:
        finished = run_script(
            f"""
            import os, sys
            import rvh_trace
            rvh_trace.init_tracing("shop", endpoint="http://127.0.0.1:{silent_port}", max_queue_size=10)
            for _ in range(1000):
                with rvh_trace.span("op"):
                    pass
            stats = rvh_trace.stats()
            assert stats["dropped"]["queue_full"] > 0, stats
            assert stats["ended"] == 1000
            sys.stdout.flush()
            os._exit(0)
            """
        )
        assert finished.returncode == 0, finished.stderr
        assert len(finished.warnings) == 1


pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="POSIX processes")
