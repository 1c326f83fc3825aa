"""`init_tracing(rust_events=...)`: what Rust code says, in Python's `logging`."""

import logging
import os
from typing import Any

import pytest
from interpreter import run_script
from rust_code import PRELUDE, run_instrumented

from rvh_trace import _rust_logging, current_span
from rvh_trace._rust_logging import Event

TRACE_ID, SPAN_ID = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


def event(**changes: Any) -> Event:
    one = Event(
        level=logging.WARNING,
        target="shop::stock",
        message="few left",
        fields={},
        trace_id=TRACE_ID,
        span_id=SPAN_ID,
        is_sampled=True,
        unix_ns=1_700_000_000_123_456_789,
        file="src/stock.rs",
        line=7,
        thread_id=42,
        thread_name="stock",
    )
    return one._replace(**changes)


class TestARecord:
    """What `logging` gets of one event."""

    def test_says_who_what_where_and_when(self, caplog: pytest.LogCaptureFixture) -> None:
        before = logging.makeLogRecord({})
        _rust_logging.handle(event())
        (record,) = caplog.records
        assert (record.name, record.levelno, record.levelname) == ("shop.stock", 30, "WARNING")
        assert record.getMessage() == "few left"
        assert (record.pathname, record.filename, record.lineno) == ("src/stock.rs", "stock.rs", 7)
        assert (record.created, record.msecs) == (1_700_000_000.1234567, 123.0)
        assert record.relativeCreated < before.relativeCreated
        assert (record.thread, record.threadName, record.process) == (42, "stock", os.getpid())
        assert vars(record)["otelTraceID"] == TRACE_ID
        assert vars(record)["otelSpanID"] == SPAN_ID
        assert vars(record)["otelTraceSampled"] is True

    def test_has_the_fields_behind_the_message_and_as_attributes(self, caplog: pytest.LogCaptureFixture) -> None:
        fields = {"count": 3, "low": True, "share": 0.5, "item.name": "100 %s tea"}
        _rust_logging.handle(event(fields=fields))
        (record,) = caplog.records
        assert record.getMessage() == "few left count=3 low=True share=0.5 item.name=100 %s tea"
        assert {key: vars(record)[key] for key in fields} == fields

    def test_keeps_its_own_attributes(self, caplog: pytest.LogCaptureFixture) -> None:
        fields = {"name": "x", "message": "x", "asctime": "x", "args": "x", "threadName": "x", "levelno": 99}
        _rust_logging.handle(event(fields=fields))
        (record,) = caplog.records
        assert (record.name, record.levelno, record.args, record.threadName) == ("shop.stock", 30, (), "stock")
        assert {key: vars(record)[f"rust_{key}"] for key in fields} == fields
        logging.Formatter("%(asctime)s %(message)s").format(record)

    def test_without_a_message_has_the_fields_alone(self, caplog: pytest.LogCaptureFixture) -> None:
        _rust_logging.handle(event(message="", fields={"error": "broken"}))
        assert caplog.messages == ["error=broken"]

    def test_outside_of_a_span_has_no_ids(self, caplog: pytest.LogCaptureFixture) -> None:
        _rust_logging.handle(event(trace_id=None, span_id=None, is_sampled=False))
        (record,) = caplog.records
        assert (vars(record)["otelTraceID"], vars(record)["otelSpanID"]) == ("0", "0")

    def test_of_a_nameless_thread_can_be_told_from_others(self, caplog: pytest.LogCaptureFixture) -> None:
        _rust_logging.handle(event(thread_name=None))
        assert caplog.records[0].threadName == "Thread-42"

    def test_is_handled_inside_its_span(self, caplog: pytest.LogCaptureFixture) -> None:
        seen: list[tuple[str, str, bool]] = []

        def look(record: logging.LogRecord) -> bool:
            context = current_span().context
            seen.append((context.trace_id, context.span_id, context.is_sampled))
            return True

        logger = logging.getLogger("shop.stock")
        logger.addFilter(look)
        try:
            _rust_logging.handle(event())
            _rust_logging.handle(event(is_sampled=False))
            _rust_logging.handle(event(trace_id=None, span_id=None))
        finally:
            logger.removeFilter(look)
        assert seen == [(TRACE_ID, SPAN_ID, True), (TRACE_ID, SPAN_ID, False), ("0" * 32, "0" * 16, False)]
        assert not current_span().context.is_valid

    def test_is_not_made_for_a_logger_that_does_not_want_it(self, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.ERROR, "shop")
        _rust_logging.handle(event())
        assert caplog.records == []

    def test_is_made_by_the_record_factory_of_the_application(self, caplog: pytest.LogCaptureFixture) -> None:
        factory = logging.getLogRecordFactory()

        def make(*args: Any, **kwargs: Any) -> logging.LogRecord:
            record = factory(*args, **kwargs)
            record.made_here = True
            return record

        logging.setLogRecordFactory(make)
        try:
            _rust_logging.handle(event())
        finally:
            logging.setLogRecordFactory(factory)
        assert vars(caplog.records[0])["made_here"] is True


