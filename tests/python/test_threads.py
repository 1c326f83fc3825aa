"""Many threads at one span, one queue and one flush: nothing is lost, nothing is counted twice, nothing crashes."""

import os
import sys
import threading
from collections.abc import Callable, Iterator

import pytest
from interpreter import run_quietly
from receiver import Receiver

from rvh_trace import current_span, new_span, span
from rvh_trace.testing import InMemoryExporter

THREADS = 6
ROUNDS = int(os.environ.get("RVH_TRACE_THREAD_ROUNDS", "300"))


@pytest.fixture(autouse=True)
def eager_switching() -> Iterator[None]:
    """Threads change places as often as the interpreter lets them."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


def together(*works: Callable[[], None]) -> None:
    """Runs all at once, each on a thread; the first exception is raised here."""
    errors: list[BaseException] = []
    begin = threading.Barrier(len(works))

    def run(work: Callable[[], None]) -> None:
        begin.wait()
        try:
            work()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(work,)) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]


def times(work: Callable[[int], None]) -> Callable[[], None]:
    def repeat() -> None:
        for number in range(ROUNDS):
            work(number)

    return repeat


def test_spans_of_all_threads_arrive_each_under_its_own_parent(spans: InMemoryExporter) -> None:
    def work(number: int) -> None:
        with span("outer", number=number) as outer:
            with span("inner") as inner:
                inner.set_attribute("outer", outer.context.span_id)
                assert current_span() is inner
            assert current_span() is outer

    together(*[times(work)] * THREADS)
    finished = list(spans)
    assert len({one.span_id for one in finished}) == len(finished) == 2 * THREADS * ROUNDS
    inner = [one for one in finished if one.name == "inner"]
    assert all(one.parent_span_id == one.attributes["outer"] for one in inner)


def test_one_span_that_all_threads_write_is_whole(spans: InMemoryExporter) -> None:
    """Attributes are overwritten in place, in a buffer that grows, while others read its context and copy it."""
    shared = new_span("shared")
    limit = 100

    def write(thread: int) -> Callable[[int], None]:
        def once(number: int) -> None:
            shared.set_attribute(f"thread.{thread}.{number % 10}", "x" * (number % 50))
            shared.set_attribute("shared", [thread, number])
            if number < limit // THREADS:
                shared.add_event(f"event {thread}", {"number": number})
            shared.update_name(f"shared by {thread}")
            assert shared.context.span_id == span_id

        return once

    span_id = shared.context.span_id
    together(*(times(write(thread)) for thread in range(THREADS)))
    shared.end()
    (one,) = list(spans)
    assert one.name in {f"shared by {thread}" for thread in range(THREADS)}
    last = {
        f"thread.{thread}.{digit}": "x" * (max(range(digit, ROUNDS, 10)) % 50)
        for thread in range(THREADS)
        for digit in range(10)
    }
    assert {key: value for key, value in one.attributes.items() if key != "shared"} == last
    assert one.attributes["shared"][1] == ROUNDS - 1  # type: ignore[index]  # pyright: ignore[reportIndexIssue, reportArgumentType, reportOptionalSubscript]
    assert len(one.events) == THREADS * (limit // THREADS)
    assert one.dropped_attributes == one.dropped_events == 0


def test_a_span_that_all_threads_end_ends_once(spans: InMemoryExporter) -> None:
    shared = [new_span(f"number {number}") for number in range(ROUNDS)]

    def work(number: int) -> None:
        shared[number].set_attribute("key", "value")
        shared[number].end()

    together(*[times(work)] * THREADS)
    assert sorted(one.name for one in spans) == sorted(f"number {number}" for number in range(ROUNDS))


def test_flushes_and_readings_beside_spans_lose_nothing(receiver: Receiver) -> None:
    run_quietly(
        f"""
        import sys, threading
        import rvh_trace
        sys.setswitchinterval(1e-6)
        rvh_trace.init_tracing("shop", schedule_delay_ms=1, max_export_batch_size=16)
        begin = threading.Barrier({THREADS} + 3)
        ended = threading.Event()

        def trace(thread):
            begin.wait()
            for number in range({ROUNDS}):
                with rvh_trace.span("op", thread=thread) as op:
                    op.set_attribute("number", number)

        def flush():
            begin.wait()
            while not ended.is_set():
                assert rvh_trace.force_flush(20_000)

        def read():
            begin.wait()
            before = 0
            while not ended.is_set():
                stats = rvh_trace.stats()
                lost = sum(stats["dropped"].values())
                assert stats["ended"] == stats["exported"] + stats["pending"] + lost, stats
                assert stats["exported"] >= before, stats
                before = stats["exported"]

        def checked(work, *args):
            try:
                work(*args)
            except BaseException as error:
                errors.append(error)
                raise

        errors = []
        tracing = [threading.Thread(target=checked, args=(trace, number)) for number in range({THREADS})]
        beside = [threading.Thread(target=checked, args=(work,)) for work in (flush, flush, read)]
        for thread in tracing + beside:
            thread.start()
        for thread in tracing:
            thread.join()
        ended.set()
        for thread in beside:
            thread.join()
        assert rvh_trace.shutdown() and not errors
        assert rvh_trace.stats()["exported"] == {THREADS * ROUNDS}, rvh_trace.stats()
        """,
        OTEL_EXPORTER_OTLP_ENDPOINT=receiver.http_endpoint,
    )
    arrived = [(one.attributes["thread"], one.attributes["number"]) for one in receiver.spans]
    assert len(arrived) == THREADS * ROUNDS
    assert set(arrived) == {(thread, number) for thread in range(THREADS) for number in range(ROUNDS)}
