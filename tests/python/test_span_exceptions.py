"""An exception that leaves a span is recorded and goes on: same object, same traceback."""

import asyncio
import sys
import traceback
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from rvh_trace import current_span, new_span, span
from rvh_trace.testing import FinishedSpan, InMemoryExporter

Run = Callable[[Coroutine[Any, Any, Any]], Any]


class ShopError(Exception):
    """Has a module and a qualified name."""


class UnprintableError(Exception):
    def __str__(self) -> str:
        raise TypeError("no text")


def only_event(sent: FinishedSpan) -> dict[str, Any]:
    (event,) = sent.events
    assert event.name == "exception"
    assert sent.start_unix_ns <= event.unix_ns <= sent.end_unix_ns
    return dict(event.attributes)


def test_the_same_object_comes_out_with_an_untouched_traceback(spans: InMemoryExporter) -> None:
    error = ValueError("bad")
    with pytest.raises(ValueError, match="bad") as caught, span("op"):
        raise error
    assert caught.value is error
    assert error.__context__ is error.__cause__ is None
    assert [frame.name for frame in traceback.extract_tb(error.__traceback__)] == [sys._getframe().f_code.co_name]  # pyright: ignore[reportPrivateUsage]


def test_it_is_recorded_as_the_conventions_say(spans: InMemoryExporter) -> None:
    with pytest.raises(ShopError), span("op"):
        raise ShopError("sold out")
    (sent,) = spans
    assert sent.attributes == {"error.type": f"{__name__}.ShopError"}
    assert (sent.status, sent.status_description) == ("error", "sold out")
    event = only_event(sent)
    stacktrace = event.pop("exception.stacktrace")
    assert event == {"exception.type": f"{__name__}.ShopError", "exception.message": "sold out"}
    assert stacktrace.startswith("Traceback (most recent call last):\n")
    assert "test_it_is_recorded_as_the_conventions_say" in stacktrace
    assert stacktrace.rstrip().endswith("ShopError: sold out")


def test_async_with_records_and_reraises_the_same_object(spans: InMemoryExporter, run: Run) -> None:
    error = ShopError("sold out")

    async def main() -> None:
        with pytest.raises(ShopError) as caught:
            async with span("op"):
                raise error
        assert caught.value is error

    run(main())
    assert spans[0].status == "error"
    assert only_event(spans[0])["exception.message"] == "sold out"


def test_builtin_classes_have_no_module_and_local_ones_are_qualified(spans: InMemoryExporter) -> None:
    class LocalError(Exception): ...

    for error in (KeyError("k"), LocalError(), OSError(2, "gone")):
        with pytest.raises(type(error)), span("op"):
            raise error
    assert [sent.attributes["error.type"] for sent in spans] == [
        "KeyError",
        f"{__name__}.{LocalError.__qualname__}",
        "FileNotFoundError",
    ]


def test_the_cause_is_in_the_stack_trace(spans: InMemoryExporter) -> None:
    with pytest.raises(ShopError), span("op"):  # noqa: PT012
        try:
            raise KeyError("first")
        except KeyError as error:
            raise ShopError("second") from error
    stacktrace = only_event(spans[0])["exception.stacktrace"]
    assert "KeyError: 'first'" in stacktrace
    assert "direct cause" in stacktrace


def test_every_span_that_it_leaves_records_it(spans: InMemoryExporter) -> None:
    with pytest.raises(ShopError), span("outer"), span("inner"):
        raise ShopError("sold out")
    assert [(sent.name, sent.status, len(sent.events)) for sent in spans] == [
        ("inner", "error", 1),
        ("outer", "error", 1),
    ]
    assert not current_span().context.is_valid


def test_an_exception_handled_inside_is_not_an_error(spans: InMemoryExporter) -> None:
    with span("op"):
        try:
            raise ShopError
        except ShopError:
            pass
    assert (spans[0].status, spans[0].attributes, spans[0].events) == ("unset", {}, ())


def test_record_exception_adds_the_event_and_leaves_the_status(spans: InMemoryExporter) -> None:
    with span("op") as op:
        try:
            raise ShopError("handled")
        except ShopError as error:
            op.record_exception(error)
    assert (spans[0].status, spans[0].attributes) == ("unset", {})
    event = only_event(spans[0])
    assert event["exception.message"] == "handled"
    assert "ShopError: handled" in event["exception.stacktrace"]


def test_record_exception_takes_one_that_was_never_raised(spans: InMemoryExporter) -> None:
    with span("op") as op:
        op.record_exception(ShopError("never raised"))
    assert only_event(spans[0])["exception.message"] == "never raised"


def test_finish_ends_as_leaving_the_scope_would(spans: InMemoryExporter) -> None:
    new_span("failed").finish(ShopError("sold out"))
    new_span("cancelled").finish(asyncio.CancelledError())
    new_span("fine").finish()
    assert [(sent.name, sent.status, sent.attributes) for sent in spans] == [
        ("failed", "error", {"error.type": f"{__name__}.ShopError"}),
        ("cancelled", "unset", {"rvh_trace.outcome": "cancelled"}),
        ("fine", "unset", {}),
    ]


def test_an_explicit_ok_is_final_even_if_an_exception_follows(spans: InMemoryExporter) -> None:
    with pytest.raises(ShopError), span("op") as op:  # noqa: PT012
        op.set_status("ok")
        raise ShopError("after all")
    assert (spans[0].status, spans[0].status_description) == ("ok", "")
    assert len(spans[0].events) == 1