def test_events_and_records_of_log_go_to_the_loggers_of_their_targets() -> None:
    run_instrumented(
        """
        with span("python"):
            call_instrumented()
        kept.wait_for(5)
        assert kept.said() == [
            ("INFO", "shop.orders", "order taken order=7 paid=True total=12.5"),
            ("WARNING", "shop.stock", "few left"),
            ("WARNING", "shop.stock", "looking"),
            ("WARNING", "shop.ledger", "a record of log"),
            ("ERROR", "shop.orders", "cannot ship code=3"),
        ]
        assert [one.levelno for one in kept.records] == [20, 30, 30, 30, 40]
        names = {one.span_id: one.name for one in spans}
        assert [names[one.otelSpanID] for one in kept.records] == ["outer", "inner", "innermost", "innermost", "outer"]
        assert {one.otelTraceID for one in kept.records} == {spans.one("python").trace_id}
        assert {one.filename for one in kept.records} == {"instrumented.rs"}
        assert {one.thread for one in kept.records} == {threading.get_ident()}
        assert kept.records[0].order == 7
        """,
        rust_log="trace",
        rust_events="trace",
    )


@pytest.mark.parametrize(
    ("rust_events", "levels"),
    [
        ("none", []),
        ("error", ["ERROR"]),
        ("warning", ["WARNING", "WARNING", "WARNING", "ERROR"]),
        ("info", ["INFO", "WARNING", "WARNING", "WARNING", "ERROR"]),
        ("debug", ["INFO", "WARNING", "WARNING", "WARNING", "ERROR"]),
    ],
)
def test_only_what_is_severe_enough_goes_there(rust_events: str, levels: list[str]) -> None:
    run_instrumented(
        f"""
        from rvh_trace import _rust_logging
        call_instrumented()
        if {levels}:
            _rust_logging._stop()
        assert [level for level, _, _ in kept.said()] == {levels}, kept.said()
        """,
        rust_log="trace",
        rust_events=rust_events,
    )


def test_levels_are_those_of_logging_and_a_lower_one() -> None:
    run_instrumented(
        """
        for level in ("trace", "debug", "info", "warn", "error"):
            with span(level):
                log_instrumented(1, level)
        kept.wait_for(5)
        expected = [("TRACE", 5), ("DEBUG", 10), ("INFO", 20), ("WARNING", 30), ("ERROR", 40)]
        assert [(one.levelname, one.levelno) for one in kept.records] == expected
        """,
        rust_events="trace",
    )


def test_alone_it_lets_through_what_is_as_severe() -> None:
    run_instrumented(
        """
        call_instrumented()
        kept.wait_for(4)
        assert [level for level, _, _ in kept.said()] == ["WARNING", "WARNING", "WARNING", "ERROR"]
        assert [one.name for one in spans] == ["innermost", "inner"]
        """,
        rust_events="warning",
    )


