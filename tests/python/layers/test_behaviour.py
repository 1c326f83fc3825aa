"""Nothing that a layer does hurts what is traced; threads and bounds."""

import contextvars
import threading
import types
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

import rvh_trace
from layers.keeper import Add, Keeper, flushed
from rvh_trace import (
    _layers,
    add_layer,
    current_span,
    force_flush,
    new_span,
    span,
)
from rvh_trace.layers import ClosedSpan, NewSpan
from rvh_trace.testing import InMemoryExporter


class Suspended:
    """What is awaited for good."""

    def __await__(self) -> Generator[None, None, None]:
        yield


class TestWhatItDoes:
    @pytest.mark.parametrize("error", [ValueError("broken"), SystemExit(3), KeyError("k")])
    def test_one_that_raises_is_removed_and_said_once(
        self, add: Add, error: BaseException, capfd: pytest.CaptureFixture[str]
    ) -> None:
        class Raising:
            calls = 0

            def on_close(self, span: ClosedSpan, state: None) -> None:
                self.calls += 1
                raise error

        raising, other = Raising(), Keeper()
        handle = add(raising)
        add(other)
        for _ in range(3):
            with span("op"):
                pass
        assert [call[0] for call in flushed(other).story] == ["new", "close"] * 3
        assert (raising.calls, handle.is_active) == (1, False)
        said = capfd.readouterr().err
        assert (
            said.count("rvh_trace: error: the layer ") == said.count("Raising was removed: its on_close raised\n") == 1
        )
        assert said.count(type(error).__name__) == 1
        assert "test_behaviour.py" in said

    def test_an_interrupt_in_an_immediate_layer_is_the_applications(
        self, spans: InMemoryExporter, capfd: pytest.CaptureFixture[str]
    ) -> None:
        class Interrupted:
            def on_new_span(self, new: NewSpan) -> None:
                raise KeyboardInterrupt

        handle = add_layer(Interrupted(), immediate=True)

        def interrupted() -> None:
            with span("op"):
                for _ in range(1_000_000):
                    pass

        with pytest.raises(KeyboardInterrupt):
            interrupted()
        assert handle.is_active
        assert capfd.readouterr().err == ""
        assert [(one.name, one.status) for one in spans][:1] == [("op", "error")]

    def test_its_own_spans_are_exported_and_not_shown_to_layers(self, add: Add, spans: InMemoryExporter) -> None:
        class Tracing(Keeper):
            def on_new_span(self, span: NewSpan) -> int:
                with rvh_trace.span("of the layer") as own:
                    own.set_attribute("a", 1)
                    current_span().add_event("event")
                return super().on_new_span(span)

            def on_close(self, span: ClosedSpan, state: int) -> None:
                self.on_new_span(NewSpan("", "internal", "", "", None, 0, {}))
                super().on_close(span, state)

        tracing, other = Tracing(), Keeper()
        add(tracing)
        add(other)
        with span("op"):
            pass
        assert flushed(other).story == [("new", "op", None), ("close", "op", 1)]
        assert len(spans.named("of the layer")) == 2

    def test_what_it_does_to_the_span_is_not_shown_but_its_end_is(self, spans: InMemoryExporter) -> None:
        class Ending:
            def on_new_span(self, span: NewSpan) -> None:
                current_span().set_attribute("mark", True)
                current_span().add_event("by the layer")
                current_span().end()

        keeper = Keeper()
        add_layer(Ending(), immediate=True)
        add_layer(keeper, immediate=True)
        with span("op") as op:
            assert keeper.story == [("new", "op", None), ("close", "op", 1)]
            assert not op.is_recording
        assert [call[0] for call in keeper.story] == ["new", "close"]
        (one,) = spans
        assert one.attributes == {"mark": True}
        assert len(one.events) == 1

    def test_a_coroutine_that_dies_while_an_exception_is_on_its_way(self, keeper: Keeper) -> None:
        def started() -> Any:
            coroutine = span("run").run(Suspended())
            coroutine.send(None)
            return coroutine

        def nothing() -> int:
            return 1 // len(keeper.threads - keeper.threads)

        # In a context of its own: the coroutine leaves its span current there.
        with pytest.raises(ZeroDivisionError):
            contextvars.copy_context().run(lambda: print(started(), nothing()))
        assert flushed(keeper).story == [("new", "run", None), ("close", "run", 1)]

    def test_a_flush_in_a_layer_does_not_wait_for_itself(self, add: Add) -> None:
        class Flushing(Keeper):
            def on_close(self, span: ClosedSpan, state: int) -> None:
                assert force_flush()
                super().on_close(span, state)

        flushing = Flushing()
        handle = add(flushing)
        with span("op"):
            pass
        assert [call[0] for call in flushed(flushing).story] == ["new", "close"]
        assert handle.is_active

    def test_a_slow_layer_does_not_hold_up_a_flush_past_its_deadline(self, spans: InMemoryExporter) -> None:
        gate = threading.Event()
        slow: Any = types.SimpleNamespace(on_close=lambda span, state: gate.wait(20))
        add_layer(slow)
        with span("op"):
            pass
        try:
            with pytest.raises(rvh_trace.ExportTimeout, match="layers were not done within 50 ms; 2 records"):
                force_flush(50, check=True)
        finally:
            gate.set()
        assert force_flush(check=True)


