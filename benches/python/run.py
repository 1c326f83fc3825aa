"""The rounds: which contender is measured when, and what is kept."""

import sys
from collections.abc import Generator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from .idle import LOOPS, available, measure_idle
from .imports import IMPORTS, importable, measure_import
from .process import ContenderProcess
from .sample import Pair, Sample
from .subjects import Key, Subject


def _progress(text: str) -> None:
    if sys.stderr.isatty():
        sys.stderr.write(f"\r\x1b[K{text}")
        sys.stderr.flush()


@contextmanager
def contenders(subjects: Sequence[Subject], endpoint: str) -> Generator[Mapping[str, ContenderProcess], None, None]:
    """A process for each contender that the subjects name."""
    names = dict.fromkeys(contender for subject in subjects for contender, _ in subject.measured())
    with TemporaryDirectory(prefix="rvh-trace-bench-") as directory, ExitStack() as stack:
        yield {
            name: stack.enter_context(ContenderProcess(name, endpoint, Path(directory, f"{name}.log")))
            for name in names
        }


def measure_subjects(
    subjects: Sequence[Subject], processes: Mapping[str, ContenderProcess], rounds: int, budget_s: float
) -> dict[Key, dict[int, Sample]]:
    """Every case once a round; the order is turned round from one round to the next."""
    keys = [
        (contender, case)
        for contender, case in dict.fromkeys(key for subject in subjects for key in subject.measured())
        if case in processes[contender].cases
    ]
    samples: dict[Key, dict[int, Sample]] = {key: {} for key in keys}
    for number in range(rounds):
        for contender, case in keys if number % 2 == 0 else reversed(keys):
            _progress(f"round {number + 1} of {rounds}: {contender}, {case}")
            sample = processes[contender].measure(case, budget_s)
            if sample is not None:
                samples[contender, case][number] = sample
    _progress("")
    return samples


def measure_imports(pairs: int) -> dict[str, list[Pair]]:
    """Pairs of interpreters; a library that cannot be imported gets none."""
    samples: dict[str, list[Pair]] = {name: [] for name in IMPORTS}
    present = [name for name in IMPORTS if importable(name)]
    for number in range(pairs):
        _progress(f"imports, pair {number + 1} of {pairs}")
        for name in present:
            samples[name].append(measure_import(name, first=number % 2 == 0))
    _progress("")
    return samples


def measure_idle_loops(pairs: int) -> dict[str, list[Pair]]:
    """Pairs of idle processes; a loop that is not installed gets none."""
    samples: dict[str, list[Pair]] = {name: [] for name in LOOPS}
    for number in range(pairs):
        _progress(f"idle loops, pair {number + 1} of {pairs}")
        for name in LOOPS:
            if available(name):
                samples[name].append(measure_idle(name))
    _progress("")
    return samples
