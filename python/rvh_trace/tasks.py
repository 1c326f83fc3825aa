"""Spans for asyncio tasks. Imports asyncio only when called."""

from __future__ import annotations

from rvh_trace._rvh_trace import TaskFactory

TYPE_CHECKING = False
if TYPE_CHECKING:
    import asyncio


def install_task_factory(loop: asyncio.AbstractEventLoop | None = None) -> None:
    """Makes every task that is created inside a recorded span a child span of it.

    The span is named after the coroutine, starts when the task is created, is current inside the task and ends with
    its outcome: a raised exception makes it an error, a cancelled task is marked `rvh_trace.outcome: cancelled`.
    Tasks created elsewhere are left alone. A task factory that is already installed is kept and called. Calling this
    again on the same loop changes nothing.

    Args:
        loop: The event loop; the running one by default.

    Raises:
        RuntimeError: No loop is running and none was given.

    Example:
        >>> import asyncio
        >>> async def main():
        ...     install_task_factory()
        ...     async with asyncio.TaskGroup() as group:
        ...         group.create_task(asyncio.sleep(0))
        >>> asyncio.run(main())

    Source: asyncio documentation, `loop.set_task_factory`.
    """
    loop = _loop(loop, "install_task_factory")
    factory = loop.get_task_factory()
    if _ours(factory) is None:
        loop.set_task_factory(TaskFactory(factory).create_task)


def uninstall_task_factory(loop: asyncio.AbstractEventLoop | None = None) -> None:
    """Undoes `install_task_factory`: the factory that was there before is back.

    If another factory was installed on top of ours in the meantime, that one stays and ours goes on without spans.

    Args:
        loop: The event loop; the running one by default.

    Raises:
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
        return loop
    import asyncio

    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        message = f"{caller}() needs a running event loop: call it in a coroutine (your lifespan), or pass loop="
        raise RuntimeError(message) from None
