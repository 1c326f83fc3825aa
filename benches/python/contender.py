"""What a library offers to be measured: its cases, a way to empty its queue, and what it exported."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from .measure import Case

SAMPLED = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
UNSAMPLED = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00"


@dataclass(frozen=True)
class Contender:
    """A library, configured and exporting. One lives in each worker process."""

    version: str
    """Names and versions of what is measured."""
    cases: Mapping[str, Case]
    drain: Callable[[], object]
    """Exports what is queued and returns when it is done."""
    exported: Callable[[], int] | None
    """Spans that reached the collector so far; None when the library does not count them."""
    close: Callable[[], object]