class TestThreads:
    def test_batched_layers_are_called_on_one_thread_that_is_not_the_programs(self, spans: InMemoryExporter) -> None:
        keeper = Keeper()
        add_layer(keeper)
        with ThreadPoolExecutor(4) as executor:
            for _ in executor.map(lambda number: span(f"op {number}").__enter__().end(), range(20)):
                pass
        flushed(keeper)
        assert len(keeper.threads) == 1
        assert threading.get_ident() not in keeper.threads

    def test_immediate_layers_are_called_where_it_happens(self, spans: InMemoryExporter) -> None:
        seen: list[tuple[str, int, str]] = []

        class Layer:
            def on_new_span(self, span: NewSpan) -> None:
                seen.append((span.name, threading.get_ident(), current_span().context.span_id))

            def on_close(self, span: ClosedSpan, state: None) -> None:
                seen.append((span.name, threading.get_ident(), current_span().context.span_id))

        add_layer(Layer(), immediate=True)

        def work() -> None:
            with span("thread") as inside:
                assert seen == [("thread", threading.get_ident(), inside.context.span_id)]
            assert seen[1:] == [("thread", threading.get_ident(), "0" * 16)]

        with ThreadPoolExecutor(1) as executor:
            executor.submit(work).result()
        assert len(seen) == 2

    def test_many_threads_at_once_and_no_span_is_mixed_up(self, keeper: Keeper) -> None:
        def work(number: int) -> None:
            with span("op", number=number) as op:
                op.set_attribute("number", number)

        with ThreadPoolExecutor(6) as executor:
            list(executor.map(work, range(300)))
        flushed(keeper)
        numbers: dict[str, list[Any]] = {}
        for method, told, _ in keeper.calls:
            numbers.setdefault(told.span_id, []).append((method, getattr(told, "attributes", {}).get("number")))
        assert len(numbers) == 300
        for story in numbers.values():
            assert [method for method, _ in story] == ["new", "record", "close"]
            assert story[0][1] == story[1][1]

    def test_a_span_that_ends_on_another_thread(self, keeper: Keeper) -> None:
        wandering = new_span("op")
        with ThreadPoolExecutor(1) as executor:
            executor.submit(wandering.end).result()
        assert flushed(keeper).story == [("new", "op", None), ("close", "op", 1)]


class TestBounds:
    def test_spans_that_never_end_are_forgotten(self, spans: InMemoryExporter, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(_layers, "MAX_SPANS", 80)
        keeper = Keeper()
        handle = add_layer(keeper, immediate=True)
        held = [new_span(f"span {number}") for number in range(85)]
        assert (len(handle._states), handle.dropped) == (75, 10)
        for one in held:
            one.end()
        assert [told.name for told in keeper.told("close")] == [f"span {number}" for number in range(10, 85)]
        assert handle._states == {}

    def test_what_finds_no_room_is_counted(self, spans: InMemoryExporter) -> None:
        entered, gate = threading.Event(), threading.Event()

        class Gated(Keeper):
            def on_new_span(self, span: NewSpan) -> int:
                entered.set()
                assert gate.wait(60)
                return super().on_new_span(span)

        gated = Gated()
        handle = add_layer(gated)
        with span("first"):
            pass
        waiting = threading.Thread(target=force_flush)
        waiting.start()
        assert entered.wait(20)
        for _ in range(40):
            with span("large", text="x" * 1024 * 256):
                pass
        gate.set()
        waiting.join(60)
        closed = flushed(gated).told("close")
        assert len(gated.told("new")) == len(closed) == 41 - handle.dropped
        assert 20 <= handle.dropped <= 30, "4 MiB hold 16 of them"
        later = Keeper()
        assert add_layer(later).dropped == 0
        with span("there is room again"):
            pass
        assert [told.name for told in flushed(later).told("close")] == ["there is room again"]
