"""`watch_loop`: a blocked loop is found while it is blocked, and reported once, on the span to blame."""

import asyncio
import ctypes
import functools
import gc
import inspect
import threading
import time
import weakref
from collections.abc import Callable, Coroutine, Iterator, Mapping
from typing import Any

import pytest
import uvloop
from loop_block import (
    asleep,
    block,
    collecting,
    computing,
    no_watch_left,
    until,
    until_it_is_back,
    watching_threads,
)

from rvh_trace import ConfigurationError, current_span, new_span, span, watch_loop
from rvh_trace._rvh_trace import LoopWatch
from rvh_trace._types import AttributeValue
from rvh_trace.testing import Event, FinishedSpan, InMemoryExporter

BLOCKED = "rvh_trace.loop.blocked"
BLOCKED_TIME = "rvh_trace.loop.blocked_time"
GC_SHARE = "rvh_trace.loop.gc_share"
THRESHOLD_MS = 40.0

Run = Callable[[Coroutine[Any, Any, Any]], Any]


@pytest.fixture(params=["asyncio", "asyncio in debug mode", "uvloop"])
def run(request: pytest.FixtureRequest) -> Iterator[Run]:
    """Runs a program on a loop; afterwards no watch of it is left."""
    new_loop = uvloop.new_event_loop if request.param == "uvloop" else asyncio.new_event_loop
    debug = request.param == "asyncio in debug mode"
    with no_watch_left():
        yield lambda main: run_on(new_loop, main, debug=debug)


def run_on(new_loop: Callable[[], asyncio.AbstractEventLoop], main: Coroutine[Any, Any, Any], *, debug: bool) -> Any:
    with asyncio.Runner(loop_factory=new_loop, debug=debug) as runner:
        return runner.run(main)


def watch() -> LoopWatch:
    return watch_loop(threshold_ms=THRESHOLD_MS)


def seconds(attributes: Mapping[str, AttributeValue]) -> float:
    """How long the loop was blocked."""
    blocked = attributes[BLOCKED_TIME]
    assert isinstance(blocked, float)
    return blocked


def reports(spans: InMemoryExporter) -> list[tuple[FinishedSpan, Event | None]]:
    """Every report: the span with its event, or the span that was made for it."""
    of_spans = [(one, event) for one in spans for event in one.events if event.name == BLOCKED]
    return [*of_spans, *((one, None) for one in spans if one.name == BLOCKED)]


def the_event(spans: InMemoryExporter, name: str) -> Event:
    """The only report, which is an event of the span of that name."""
    ((reported, event),) = reports(spans)
    assert reported.name == name
    assert event is not None
    return event


def the_span(spans: InMemoryExporter) -> FinishedSpan:
    """The only report, which is a span of its own."""
    ((reported, event),) = reports(spans)
    assert event is None
    return reported


@pytest.fixture
def no_foreign_collection_callbacks() -> Iterator[None]:
    """hypothesis has one, which would be where a collection is."""
    foreign = gc.callbacks[:]
    gc.callbacks.clear()
    yield
    gc.callbacks[:] = foreign