def test_what_does_not_fit_is_counted_and_nobody_waits() -> None:
    run_instrumented(
        """
        go_on, entered = threading.Event(), threading.Event()

        class Slow(logging.Handler):
            def emit(self, record):
                entered.set()
                assert go_on.wait(20)

        slow = Slow(1)
        logging.getLogger("shop.many").addHandler(slow)
        log_instrumented(1)
        assert entered.wait(20)
        # The handler hangs, and Rust code goes on.
        log_instrumented(50_000)
        dropped = stats()["rust_events_dropped"]
        assert 0 < dropped < 50_000, dropped
        go_on.set()
        kept.wait_for(50_001 - dropped)
        log_instrumented(1)
        kept.wait_for(50_002 - dropped)
        assert stats()["rust_events_dropped"] == dropped
        """,
        rust_log="info",
        rust_events="info",
    )


def test_a_handler_that_uses_rust_code_does_not_feed_itself() -> None:
    run_instrumented(
        """
        class Instrumented(logging.Handler):
            def emit(self, record):
                call_instrumented()

        logging.getLogger("shop").addHandler(Instrumented(1))
        call_instrumented()
        kept.wait_for(5)
        assert sorted(one.name for one in spans) == ["inner", "innermost", "outer"]
        log_instrumented(1)
        kept.wait_for(6)
        assert len(kept.records) == 6
        """,
        rust_log="trace",
        rust_events="trace",
    )


def test_a_filter_that_raises_does_not_end_the_thread() -> None:
    arguments = {"rust_log": "info", "rust_events": "info"}
    script = """
def broken(record):
    raise ValueError("broken filter")
logging.getLogger("shop.orders").addFilter(broken)
call_instrumented()
kept.wait_for(3)
log_instrumented(1)
kept.wait_for(4)
"""
    finished = run_script(PRELUDE.replace("ARGUMENTS", repr(arguments)) + script)
    assert finished.returncode == 0, finished
    assert finished.stderr.count("ValueError: broken filter") == 2


def test_what_was_said_last_is_handed_over_at_exit() -> None:
    printed = run_instrumented(
        """
        class Printer(logging.Handler):
            def emit(self, record):
                print(record.number)

        logging.getLogger("shop.many").addHandler(Printer(1))
        log_instrumented(1000)
        """,
        rust_log="info",
        rust_events="info",
    )
    assert printed.split() == [str(number) for number in range(1000)]


def test_a_handler_that_hangs_does_not_keep_the_process() -> None:
    printed = run_instrumented(
        """
        class Hanging(logging.Handler):
            def handle(self, record):  # Without the lock that the end of the process waits for.
                print("hangs", flush=True)
                threading.Event().wait()

        logging.getLogger("shop.many").addHandler(Hanging(1))
        log_instrumented(1)
        """,
        rust_log="info",
        rust_events="info",
    )
    assert printed == "hangs\n"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
def test_a_forked_child_hands_over_its_own_events_and_no_others() -> None:
    # Since 3.12 Python warns of forks with other threads alive.
    options = ("-W", "error", "-W", "ignore:This process:DeprecationWarning")
    arguments = {"rust_log": "info", "rust_events": "info"}
    script = """
go_on = threading.Event()

class Slow(logging.Handler):
    def emit(self, record):
        assert go_on.wait(20)

slow = Slow(1)
logging.getLogger("shop").addHandler(slow)
call_instrumented()
log_instrumented(1000)
pid = os.fork()
if pid == 0:
    logging.getLogger("shop").removeHandler(slow)
    kept.records.clear()
    log_instrumented(3)
    kept.wait_for(3)
    # A second process of the child's, and its end.
    assert [one.number for one in kept.records] == [0, 1, 2], kept.said()
    assert stats()["rust_events_dropped"] == 0
    sys.exit(0)
assert os.waitpid(pid, 0)[1] == 0
go_on.set()
kept.wait_for(1005)
assert len(kept.records) == 1005
"""
    finished = run_script(PRELUDE.replace("ARGUMENTS", repr(arguments)) + script, options=options)
    assert (finished.returncode, finished.stderr) == (0, ""), finished


def test_logging_is_not_imported_where_nobody_asked() -> None:
    finished = run_script(
        """
        import sys
        import rvh_trace
        rvh_trace.init_tracing("shop", exporter="none", rust_log="info")
        assert "rvh_trace._rust_logging" not in sys.modules
        assert "logging" not in sys.modules
        """
    )
    assert (finished.returncode, finished.stderr) == (0, ""), finished
