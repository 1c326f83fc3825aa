"""Log records of whole processes, each run of its own: pace, bounds, forks, exit, recursion."""

import os
import socket
import subprocess
import sys

import pytest
from interpreter import clean_environ, run_quietly, run_script
from log_scripts import BALANCED, FLUSHED, ONE, PREAMBLE
from receiver import Receiver, attributes, logs

ARRIVAL_TIMEOUT_S = 20.0

# Since 3.12 a fork with the export thread alive is a DeprecationWarning of Python's.
FORKING = ("-W", "error", "-W", "ignore::DeprecationWarning")


class TestPace:
    """`OTEL_BLRP_*`"""

    def test_the_schedule_delay_sends_without_a_flush(self, receiver: Receiver) -> None:
        script = ONE + "sys.stdin.read()"
        with Running(script, receiver, OTEL_BLRP_SCHEDULE_DELAY="20"):
            receiver.wait_for_logs(1, ARRIVAL_TIMEOUT_S)

    def test_a_batch_that_is_complete_does_not_wait(self, receiver: Receiver) -> None:
        script = ONE + "for _ in range(4): logger.info('hello')\nsys.stdin.read()"
        pace = {"OTEL_BLRP_SCHEDULE_DELAY": "600000", "OTEL_BLRP_MAX_EXPORT_BATCH_SIZE": "5"}
        with Running(script, receiver, **pace):
            receiver.wait_for_logs(5, ARRIVAL_TIMEOUT_S)
        assert [len(logs([request])) for request in receiver.log_requests] == [5]

    def test_a_long_delay_waits_for_the_flush(self, receiver: Receiver) -> None:
        run_quietly(
            PREAMBLE
            + "rvh_trace.init_tracing('shop')\nfor number in range(10): logger.info('%d', number)\n"
            + "assert rvh_trace.stats()['logs']['queued'] == 10, rvh_trace.stats()\n"
            + "assert rvh_trace.force_flush()",
            OTEL_EXPORTER_OTLP_ENDPOINT=receiver.http_endpoint,
            OTEL_BLRP_SCHEDULE_DELAY="600000",
        )
        assert [log.body for log in receiver.logs] == [str(number) for number in range(10)]

    def test_no_request_has_more_than_the_batch_size(self, receiver: Receiver) -> None:
        run_quietly(
            PREAMBLE
            + "rvh_trace.init_tracing('shop')\nfor number in range(10): logger.info('%d', number)\n"
            + "assert rvh_trace.force_flush()",
            OTEL_EXPORTER_OTLP_ENDPOINT=receiver.http_endpoint,
            OTEL_BLRP_MAX_EXPORT_BATCH_SIZE="4",
        )
        assert [log.body for log in receiver.logs] == [str(number) for number in range(10)]
        assert all(len(logs([request])) <= 4 for request in receiver.log_requests)

    def test_memory_is_bounded_in_bytes(self, receiver: Receiver) -> None:
        finished = run_script(
            PREAMBLE
            + "rvh_trace.init_tracing('shop', max_queue_bytes=100_000)\n"
            + "for number in range(1000): logger.info('x' * 1000)\n"
            + BALANCED
            + "assert logs['dropped']['queue_full'] >= 500 and logs['queued_bytes'] <= 100_000, logs\n",
            OTEL_EXPORTER_OTLP_ENDPOINT="http://127.0.0.1:1",
            OTEL_BLRP_SCHEDULE_DELAY="600000",
            RVH_TRACE_EXIT_TIMEOUT="0",
        )
        assert finished.returncode == 0, finished.stderr

    def test_a_batch_that_no_queue_can_hold_is_cut_to_it(self, receiver: Receiver) -> None:
        finished = run_script(
            FLUSHED,
            OTEL_EXPORTER_OTLP_ENDPOINT=receiver.http_endpoint,
            OTEL_BLRP_MAX_QUEUE_SIZE="10",
            OTEL_BLRP_MAX_EXPORT_BATCH_SIZE="11",
        )
        (warning,) = finished.warnings
        assert "11 is more than the 10 log records" in warning

    def test_the_limits_of_attributes(self, receiver: Receiver) -> None:
        run_quietly(
            FLUSHED.replace("'hello'", "'hello', extra={'cart.name': 'x' * 100}"),
            OTEL_EXPORTER_OTLP_ENDPOINT=receiver.http_endpoint,
            OTEL_LOGRECORD_ATTRIBUTE_COUNT_LIMIT="4",
            OTEL_ATTRIBUTE_COUNT_LIMIT="1",
            OTEL_LOGRECORD_ATTRIBUTE_VALUE_LENGTH_LIMIT="3",
        )
        (log,) = receiver.logs
        assert len(log.attributes) == 4
        assert log.attributes["cart.name"] == "xxx"
        assert log.body == "hello"


