"""Events and records of Rust in Python's `logging`."""

import logging
from types import ModuleType

import pytest

import rvh_trace
from rvh_trace import span
from rvh_trace.testing import InMemoryExporter


def test_events_go_to_the_logger_of_their_target(
    extension: ModuleType, spans: InMemoryExporter, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG):
        extension.with_options("log")
    assert [(record.name, record.levelno, record.getMessage()) for record in caplog.records] == [
        ("traced_extension.layer", logging.WARNING, "a warning n=4"),
        ("traced_extension.layer", logging.ERROR, "an error n=5"),
    ]
    told = spans.one("events")
    assert {(record.trace_id, record.span_id) for record in caplog.records} == {(told.trace_id, told.span_id)}  # type: ignore[attr-defined]
    # They were to be logged, and not to be events of the span.
    assert (told.events, told.status) == ((), "unset")


def test_a_logger_that_is_not_interested_hears_nothing(
    extension: ModuleType, caplog: pytest.LogCaptureFixture, spans: InMemoryExporter
) -> None:
    with caplog.at_level(logging.ERROR, "traced_extension"):
        extension.with_options("log")
    assert [record.levelname for record in caplog.records] == ["ERROR"]


def test_a_handler_may_come_back(extension: ModuleType, spans: InMemoryExporter) -> None:
    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            with span("handler"):
                extension.tree(1)

    handler, logger = Handler(), logging.getLogger("traced_extension.layer")
    logger.addHandler(handler)
    try:
        extension.with_options("log")
    finally:
        logger.removeHandler(handler)
    assert [one.name for one in spans].count("handler") == 2


def test_without_the_gil_nothing_is_waited_for_and_the_loss_is_counted(
    extension: ModuleType, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    before = rvh_trace.stats()["swallowed_errors"]
    extension.log_detached()
    assert rvh_trace.stats()["swallowed_errors"] == before + 1
    assert caplog.records == []
    assert "extension::detached was dropped" in capfd.readouterr().err
