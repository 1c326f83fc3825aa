"""Context through executors. Nothing is imported or replaced before `instrument_executors` is called.

What is replaced is `submit` of `ThreadPoolExecutor` and `ProcessPoolExecutor`: the one place that every way into their
workers goes through, `loop.run_in_executor` on asyncio and uvloop, `Executor.map` and `asyncio.to_thread` included.
"""

from __future__ import annotations

import sys

from rvh_trace._rvh_trace import carry, extract, inject, time_wait, use_context

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from concurrent.futures import Executor, Future
    from typing import Any, ParamSpec, TypeVar

    _P = ParamSpec("_P")
    _R = TypeVar("_R")


class _Patch:
    """A function in the place of another one, until it is removed or, under somebody else's, does nothing any more."""

    __slots__ = ("enabled", "name", "original", "owner", "replacement")

    def __init__(self, owner: Any, name: str) -> None:
        self.owner = owner
        self.name = name
        self.original: Callable[..., Any] = getattr(owner, name)
        self.replacement: Callable[..., Any] = self.original
        self.enabled = True

    def install(self, replacement: Callable[..., Any]) -> None:
        from functools import update_wrapper

        self.replacement = update_wrapper(replacement, self.original)
        setattr(self.owner, self.name, self.replacement)

    def remove(self) -> None:
        self.enabled = False
        if getattr(self.owner, self.name) is self.replacement:
            setattr(self.owner, self.name, self.original)


_patches: list[_Patch] = []


def instrument_executors() -> None:
    """Makes calls that are sent to worker threads and processes run in the context of whoever sends them.

    - `ThreadPoolExecutor.submit`, `Executor.map` and `loop.run_in_executor`, on asyncio and uvloop: the call runs in a
      copy of the caller's `contextvars.Context`, as with `asyncio.to_thread`. Current span, baggage and every other
      context variable are there; what the call sets stays its own.
    - `asyncio.to_thread` and `anyio.to_thread.run_sync` (what Starlette and FastAPI run sync endpoints with) carry the
      context by themselves.
    - For all of these the time that calls waited for a thread is added up on the span that was current where they were
      sent, as `rvh_trace.thread_pool.wait_time` in seconds.
    - `ProcessPoolExecutor`: current span and baggage travel as headers, so spans in the worker process are children of
      the caller's. They are exported from there if tracing is set up in that process: inherited by a fork, else with
      `initializer=rvh_trace.init_tracing`. Functions and arguments are pickled as they are.

    Only these two executors and classes derived from them: an executor of another kind gets exactly what it is given.
    Call it after anyio was imported, if anyio is to be measured. Calling it again changes nothing.

    Example:
        >>> from concurrent.futures import ThreadPoolExecutor
        >>> from rvh_trace import current_span, instrument_executors, span, uninstrument_executors
        >>> instrument_executors()
        >>> with ThreadPoolExecutor() as executor, span("outer") as outer:
        ...     executor.submit(current_span).result() is outer
        True
        >>> uninstrument_executors()

    Source: Python documentation, `contextvars`, "asyncio support"; `asyncio.to_thread`.
    """
    from concurrent.futures import thread

    done = {(patch.owner, patch.name) for patch in _patches}
    if (thread.ThreadPoolExecutor, "submit") not in done:
        _patch_threads(_Patch(thread.ThreadPoolExecutor, "submit"))
    anyio = sys.modules.get("anyio.to_thread")
    if anyio is not None and (anyio, "run_sync") not in done:
        _patch_anyio(_Patch(anyio, "run_sync"))
    try:
        from concurrent.futures.process import ProcessPoolExecutor
    except ImportError:  # A platform without processes.
        return
    if (ProcessPoolExecutor, "submit") not in done:
        _patch_processes(_Patch(ProcessPoolExecutor, "submit"))


def uninstrument_executors() -> None:
    """Undoes `instrument_executors`. Calls that were sent before keep their context.

    Where somebody else has replaced the same function in the meantime, theirs stays and ours only passes calls on.

    Example:
        >>> from rvh_trace import uninstrument_executors
        >>> uninstrument_executors()
    """
    while _patches:
        _patches.pop().remove()


def _patch_threads(patch: _Patch) -> None:
    original = patch.original

    def submit(self: Executor, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        carries = patch.enabled and not _pickles(self)
        return original(self, carry(fn) if carries else fn, *args, **kwargs)

    patch.install(submit)
    _patches.append(patch)


def _pickles(executor: Executor) -> bool:
    """Whether its threads belong to other interpreters (CPython 3.14), which are given pickled functions."""
    module = sys.modules.get("concurrent.futures.interpreter")
    return module is not None and isinstance(executor, module.InterpreterPoolExecutor)


def _patch_anyio(patch: _Patch) -> None:
    original = patch.original

    async def run_sync(func: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        return await original(time_wait(func) if patch.enabled else func, *args, **kwargs)

    patch.install(run_sync)
    _patches.append(patch)


def _patch_processes(patch: _Patch) -> None:
    original = patch.original

    def submit(self: Executor, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        if not patch.enabled:
            return original(self, fn, *args, **kwargs)
        headers: dict[str, str] = {}
        inject(headers)
        return original(self, run_with_headers, headers, fn, *args, **kwargs)

    patch.install(submit)
    _patches.append(patch)


def run_with_headers(headers: Mapping[str, str], fn: Callable[_P, _R], /, *args: _P.args, **kwargs: _P.kwargs) -> _R:
    """What a worker process calls: `fn` in the context that came as headers.

    Without any in them the call is a root: a forked worker has inherited the context of the call that started it.
    """
    with use_context(extract(headers)):
        return fn(*args, **kwargs)
