"""How the result of a Rust future comes to its event loop, whatever kind of loop that is and whatever becomes of it."""

import asyncio
import gc
import weakref
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import uvloop
from loop_block import until as hold_until

from extensions.test_futures_processes import run_quietly
from rvh_trace.testing import InMemoryExporter

FDS = Path("/proc/self/fd")


class WithoutReaders(asyncio.SelectorEventLoop):
    """As the loop of Windows is in this."""

    def add_reader(self, fd: Any, callback: Any, *args: Any) -> None:
        raise NotImplementedError


LOOPS = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop, "without readers": WithoutReaders}


@pytest.fixture(params=LOOPS)
def new_loop(request: pytest.FixtureRequest) -> Callable[[], asyncio.AbstractEventLoop]:
    return LOOPS[request.param]


def test_values_exceptions_and_panics_arrive_on_every_loop(
    futures: ModuleType, spans: InMemoryExporter, new_loop: Callable[[], asyncio.AbstractEventLoop]
) -> None:
    error = LookupError("no row")

    async def main() -> None:
        assert await asyncio.gather(*(futures.echo("load", number) for number in range(100))) == list(range(100))
        with pytest.raises(LookupError) as raised:
            await futures.raises("load", error)
        assert raised.value is error
        with pytest.raises(RuntimeError, match="StopIteration"):
            await futures.raises("load", StopIteration())
        pending = asyncio.ensure_future(futures.pending("pending"))
        await asyncio.sleep(0)
        pending.cancel()
        with pytest.raises(asyncio.CancelledError):
            await pending

    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(main())
    assert sum(one.name == "load" for one in spans) == 102


def test_the_span_of_a_future_that_fails_does_not_wait_for_a_loop_that_is_busy(
    futures: ModuleType, spans: InMemoryExporter, new_loop: Callable[[], asyncio.AbstractEventLoop]
) -> None:
    async def main() -> None:
        future = futures.raises("load", LookupError("no row"))
        hold_until(lambda: len(spans))
        with pytest.raises(LookupError):
            await future

    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(main())


def test_an_interrupt_while_a_result_is_delivered_is_raised_and_no_result_is_lost(futures: ModuleType) -> None:
    class Interrupted(asyncio.Future[Any]):
        interrupts = 0

        def set_result(self, result: Any) -> None:
            if Interrupted.interrupts:
                Interrupted.interrupts -= 1
                # As a signal handler would, which Python runs wherever it is.
                raise KeyboardInterrupt
            super().set_result(result)

    class Loop(asyncio.SelectorEventLoop):
        def create_future(self) -> "asyncio.Future[Any]":
            return Interrupted(loop=self)

    async def begin() -> "list[asyncio.Future[int]]":
        return [futures.sleep("sleep", 50) for _ in range(10)]

    async def gather(started: "list[asyncio.Future[int]]") -> list[int]:
        return await asyncio.gather(*started)

    loop = Loop()
    try:
        started = loop.run_until_complete(begin())
        Interrupted.interrupts = 1
        with pytest.raises(KeyboardInterrupt):
            loop.run_until_complete(gather(started))
        assert loop.run_until_complete(gather(started)) == [50] * 10
    finally:
        for task in asyncio.all_tasks(loop):
            task.cancel()
        loop.run_until_complete(asyncio.sleep(0))
        loop.close()


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="counts threads in /proc")
def test_a_loop_that_closes_with_many_results_waiting_starts_no_thread_for_each(
    futures: ModuleType, spans: InMemoryExporter
) -> None:
    async def begin() -> None:
        for _ in range(1_000):
            futures.sleep("sleep", 20)

    loop = asyncio.new_event_loop()
    loop.run_until_complete(begin())
    hold_until(lambda: len(spans) == 1_000)
    before = len(list(Path("/proc/self/task").iterdir()))
    loop.close()
    assert len(list(Path("/proc/self/task").iterdir())) <= before + 1


def test_a_result_waits_for_a_loop_that_does_not_run(
    futures: ModuleType, spans: InMemoryExporter, new_loop: Callable[[], asyncio.AbstractEventLoop]
) -> None:
    async def begin() -> "asyncio.Future[int]":
        return futures.echo("load", 7)

    loop = new_loop()
    try:
        future = loop.run_until_complete(begin())
        # The span ends before its result is on its way.
        hold_until(lambda: len(spans))
        assert loop.run_until_complete(future) == 7
        assert loop.run_until_complete(loop.run_until_complete(begin())) == 7
    finally:
        loop.close()


