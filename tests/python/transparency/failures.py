"""Exceptions of every kind that can leave an application or a server."""

import asyncio
from collections.abc import Callable

from hypothesis import strategies as st

from transparency.recipe import Make
from transparency.values import PRODUCTION

__all__ = ("FAILURES", "INTERRUPTIONS", "LOOP_FAILURES", "SERVER_FAILURES")


class FalseError(Exception):
    """Compares by value, is false, and says nothing of itself."""

    __slots__ = ()
    __hash__ = None  # type: ignore[assignment]

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self)

    def __bool__(self) -> bool:
        return False

    def __str__(self) -> str:
        return "\ud800"


class UnprintableError(Exception):
    """Raises when it is described."""

    def __str__(self) -> str:
        raise ValueError("no words")

    __repr__ = __str__


class Outermost(BaseException):
    """No `Exception`: nothing may take it for one."""


class Cancelled(asyncio.CancelledError):
    """A cancellation with a reason of its own."""


def caused() -> Exception:
    """One with a cause, a context and a traceback of its own."""
    try:
        try:
            raise KeyError("first")
        except KeyError:
            raise OSError(5, "second", "/file")  # noqa: B904 - a context without a cause is what is wanted
    except OSError as cause:
        error = RuntimeError("third")
        error.__cause__ = cause
        return error


def suppressed() -> BaseException:
    """One whose context is not to be shown."""
    error = LookupError("shown")
    error.__context__ = ValueError("not shown")
    error.__suppress_context__ = True
    return error


def noted() -> Exception:
    """One with notes."""
    error = ValueError("with notes")
    error.add_note("first\ud800")
    error.add_note("second")
    return error


def raised_before() -> BaseException:
    """One that carries a traceback from somewhere else."""
    try:
        raise ArithmeticError("before")
    except ArithmeticError as error:
        return error


def grouped() -> BaseException:
    """A group in a group."""
    return ExceptionGroup("outer", [ValueError(1), ExceptionGroup("inner", [caused(), noted()])])


def grouped_base() -> BaseException:
    """A group that is no `Exception`."""
    return BaseExceptionGroup("outer", [KeyboardInterrupt(), ValueError(1)])


def circular() -> BaseException:
    """Two that are each other's context."""
    first, second = ValueError("first"), ValueError("second")
    first.__context__, second.__context__ = second, first
    return first


def _failures(*makers: Callable[..., BaseException]) -> list[Make]:
    return [Make(maker) for maker in makers]


_EXCEPTIONS = [
    *_failures(ValueError, FalseError, caused, suppressed, noted, raised_before, grouped, circular, StopAsyncIteration),
    *_failures(RecursionError, MemoryError, AssertionError, StopIteration),
    Make(OSError, (32, "Broken pipe")),
    Make(UnicodeDecodeError, ("utf-8", b"\xff", 0, 1, "invalid start byte")),
    Make(RuntimeError, ("x" * 10_000, b"\xff", "\ud800", None)),
]
if PRODUCTION:
    _EXCEPTIONS += _failures(UnprintableError)
_OUTSIDE = _failures(Outermost, asyncio.CancelledError, Cancelled, grouped_base, GeneratorExit)
_EXITS = [*_failures(KeyboardInterrupt, SystemExit), Make(SystemExit, (0,)), Make(SystemExit, (3,))]

FAILURES: st.SearchStrategy[Make] = st.sampled_from(_EXCEPTIONS + _OUTSIDE + _EXITS)
# An event loop lets interrupts and exits through, to whoever runs it.
LOOP_FAILURES: st.SearchStrategy[Make] = st.sampled_from(
    [*_EXCEPTIONS, *_failures(Outermost, asyncio.CancelledError, Cancelled)]
)
SERVER_FAILURES: st.SearchStrategy[Make] = st.sampled_from(
    [
        Make(OSError, (32, "Broken pipe")),
        Make(ConnectionResetError, (104, "reset")),
        Make(RuntimeError, ("Expected ASGI message 'http.response.start'",)),
        *_failures(asyncio.CancelledError, caused, Outermost),
    ]
)
INTERRUPTIONS: st.SearchStrategy[Make] = st.sampled_from(
    [*_failures(asyncio.CancelledError, Cancelled, KeyboardInterrupt, SystemExit, TimeoutError, GeneratorExit)]
)
