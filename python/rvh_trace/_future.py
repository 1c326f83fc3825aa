"""The Python half of `span_future`. Imported with its first call: it needs asyncio."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Coroutine
from contextvars import Context
from typing import Any, cast


def start_task(loop: asyncio.AbstractEventLoop, awaitable: Awaitable[Any], context: Context) -> asyncio.Future[Any]:
    """`awaitable` as a task that runs in `context`; a future that belongs to somebody else as it is.

    The task does not go through the loop's task factory: the span of the future is its span.
    """
    if asyncio.isfuture(awaitable):
        return awaitable
    if not asyncio.iscoroutine(awaitable):
        awaitable = _await(awaitable)
    return asyncio.Task(cast("Coroutine[Any, Any, Any]", awaitable), loop=loop, context=context)


async def _await(awaitable: Awaitable[Any]) -> Any:
    return await awaitable
