"""Runs programs: real asyncio, the library around it, and a log of what happened."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import threading
from collections.abc import AsyncGenerator, Callable, Coroutine
from concurrent.futures import CancelledError
from contextlib import AsyncExitStack, ExitStack, aclosing, asynccontextmanager
from functools import partial
from typing import Any

from programs.interruption import Interruption
from programs.log import Log
from programs.model import branch, cleanup
from programs.program import (
    Body,
    Callback,
    Catch,
    Expire,
    Fork,
    Iterate,
    Managed,
    Node,
    Open,
    Outside,
    Pause,
    Thread,
)
from programs.sync_runner import REMOTE, PlannedError, SyncRunner, lose
from rvh_trace import extract, new_span, span, trace, use_context

__all__ = ("Loops", "Runner")

_LONG = 50
_SHORT_S = 0.0001
_TIMEOUT_S = 60.0

Work = Callable[[], Coroutine[Any, Any, Any]]
Loops = Callable[[], asyncio.AbstractEventLoop]


class Runner(SyncRunner):
    """Runs a program on one loop; for a loop in another thread there is another one with the same log."""

    def __init__(self, log: Log, interruption: Interruption, loops: Loops) -> None:
        super().__init__(log)
        self._interruption = interruption
        self._loops = loops
        self._tasks: list[tuple[str, asyncio.Task[Any]]] = []
        self._callbacks = 0
        self._running: set[str] = set()
        self._kept: list[Any] = []

    async def main(self, program: Body) -> None:
        """The program to its end, and whatever it started."""
        root = asyncio.create_task(self._root(program))
        await asyncio.wait([root])
        if not root.cancelled():
            _expected(root.exception())
        # What is waited for may be of other threads.
        while self._callbacks or self._running or any(not task.done() for _, task in self._tasks):  # noqa: ASYNC110
            await asyncio.sleep(0)
        for label, task in self._tasks:
            self.log.ended(label, task)
        self._tasks.clear()

    def forget(self) -> None:
        """The loop is closed: nobody holds the generators any more that were left to it."""
        self._kept.clear()

    async def _root(self, program: Body) -> None:
        self.log.watch_context()
        await self._interruption.watch(self._all(program))

    # What suspends.

    async def _all(self, body: Body) -> None:
        for node in body:
            self.log.note(node.label)
            await self._node(node)
            self.log.note(node.label)

    async def _inside(self, label: str, body: Body) -> None:
        with self.log.inside(label):
            await self._all(body)

    async def _node(self, node: Node) -> None:
        match node:
            case Open():
                await self._open(node)
            case Managed():
                await self._managed(node)
            case Outside():
                with use_context(extract(REMOTE) if node.remote else None):
                    await self._all(node.body)
            case Pause():
                await self._pause(node.times)
            case Catch():
                try:
                    await self._all(node.body)
                except* PlannedError:
                    pass
            case Fork():
                await self._fork(node)
            case Expire():
                await self._expire(node)
            case Callback():
                self._call_back(node)
            case Iterate(is_async=True):
                if node.traced:
                    await self._iterate(node)
                else:
                    await self._task(branch(node), partial(self._iterate, node))
            case Thread():
                await self._thread(node)
            case _:
                self.sync_node(node)

    async def _pause(self, times: int) -> None:
        for _ in range(times):
            await asyncio.sleep(0)

    async def _open(self, node: Open) -> None:
        label = node.label
        match node.how:
            case "with":
                with span(label):
                    await self._inside(label, node.body)
            case "async with":
                async with span(label):
                    await self._inside(label, node.body)
            case "run":
                await span(label).run(self._inside(label, node.body))
            case "run in task":
                await self._task(branch(node), lambda: span(label).run(self._inside(label, node.body)))
            case "activate":
                made = new_span(label)
                try:
                    with made.activate():
                        await self._inside(label, node.body)
                finally:
                    made.end()
            case "exit stack":
                with ExitStack() as stack:
                    stack.enter_context(span(label))
                    await self._inside(label, node.body)
            case "pushed":
                with ExitStack() as stack:
                    stack.push(span(label).__enter__())
                    await self._inside(label, node.body)
            case "async exit stack":
                async with AsyncExitStack() as stack:
                    await stack.enter_async_context(span(label))
                    await self._inside(label, node.body)
            case _:
                await trace(label)(self._inside)(label, node.body)

    async def _managed(self, node: Managed) -> None:
        async def manage() -> AsyncGenerator[None]:
            with self.log.inside(node.label):
                await self._all(node.before)
                yield

        async def manage_in_span() -> AsyncGenerator[None]:
            async with span(node.label):
                with self.log.inside(node.label):
                    await self._all(node.before)
                    yield

        function = trace(node.label)(manage) if node.traced else manage_in_span
        async with asynccontextmanager(function)():
            await self._all(node.body)

    def _task(self, label: str, work: Work, **kwargs: Any) -> asyncio.Task[Any]:
        return self._register(label, asyncio.create_task(self._named(label, work), **kwargs))

    def _named(self, label: str, work: Work) -> Coroutine[Any, Any, Any]:
        """To be made a task at once, of this name. One that is cancelled before it starts begins no work."""

        async def run() -> Any:
            self._running.add(label)
            self.log.watch_context()
            try:
                return await self._interruption.watch(work())
            finally:
                self._running.discard(label)

        running = run()
        running.__qualname__ = label
        self.log.task(label)
        return running

    def _register(self, label: str, task: asyncio.Task[Any]) -> asyncio.Task[Any]:
        self._tasks.append((label, task))
        return task

    async def _fork(self, node: Fork) -> None:
        works: list[Work] = [partial(self._all, body) for body in node.bodies]
        if node.how == "queue":
            works = _one_after_the_other(works)
        labelled = [(branch(node, number), work) for number, work in enumerate(works)]
        match node.how:
            case "wait_for":
                for label, work in labelled:
                    await asyncio.wait_for(self._named(label, work), _TIMEOUT_S)
                return
            case "group":
                async with asyncio.TaskGroup() as group:
                    for label, work in labelled:
                        self._register(label, group.create_task(self._named(label, work)))
                return
            case "ensure_future":
                tasks = [
                    self._register(label, asyncio.ensure_future(self._named(label, work))) for label, work in labelled
                ]
            case "own context":
                tasks = [self._task(label, work, context=contextvars.copy_context()) for label, work in labelled]
            case _:
                tasks = [self._task(label, work) for label, work in labelled]
        await self._join(node.how, tasks)

    async def _join(self, how: str, tasks: list[asyncio.Task[Any]]) -> None:
        match how:
            case "detached":
                pass
            case "gather":
                await asyncio.gather(*tasks)
            case "gather all" | "queue":
                await asyncio.gather(*tasks, return_exceptions=True)
            case "as_completed":
                for finished in asyncio.as_completed(tasks):
                    await finished
            case "wait":
                await asyncio.wait(tasks)
            case "shield":
                for task in tasks:
                    await asyncio.shield(task)
            case _:
                for task in tasks:
                    await task

    async def _expire(self, node: Expire) -> None:
        async def long() -> None:
            await self._all(node.body)
            await self._pause(_LONG)

        label = branch(node)
        match node.how:
            case "timeout":
                try:
                    async with asyncio.timeout(0):
                        await long()
                except TimeoutError:
                    pass
            case "wait_for":
                try:
                    await asyncio.wait_for(self._named(label, long), _SHORT_S)
                except TimeoutError:
                    pass
            case "shielded":
                try:
                    await asyncio.wait_for(asyncio.shield(self._task(label, partial(self._all, node.body))), _SHORT_S)
                except TimeoutError:
                    pass
            case _:
                task = self._task(label, long)
                await self._pause(node.pauses)
                task.cancel("enough")
                await asyncio.wait([task])

    def _call_back(self, node: Callback) -> None:
        loop = asyncio.get_running_loop()
        self._callbacks += 1

        def run(*_: object) -> None:
            try:
                self.sync(node.body)
            except PlannedError:
                pass
            finally:
                self._callbacks -= 1

        match node.how:
            case "call_later":
                loop.call_later(0, run)
            case "add_done_callback":
                future = loop.create_future()
                future.add_done_callback(run)
                future.set_result(None)
            case how:
                getattr(loop, how)(run)

    async def _iterate(self, node: Iterate) -> None:
        async def segments() -> AsyncGenerator[int]:
            with self.over_yields(node):
                try:
                    for number, segment in enumerate(node.segments):
                        await self._all(segment)
                        yield number
                finally:
                    if node.traced:  # a plain one is cleaned up in the context of whoever closes it
                        self.log.note(cleanup(node))
                    await asyncio.sleep(0)

        generator = trace(node.label)(segments)() if node.traced else segments()
        match node.ending:
            case "close":
                async with aclosing(generator):
                    await self._rounds(node, generator)
            case "elsewhere" | "elsewhere, clean":
                context = contextvars.copy_context() if node.ending == "elsewhere" else contextvars.Context()
                try:
                    await self._rounds(node, generator)
                finally:
                    # Not made by the factory: it is no part of the program.
                    await asyncio.Task(_close(generator), loop=asyncio.get_running_loop(), context=context)
            case "leave":
                self._kept.append(generator)
                await self._rounds(node, generator)
            case _:
                await self._rounds(node, generator)
        if node.ending == "collect":
            lose(generator)
        del generator
        if node.ending == "collect":
            gc.collect()
            # The loop closes it in a task of its own.
            while node.label in self.log.spans and self.log.spans[node.label].end is None:  # noqa: ASYNC110
                await asyncio.sleep(0)
        if node.traced or node.ending not in ("drop", "leave"):
            await self._all(node.after)

    async def _rounds(self, node: Iterate, generator: AsyncGenerator[int]) -> None:
        if not node.rounds and node.ending != "exhaust":
            return
        async for number in generator:
            if number < len(node.rounds):
                await self._all(node.rounds[number])
            if number + 1 >= len(node.rounds) and node.ending != "exhaust":
                return

    async def _thread(self, node: Thread) -> None:
        loop = asyncio.get_running_loop()
        run = partial(self._in_thread, node)
        match node.how:
            case "executor":
                await loop.run_in_executor(None, run)
            case "context":
                await loop.run_in_executor(None, contextvars.copy_context().run, run)
            case "bare":
                thread = threading.Thread(target=run)
                thread.start()
                await loop.run_in_executor(None, thread.join)
            case "nested loop":
                self.log.task(branch(node))
                await asyncio.to_thread(self._nested_loop, node)
            case "threadsafe":
                await asyncio.to_thread(self._submit, node, loop)
            case _:
                await asyncio.to_thread(run)

    def _in_thread(self, node: Thread) -> None:
        self._running.add(node.label)
        try:
            self.sync(node.body)
        except PlannedError:
            pass
        finally:
            self._running.discard(node.label)

    def _nested_loop(self, node: Thread) -> None:
        self._running.add(node.label)
        runner = Runner(self.log, Interruption(), self._loops)
        with asyncio.Runner(loop_factory=self._loops) as loop:
            loop.run(runner.main(node.body))
        runner.forget()
        self._running.discard(node.label)

    def _submit(self, node: Thread, loop: asyncio.AbstractEventLoop) -> None:
        self._running.add(node.label)
        work = self._named(branch(node), partial(self._all, node.body))
        try:
            asyncio.run_coroutine_threadsafe(work, loop).result(_TIMEOUT_S)
        except (PlannedError, BaseExceptionGroup, CancelledError):
            pass
        finally:
            self._running.discard(node.label)


async def _close(generator: AsyncGenerator[Any]) -> None:
    await generator.aclose()


def _expected(error: BaseException | None) -> None:
    if error is not None and not isinstance(error, PlannedError | BaseExceptionGroup):
        raise error


def _one_after_the_other(works: list[Work]) -> list[Work]:
    """Each waits for an item of the one before it."""
    queues = [asyncio.Queue[None]() for _ in works]

    async def link(number: int) -> None:
        try:
            if number:
                await queues[number - 1].get()
            await works[number]()
        finally:
            queues[number].put_nowait(None)

    return [partial(link, number) for number in range(len(works))]
