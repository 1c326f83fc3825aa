"""Open spans on a signal. Imports `signal` only when called."""

from __future__ import annotations

import os

from rvh_trace._open_spans import open_spans

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType
    from typing import Any

_STDERR = 2
_handlers: dict[int, _SignalHandler] = {}


def dump_on_signal(signum: int | None = None) -> Callable[[], None]:
    """Prints the open spans to standard error whenever this process gets a signal: `kill -USR1 <pid>`.

    What is printed is `str(open_spans())`: a tree with ages, tasks, and where those are suspended. It works while the
    event loop of the main thread, asyncio's or uvloop's, waits, and while it is blocked by Python code: the handler
    runs in the main thread, between two bytecodes. It does not run while the main thread is inside one long call of C
    code that does not look at signals; `time.sleep`, locks and I/O do. A handler of Python's that was there before is
    called afterwards, also one of `loop.add_signal_handler`. Calling this again for the same signal changes nothing.

    Args:
        signum: The signal; `signal.SIGUSR1` by default.

    Returns:
        A function that undoes it: the handler before is back. If another one was installed on top of ours in the
        meantime, that one stays, and ours only calls the one before.

    Raises:
        ConfigurationError: This platform has no SIGUSR1 (Windows: pass `signal.SIGBREAK`), the signal cannot be
            handled, or this is not the main thread, where CPython allows it alone.

    Example:
        >>> import signal
        >>> from rvh_trace import dump_on_signal
        >>> undo = dump_on_signal(signal.SIGUSR2)
        >>> undo()

    Source: Python documentation, `signal`, "Execution of Python signal handlers".
    """
    import signal

    if signum is None:
        signum = getattr(signal, "SIGUSR1", None)
        if signum is None:
            raise _error("this platform has no SIGUSR1; pass another one, on Windows signal.SIGBREAK")
    installed = _handlers.get(signum)
    try:
        if installed is None or signal.getsignal(signum) is not installed:
            installed = _SignalHandler(signum, signal.getsignal(signum))
            signal.signal(signum, installed)
            _handlers[signum] = installed
    except (OSError, TypeError, ValueError) as error:
        raise _error(f"{signum!r} cannot be handled: {error}") from error
    return installed.remove


class _SignalHandler:
    """What Python calls for the signal."""

    __slots__ = ("_before", "_enabled", "_signum")

    def __init__(self, signum: int, before: Any) -> None:
        self._signum = signum
        self._before = before
        self._enabled = True

    def __call__(self, signum: int, frame: FrameType | None) -> None:
        if self._enabled:
            try:
                text = f"rvh_trace: {open_spans()}\n"
            except Exception as error:
                text = f"rvh_trace: the open spans cannot be listed: {error!r}\n"
            _write(text.encode("utf-8", "backslashreplace"))
        if callable(self._before):
            self._before(signum, frame)

    def remove(self) -> None:
        """Puts the handler before in its place again; from the main thread."""
        import signal

        self._enabled = False
        if _handlers.get(self._signum) is self:
            del _handlers[self._signum]
        if signal.getsignal(self._signum) is self:
            # A handler that was not installed from Python cannot be put back.
            signal.signal(self._signum, signal.SIG_DFL if self._before is None else self._before)


def _write(text: bytes) -> None:
    """Straight to the descriptor: `sys.stderr` refuses a writer that interrupts another one in the same thread."""
    try:
        while text:
            text = text[os.write(_STDERR, text) :]
    except OSError:
        pass  # Closed, or not blocking and full: nobody reads it.


def _error(problem: str) -> Exception:
    from rvh_trace.errors import ConfigurationError

    return ConfigurationError(f"dump_on_signal: {problem}")
