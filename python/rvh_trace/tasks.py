"""Spans for asyncio tasks. Imports asyncio only when called."""

from __future__ import annotations

from weakref import WeakSet

from rvh_trace._rvh_trace import TaskFactory
from rvh_trace.errors import ConfigurationError

TYPE_CHECKING = False
if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Coroutine
    from typing import Any

    AnyCoroutine = Coroutine[Any, Any, Any]


def install_task_factory(
    loop: asyncio.AbstractEventLoop | None = None,
    *,
    name: Callable[[AnyCoroutine], str] | None = None,
    filter: Callable[[AnyCoroutine], bool] | None = None,  # noqa: A002 - a settled name
    root_tasks: bool = False,
    timings: bool = True,
) -> None:
    """Makes every task that is created inside a recorded span a child span of it.

    The span is named after the coroutine, starts when the task is created, is current inside the task and ends with
    it. A raised exception makes it an error. What neither returned nor raised is in `rvh_trace.outcome`: `cancelled`,
    `never_started` (cancelled before its first step, or its loop was closed) or `destroyed` (while it was suspended).
    For a cancelled task `rvh_trace.task.cancellation` says whether `Task.cancel()` was called on it (`requested`) or
    something that it awaited was cancelled (`propagated`), and `rvh_trace.task.cancel_message` what `cancel()` was
    given. asyncio does not know who called.

    A task that outlives the span it was created in is a child of it all the same, which ends after its parent. A task
    that is created when that span has ended has no span, or with `root_tasks` one in a trace of its own that links it.

    A task factory that is already installed is kept and called. Calling this again on the same loop replaces every
    option, for the tasks that are created from then on.

    `task.get_coro()` is a wrapper: `asyncio.iscoroutine` takes it for a coroutine, `inspect.iscoroutine` does not; its
    `cr_frame`, `cr_code` and names are those of the coroutine.

    Args:
        loop: The event loop; the running one by default.
        name: Called with the coroutine; the name of its span. By default that is the coroutine's `__qualname__`.
        filter: Called with the coroutine, before `name`; False: no span for this task.
        root_tasks: Tasks that are created where no span is current have spans too, each the root of a trace.
        timings: Record `rvh_trace.task.queue_time` (created to first step), `run_time` (on the loop) and
            `suspended_time` (the rest), in seconds, and the number of `steps`.

    `name` and `filter` are called where a span would be made; one that raises is logged once and called no more.

    Raises:
        ConfigurationError: An argument has a wrong type; the message names it.
        RuntimeError: No loop is running and none was given.

    Example:
        >>> import asyncio
        >>> async def main():
        ...     install_task_factory(filter=lambda coroutine: coroutine.__qualname__ != "sleep")
        ...     async with asyncio.TaskGroup() as group:
        ...         group.create_task(asyncio.sleep(0))
        >>> asyncio.run(main())

    Source: asyncio documentation, `loop.set_task_factory`.
    """
    loop = _loop(loop, "install_task_factory")
    installed = loop.get_task_factory()
    ours = _ours(installed)
    factory = TaskFactory(installed) if ours is None else ours
    factory.configure(name=name, filter=filter, root_tasks=root_tasks, timings=timings)
    if ours is None:
        loop.set_task_factory(factory.create_task)


# The loops that `RvhTraceMiddleware(task_spans=True)` has seen. The native module knows the last by itself.
_served: WeakSet[asyncio.AbstractEventLoop] = WeakSet()


def install_task_factory_once(loop: asyncio.AbstractEventLoop) -> None:
    """Installs the factory on a loop that has none of ours, the first time it is asked to.

    The options of a factory that the application has installed stay, and one that it has uninstalled stays away.
    """
    if loop in _served:
        return
    _served.add(loop)
    if _ours(loop.get_task_factory()) is None:
        install_task_factory(loop)


def uninstall_task_factory(loop: asyncio.AbstractEventLoop | None = None) -> None:
    """Undoes `install_task_factory`: the factory that was there before is back.

    If another factory was installed on top of ours in the meantime, that one stays and ours goes on without spans.

    Args:
        loop: The event loop; the running one by default.

    Raises:
        ConfigurationError: `loop` is no event loop.
        RuntimeError: No loop is running and none was given.

    Example:
        >>> import asyncio
        >>> async def main():
        ...     install_task_factory()
        ...     uninstall_task_factory()
        >>> asyncio.run(main())
    """
    loop = _loop(loop, "uninstall_task_factory")
    ours = _ours(loop.get_task_factory())
    if ours is not None:
        ours.disable()
        loop.set_task_factory(ours.inner)


def _ours(factory: object) -> TaskFactory | None:
    owner = getattr(factory, "__self__", None)
    return owner if isinstance(owner, TaskFactory) else None


def _loop(loop: asyncio.AbstractEventLoop | None, caller: str) -> asyncio.AbstractEventLoop:
    if loop is not None:
        if not callable(getattr(loop, "set_task_factory", None)):
            message = f"loop: must be an event loop, not {type(loop).__name__}"
            raise ConfigurationError(message)
        return loop
    import asyncio

    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        message = f"{caller}() needs a running event loop: call it in a coroutine (your lifespan), or pass loop="
        raise RuntimeError(message) from None
