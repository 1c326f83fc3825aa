"""Where asyncio tasks are: what each of them awaits, or the calls that it is making right now.

Reads only what CPython shows of its own objects, never an attribute of the user's: no code of theirs runs.
"""

from __future__ import annotations

import gc
import sys

from rvh_trace._rvh_trace import MessageCoroutine, Span, SpanCoroutine, TaskCoroutine

TYPE_CHECKING = False
if TYPE_CHECKING:
    import asyncio
    from collections.abc import Iterable, Iterator
    from contextvars import Context
    from types import CodeType, FrameType
    from typing import Any

    Task = asyncio.Task[Any]

_DEEPEST_STACK = 200


class StackFrame:
    """Where a function has got to: `file`, `line` (from 1), `function` (its qualified name).

    Prints as `file:line function`.
    """

    __slots__ = ("file", "function", "line")

    def __init__(self, file: str, line: int, function: str) -> None:
        self.file: str = file
        self.line: int = line
        self.function: str = function

    def __str__(self) -> str:
        return f"{self.file}:{self.line} {self.function}"

    def __repr__(self) -> str:
        return f"<StackFrame {self}>"


class Place:
    """A task, and where it is; looked at only when a span asks."""

    __slots__ = ("_stack", "_task", "context", "name")

    def __init__(self, task: Task) -> None:
        self._task = task
        self._stack: tuple[StackFrame, ...] | None = None
        self.context = _context(task)
        self.name = task.get_name()

    @property
    def stack(self) -> tuple[StackFrame, ...]:
        if self._stack is None:
            self._stack = tuple(_stack(self._task.get_coro()))
        return self._stack


def places() -> tuple[dict[int, Place | None], dict[str, Place]]:
    """The tasks that are not done: by the `id` of their context, and by the id of their span.

    None stands for several tasks in one context: nothing tells which of them a span is of.
    """
    by_context: dict[int, Place | None] = {}
    by_span: dict[str, Place] = {}
    for task in _live_tasks():
        place = Place(task)
        if place.context is not None:
            key = id(place.context)
            by_context[key] = None if key in by_context else place
        coroutine: object = task.get_coro()
        if isinstance(coroutine, TaskCoroutine):
            by_span.update(
                (held.context.span_id, place) for held in gc.get_referents(coroutine) if isinstance(held, Span)
            )
    return by_context, by_span


def _live_tasks() -> list[Task]:
    """The tasks of every loop, in every thread. asyncio is not imported for it."""
    tasks: Any = sys.modules.get("asyncio.tasks")
    if tasks is None:
        return []
    # The registries of CPython 3.11, of 3.12 and 3.13; later ones tell of a loop at a time.
    found: dict[int, Task] = {}
    for registry in ("_all_tasks", "_scheduled_tasks", "_eager_tasks"):
        found.update((id(task), task) for task in _copied(getattr(tasks, registry, ())))
    try:
        found.update((id(task), task) for task in tasks.all_tasks())
    except RuntimeError:
        pass  # No loop runs in this thread.
    return [task for task in found.values() if not task.done()]


def _copied(registry: Iterable[Task]) -> list[Task]:
    """A set of weak references that other threads may change meanwhile: `asyncio.all_tasks` tries as often."""
    for _ in range(1000):
        try:
            return list(registry)
        except RuntimeError:
            continue
    return []


def _context(task: Task) -> Context | None:
    get_context = getattr(task, "get_context", None)  # From CPython 3.12.
    if get_context is not None:
        return get_context()
    # A task of C visits its own context first, then that of its first callback.
    return getattr(task, "_context", None) or first_context(task)


def first_context(owner: object) -> Context | None:
    from contextvars import Context

    return next((held for held in gc.get_referents(owner) if isinstance(held, Context)), None)


# CPython's own that stand between a coroutine and the one that it awaits, and show it to the garbage collector alone.
_WRAPPERS = frozenset({"anext_awaitable", "async_generator_asend", "async_generator_athrow", "coroutine_wrapper"})


def _is_wrapper(awaited: object) -> bool:
    return isinstance(awaited, (SpanCoroutine, MessageCoroutine, TaskCoroutine)) or type(awaited).__name__ in _WRAPPERS


def _stack(awaited: Any) -> Iterator[StackFrame]:
    """The frames of a coroutine and of what it awaits, outermost first; of a running one the calls below it too."""
    from types import AsyncGeneratorType, CoroutineType, GeneratorType

    kinds: Any = {CoroutineType: "cr", GeneratorType: "gi", AsyncGeneratorType: "ag"}
    for _ in range(_DEEPEST_STACK):
        # What each kind calls its frame: cr_frame, gi_frame, ag_frame.
        kind: str | None = kinds.get(type(awaited))
        if kind is None:
            if not _is_wrapper(awaited):
                return
            held = [one for one in gc.get_referents(awaited) if type(one) in kinds or _is_wrapper(one)]
            if len(held) != 1:
                return
            awaited = held[0]
            continue
        frame: FrameType | None = getattr(awaited, f"{kind}_frame")
        running: bool = getattr(awaited, f"{kind}_running")
        awaited = getattr(awaited, "gi_yieldfrom" if kind == "gi" else f"{kind}_await")
        if frame is None:
            return
        calls = _calls_of(frame) if running else ()
        if calls:
            yield from calls
            return
        yield _frame(frame.f_code, frame.f_lineno)


def _calls_of(frame: FrameType) -> list[StackFrame]:
    """The frames from `frame` to the innermost one of the thread that runs it, without our own; empty if none does."""
    for innermost in sys._current_frames().values():  # pyright: ignore[reportPrivateUsage]
        calls: list[StackFrame] = []
        current: FrameType | None = innermost
        while current is not None:
            # Our own are on top of what asked, or was interrupted.
            if calls or current.f_globals.get("__package__") != __package__:
                calls.append(_frame(current.f_code, current.f_lineno))
            if current is frame:
                return calls[::-1]
            current = current.f_back
    return []


def _frame(code: CodeType, line: int | None) -> StackFrame:
    return StackFrame(code.co_filename, line or code.co_firstlineno, code.co_qualname)
