"""Adding and removing layers, and what may be one."""

import gc
import threading
import types
import weakref
from typing import Any

import pytest

from layers.keeper import Add, Keeper, flushed
from rvh_trace import (
    ConfigurationError,
    add_layer,
    force_flush,
    remove_layer,
    span,
)
from rvh_trace._rvh_trace import read_layer_counts
from rvh_trace.layers import ClosedSpan, NewSpan
from rvh_trace.testing import InMemoryExporter


class TestWhenItIsAdded:
    def test_a_span_that_had_begun_stays_unseen(self, add: Add) -> None:
        keeper = Keeper()
        with span("open") as open_span:
            add(keeper)
            open_span.set_attribute("a", 1)
            open_span.add_event("event")
            with span("inner"):
                pass
        assert flushed(keeper).story == [("new", "inner", None), ("close", "inner", 1)]

    @pytest.mark.parametrize("immediate", [False, True])
    def test_also_one_that_another_layer_sees(self, spans: InMemoryExporter, immediate: bool) -> None:
        first, second = Keeper(), Keeper()
        add_layer(first)
        with span("open") as open_span:
            handle = add_layer(second, immediate=immediate)
            open_span.add_event("event")
            with span("inner"):
                pass
        assert [name for _, name, _ in flushed(first).story] == ["open", "event", "inner", "inner", "open"]
        assert second.story == [("new", "inner", None), ("close", "inner", 1)]
        assert handle.dropped == 0

    def test_a_removed_layer_is_called_no_more_and_keeps_nothing_alive(self, add: Add) -> None:
        class State: ...

        states: list[weakref.ref[State]] = []

        class Layer:
            closed = 0

            def on_new_span(self, span: NewSpan) -> State:
                state = State()
                states.append(weakref.ref(state))
                return state

            def on_close(self, span: ClosedSpan, state: State) -> None:
                self.closed += 1

        layer = Layer()
        handle = add(layer)
        with span("first"):
            pass
        with span("open"):
            assert force_flush()
            first, still_open = states
            assert (layer.closed, first()) == (1, None)
            assert still_open() is not None
            assert handle.is_active
            remove_layer(layer)
            assert still_open() is None
            assert not handle.is_active
            remove_layer(layer)
            remove_layer(handle)
        with span("later"):
            pass
        assert force_flush()
        assert (layer.closed, len(states)) == (1, 2)
        kept = weakref.ref(layer)
        del layer, handle, Layer
        gc.collect()
        assert kept() is None

    def test_added_again_it_knows_nothing_of_before(self, add: Add) -> None:
        keeper = Keeper()
        add(keeper)
        with span("open"):
            remove_layer(keeper)
            add(keeper)
            with span("inner"):
                pass
        assert [name for method, name, _ in flushed(keeper).story if method == "close"] == ["inner"]

    def test_what_waited_when_it_was_removed_is_not_delivered(self, spans: InMemoryExporter) -> None:
        entered, gate = threading.Event(), threading.Event()

        class Gated(Keeper):
            def on_new_span(self, span: NewSpan) -> int:
                entered.set()
                assert gate.wait(20)
                return super().on_new_span(span)

        gated, other = Gated(), Keeper()
        add_layer(gated)
        add_layer(other)
        for _ in range(3):
            with span("op"):
                pass
        waiting = threading.Thread(target=force_flush)
        waiting.start()
        assert entered.wait(20)
        remove_layer(gated)
        gate.set()
        waiting.join(20)
        assert [call[:2] for call in gated.story] == [("new", "op")], "only the call that was under way"
        assert [call[0] for call in flushed(other).story] == ["new", "close"] * 3

    def test_a_layer_may_remove_itself_and_others(self, add: Add) -> None:
        class Once:
            calls = 0

            def on_new_span(self, span: NewSpan) -> None:
                self.calls += 1
                remove_layer(self)
                remove_layer(later)

        once, later, last = Once(), Keeper(), Keeper()
        for layer in (once, later, last):
            add(layer)
        for _ in range(2):
            with span("op"):
                pass
        assert [call[0] for call in flushed(last).story] == ["new", "close"] * 2
        assert (once.calls, later.calls) == (1, [])

    def test_several_are_told_in_the_order_in_which_they_were_added(self, add: Add) -> None:
        order: list[str] = []

        def layer(name: str) -> Any:
            return types.SimpleNamespace(on_close=lambda span, state: order.append(name))

        handles = [add(layer(name)) for name in "abc"]
        with span("op"):
            pass
        assert force_flush()
        assert order == ["a", "b", "c"]
        assert all(handle.is_active for handle in handles)


class TestWhatItMayHave:
    @pytest.mark.parametrize("method", ["on_new_span", "on_event", "on_record", "on_close"])
    def test_one_method_is_enough(self, add: Add, method: str) -> None:
        calls: list[tuple[Any, ...]] = []
        add(types.SimpleNamespace(**{method: lambda *arguments: calls.append(arguments)}))
        with span("op") as op:
            op.set_attribute("a", 1)
            op.add_event("event")
        assert force_flush()
        assert len(calls) == 1
        assert calls[0][1:] == (() if method == "on_new_span" else (None,))

    def test_nobody_makes_records_that_nobody_wants(self, spans: InMemoryExporter) -> None:
        layer: Any = types.SimpleNamespace(on_close=lambda span, state: None)
        add_layer(layer)
        before, _ = read_layer_counts()
        with span("op") as op:
            op.set_attribute("a", 1)
            op.add_event("event")
        after, _ = read_layer_counts()
        assert after - before == 2

    def test_without_a_layer_there_are_none(self, spans: InMemoryExporter) -> None:
        before = read_layer_counts()
        with span("op") as op:
            op.set_attribute("a", 1)
        assert read_layer_counts() == before

    @pytest.mark.parametrize(
        ("layer", "problem"),
        [
            (object(), "at least one of the methods on_new_span, on_event, on_record and on_close; object has none"),
            (None, "NoneType has none of them"),
            (types.SimpleNamespace(on_close=3), "its on_close must be a method, not int"),
            (Keeper, "must be an object, not the class Keeper; add Keeper()"),
        ],
    )
    def test_what_is_no_layer_is_a_clear_error(self, layer: Any, problem: str) -> None:
        with pytest.raises(ConfigurationError, match=r"^layer: ") as raised:
            add_layer(layer)
        assert problem in str(raised.value)

    def test_a_coroutine_function_is_an_error(self) -> None:
        class Layer:
            async def on_close(self, span: ClosedSpan, state: None) -> None: ...

        with pytest.raises(ConfigurationError, match="on_close must not be a coroutine function"):
            add_layer(Layer())

    def test_adding_it_twice_is_an_error(self) -> None:
        keeper = Keeper()
        add_layer(keeper)
        with pytest.raises(ConfigurationError, match="was added before"):
            add_layer(keeper, immediate=True)

    def test_immediate_is_a_bool(self) -> None:
        wrong: Any = "yes"
        with pytest.raises(ConfigurationError, match="immediate: must be True or False, not str"):
            add_layer(Keeper(), immediate=wrong)

    def test_a_handle_says_what_it_is(self, spans: InMemoryExporter) -> None:
        keeper = Keeper()
        handle = add_layer(keeper, immediate=True)
        assert (handle.layer, handle.immediate, handle.is_active, handle.dropped) == (keeper, True, True, 0)
        assert repr(handle) == "<LayerHandle Keeper immediate>"
        remove_layer(handle)
        assert repr(handle) == "<LayerHandle Keeper immediate removed>"