def test_an_error_type_of_the_application_does_not_stay_beside_ours(spans: InMemoryExporter) -> None:
    with pytest.raises(ShopError), span("op", {"error.type": "guess"}):
        raise ShopError
    assert spans[0].attributes == {"error.type": f"{__name__}.ShopError"}


def test_an_exception_without_a_text_is_still_recorded_and_reraised(spans: InMemoryExporter) -> None:
    with pytest.raises(UnprintableError), span("op"):
        raise UnprintableError
    assert spans[0].status == "error"
    assert spans[0].attributes == {"error.type": f"{__name__}.UnprintableError"}
    assert only_event(spans[0])["exception.type"] == f"{__name__}.UnprintableError"


def test_an_exception_with_surrogates_in_its_text_is_recorded(spans: InMemoryExporter) -> None:
    with pytest.raises(ShopError), span("op"):
        raise ShopError("a\ud800b")
    assert spans[0].status_description[0] == "a"
    assert spans[0].status_description[-1] == "b"


def test_a_recursion_error_is_recorded_and_reraised(spans: InMemoryExporter) -> None:
    def deeper() -> None:
        deeper()

    with pytest.raises(RecursionError), span("op"):
        deeper()
    assert spans[0].attributes == {"error.type": "RecursionError"}


class TestCancellationAndExits:
    """What ends a span without being an error."""

    def test_cancellation_is_visible_and_not_an_error(self, spans: InMemoryExporter, run: Run) -> None:
        async def work() -> None:
            with span("op"):
                await asyncio.Event().wait()

        async def main() -> None:
            task = asyncio.create_task(work())
            await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

        run(main())
        assert spans[0].attributes == {"rvh_trace.outcome": "cancelled"}
        assert (spans[0].status, spans[0].events) == ("unset", ())

    def test_a_timeout_is_an_error_only_where_it_is_a_timeout(self, spans: InMemoryExporter, run: Run) -> None:
        async def main() -> None:
            with pytest.raises(TimeoutError):  # noqa: PT012
                async with span("whole"):
                    async with asyncio.timeout(0):
                        async with span("part"):
                            await asyncio.Event().wait()

        run(main())
        assert spans.one("part").attributes == {"rvh_trace.outcome": "cancelled"}
        assert spans.one("part").status == "unset"
        assert spans.one("whole").attributes == {"error.type": "TimeoutError"}
        assert spans.one("whole").status == "error"

    @pytest.mark.parametrize("error", [GeneratorExit(), SystemExit(), SystemExit(0)], ids=repr)
    def test_clean_exits_are_not_errors(self, spans: InMemoryExporter, error: BaseException) -> None:
        with pytest.raises(type(error)) as caught, span("op"):
            raise error
        assert caught.value is error
        assert (spans[0].status, spans[0].attributes, spans[0].events) == ("unset", {}, ())

    @pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(3), SystemExit("why")], ids=repr)
    def test_other_exits_are(self, spans: InMemoryExporter, error: BaseException) -> None:
        with pytest.raises(type(error)) as caught, span("op"):
            raise error
        assert caught.value is error
        assert (spans[0].status, spans[0].attributes["error.type"]) == ("error", type(error).__name__)


class TestExceptionGroups:
    """Groups are recorded as structure, not as "unhandled errors in a TaskGroup (1 sub-exception)" alone."""

    def test_group_and_every_member_are_events(self, spans: InMemoryExporter) -> None:
        group = ExceptionGroup(
            "both", [ShopError("one"), ExceptionGroup("deeper", [KeyError("two"), OSError("three")])]
        )
        with pytest.raises(ExceptionGroup) as caught, span("op"):
            raise group
        assert caught.value is group
        (sent,) = spans
        assert sent.attributes == {"error.type": "ExceptionGroup"}
        assert sent.status_description == str(group)
        described = [
            (
                event.attributes["exception.type"],
                event.attributes["exception.message"],
                event.attributes.get("rvh_trace.exception.group_path"),
            )
            for event in sent.events
        ]
        assert described == [
            ("ExceptionGroup", "both (2 sub-exceptions)", None),
            (f"{__name__}.ShopError", "one", "0"),
            ("ExceptionGroup", "deeper (2 sub-exceptions)", "1"),
            ("KeyError", "'two'", "1.0"),
            ("OSError", "three", "1.1"),
        ]
        assert "ShopError: one" in str(sent.events[0].attributes["exception.stacktrace"])

    def test_a_failing_task_group_shows_what_failed(self, spans: InMemoryExporter, run: Run) -> None:
        async def fail() -> None:
            raise ShopError("in a task")

        async def main() -> None:
            with pytest.raises(ExceptionGroup), span("op"):
                async with asyncio.TaskGroup() as group:
                    group.create_task(fail())

        run(main())
        assert [event.attributes["exception.type"] for event in spans[0].events] == [
            "ExceptionGroup",
            f"{__name__}.ShopError",
        ]

    def test_a_huge_or_deep_group_is_bounded(self, spans: InMemoryExporter) -> None:
        deep: Exception = ShopError("bottom")
        for _ in range(100):
            deep = ExceptionGroup[Exception]("level", [deep])
        for group in (ExceptionGroup("wide", [ShopError(str(number)) for number in range(1000)]), deep):
            spans.clear()
            with pytest.raises(ExceptionGroup), span("op"):
                raise group
            assert 2 <= len(spans[0].events) <= 128
            assert spans[0].status == "error"


def test_no_event_has_the_deprecated_escaped_attribute(spans: InMemoryExporter) -> None:
    with pytest.raises(ExceptionGroup), span("op"):
        raise ExceptionGroup("group", [ShopError()])
    assert all("exception.escaped" not in event.attributes for event in spans[0].events)