class Running:
    """A script that runs until the end of the `with` block, and must then end well."""

    def __init__(self, script: str, receiver: Receiver, **environ: str) -> None:
        self._script = script
        self._environ = {"OTEL_EXPORTER_OTLP_ENDPOINT": receiver.http_endpoint, **environ}

    def __enter__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-W", "error", "-c", self._script],
            env=clean_environ(**self._environ),
            stdin=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def __exit__(self, *_exc: object) -> None:
        _, stderr = self._process.communicate(timeout=30)
        assert (self._process.returncode, stderr) == (0, "")


class TestEnds:
    def test_what_is_left_is_sent_at_exit(self, receiver: Receiver) -> None:
        run_quietly(ONE, OTEL_EXPORTER_OTLP_ENDPOINT=receiver.http_endpoint, OTEL_BLRP_SCHEDULE_DELAY="600000")
        assert [log.body for log in receiver.logs] == ["hello"]

    def test_shutdown_sends_and_what_comes_later_is_counted(self, receiver: Receiver) -> None:
        run_quietly(
            ONE
            + "assert rvh_trace.shutdown(check=True)\nlogger.info('too late')\n"
            + BALANCED
            + "assert (logs['exported'], logs['dropped']['exit']) == (1, 1), logs",
            OTEL_EXPORTER_OTLP_ENDPOINT=receiver.http_endpoint,
        )
        assert [log.body for log in receiver.logs] == ["hello"]

    def test_a_shutdown_without_time_counts_everything(self, receiver: Receiver) -> None:
        run_quietly(
            PREAMBLE
            + "rvh_trace.init_tracing('shop')\nfor _ in range(2_000): logger.info('hello')\n"
            + "rvh_trace.shutdown(0)\n"
            + BALANCED
            + "assert (logs['created'], logs['pending']) == (2_000, 0), logs",
            OTEL_EXPORTER_OTLP_ENDPOINT=receiver.http_endpoint,
            OTEL_BLRP_SCHEDULE_DELAY="600000",
            OTEL_LOG_LEVEL="none",
        )

    def test_logging_while_the_interpreter_ends_is_harmless(self, receiver: Receiver) -> None:
        script = ONE + (
            "import atexit\n"
            "class Last:\n    def __del__(self): logger.info('finalised')\n"
            "sys.last = Last()\nbuiltins = __import__('builtins'); builtins.last = Last()\n"
            "atexit.register(logger.info, 'at exit')\n"
            "def work():\n    while True: logger.info('thread')\n"
            "threading.Thread(target=work, daemon=True).start()\n"
        )
        run_quietly(script, OTEL_EXPORTER_OTLP_ENDPOINT=receiver.http_endpoint)
        bodies = {str(log.body) for log in receiver.logs}
        assert {"hello", "at exit"} <= bodies

    def test_a_flush_reports_what_was_lost(self) -> None:
        with socket.socket() as bound:
            bound.bind(("127.0.0.1", 0))
            finished = run_script(
                ONE
                + "try:\n    rvh_trace.force_flush(check=True)\nexcept rvh_trace.ExportError as error:\n"
                + "    assert 'log records' in str(error), error\nelse:\n    raise AssertionError\n"
                + BALANCED
                + "assert logs['dropped']['failed'] == 1",
                OTEL_TRACES_EXPORTER="none",
                OTEL_EXPORTER_OTLP_ENDPOINT=f"http://127.0.0.1:{bound.getsockname()[1]}",
                OTEL_BLRP_EXPORT_TIMEOUT="300",
            )
        assert finished.returncode == 0, finished.stderr

    @pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
    @pytest.mark.parametrize("ending", ["assert rvh_trace.force_flush(); os._exit(0)", "raise SystemExit"])
    def test_records_of_parent_and_children_arrive_each_once(self, receiver: Receiver, ending: str) -> None:
        finished = run_script(
            PREAMBLE
            + f"""
rvh_trace.init_tracing("shop")
logger.info("queued before the fork")
for child in range(3):
    pid = os.fork()
    if not pid:
        for number in range(10):
            logger.info("child %d: %d", child, number, extra={{"item.pid": os.getpid()}})
        {ending}
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
for number in range(10):
    logger.info("parent: %d", number, extra={{"item.pid": os.getpid()}})
""",
            options=FORKING,
            OTEL_EXPORTER_OTLP_ENDPOINT=receiver.http_endpoint,
            OTEL_BLRP_SCHEDULE_DELAY="600000",
        )
        assert (finished.returncode, finished.stderr) == (0, "")
        bodies = sorted(str(log.body) for log in receiver.logs)
        children = [f"child {child}: {number}" for child in range(3) for number in range(10)]
        assert bodies == sorted(["queued before the fork", *children, *(f"parent: {number}" for number in range(10))])
        for log in receiver.logs[1:]:
            pid = log.attributes.get("item.pid")
            assert pid is None or pid == attributes(log.resource.attributes)["process.pid"]

    @pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
    def test_a_fork_in_the_middle_of_a_record_hangs_nobody(self, receiver: Receiver) -> None:
        finished = run_script(
            PREAMBLE
            + """
rvh_trace.init_tracing("shop")
stop = threading.Event()
def work():
    while not stop.is_set():
        logger.info("busy")
threads = [threading.Thread(target=work) for _ in range(3)]
for thread in threads:
    thread.start()
for _ in range(50):
    pid = os.fork()
    if not pid:
        logger.info("child")
        os._exit(0 if rvh_trace.force_flush(20_000) else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
stop.set()
for thread in threads:
    thread.join()
""",
            60.0,
            options=FORKING,
            OTEL_EXPORTER_OTLP_ENDPOINT=receiver.http_endpoint,
            OTEL_LOG_LEVEL="none",
        )
        assert (finished.returncode, finished.stderr) == (0, "")
        assert [log.body for log in receiver.logs].count("child") == 50


