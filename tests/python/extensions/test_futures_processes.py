"""Rust futures where a loop or a process ends, and after a fork: exit code and standard error asserted."""

import textwrap
from pathlib import Path

import pytest
from interpreter import Finished, run_script

BEGINNING = """
import asyncio, os, sys, time, gc
import futures_extension as futures
from rvh_trace import span
from rvh_trace.testing import InMemoryExporter

def until(condition):
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.001)
"""
NO_FORK_WARNING = ("-W", "error", "-W", "ignore::DeprecationWarning")


def run_extension(directory: Path, script: str, options: tuple[str, ...] = ("-W", "error")) -> Finished:
    return run_script(BEGINNING + textwrap.dedent(script), options=options, PYTHONPATH=str(directory))


def run_quietly(directory: Path, script: str, options: tuple[str, ...] = ("-W", "error")) -> str:
    finished = run_extension(directory, script, options)
    assert (finished.returncode, finished.stderr) == (0, ""), finished
    return finished.stdout


def test_tokio_starts_with_the_first_future_and_not_before(futures_directory: Path) -> None:
    if not Path("/proc/self/task").exists():
        pytest.skip("counts threads in /proc")
    run_quietly(
        futures_directory,
        """
        threads = lambda: len(os.listdir("/proc/self/task"))
        assert threads() == 1, "threads at import"

        async def main():
            await futures.ready("load")
            assert threads() > 1
        asyncio.run(main())
        """,
    )


BY_HAND = "loop = asyncio.new_event_loop(); loop.run_until_complete(main()); loop.close()"


@pytest.mark.parametrize("close", ["asyncio.run(main())", BY_HAND])
def test_a_loop_that_closes_under_pending_futures_prints_nothing(futures_directory: Path, close: str) -> None:
    run_quietly(
        futures_directory,
        f"""
        async def forever():
            await asyncio.Event().wait()

        pending = []

        async def main():
            pending.append(futures.pending("pending"))
            pending.append(futures.sleep("sleep", 20))
            pending.append(futures.echo("echo", 1))
            pending.append(futures.call("call", forever))
            pending.append(futures.Produced().numbers("numbers", 100, 3))
            pending.append(futures.Reader(pending[-1], 3))
            pending.append(futures.pending("awaited"))
            pending.append(asyncio.ensure_future(pending[-1]))
            await asyncio.sleep(0)

        with InMemoryExporter() as spans:
            {close}
            until(lambda: {{"sleep", "echo"}} <= {{one.name for one in spans}})
        pending.clear()
        gc.collect()
        """,
    )


def test_a_coroutine_whose_loop_closes_before_it_begins_is_closed(futures_directory: Path) -> None:
    printed = run_quietly(
        futures_directory,
        """
        import atexit
        spans = InMemoryExporter()
        spans.install()
        made = []

        @atexit.register
        def check():
            assert made[0].cr_frame is None and len(made) == 1, made
            print(spans.one("call").attributes["rvh_trace.outcome"])

        async def body():
            made.append("begun")

        def callback():
            made.append(body())
            return made[-1]

        async def main():
            future = futures.call("call", callback)
            # The loop has one turn at most after this one: it makes the task, which never begins.
            until(lambda: made)

        loop = asyncio.new_event_loop()
        loop.run_until_complete(main())
        loop.close()
        """,
    )
    assert printed == "cancelled\n"


def test_awaiting_python_on_a_closed_loop_is_an_error_in_rust(futures_directory: Path) -> None:
    run_quietly(
        futures_directory,
        """
        import threading
        closed = threading.Event()
        coroutines = []

        def callback():
            # On a thread of Tokio's.
            closed.wait()
            coroutines.append(asyncio.sleep(0))
            return coroutines[-1]

        async def main():
            global future
            future = futures.call("call", callback)
        with InMemoryExporter() as spans:
            loop = asyncio.new_event_loop()
            loop.run_until_complete(main())
            loop.close()
            closed.set()
            until(lambda: len(spans))
            assert spans.one("call").status == "error", spans[0]
            assert "closed" in spans.one("call").status_description
        assert coroutines[0].cr_frame is None
        """,
    )


@pytest.mark.parametrize("ms", [0, 1, 2, 5, 20, 300])
def test_a_process_ends_in_order_with_futures_pending(futures_directory: Path, ms: int) -> None:
    printed = run_quietly(
        futures_directory,
        f"""
        async def python():
            await asyncio.sleep({ms} / 1000)

        kept = []
        async def main():
            for number in range(100):
                kept.append(futures.sleep("sleep", {ms} + number % 3))
                kept.append(futures.pending("pending"))
                kept.append(futures.call("call", python))
                kept.append(asyncio.ensure_future(futures.call("call", python)))
                kept.append(futures.Produced().numbers("numbers", 10_000, 3))
            await asyncio.sleep({ms} / 1000)
            print("done")
        asyncio.run(main())
        """,
    )
    assert printed == "done\n"


