"""Two ways to run an example: stepped by hand, which shows every suspension, and as a task on an event loop."""

import asyncio
import contextvars
from collections.abc import Callable
from typing import Any

from rvh_trace import current_span, inject, new_span
from transparency.observation import Difference, Observation
from transparency.recipe import frozen
from transparency.script import CLOSE, NOTE, Example, Run

__all__ = ("Wrap", "by_hand", "on_loop")

Wrap = Callable[[Any], Any]
_MAX_STEPS = 500


def _in_fresh_context(run: Run, drive: Callable[[], None]) -> Observation:
    """Drives the run in a context of its own, inside of another span if the example says so."""

    def inside_span() -> None:
        connection = new_span("connection")
        with connection.activate():
            drive()
        connection.end()

    context = contextvars.Context()
    context.run(NOTE.set, run.seen.note)
    context.run(inside_span if run.example.inside_span else drive)
    return run.seen


def _current() -> Any:
    carrier: dict[str, str] = {}
    inject(carrier)
    return current_span().context, carrier


def by_hand(example: Example, wrap: Wrap) -> Observation:
    """Runs `wrap(application)` step by step.

    Raises:
        Difference: It does not end.
    """
    run = Run(example)

    def drive() -> None:
        before = _current()
        application = wrap(run.application)
        _step(run, run.serve(application), run.interruptions)
        run.look_back(_current() == before)
        for message in run.late if run.kept_send is not None else ():
            _step(run, _send(run, message), {})

    return _in_fresh_context(run, drive)


async def _send(run: Run, message: Any) -> Any:
    return await run.kept_send(message)


def _step(run: Run, coroutine: Any, interruptions: dict[int, Any]) -> None:
    note = run.seen.note
    for step in range(_MAX_STEPS):
        interruption = interruptions.get(step)
        # Python closes what is awaited when a GeneratorExit is thrown.
        run.closing = run.closing or isinstance(interruption, GeneratorExit)
        try:
            if interruption is None:
                yielded = coroutine.send(None)
            elif interruption is CLOSE:
                run.closing = True
                note("closed", frozen(coroutine.close()))
                return
            else:
                yielded = coroutine.throw(interruption)
        except StopIteration as stop:
            note("returned", run.seen.seen(stop.value))
            return
        except BaseException as error:
            note("raised", run.seen.error(error))
            return
        else:
            note("suspended", yielded)
    raise Difference("it does not end")


def on_loop(loop: asyncio.AbstractEventLoop, example: Example, wrap: Wrap) -> Observation:
    """Runs `wrap(application)` as a task of `loop`, which must not be running. Interruptions cancel the task.

    Every round of the loop is an event, so a suspension more or less is a difference.

    Raises:
        Difference: It does not end.
    """
    run = Run(example)
    _in_fresh_context(run, lambda: loop.run_until_complete(_watch(run, wrap)))
    return run.seen


async def _watch(run: Run, wrap: Wrap) -> None:
    context = contextvars.copy_context()
    before = _current()
    task = asyncio.create_task(run.serve(wrap(run.application)), context=context)
    await _rounds(run, task)
    if task.cancelled():
        try:
            await task
        except asyncio.CancelledError as error:
            run.seen.note("cancelled", run.seen.error(error))
    elif (error := task.exception()) is not None:
        run.seen.note("raised", run.seen.error(error))
    else:
        run.seen.note("returned", run.seen.seen(task.result()))
    context.run(run.look_back, context.run(_current) == before)
    for spawned in run.tasks:
        await _rounds(run, spawned)
    run.seen.note("tasks", [type(each) for each in await asyncio.gather(*run.tasks, return_exceptions=True)])
    for message in run.late if run.kept_send is not None else ():
        try:
            run.seen.note("late", frozen(await _send(run, message)))
        except BaseException as error:
            run.seen.note("late", run.seen.error(error))


async def _rounds(run: Run, task: "asyncio.Task[Any]") -> None:
    if not run.example.count_rounds:
        await asyncio.wait([task], timeout=600)
    for step in range(_MAX_STEPS):
        if task.done():
            return
        if step in run.interruptions:
            task.cancel(step)
        await asyncio.sleep(0)
        run.seen.note("round", step)
    raise Difference("it does not end")
