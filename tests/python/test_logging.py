"""`rvh_trace.logging`: what becomes of the fields of a record, decoded with the official protobuf definitions."""

import asyncio
import enum
import logging
import logging.config
import logging.handlers
import pickle
import queue
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from receiver import ReceivedLog, attributes, logs

import rvh_trace
import rvh_trace.logging
from rvh_trace import span
from rvh_trace._rvh_trace import MemoryTracer
from rvh_trace.logging import LoggingHandler, TraceContextFilter

Take = Callable[[], list[ReceivedLog]]


@pytest.fixture
def take() -> Iterator[Take]:
    """Takes the log records that were made since the last call."""
    tracer = MemoryTracer(logs=True)
    tracer.install()
    yield lambda: logs([ExportLogsServiceRequest.FromString(request) for request in tracer.take_logs()])
    assert_balanced(rvh_trace.stats()["logs"])
    tracer.uninstall()


def assert_balanced(stats: Any) -> None:
    assert stats["created"] == stats["exported"] + stats["pending"] + sum(stats["dropped"].values()), stats


@pytest.fixture
def logger(take: Take) -> logging.Logger:
    """A logger that nobody else has, with a handler."""
    logger = logging.Logger("shop.cart", 1)
    logger.addHandler(LoggingHandler())
    return logger


def one(take: Take) -> ReceivedLog:
    (record,) = take()
    return record