class TestWhoIsToBlame:
    @pytest.mark.usefixtures("no_foreign_collection_callbacks")
    @pytest.mark.parametrize("blocking", [asleep, computing, collecting])
    def test_a_block_is_one_event_with_its_stack_on_the_span_of_the_task(
        self, spans: InMemoryExporter, run: Run, blocking: Callable[[LoopWatch], None]
    ) -> None:
        async def handler(watched: LoopWatch) -> None:
            with span("to blame"):
                blocking(watched)

        async def main() -> None:
            with watch() as watched:
                async with span("outer"), asyncio.TaskGroup() as tasks:
                    with span("sibling"):
                        tasks.create_task(asyncio.sleep(0))
                    tasks.create_task(handler(watched))
                await until_it_is_back(watched)

        gc.collect()  # The garbage of other tests has finalisers.
        run(main())
        attributes = the_event(spans, "to blame").attributes
        stack = str(attributes["code.stacktrace"]).splitlines()
        assert stack[0] == "Stack (most recent call last):"
        (caller,) = (number for number, line in enumerate(stack) if line.endswith("in handler"))
        assert stack[caller + 1].endswith(f"in {blocking.__name__}")
        assert stack[caller + 2].endswith("in until")
        file, line, name = attributes["code.file.path"], attributes["code.line.number"], stack[-1].rpartition(" ")[2]
        assert stack[-1] == f'  File "{file}", line {line}, in {name}'
        assert str(attributes["code.function.name"]).startswith("loop_block.")
        assert seconds(attributes) >= THRESHOLD_MS / 1000
        share = attributes[GC_SHARE]
        assert isinstance(share, float)
        assert (share > 0.5) is (blocking is collecting)

    def test_a_block_soon_after_another_is_found_too(self, spans: InMemoryExporter, run: Run) -> None:
        async def main() -> None:
            with watch() as watched:
                for number in range(4):
                    with span(f"block {number}"):
                        asleep(watched)
                    await until_it_is_back(watched)

        run(main())
        blamed = [one.name for one in spans for event in one.events if event.name == BLOCKED]
        assert blamed == [f"block {number}" for number in range(4)]

    @pytest.mark.parametrize("schedule", ["call_soon", "call_later", "call_soon_threadsafe"])
    def test_a_callback_is_in_the_context_it_was_scheduled_in(
        self, spans: InMemoryExporter, run: Run, schedule: str
    ) -> None:
        async def main() -> None:
            loop = asyncio.get_running_loop()
            done = loop.create_future()
            with watch() as watched:

                def callback() -> None:
                    asleep(watched)
                    done.set_result(None)

                first = (0.0,) if schedule == "call_later" else ()
                with span("to blame"):
                    getattr(loop, schedule)(*first, callback)
                    with span("awaits it"):
                        await done
                await until_it_is_back(watched)

        run(main())
        assert "in callback" in str(the_event(spans, "to blame").attributes["code.stacktrace"])

    def test_without_a_span_there_is_a_root_span_of_its_own(self, spans: InMemoryExporter, run: Run) -> None:
        async def main() -> None:
            with span("where the watch begins"):
                watched = watch()
            await asyncio.create_task(block(watched))
            await until_it_is_back(watched)
            watched.stop()

        run(main())
        own = the_span(spans)
        assert (own.parent_span_id, own.kind, own.status) == (None, "internal", "unset")
        assert "in asleep" in str(own.attributes["code.stacktrace"])
        blocked = seconds(own.attributes)
        assert blocked >= THRESHOLD_MS / 1000
        assert own.duration_ns / 1e9 > blocked - 1e-6

    def test_a_span_that_has_ended_is_the_parent_of_a_span_of_its_own(self, spans: InMemoryExporter, run: Run) -> None:
        async def main() -> None:
            with watch() as watched:
                with span("ended"):
                    current_span().end()
                    asleep(watched)
                await until_it_is_back(watched)

        run(main())
        assert the_span(spans).is_child_of(spans.one("ended"))

    def test_a_trace_that_is_not_sampled_stays_so(self, run: Run) -> None:
        async def main() -> None:
            with watch() as watched:
                with span("not sampled"):
                    asleep(watched)
                await until_it_is_back(watched)

        with InMemoryExporter(sampler="always_off") as spans:
            run(main())
        assert list(spans) == []

    def test_nothing_happens_without_tracing(self, run: Run) -> None:
        async def main() -> None:
            with watch() as watched:
                asleep(watched)
                await until_it_is_back(watched)

        run(main())

    def test_every_block_is_reported_once(self, spans: InMemoryExporter, run: Run) -> None:
        async def main() -> None:
            with watch() as watched:
                for number in range(3):
                    with span(f"block {number}"):
                        asleep(watched)
                    await until_it_is_back(watched)

        run(main())
        assert [one.name for one, _ in reports(spans)] == ["block 0", "block 1", "block 2"]

    def test_loops_in_several_threads_each_have_their_own(self, spans: InMemoryExporter) -> None:
        """All are blocked at the same time, each by a function of its own."""
        found = threading.Barrier(4, timeout=20)

        async def main(number: int) -> None:
            with watch() as watched:
                with span(f"thread {number}"):
                    asleep(watched)
                    found.wait()
                await until_it_is_back(watched)

        with no_watch_left():
            loops = [asyncio.new_event_loop, uvloop.new_event_loop] * 2
            threads = [
                threading.Thread(target=run_on, args=(new_loop, main(number)), kwargs={"debug": False})
                for number, new_loop in enumerate(loops)
            ]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(20)
        assert sorted(one.name for one, _ in reports(spans)) == [f"thread {number}" for number in range(4)]


