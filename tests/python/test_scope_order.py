"""Scopes entered and left in any order, context and thread: nothing raises, nothing hangs, every span ends once."""

import contextvars
import gc
import os
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from rvh_trace import Span, current_span, extract, inject, new_span, span, use_context
from rvh_trace.testing import InMemoryExporter

Act = tuple[str, int, int]

SCOPES = 5
CONTEXTS = 4
ACTS = st.lists(
    st.tuples(
        st.sampled_from(["enter"] * 4 + ["exit"] * 4 + ["copy", "elsewhere", "end"]),
        st.integers(0, SCOPES - 1),
        st.integers(0, CONTEXTS - 1),
    ),
    max_size=40,
)

REMOTE = {"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "baggage": "tenant=acme"}


def leave(scope: Any) -> None:
    assert not scope.__exit__(None, None, None)


class Stage:
    """Three spans and two uses of a context, four contexts, and another thread."""

    def __init__(self, pool: ThreadPoolExecutor) -> None:
        self.hand_made = new_span("by hand")
        self.spans: list[Span] = [span("0"), span("1"), span("2")]
        self.scopes: list[Any] = [*self.spans, self.hand_made.activate(), use_context(extract(REMOTE))]
        self.contexts = [contextvars.Context() for _ in range(CONTEXTS)]
        self.open = [0] * SCOPES
        self.entered: set[str] = set()
        self._pool = pool

    def do(self, act: Act) -> None:
        what, number, where = act
        match what:
            case "enter":
                self.contexts[where].run(self.scopes[number].__enter__)
                self.open[number] += 1
                if number < len(self.spans):
                    self.entered.add(str(number))
            case "copy":
                self.contexts[where] = self.contexts[number % CONTEXTS].copy()
            case "end":
                if number < len(self.spans):
                    self.spans[number].end()
            case "elsewhere":
                self._pool.submit(self.contexts[where].run, leave, self.scopes[number]).result()
                self.open[number] -= 1
            case _:
                self.contexts[where].run(leave, self.scopes[number])
                self.open[number] -= 1
        self.open[number] = max(self.open[number], 0)
        for context in self.contexts:
            context.run(current_span)

    def leave_everything(self) -> None:
        for number, scope in enumerate(self.scopes):
            for _ in range(self.open[number]):
                contextvars.Context().run(leave, scope)
        self.hand_made.end()


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    """Another thread; the collections of every example are cheap meanwhile."""
    gc.collect()
    gc.freeze()
    with ThreadPoolExecutor(1) as pool:
        yield pool
    gc.unfreeze()


@settings(max_examples=int(os.environ.get("RVH_TRACE_PROGRAMS", "60")))
@given(acts=ACTS)
# Spans left elsewhere, each entered where the other was current: their ways back once led round in a circle.
@example(acts=[("enter", 0, 0), ("enter", 1, 0), ("exit", 0, 1), ("enter", 0, 0), ("exit", 0, 1), ("exit", 1, 1)])
# Left before it was entered: it ends when it is left again.
@example(acts=[("exit", 0, 0), ("enter", 0, 0), ("exit", 0, 0)])
@example(acts=[("end", 0, 0), ("enter", 0, 0), ("end", 0, 0)])
# One `use_context` in two contexts at once.
@example(acts=[("enter", 0, 0), ("enter", 1, 1), ("enter", 3, 0), ("enter", 3, 1), ("exit", 3, 0), ("exit", 3, 1)])
def test_any_order_of_scopes(pool: ThreadPoolExecutor, acts: list[Act]) -> None:
    with InMemoryExporter() as spans:
        stage = Stage(pool)
        for act in acts:
            stage.do(act)
        stage.leave_everything()
        assert sorted(one.name for one in spans) == sorted(stage.entered | {"by hand"})
        assert not any(context.run(current_span).is_recording for context in stage.contexts)
        contexts = [weakref.ref(context) for context in stage.contexts]
        del stage
        gc.collect()
        assert [context for context in contexts if context() is not None] == [], "a context is kept alive"


def test_scopes_left_in_order_restore_what_was_current(spans: InMemoryExporter) -> None:
    scopes: list[Callable[[], Any]] = [
        lambda: span("span"),
        lambda: new_span("active").activate(),
        lambda: use_context(extract(REMOTE)),
        lambda: use_context(None),
    ]
    with span("outer") as outer:
        for outside in scopes:
            for inside in scopes:
                with outside():
                    between = current_span().context
                    with inside():
                        pass
                    assert current_span().context == between
                assert current_span() is outer


class TestUseContext:
    def test_is_left_by_itself_in_every_context(self, spans: InMemoryExporter) -> None:
        first, second, used = new_span("first"), new_span("second"), new_span("used").activate()
        contexts = [contextvars.Context(), contextvars.Context()]
        for context, one in zip(contexts, (first, second), strict=True):
            context.run(one.activate().__enter__)
            context.run(used.__enter__)
        for context, one in zip(contexts, (first, second), strict=True):
            context.run(leave, used)
            assert context.run(current_span) is one

    @pytest.mark.parametrize("make", [lambda: extract(REMOTE), lambda: None, lambda: new_span("used")])
    @pytest.mark.parametrize("copied", [False, True])
    def test_left_elsewhere_it_is_current_nowhere(
        self, spans: InMemoryExporter, make: Callable[[], Any], copied: bool
    ) -> None:
        used = use_context(make())
        with span("outer") as outer:
            used.__enter__()
            elsewhere = contextvars.copy_context() if copied else contextvars.Context()
            elsewhere.run(leave, used)
            assert current_span() is outer
            carrier: dict[str, str] = {}
            inject(carrier)
            assert "baggage" not in carrier

    def test_baggage_left_elsewhere_gives_way_to_what_was_before(self, spans: InMemoryExporter) -> None:
        for _ in range(3):
            with use_context(extract({"baggage": "tenant=outer"})):
                used = use_context(extract({"baggage": "tenant=inner"}))
                used.__enter__()
                contextvars.Context().run(leave, used)
                carrier: dict[str, str] = {}
                inject(carrier)
                assert carrier == {"baggage": "tenant=outer"}

    def test_the_span_that_was_used_elsewhere_can_be_used_again(self, spans: InMemoryExporter) -> None:
        made = span("made")
        made.__enter__()
        contextvars.Context().run(leave, made)
        assert not current_span().context.is_valid
        with use_context(made):
            assert current_span() is made


def test_a_span_left_in_a_copy_of_its_context_is_current_in_neither(spans: InMemoryExporter) -> None:
    with span("outer") as outer:
        inner = span("inner")
        inner.__enter__()
        copy = contextvars.copy_context()
        copy.run(leave, inner)
        assert copy.run(current_span) is outer
        assert current_span() is outer
        with span("after"):
            pass
    assert spans.one("after").is_child_of(spans.one("outer"))
