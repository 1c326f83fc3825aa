"""One round of one case: batches of the subject and of its baseline in turn, and their medians.

- A batch fits every library's queue (2,048 spans by default), so that nothing is dropped, and is long enough to set
  exports off (at 512 spans) while it is timed. What is queued at its end is exported before the next one starts:
  outside the timed part, but inside the processor time.
- A few untimed operations come before each batch: the export in between has let the caches go cold.
- `gc.collect()` before a round; within it the collector is on, as in a user's process.
"""

import gc
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median
from time import perf_counter, process_time_ns

# Runs that many operations; returns the nanoseconds they took, the set-up around the loop left out.
Timed = Callable[[int], int]

WARM_UP = 50
BATCH_SPANS = 1_800
MIN_PAIRS = 3
MAX_PAIRS = 60


@dataclass(frozen=True)
class Case:
    """A subject, its baseline, and how many spans they export."""

    subject: Timed
    baseline: Timed
    spans: int = 1
    """Spans an operation of the subject exports."""
    baseline_spans: int = 0
    parents: int = 0
    """Spans that each call adds, of subject or baseline: a parent around the loop."""
    fixed_batch: int | None = None
    """Operations of one batch where their number is what is measured; their spans must fit the queue."""

    @property
    def batch(self) -> int:
        """Operations of one batch."""
        if self.fixed_batch is not None:
            return self.fixed_batch
        return BATCH_SPANS // max(self.spans, self.baseline_spans, 1)


@dataclass(frozen=True)
class Round:
    """Medians over the batches of one round, in nanoseconds an operation, and what the round should have exported."""

    subject_ns: float
    baseline_ns: float
    cpu_ns: float
    """Processor time of the whole process for the subject: all threads, the export of its spans included."""
    operations: int
    spans: int


def measure_round(case: Case, budget_s: float, drain: Callable[[], object]) -> Round:
    """Measures pairs of batches for about `budget_s` seconds; which of a pair comes first alternates."""
    subject_ns: list[float] = []
    baseline_ns: list[float] = []
    cpu_ns: list[float] = []

    def subject() -> None:
        cpu = process_time_ns()
        case.subject(WARM_UP)
        subject_ns.append(case.subject(case.batch) / case.batch)
        drain()
        cpu_ns.append((process_time_ns() - cpu) / (case.batch + WARM_UP))

    def baseline() -> None:
        case.baseline(WARM_UP)
        baseline_ns.append(case.baseline(case.batch) / case.batch)
        drain()

    gc.collect()
    until = perf_counter() + budget_s
    pairs = 0
    while pairs < MIN_PAIRS or (pairs < MAX_PAIRS and perf_counter() < until):
        for run in (subject, baseline) if pairs % 2 else (baseline, subject):
            run()
        pairs += 1
    operations = pairs * (case.batch + WARM_UP)
    spans = operations * (case.spans + case.baseline_spans) + pairs * 4 * case.parents
    return Round(median(subject_ns), median(baseline_ns), median(cpu_ns), operations, spans)
