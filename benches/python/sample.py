"""A subject's time beside its baseline's, from one round. Nanoseconds an operation."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Pair:
    """Two times that were measured in turn."""

    subject_ns: float
    baseline_ns: float

    @property
    def ratio(self) -> float:
        return self.subject_ns / self.baseline_ns

    @property
    def added_ns(self) -> float:
        return self.subject_ns - self.baseline_ns


@dataclass(frozen=True)
class Sample(Pair):
    """A round of one case as its worker reports it."""

    cpu_ns: float
    """Processor time of all the subject's threads, the export of its spans included."""
    operations: int
    spans: int
    """Spans that the round should have exported."""
    exported: int | None
    """Spans that it did; None when the library does not count."""

    @property
    def lost(self) -> int:
        return 0 if self.exported is None else self.spans - self.exported
