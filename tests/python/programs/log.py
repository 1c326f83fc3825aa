"""What a run of a program did, in order: written by the program itself, without the library."""

from __future__ import annotations

import itertools
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from rvh_trace import current_span

if TYPE_CHECKING:
    import asyncio

__all__ = ("Log", "Made", "Seen")


@dataclass(frozen=True, slots=True)
class Seen:
    """What was current at a node: the span id, at a moment of the run."""

    label: str
    span_id: str
    moment: int


@dataclass(slots=True)
class Made:
    """A span that was entered, or a task: when, until when, and what was raised out of it."""

    start: int
    end: int | None = None
    raised: str | None = None


class Canary:
    """Lives as long as a `contextvars.Context` that it was set in."""


_canary: ContextVar[Canary] = ContextVar("canary")


@dataclass
class Log:
    """See the module. Threads write to it too; each write is one operation on a dict or a list."""

    seen: list[Seen] = field(default_factory=list[Seen])
    spans: dict[str, Made] = field(default_factory=dict[str, Made])
    tasks: dict[str, Made] = field(default_factory=dict[str, Made])
    canaries: list[weakref.ref[Canary]] = field(default_factory=list["weakref.ref[Canary]"])
    _moments: Iterator[int] = field(default_factory=itertools.count)

    def note(self, label: str) -> None:
        """What is current here."""
        self.seen.append(Seen(label, current_span().context.span_id, next(self._moments)))

    def task(self, label: str) -> None:
        """A task is made here."""
        self.tasks[label] = Made(next(self._moments))

    def watch_context(self) -> None:
        """The current context must be gone at the end."""
        canary = Canary()
        _canary.set(canary)
        self.canaries.append(weakref.ref(canary))

    def ended(self, label: str, task: asyncio.Task[object]) -> None:
        """What came of a task."""
        made = self.tasks[label]
        made.end = next(self._moments)
        if task.cancelled():
            made.raised = "CancelledError"
        elif (error := task.exception()) is not None:
            made.raised = type(error).__name__

    @contextmanager
    def inside(self, label: str) -> Iterator[None]:
        """The body of a span."""
        assert label not in self.spans
        made = self.spans[label] = Made(next(self._moments))
        try:
            yield
        except BaseException as error:
            made.raised = type(error).__name__
            raise
        finally:
            made.end = next(self._moments)
