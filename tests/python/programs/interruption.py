"""Cancellation at a chosen step: every suspension of every task of a program is counted."""

from __future__ import annotations

import asyncio
import types
from collections.abc import Callable, Coroutine, Generator
from dataclasses import dataclass
from typing import Any, TypeVar

__all__ = ("Interruption",)

T = TypeVar("T")


@dataclass
class Interruption:
    """Cancels the task that makes suspension number `step`, counted over all tasks; none with `None`.

    Attributes:
        step: Which one, from 0.
        suspensions: How many there were.
    """

    step: int | None = None
    suspensions: int = 0

    @property
    def came(self) -> bool:
        """Whether the program got as far as that."""
        return self.step is not None and self.suspensions > self.step

    @types.coroutine
    def watch(self, coroutine: Coroutine[Any, Any, T]) -> Generator[Any, Any, T]:
        """`await coroutine`, step by step."""
        resume: Callable[[Any], Any] = coroutine.send
        value: Any = None
        try:
            while True:
                try:
                    awaited = resume(value)
                except StopIteration as stop:
                    return stop.value
                self._suspended()
                try:
                    value = yield awaited
                    resume = coroutine.send
                except BaseException as error:
                    value = error
                    resume = coroutine.throw
        finally:
            coroutine.close()
            del resume, value

    def _suspended(self) -> None:
        step, self.suspensions = self.suspensions, self.suspensions + 1
        task = asyncio.current_task()
        if step == self.step and task is not None:
            # Once it waits, as others do it.
            task.get_loop().call_soon(task.cancel)