class TestFields:
    def test_a_record_has_body_scope_times_and_place(self, logger: logging.Logger, take: Take) -> None:
        before = time.time_ns()
        logger.info("%d items in %s", 3, "cart")
        after = time.time_ns()
        log = one(take)
        assert log.body == "3 items in cart"
        assert log.scope.name == "shop.cart"
        # A float has no more than 200 ns of today's time.
        assert before - 1_000 <= log.record.time_unix_nano <= after
        assert log.record.time_unix_nano - 1_000 <= log.record.observed_time_unix_nano
        place = log.attributes
        assert place.pop("code.file.path") == __file__
        assert place.pop("code.function.name") == "test_a_record_has_body_scope_times_and_place"
        assert place.pop("code.line.number") == logger_line(self.test_a_record_has_body_scope_times_and_place)
        assert place == {}
        assert log.record.dropped_attributes_count == 0

    def test_the_resource_is_that_of_the_spans(self, logger: logging.Logger, take: Take) -> None:
        logger.info("hello")
        assert attributes(one(take).resource.attributes)["service.name"] == "test"

    @pytest.mark.parametrize(
        ("level", "number"),
        [
            *((1, 1), (5, 1), (9, 1), (10, 5), (11, 6), (13, 8), (19, 8), (20, 9), (25, 12), (30, 13), (31, 14)),
            *((40, 17), (49, 20), (50, 21), (52, 23), (53, 24), (1_000, 24)),
        ],
    )
    def test_a_level_has_its_severity(self, logger: logging.Logger, take: Take, level: int, number: int) -> None:
        logger.log(level, "hello")
        record = one(take).record
        assert (record.severity_number, record.severity_text) == (number, logging.getLevelName(level))

    def test_a_level_of_ones_own_keeps_its_name(self, logger: logging.Logger, take: Take) -> None:
        record = logging.makeLogRecord({"levelno": 25, "levelname": "NOTICE", "msg": "hello"})
        logger.handle(record)
        assert one(take).record.severity_text == "NOTICE"

    def test_levels_that_are_none_are_unspecified(self, logger: logging.Logger, take: Take) -> None:
        for level in (0, -5, "high", None, 10**30):
            logger.handlers[0].handle(logging.makeLogRecord({"levelno": level, "msg": "hello"}))
        assert [log.record.severity_number for log in take()] == [0] * 5

    def test_a_record_without_a_place_has_none(self, logger: logging.Logger, take: Take) -> None:
        logger.handle(logger.makeRecord("shop.cart", 20, "(unknown file)", 0, "hello", (), None, "(unknown function)"))
        assert one(take).attributes == {}

    def test_records_of_one_logger_are_one_scope_and_keep_their_order(self, take: Take) -> None:
        handler = LoggingHandler()
        for number in range(6):
            logger = logging.Logger(f"logger {number % 2}")
            logger.addHandler(handler)
            logger.info("%d", number)
        arrived = take()
        assert [log.body for log in arrived] == ["0", "2", "4", "1", "3", "5"]
        assert [log.scope.name for log in arrived] == ["logger 0"] * 3 + ["logger 1"] * 3

    @pytest.mark.parametrize("text", ["", "ü€😀", "x" * 100_000, "a\ud800b", "nul\0", "line\nbreak"])
    def test_any_text_arrives(self, logger: logging.Logger, take: Take, text: str) -> None:
        logger.name = text
        logger.info(text, extra={"shop.note": text})
        log = one(take)
        expected = text.encode("utf-8", "replace").decode().replace("?", "\ufffd") if "\ud800" in text else text
        assert str(log.body).replace("\ufffd\ufffd\ufffd", "\ufffd") == expected
        assert log.attributes["shop.note"] == log.body
        assert log.scope.name == log.body

    def test_a_message_may_be_any_object(self, logger: logging.Logger, take: Take) -> None:
        logger.info({"cart": 7})
        logger.info(None)
        logger.info(ValueError("no cart"))
        assert [log.body for log in take()] == ["{'cart': 7}", "None", "no cart"]

    def test_a_percent_sign_without_arguments_is_one(self, logger: logging.Logger, take: Take) -> None:
        logger.info("100 %")
        logger.info("%s", "100 %")
        logger.info("%(share)d %%", {"share": 100})
        assert [log.body for log in take()] == ["100 %"] * 3

    def test_records_of_a_class_of_their_own_say_what_their_message_is(
        self, logger: logging.Logger, take: Take, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        class Braces(logging.LogRecord):
            def getMessage(self) -> str:  # noqa: N802
                return str(self.msg).format(*self.args or ())

        before = logging.getLogRecordFactory()
        logging.setLogRecordFactory(Braces)
        try:
            logger.info("{} items", 3)
        finally:
            logging.setLogRecordFactory(before)
        assert one(take).body == "3 items"


def logger_line(function: Callable[..., Any]) -> int:
    """The line of the call of the logger in the test: the second of its body."""
    return function.__code__.co_firstlineno + 2


class TestExtra:
    def test_values_keep_their_types(self, logger: logging.Logger, take: Take) -> None:
        class Color(enum.StrEnum):
            RED = "red"

        extra = {
            "shop.text": "tea",
            "shop.int": -7,
            "shop.float": 1.5,
            "shop.bool": True,
            "shop.bytes": b"\0\xff",
            "shop.list": ["a", 1, 2.5, False],
            "shop.tuple": ("a",),
            "shop.enum": Color.RED,
            "shop.big": 2**70,
            "shop.dict": {"a": 1},
        }
        logger.info("hello", extra={**extra, "shop.none": None})
        arrived = {key: value for key, value in one(take).attributes.items() if key.startswith("shop.")}
        assert arrived == {
            **extra,
            "shop.tuple": ["a"],
            "shop.enum": "red",
            "shop.big": str(2**70),
            "shop.dict": "{'a': 1}",
        }
        assert type(arrived["shop.bool"]) is bool

    def test_an_event_has_its_name(self, logger: logging.Logger, take: Take) -> None:
        logger.info("hello", extra={"otel.event.name": "shop.cart.emptied"})
        log = one(take)
        assert log.record.event_name == "shop.cart.emptied"
        assert "otel.event.name" not in log.attributes

    def test_a_key_of_ours_is_the_programs_and_there_once(self, logger: logging.Logger, take: Take) -> None:
        ours = {"code.function.name": "Cart.checkout", "exception.type": "Mine", "code.line.number": 1}
        logger.info("hello", extra=ours, exc_info=ValueError("x"))
        # `attributes` raises on a repeated key.
        assert ours.items() <= one(take).attributes.items()

    def test_what_logging_sets_itself_is_no_attribute(self, logger: logging.Logger, take: Take) -> None:
        logging.Formatter("%(asctime)s %(message)s").format(record := logging.makeLogRecord({"msg": "hello"}))
        TraceContextFilter().filter(record)
        record.taskName = "task"
        logger.handlers[0].handle(record)
        assert one(take).attributes == {}

    def test_an_attribute_that_cannot_be_read_is_left_out(
        self, logger: logging.Logger, take: Take, capsys: pytest.CaptureFixture[str]
    ) -> None:
        # Strict here: the handler tells of it. Otherwise it is counted, and the record goes on.
        class Broken:
            def __str__(self) -> str:
                raise ZeroDivisionError("broken on purpose")

        logger.info("hello", extra={"shop.broken": Broken()})
        assert "broken on purpose" in capsys.readouterr().err

    def test_more_than_the_limit_are_counted(self, logger: logging.Logger, take: Take) -> None:
        logger.info("hello", extra={f"shop.n{number}": number for number in range(200)})
        log = one(take)
        assert len(log.record.attributes) == 128
        assert log.record.dropped_attributes_count == 200 + 3 - 128


class TestExceptions:
    def test_type_message_and_stack_trace_are_attributes(self, logger: logging.Logger, take: Take) -> None:
        try:
            raise KeyError("no such cart")
        except KeyError:
            logger.exception("failed")
        log = one(take)
        assert log.body == "failed"
        assert log.attributes["exception.type"] == "KeyError"
        assert log.attributes["exception.message"] == "'no such cart'"
        trace = str(log.attributes["exception.stacktrace"])
        assert trace.startswith("Traceback")
        assert "test_type_message_and_stack_trace_are_attributes" in trace
        assert trace.rstrip().endswith("KeyError: 'no such cart'")

    def test_an_exception_that_was_never_raised(self, logger: logging.Logger, take: Take) -> None:
        logger.error("failed", exc_info=ValueError("mine"))
        found = one(take).attributes
        assert (found["exception.type"], found["exception.message"]) == ("ValueError", "mine")

    def test_a_class_of_ones_own_has_its_module(self, logger: logging.Logger, take: Take) -> None:
        logger.error("failed", exc_info=pickle.PicklingError("x"))
        assert one(take).attributes["exception.type"] == "_pickle.PicklingError"

    def test_a_group_has_its_members_in_its_trace(self, logger: logging.Logger, take: Take) -> None:
        logger.error("failed", exc_info=ExceptionGroup("several", [ValueError("inner one")]))
        found = one(take).attributes
        assert found["exception.type"] == "ExceptionGroup"
        assert "inner one" in str(found["exception.stacktrace"])

    def test_no_exception_is_none(self, logger: logging.Logger, take: Take) -> None:
        logger.exception("nothing was raised")
        assert not [key for key in one(take).attributes if key.startswith("exception.")]

    def test_a_stack_is_an_attribute(self, logger: logging.Logger, take: Take) -> None:
        logger.info("hello", stack_info=True)
        assert "test_a_stack_is_an_attribute" in str(one(take).attributes["code.stacktrace"])

    def test_the_text_of_an_exception_from_elsewhere_is_kept(self, logger: logging.Logger, take: Take) -> None:
        record = logging.makeLogRecord({"msg": "hello", "exc_text": "Traceback of another process"})
        logger.handlers[0].handle(record)
        assert one(take).attributes["exception.stacktrace"] == "Traceback of another process"

    def test_an_exception_whose_text_raises_is_named(self, logger: logging.Logger, take: Take) -> None:
        class UnreadableError(Exception):
            def __str__(self) -> str:
                raise RuntimeError

        logger.error("failed", exc_info=UnreadableError())
        assert "whose str() raised" in str(one(take).attributes["exception.message"])


class TestTraceContext:
    def test_a_record_belongs_to_the_current_span(self, logger: logging.Logger, take: Take) -> None:
        logger.info("before")
        with span("outer") as outer:
            logger.info("outer")
            with span("inner") as inner:
                logger.info("inner")
        logger.info("after")
        before, in_outer, in_inner, after = take()
        assert (before.trace_id, before.span_id, before.record.flags) == ("", "", 0)
        assert (after.trace_id, after.span_id, after.record.flags) == ("", "", 0)
        for log, of in ((in_outer, outer), (in_inner, inner)):
            context = of.context
            assert (log.trace_id, log.span_id) == (context.trace_id, context.span_id)
            assert log.record.flags == context.trace_flags == 0b11

    def test_a_remote_parent_is_one_too(self, logger: logging.Logger, take: Take) -> None:
        traceparent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
        with rvh_trace.use_context(rvh_trace.extract({"traceparent": traceparent})):
            logger.info("hello")
        log = one(take)
        assert (log.trace_id, log.span_id) == tuple(traceparent.split("-")[1:3])
        assert log.record.flags == 1

    def test_a_span_that_is_not_sampled_gives_its_ids(self) -> None:
        tracer = MemoryTracer(sampler="always_off", logs=True)
        tracer.install()
        try:
            logger = logging.Logger("shop")
            logger.addHandler(LoggingHandler())
            with span("unsampled") as unsampled:
                logger.info("hello")
            (log,) = logs([ExportLogsServiceRequest.FromString(request) for request in tracer.take_logs()])
        finally:
            tracer.uninstall()
        assert log.trace_id == unsampled.context.trace_id
        assert log.record.flags == 0b10

    def test_tasks_have_spans_of_their_own(self, logger: logging.Logger, take: Take) -> None:
        spans: dict[str, str] = {}

        async def work(name: str) -> None:
            async with span(name) as own:
                spans[name] = own.context.span_id
                await asyncio.sleep(0)
                logger.info(name)

        async def main() -> None:
            await asyncio.gather(*(work(f"task {number}") for number in range(5)))

        asyncio.run(main())
        assert {str(log.body): log.span_id for log in take()} == spans

    def test_format_strings_get_the_ids(self, take: Take) -> None:
        lines: list[str] = []

        class Lines(logging.Handler):
            def emit(self, record: logging.LogRecord) -> None:
                lines.append(self.format(record))

        handler = Lines()
        handler.addFilter(TraceContextFilter())
        fields = "%(otelTraceID)s %(otelSpanID)s %(otelServiceName)s %(otelTraceSampled)s %(message)s"
        handler.setFormatter(logging.Formatter(fields))
        logger = logging.Logger("shop")
        logger.addHandler(handler)
        logger.info("outside")
        with span("op") as op:
            logger.info("inside")
        context = op.context
        assert lines == ["0 0 test False outside", f"{context.trace_id} {context.span_id} test True inside"]


class TestTheHandler:
    def test_its_level_and_filters_count(self, take: Take) -> None:
        logger = logging.Logger("shop")
        handler = LoggingHandler("WARNING")
        handler.addFilter(lambda record: "secret" not in record.getMessage())
        logger.addHandler(handler)
        logger.info("too low")
        logger.warning("a secret")
        logger.warning("hello")
        assert [log.body for log in take()] == ["hello"]

    def test_a_filter_may_give_another_record(self, logger: logging.Logger, take: Take) -> None:
        def masked(record: logging.LogRecord) -> Any:
            return logging.makeLogRecord({**vars(record), "msg": "masked"})

        (handler,) = logger.handlers
        handler.addFilter(masked)
        logger.info("secret")
        # A new thing of Python 3.12; before, whatever is true lets the record pass as it is.
        assert one(take).body == ("masked" if hasattr(logging, "getHandlerNames") else "secret")

    def test_a_formatter_makes_the_body(self, logger: logging.Logger, take: Take) -> None:
        (handler,) = logger.handlers
        handler.setFormatter(logging.Formatter("%(levelname)s: %(message)s"))
        logger.warning("hello")
        assert one(take).body == "WARNING: hello"

    def test_dict_config_makes_it(self, take: Take) -> None:
        logging.config.dictConfig(
            {
                "version": 1,
                "disable_existing_loggers": False,
                "filters": {"trace": {"()": "rvh_trace.logging.TraceContextFilter"}},
                "formatters": {"ids": {"format": "%(otelTraceSampled)s %(message)s"}},
                "handlers": {
                    "otlp": {
                        "class": "rvh_trace.logging.LoggingHandler",
                        "level": "INFO",
                        "filters": ["trace"],
                        "formatter": "ids",
                    }
                },
                "loggers": {"shop.configured": {"handlers": ["otlp"], "level": "DEBUG", "propagate": False}},
            }
        )
        logger = logging.getLogger("shop.configured")
        try:
            logger.debug("too low")
            with span("op"):
                logger.info("hello")
        finally:
            logger.handlers.clear()
        log = one(take)
        assert (log.body, log.scope.name) == ("True hello", "shop.configured")

    def test_a_queue_handler_hands_records_over(self, take: Take) -> None:
        records: queue.SimpleQueue[logging.LogRecord] = queue.SimpleQueue()
        listener = logging.handlers.QueueListener(records, LoggingHandler())
        logger = logging.Logger("shop")
        logger.addHandler(logging.handlers.QueueHandler(records))
        listener.start()
        logger.info("%d items", 3, extra={"cart.id": 7})
        listener.stop()
        log = one(take)
        assert (log.body, log.attributes["cart.id"]) == ("3 items", 7)

    def test_a_message_that_cannot_be_formatted_is_told_as_by_every_handler(
        self, logger: logging.Logger, take: Take, capsys: pytest.CaptureFixture[str]
    ) -> None:
        logger.info("%d items", "three")
        logger.info("hello")
        assert [log.body for log in take()] == ["hello"]
        assert "--- Logging error ---" in capsys.readouterr().err

    def test_a_str_that_logs_does_not_go_round_in_circles(
        self, logger: logging.Logger, take: Take, capfd: pytest.CaptureFixture[str]
    ) -> None:
        class Talkative:
            def __str__(self) -> str:
                logger.info("I am asked: %s", self)
                return "talkative"

        logger.info("%s", Talkative())
        logger.info("hello", extra={"shop.talkative": Talkative()})
        logger.info("bye")
        assert [log.body for log in take()] == ["talkative", "hello", "bye"]
        assert capfd.readouterr().err.count("rvh_trace: ") <= 1

    def test_an_object_that_is_too_deep_is_the_callers_affair(self, logger: logging.Logger, take: Take) -> None:
        class Deep:
            def __str__(self) -> str:
                return f"{self}"

        with pytest.raises(RecursionError):
            logger.info("%s", Deep())
        logger.info("hello")
        assert [log.body for log in take()] == ["hello"]

    def test_an_interrupt_is_the_callers(self, logger: logging.Logger, take: Take) -> None:
        class Interrupted:
            def __str__(self) -> str:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            logger.info("%s", Interrupted())
        with pytest.raises(KeyboardInterrupt):
            logger.info("hello", extra={"shop.x": Interrupted()})
        logger.info("hello")
        assert [log.body for log in take()] == ["hello"]

    def test_threads_lose_nothing(self, logger: logging.Logger, take: Take) -> None:
        threads, each = 8, 500
        start = threading.Barrier(threads)

        def work(thread: int) -> None:
            start.wait()
            for number in range(each):
                logger.info("%d", number, extra={"shop.thread": thread})

        workers = [threading.Thread(target=work, args=(thread,)) for thread in range(threads)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        arrived = take()
        for thread in range(threads):
            own = [log.body for log in arrived if log.attributes["shop.thread"] == thread]
            assert own == [str(number) for number in range(each)]

    def test_flush_and_close_are_those_of_every_handler(self, logger: logging.Logger, take: Take) -> None:
        (handler,) = logger.handlers
        handler.acquire()
        handler.flush()
        handler.release()
        logger.info("hello")
        handler.close()
        assert one(take).body == "hello"

    def test_without_logs_to_export_a_record_is_passed_over(self, spans: Any) -> None:
        logger = logging.Logger("shop")
        logger.addHandler(LoggingHandler())
        logger.info("hello")
        assert rvh_trace.stats()["logs"]["created"] == 0

    def test_all_is_what_there_is(self) -> None:
        assert rvh_trace.logging.__all__ == ("LoggingHandler", "TraceContextFilter")
        assert rvh_trace.logging.logging is logging