class TestHowLong:
    def test_it_counts_until_the_span_ends_if_that_is_before_the_loop_is_back(
        self, spans: InMemoryExporter, run: Run
    ) -> None:
        async def main() -> None:
            with watch() as watched:
                with span("to blame"):
                    asleep(watched)
                    time.sleep(0.1)  # noqa: ASYNC251
                await until_it_is_back(watched)

        run(main())
        assert seconds(the_event(spans, "to blame").attributes) >= THRESHOLD_MS / 1000 + 0.1

    def test_it_counts_until_the_loop_is_back_if_the_span_goes_on(self, spans: InMemoryExporter, run: Run) -> None:
        async def main() -> float:
            with watch() as watched, span("to blame"):
                begun = time.monotonic()
                # Timers that are due fire before this goes on.
                await asyncio.sleep(0.001)
                asleep(watched)
                time.sleep(0.1)  # noqa: ASYNC251
                await until_it_is_back(watched)
                blocked = time.monotonic() - begun
                await asyncio.sleep(0.3)
                return blocked

        blocked = run(main())
        event = the_event(spans, "to blame")
        assert THRESHOLD_MS / 1000 + 0.1 <= seconds(event.attributes) <= blocked
        assert spans.one("to blame").start_unix_ns <= event.unix_ns <= spans.one("to blame").end_unix_ns

    def test_what_is_added_to_the_span_meanwhile_is_left_alone(self, spans: InMemoryExporter, run: Run) -> None:
        async def main() -> None:
            with watch() as watched, span("to blame") as current:
                current.add_event("before", {"a": 1.5})
                asleep(watched)
                current.add_event("after", {"b": 2.5})
                current.set_attribute("c", "3")
                await until_it_is_back(watched)

        run(main())
        (one,) = spans
        assert [event.name for event in one.events] == ["before", BLOCKED, "after"]
        assert (one.events[0].attributes, one.events[2].attributes) == ({"a": 1.5}, {"b": 2.5})
        assert one.attributes == {"c": "3"}

    def test_code_that_holds_the_gil_is_found_as_soon_as_it_lets_go(self, spans: InMemoryExporter, run: Run) -> None:
        holding = ctypes.PyDLL(None).usleep

        async def main() -> None:
            with watch() as watched:
                with span("to blame"):
                    holding(300_000)
                    asleep(watched)
                await until_it_is_back(watched)

        run(main())
        assert seconds(the_event(spans, "to blame").attributes) >= 0.25

    def test_code_that_holds_the_gil_until_the_loop_is_back_is_measured(
        self, spans: InMemoryExporter, run: Run
    ) -> None:
        """Whether there is a stack is up to who gets the GIL first."""

        async def main() -> None:
            loop = asyncio.get_running_loop()
            with watch():
                loop.call_soon(functools.partial(ctypes.PyDLL(None).usleep, 300_000))
                await asyncio.sleep(0.1)

        run(main())
        assert seconds(the_span(spans).attributes) >= 0.2


class TestWhatIsNoBlock:
    def test_an_idle_loop(self, spans: InMemoryExporter, run: Run) -> None:
        async def main() -> None:
            with watch_loop(threshold_ms=400):
                await asyncio.sleep(1)

        run(main())
        assert list(spans) == []

    def test_a_loop_that_does_not_run(self, spans: InMemoryExporter) -> None:
        for new_loop in (asyncio.new_event_loop, uvloop.new_event_loop):
            loop = new_loop()
            watched = watch_loop(loop, threshold_ms=THRESHOLD_MS)
            for _ in range(2):
                time.sleep(0.2)
                assert not watched.is_blocked
                loop.run_until_complete(asyncio.sleep(0))
            with span("to blame"):
                loop.run_until_complete(block(watched))
            loop.run_until_complete(until_it_is_back(watched))
            loop.close()
        assert [one.name for one, _ in reports(spans)] == ["to blame"] * 2


