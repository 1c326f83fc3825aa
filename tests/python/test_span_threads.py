"""One span, many threads: it may be annotated, read and ended by any of them. It ends once and nothing panics."""

import sys
import threading
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest
from interpreter import run_quietly

from rvh_trace import Span, current_span, inject, new_span, span, stats, use_context
from rvh_trace.testing import InMemoryExporter

ROUNDS = 200
THREADS = 4
JOIN_S = 60.0

ACTS: list[Callable[[Span], Any]] = [
    lambda one: one.set_attribute("key", "value" * 20),
    lambda one: one.set_attributes({"a": 1, "b": [1, 2, 3], "c": 2.5}),
    lambda one: one.add_event("event", {"n": 1}),
    lambda one: one.record_exception(ValueError("recorded")),
    lambda one: one.set_status("error", "because"),
    lambda one: one.update_name("shared"),
    lambda one: one.add_link(one),
    lambda one: (one.context, one.is_recording, repr(one)),
    lambda one: inject({}, one),
    lambda one: one.end(),
    lambda one: one.finish(KeyError("finished")),
]


@pytest.fixture
def restless() -> Iterator[None]:
    """Threads take turns as often as they can."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(interval)


def at_once(works: list[Callable[[], Any]]) -> None:
    """Runs every work in a thread of its own; they start together, and what one raises is raised."""
    barrier, raised = threading.Barrier(len(works)), list[BaseException]()

    def run(work: Callable[[], Any]) -> None:
        try:
            barrier.wait(JOIN_S)
            work()
        except BaseException as error:
            raised.append(error)

    threads = [threading.Thread(target=run, args=(work,)) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(JOIN_S)
        assert not thread.is_alive()
    assert raised == []


@pytest.mark.usefixtures("restless")
def test_everything_at_once_on_one_span(spans: InMemoryExporter) -> None:
    before = stats()["swallowed_errors"]
    for _ in range(ROUNDS // 4):
        shared = new_span("shared")
        at_once([partial(act, shared) for act in ACTS])
        assert not shared.is_recording
    assert len(spans) == len({one.span_id for one in spans}) == ROUNDS // 4
    assert {one.name for one in spans} == {"shared"}
    assert stats()["swallowed_errors"] == before


@pytest.mark.usefixtures("restless")
def test_annotated_from_threads_until_it_ends(spans: InMemoryExporter) -> None:
    shared = new_span("shared")
    annotated = threading.Event()

    def annotate(thread: int) -> None:
        for number in range(ROUNDS):
            shared.set_attribute(f"thread-{thread}", number)
            if number == ROUNDS // 2:
                annotated.set()

    def end() -> None:
        assert annotated.wait(JOIN_S)
        shared.end()

    at_once([*(partial(annotate, thread) for thread in range(THREADS)), end])
    (one,) = spans
    assert any(int(str(value)) >= ROUNDS // 2 for value in one.attributes.values())
    assert one.dropped_attributes == 0


@pytest.mark.usefixtures("restless")
def test_every_attribute_of_every_thread_arrives(spans: InMemoryExporter) -> None:
    def annotate(thread: int) -> None:
        for number in range(25):
            shared.set_attribute(f"{thread}-{number}", number)

    with span("shared") as shared:
        at_once([partial(annotate, thread) for thread in range(THREADS)])
    assert len(spans.one("shared").attributes) == 25 * THREADS


@pytest.mark.usefixtures("restless")
def test_left_in_one_thread_while_others_use_it_as_parent(spans: InMemoryExporter) -> None:
    def children(shared: Span) -> None:
        for _ in range(20):
            with use_context(shared), span("child"):
                assert current_span() is not shared
            assert not current_span().context.is_valid

    for _ in range(10):
        shared = span("shared")
        shared.__enter__()
        at_once([*[partial(children, shared)] * THREADS, partial(shared.__exit__, None, None, None)])
        shared.__exit__(None, None, None)
    parents = {one.span_id for one in spans.named("shared")}
    assert len(parents) == 10
    assert {one.parent_span_id for one in spans.named("child")} <= parents


@pytest.mark.usefixtures("restless")
def test_ended_by_many_it_ends_once(spans: InMemoryExporter) -> None:
    for _ in range(ROUNDS // 4):
        shared = new_span("shared")
        at_once([shared.end] * THREADS)
    assert len(spans) == ROUNDS // 4


def test_a_span_ended_by_a_thread_while_the_interpreter_leaves_is_quiet() -> None:
    run_quietly(
        """
        import threading
        from rvh_trace import init_tracing, new_span

        init_tracing("shop", exporter="none")
        shared = new_span("shared")
        started = threading.Event()

        def annotate():
            while True:
                shared.set_attribute("key", 1)
                with new_span("other").activate():
                    pass
                started.set()

        threading.Thread(target=annotate, daemon=True).start()
        assert started.wait(20)
        """,
        options=("-X", "dev", "-W", "error"),
    )