def test_a_result_that_a_closed_loop_will_never_take_is_let_go_of(
    futures: ModuleType, spans: InMemoryExporter, new_loop: Callable[[], asyncio.AbstractEventLoop]
) -> None:
    async def begin() -> "weakref.ref[asyncio.Future[None]]":
        return weakref.ref(futures.sleep("sleep", 50))

    def is_gone() -> bool:
        # What a thread of Tokio's let go of without the GIL goes with the next entry into the extension.
        futures.Produced()
        gc.collect()
        return future() is None

    loop = new_loop()
    future = loop.run_until_complete(begin())
    hold_until(lambda: len(spans))
    loop.close()
    hold_until(is_gone)


def test_a_loop_keeps_nothing_of_the_first_request_that_awaits_a_future(
    futures: ModuleType,
    new_loop: Callable[[], asyncio.AbstractEventLoop],
    until: Callable[[Callable[[], object]], Awaitable[None]],
) -> None:
    class Request:
        pass

    current: ContextVar[Request] = ContextVar("current")

    async def handle() -> "weakref.ref[Request]":
        request = Request()
        current.set(request)
        await futures.echo("load", 1)
        return weakref.ref(request)

    async def main() -> None:
        request = await asyncio.create_task(handle())

        def is_gone() -> bool:
            futures.Produced()
            gc.collect()
            return request() is None

        # The loop itself keeps its last callback.
        await until(is_gone)

    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(main())


@pytest.mark.skipif(not FDS.exists(), reason="counts file descriptors in /proc")
@pytest.mark.parametrize("is_awaited", [True, False], ids=["awaited", "left behind"])
def test_a_closed_loop_leaves_no_file_descriptor(
    futures: ModuleType,
    spans: InMemoryExporter,
    new_loop: Callable[[], asyncio.AbstractEventLoop],
    is_awaited: bool,
) -> None:
    async def main() -> None:
        future = futures.echo("load", 1)
        if is_awaited:
            await future

    def run() -> None:
        loop = new_loop()
        loop.run_until_complete(main())
        loop.close()

    def open_fds() -> int:
        gc.collect()
        return len(list(FDS.iterdir()))

    run()
    before = open_fds()
    for _ in range(20):
        run()
    assert open_fds() <= before
    hold_until(lambda: len(spans) == 21)


def test_a_loop_that_was_asked_for_its_readers_once_is_not_asked_again(futures: ModuleType) -> None:
    asked = []

    class Asked(asyncio.SelectorEventLoop):
        def add_reader(self, fd: Any, callback: Any, *args: Any) -> None:
            asked.append(fd)
            super().add_reader(fd, callback, *args)

    class Refusing(WithoutReaders):
        def add_reader(self, fd: Any, callback: Any, *args: Any) -> None:
            asked.append(fd)
            super().add_reader(fd, callback, *args)

    async def main() -> None:
        for number in range(10):
            assert await futures.echo("load", number) == number

    for loop_factory in (Asked, Refusing):
        asked.clear()
        with asyncio.Runner(loop_factory=loop_factory) as runner:
            runner.run(main())
        assert len(asked) == 1


@pytest.mark.parametrize("factory", ["asyncio.new_event_loop", "uvloop.new_event_loop"])
@pytest.mark.parametrize("debug", [False, True], ids=["", "debug"])
def test_a_process_ends_quietly_with_results_that_wait_for_a_loop(
    futures_directory: Path, factory: str, debug: bool
) -> None:
    run_quietly(
        futures_directory,
        f"""
        import uvloop

        async def main():
            return [futures.echo("load", number) for number in range(100)]

        spans = InMemoryExporter()
        spans.install()
        loop = {factory}()
        loop.set_debug({debug})
        kept = loop.run_until_complete(main())
        until(lambda: len(spans) == 100)
        if not {debug}:
            loop.close()
        """,
        # A loop that is never closed is what this is about.
        ("-W", "error", "-W", "ignore:unclosed:ResourceWarning"),
    )