class TestTheWatch:
    def test_it_is_one_for_a_loop_until_it_is_stopped(self, run: Run) -> None:
        async def main() -> None:
            watched = watch()
            assert watch_loop() is watched
            assert watch_loop(asyncio.get_running_loop(), threshold_ms=5) is watched
            assert repr(watched).startswith("<rvh_trace.LoopWatch watching <")
            watched.stop()
            watched.stop()
            assert repr(watched).startswith("<rvh_trace.LoopWatch stopped <")
            with watch() as another:
                assert another is not watched
            with watch_loop() as third:
                assert third is not another

        run(main())

    def test_nothing_is_reported_after_the_end(self, spans: InMemoryExporter, run: Run) -> None:
        async def main() -> None:
            watched = watch()
            await asyncio.sleep(0.02)
            await asyncio.to_thread(watched.stop)
            with span("not to blame"):
                time.sleep(0.2)  # noqa: ASYNC251
            assert not watched.is_blocked

        run(main())
        assert reports(spans) == []

    def test_an_end_during_a_block_reports_it_as_it_is(self, spans: InMemoryExporter, run: Run) -> None:
        async def main() -> None:
            with span("goes on"):
                with watch() as watched:
                    asleep(watched)
                assert not watched.is_blocked
                await asyncio.sleep(0.3)
            await asyncio.create_task(block_and_stop())

        async def block_and_stop() -> None:
            with span("unsampled parent") as current:
                current.end()
                with watch() as watched:
                    asleep(watched)

        run(main())
        (_, event), (own, _) = reports(spans)
        assert event is not None
        for attributes in (event.attributes, own.attributes):
            assert seconds(attributes) >= THRESHOLD_MS / 1000

    def test_a_loop_of_another_thread_can_be_watched(self, spans: InMemoryExporter) -> None:
        for new_loop in (asyncio.new_event_loop, uvloop.new_event_loop):
            loop = new_loop()
            thread = threading.Thread(target=loop.run_forever)
            thread.start()
            with no_watch_left(), watch_loop(loop, threshold_ms=THRESHOLD_MS) as watched:
                asyncio.run_coroutine_threadsafe(block(watched), loop).result(20)
                asyncio.run_coroutine_threadsafe(until_it_is_back(watched), loop).result(20)
            loop.call_soon_threadsafe(loop.stop)
            thread.join(20)
            loop.close()
        assert [one.name for one, _ in reports(spans)] == [BLOCKED] * 2

    def test_it_neither_keeps_its_loop_nor_outlives_it(self, run: Run) -> None:
        loops: list[weakref.ref[asyncio.AbstractEventLoop]] = []

        async def main() -> LoopWatch:
            loops.append(weakref.ref(asyncio.get_running_loop()))
            return watch()

        watched = run(main())
        until(lambda: "stopped" in repr(watched))
        gc.collect()
        assert loops[0]() is None
        assert "a loop that is gone" in repr(watched)

    def test_collections_are_measured_only_while_a_loop_is_watched(self, run: Run) -> None:
        before = list(gc.callbacks)

        async def main() -> None:
            with watch():
                assert len(gc.callbacks) == len(before) + 1
                thread = threading.Thread(target=asyncio.run, args=(other(),))
                thread.start()
                thread.join(20)
                assert len(gc.callbacks) == len(before) + 1

        async def other() -> None:
            with watch():
                pass

        run(main())
        assert gc.callbacks == before

    def test_its_thread_exists_only_while_a_loop_is_watched(self, run: Run) -> None:
        async def main() -> None:
            assert watching_threads() == 0
            with watch():
                until(lambda: watching_threads() == 1)
            until(lambda: watching_threads() == 0)

        run(main())


class TestBadUse:
    def test_without_a_loop_it_says_what_to_do(self) -> None:
        with pytest.raises(RuntimeError, match=r"watch_loop\(\) needs a running event loop: call it in a coroutine"):
            watch_loop()

    @pytest.mark.parametrize("threshold_ms", [0, -1, float("nan"), float("inf"), 1e300])
    def test_a_threshold_must_be_above_zero(self, threshold_ms: float) -> None:
        async def main() -> None:
            with pytest.raises(ConfigurationError, match="threshold_ms: must be a number of milliseconds above 0, not"):
                watch_loop(threshold_ms=threshold_ms)

        asyncio.run(main())

    def test_a_threshold_must_be_a_number(self) -> None:
        async def main() -> None:
            with pytest.raises(ConfigurationError, match="threshold_ms: must be a number, not str"):
                watch_loop(threshold_ms="100")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]

        asyncio.run(main())

    def test_a_closed_loop_cannot_be_watched(self) -> None:
        loop = asyncio.new_event_loop()
        loop.close()
        with pytest.raises(RuntimeError, match="Event loop is closed"):
            watch_loop(loop)

    def test_the_threshold_is_a_keyword(self) -> None:
        parameter = inspect.signature(watch_loop).parameters["threshold_ms"]
        assert (parameter.kind, parameter.default) == (inspect.Parameter.KEYWORD_ONLY, 100)


def test_a_span_that_is_not_current_is_not_to_blame(spans: InMemoryExporter) -> None:
    async def main() -> None:
        with watch() as watched:
            upload = new_span("upload")
            asleep(watched)
            upload.end()
            await until_it_is_back(watched)

    asyncio.run(main())
    assert the_span(spans).name == BLOCKED