def test_what_is_pending_at_the_end_of_the_process_ends_its_span_as_cancelled(futures_directory: Path) -> None:
    printed = run_quietly(
        futures_directory,
        """
        import atexit
        spans = InMemoryExporter()
        spans.install()
        # Registered before the first future: it runs after what that registers.
        atexit.register(lambda: print(sorted((one.name, dict(one.attributes)["rvh_trace.outcome"]) for one in spans)))

        async def main():
            global future
            future = futures.pending("pending"), futures.Produced().nothing("nothing")
        asyncio.run(main())
        """,
    )
    assert printed == "[('nothing', 'cancelled'), ('pending', 'cancelled')]\n"


def test_a_blocking_thread_that_is_busy_does_not_keep_the_process(futures_directory: Path) -> None:
    run_quietly(
        futures_directory,
        """
        import threading
        async def main():
            global future
            begun = threading.Event()
            def block():
                begun.set()
                time.sleep(600)
            future = futures.call_blocking(block)
            while not begun.is_set():
                await asyncio.sleep(0)
            # Waits with the GIL released: the thread goes on when the interpreter is gone.
        asyncio.run(main())
        """,
    )


def test_a_future_that_is_made_at_exit_says_so(futures_directory: Path) -> None:
    printed = run_quietly(
        futures_directory,
        """
        import atexit

        async def late():
            try:
                await futures.ready("late")
            except RuntimeError as error:
                print(error)

        # Registered before the first future: it runs after what that registers.
        atexit.register(lambda: asyncio.run(late()))

        async def main():
            await futures.ready("load")
        asyncio.run(main())
        """,
    )
    assert "shuts down" in printed


def test_in_a_forked_child_it_says_why_it_cannot_work(futures_directory: Path) -> None:
    printed = run_quietly(
        futures_directory,
        """
        async def load():
            await futures.ready("load")

        async def attempt(start):
            try:
                await start()
            except RuntimeError as error:
                return "fork" in str(error)

        async def child():
            async def numbers():
                yield 1
            generator = numbers()
            starts = [
                lambda: futures.ready("load"),
                lambda: futures.without_span(1),
                lambda: anext(futures.Produced().numbers("numbers", 3, 3)),
                lambda: futures.Reader(generator, 3).next(),
            ]
            return [await attempt(start) for start in starts]

        asyncio.run(load())
        pid = os.fork()
        if not pid:
            os._exit(7 if asyncio.run(child()) == [True] * 4 else 8)
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
        asyncio.run(load())
        """,
        NO_FORK_WARNING,
    )
    assert printed == "7\n"


def test_a_child_that_was_forked_before_the_first_future_works(futures_directory: Path) -> None:
    printed = run_quietly(
        futures_directory,
        """
        async def load():
            return await futures.echo("load", "row")

        pid = os.fork()
        if not pid:
            assert asyncio.run(load()) == "row"
            sys.exit(7)
        assert asyncio.run(load()) == "row"
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
        """,
        NO_FORK_WARNING,
    )
    assert printed == "7\n"


def test_a_child_that_is_forked_with_futures_pending_ends_in_order(futures_directory: Path) -> None:
    printed = run_quietly(
        futures_directory,
        """
        async def main():
            futures_made = [futures.pending("pending") for _ in range(10)]
            await futures.ready("load")
            pid = os.fork()
            if not pid:
                sys.exit(7)
            return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        print(asyncio.run(main()))
        """,
        NO_FORK_WARNING,
    )
    assert printed == "7\n"


@pytest.mark.parametrize("factory", ["asyncio.new_event_loop", "uvloop.new_event_loop"])
def test_a_forked_child_takes_nothing_from_its_parents_loop(futures_directory: Path, factory: str) -> None:
    printed = run_quietly(
        futures_directory,
        f"""
        import uvloop

        async def main():
            with InMemoryExporter() as spans:
                first = futures.echo("load", 1)
                # Its result is on its way while nobody takes it.
                until(lambda: len(spans))
                pid = os.fork()
                if not pid:
                    # Not closed here: what the selector watches is shared, too.
                    turn = loop.create_future()
                    loop.call_later(0.02, turn.set_result, None)
                    await turn
                    os._exit(7)
                code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
                return code, await first, await asyncio.wait_for(futures.echo("load", 2), 20)

        loop = {factory}()
        print(loop.run_until_complete(main()))
        loop.close()
        """,
        NO_FORK_WARNING,
    )
    assert printed == "(7, 1, 2)\n"


def test_without_rvh_trace_everything_works_and_nothing_is_traced(futures_directory: Path) -> None:
    finished = run_script(
        """
        import sys
        sys.modules["rvh_trace"] = None
        import asyncio
        import futures_extension as futures

        async def numbers():
            for number in range(5):
                yield number

        async def main():
            assert await futures.echo("load", 1) == 1
            assert await futures.call_within_two_spans(lambda: asyncio.sleep(0, 2)) == 2
            assert await futures.collect("collect", numbers(), 2) == list(range(5))
            assert [n async for n in futures.Produced().numbers("numbers", 5, 2)] == list(range(5))
            await futures.tree()
            (own, opentelemetry) = await futures.identities("load")
            assert own == ("0" * 32, "0" * 16), own
            try:
                await futures.raises("load", LookupError("no row"))
            except LookupError:
                print("done")
        asyncio.run(main())
        """,
        PYTHONPATH=str(futures_directory),
    )
    assert (finished.returncode, finished.stdout, finished.stderr) == (0, "done\n", "")