class TestRecursion:
    def test_what_the_library_says_does_not_come_back_as_a_record(self) -> None:
        with socket.socket() as bound:
            bound.bind(("127.0.0.1", 0))
            finished = run_script(
                PREAMBLE
                + "logging.getLogger().addHandler(LoggingHandler())\nlogging.getLogger().setLevel(1)\n"
                + "logging.captureWarnings(True)\nrvh_trace.init_tracing('shop')\nlogger.propagate = False\n"
                + "logger.info('hello')\nrvh_trace.force_flush()\n"
                + BALANCED
                + "assert logs['created'] == 1, logs",
                OTEL_TRACES_EXPORTER="none",
                OTEL_EXPORTER_OTLP_ENDPOINT=f"http://127.0.0.1:{bound.getsockname()[1]}",
                OTEL_BLRP_EXPORT_TIMEOUT="300",
                OTEL_LOG_LEVEL="debug",
            )
        assert finished.returncode == 0, finished.stderr
        assert "gave up on 1 log records" in finished.stderr

    def test_a_python_exporter_may_log(self, receiver: Receiver) -> None:
        run_quietly(
            PREAMBLE
            + """
class Exporter:
    def export(self, spans):
        logger.info("exporting %d spans", len(spans))
rvh_trace.init_tracing("shop", exporter=Exporter())
with rvh_trace.span("op"):
    logger.info("hello")
assert rvh_trace.force_flush()
assert rvh_trace.force_flush()
assert rvh_trace.stats()["logs"]["exported"] == 2
""",
            OTEL_EXPORTER_OTLP_ENDPOINT=receiver.http_endpoint,
        )
        assert sorted(str(log.body) for log in receiver.logs) == ["exporting 1 spans", "hello"]

    def test_an_attribute_that_cannot_be_read_costs_no_record(self, receiver: Receiver) -> None:
        finished = run_script(
            PREAMBLE
            + """
class Broken:
    def __str__(self):
        raise ZeroDivisionError("broken on purpose")
rvh_trace.init_tracing("shop")
for _ in range(3):
    logger.info("hello", extra={"shop.broken": Broken(), "shop.whole": 7})
assert rvh_trace.force_flush()
assert rvh_trace.stats()["swallowed_errors"] == 3
""",
            OTEL_EXPORTER_OTLP_ENDPOINT=receiver.http_endpoint,
        )
        assert finished.returncode == 0, finished.stderr
        (warning,) = finished.stderr.splitlines()
        assert "broken on purpose" in warning
        assert [log.attributes["shop.whole"] for log in receiver.logs] == [7] * 3
