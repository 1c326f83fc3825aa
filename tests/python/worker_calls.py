"""What tests send to worker threads and processes. Cheap to import: every spawned process does."""

import os
from typing import Any

from rvh_trace import inject, span


def child(name: str = "child") -> str:
    """Opens a span; its id."""
    with span(name) as inner:
        return inner.context.span_id


def seen_context() -> dict[str, Any]:
    """Where it runs, and the context there as headers."""
    headers: dict[str, str] = {}
    inject(headers)
    return {"pid": os.getpid(), "headers": headers}


def raise_with(*, fn: str, headers: str) -> None:
    """Its parameters are named like those of the function that calls it."""
    raise ValueError(f"{fn} and {headers}")


class Unpicklable:
    """Raises an error of its own when it is pickled."""

    def __call__(self) -> None:
        pass

    def __reduce__(self) -> Any:
        raise TypeError("not this one")
