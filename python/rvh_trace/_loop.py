"""The watch over event loops. Imports asyncio only when called."""

from __future__ import annotations

from rvh_trace import _rvh_trace

TYPE_CHECKING = False
if TYPE_CHECKING:
    import asyncio
    from contextvars import Context

    from rvh_trace._rvh_trace import LoopWatch


def watch_loop(loop: asyncio.AbstractEventLoop | None = None, *, threshold_ms: float = 100) -> LoopWatch:
    """Finds out while an event loop is blocked, and by whom: asyncio, uvloop, any loop with `call_later`.

    A timer beats on the loop twice in a threshold. When a beat is late by the threshold, a native thread looks
    once, during the block, where the loop's thread is and which span is current there. That span gets one event,
    `rvh_trace.loop.blocked`, with `code.function.name`, `code.file.path`, `code.line.number` and `code.stacktrace`. If
    no span is recorded there, one of that name is made for the block. When the loop comes back, or the span ends,
    `rvh_trace.loop.blocked_time` and `rvh_trace.loop.gc_share` say how long it took and which share of that garbage
    collections took. How late each beat was is the metric `rvh_trace.loop.lag`.

    What is not a block: a loop that waits for something to do, or does not run, and a process that was stopped. The
    time counts from the beat that was missed: a block may have been longer by half the threshold, and is found for
    certain if it lasts half as long again. An extension module that holds the GIL holds up the look: the time
    is right, the stack is that of the moment the GIL is free, and missing if the loop comes back in that moment. If
    many short callbacks block the loop together, the stack is that of one of them.

    Calling this again on a loop that is watched gives the same watch and changes nothing. Loops in several threads can
    be watched at once. A forked child that goes on with its parent's loop goes on watching it. The watch ends with
    `stop()`, at the end of its `with` block, when the loop is closed and when the interpreter exits. While all is well
    it takes less than 0.5 % of a core, for thresholds from 100 ms up.

    Args:
        loop: The event loop; the running one by default. One that runs in another thread is fine.
        threshold_ms: From how many milliseconds on the loop counts as blocked.

    Returns:
        The watch, to end it.

    Raises:
        RuntimeError: No loop is running and none was given, or the loop is closed.
        ConfigurationError: `threshold_ms` is not a number above 0.

    Example:
        >>> import asyncio
        >>> async def main():
        ...     with watch_loop(threshold_ms=50):
        ...         await asyncio.sleep(0)
        >>> asyncio.run(main())

    Source: semantic conventions, "Code"; asyncio documentation, "Developing with asyncio", "Running blocking code".
    """
    import asyncio

    try:
        running = asyncio.get_running_loop()
    except RuntimeError:
        running = None
    if loop is None:
        loop = running
    if loop is None:
        message = "watch_loop() needs a running event loop: call it in a coroutine (your lifespan), or pass loop="
        raise RuntimeError(message)
    watch, period_s = _rvh_trace.watch_loop(loop, threshold_ms)
    if period_s is not None:
        from contextvars import Context

        # Empty, so that a beat is in nobody's context.
        heart = _Heart(loop, watch, period_s, Context())
        if loop is running:
            heart()
        else:
            heart.begin()
    return watch


class _Heart:
    """Beats as long as its watch wants it to."""

    __slots__ = ("_context", "_loop", "_period_s", "_watch")

    def __init__(self, loop: asyncio.AbstractEventLoop, watch: LoopWatch, period_s: float, context: Context) -> None:
        self._loop = loop
        self._watch = watch
        self._period_s = period_s
        self._context = context

    def begin(self) -> None:
        """Beats for the first time as soon as the loop, of any thread, gets to it."""
        try:
            self._loop.call_soon_threadsafe(self, context=self._context)
        except RuntimeError:
            self._watch.stop()
            raise

    def __call__(self) -> None:
        # First, so that an interrupt in between leaves a beat too many and not a beat that never comes.
        again = self._loop.call_later(self._period_s, self, context=self._context)
        if not self._watch._beat():  # pyright: ignore[reportPrivateUsage]
            again.cancel()
