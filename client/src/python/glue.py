"""What is easier said in Python. Not a module: every extension runs its version, with names of its own."""

import asyncio


def fail(future, error):
    if future.done():
        return
    if isinstance(error, asyncio.CancelledError):
        future.cancel(*error.args[:1])
    elif isinstance(error, StopIteration):
        # A future refuses it and would never be done; coroutines turn it into this (PEP 479).
        wrapped = RuntimeError("a Rust future raised StopIteration")
        wrapped.__cause__ = error
        future.set_exception(wrapped)
    else:
        future.set_exception(error)


def start(loop, awaitable, context):
    """`awaitable` as a task that runs in `context`; a future that belongs to somebody else as it is."""
    if asyncio.isfuture(awaitable):
        return awaitable
    if not asyncio.iscoroutine(awaitable):
        awaitable = _await(awaitable)
    # Not by the loop's task factory: the span of Rust's that awaits it is its span.
    task = asyncio.Task(awaitable, loop=loop, context=context)
    # A loop that is closed under it tells the Rust future, which is the only one that waits.
    task._log_destroy_pending = False
    return task


async def _await(awaitable):
    return await awaitable


async def advance(stream):
    """The next item of a Rust stream."""
    while True:
        item = stream.take()
        if item is not stream:
            return item
        try:
            await stream.readable()
        except asyncio.CancelledError:
            stream.abandon()
            raise


async def pump(iterable, inlet):
    """Moves what an async iterator gives into a Rust stream, in one task from its beginning to its end."""
    loop = asyncio.get_running_loop()
    iterator = aiter(iterable)
    try:
        async for item in iterator:
            if not inlet.put(item):
                room = loop.create_future()
                inlet.park(room)
                await room
    except GeneratorExit:
        # The loop is gone: there is nothing to await with.
        raise
    except BaseException:
        aclose = getattr(iterator, "aclose", None)
        if aclose is not None:
            await aclose()
        raise
