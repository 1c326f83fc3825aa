"""`python -m benches.python`: measures and prints the table."""

import argparse
import json
import os
import platform
import sys
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from .collector import CollectorError, collector
from .imports import NATIVE_MODULES, ModuleSize, module_size
from .pipeline import Pipeline, measure_pipeline
from .results import Group, idle_group, import_group, pipeline_group, size_group, subject_group
from .run import contenders, measure_idle_loops, measure_imports, measure_subjects
from .sample import Pair, Sample
from .subjects import IDLE, IMPORT, NAMES, PIPELINE, SIZE, SUBJECTS, Key
from .table import markdown, plain

METHOD = """\
Times are medians over rounds. Each group of rows has new processes. In a round every contender is measured once, in its
own process, beside its own baseline: batches of both in turn, the median batch of each, and from these the ratio or the
difference; the result is the median of those, then the lowest and the highest. Nothing is subtracted, the loop's own
10 ns are in both. gc.collect() before a round, the garbage collector on within it. Every library exports with its
defaults to a live collector, while it is timed and between batches. `cpu and export` is the processor time of the whole
process for an operation, all threads, until its spans are sent: what a library does later, or on another thread, is
there. The count of spans includes warm-up, parents and sampled baselines.\
"""


@dataclass(frozen=True)
class Effort:
    """How long to measure."""

    rounds: int
    budget_s: float
    import_pairs: int
    idle_pairs: int
    loads: int


QUICK = Effort(rounds=5, budget_s=0.1, import_pairs=9, idle_pairs=1, loads=1)
FULL = Effort(rounds=15, budget_s=0.25, import_pairs=41, idle_pairs=7, loads=5)


@dataclass(frozen=True)
class Measured:
    """Everything one run found."""

    samples: Mapping[str, Mapping[Key, Mapping[int, Sample]]]
    versions: Mapping[str, str]
    missing: Mapping[str, str]
    failures: Mapping[str, str]
    pipeline: Pipeline | None
    imports: Mapping[str, Sequence[Pair]]
    idle: Mapping[str, Sequence[Pair]]
    sizes: Mapping[str, ModuleSize | None]


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benches.python", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="about a minute instead of a few")
    parser.add_argument("--only", action="append", choices=NAMES, metavar="NAME", help=f"one of {', '.join(NAMES)}")
    parser.add_argument("--markdown", action="store_true", help="print the table as Markdown")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every sample to FILE")
    parser.add_argument("--endpoint", metavar="URL", help="export to this OTLP/HTTP collector; do not start one")
    return parser.parse_args()


@contextmanager
def destination(endpoint: str | None) -> Generator[tuple[str, str], None, None]:
    """What to export to, in words and as an endpoint."""
    if endpoint is not None:
        yield endpoint, endpoint.rstrip("/")
        return
    with collector() as started:
        yield started


def measure(names: Sequence[str], effort: Effort, endpoint: str | None) -> tuple[str, Measured]:
    """Runs what `names` asks for; returns what was exported to and what was found."""
    subjects = [subject for subject in SUBJECTS if subject.name in names]
    described = "none needed"
    samples: dict[str, dict[Key, dict[int, Sample]]] = {}
    versions: dict[str, str] = {}
    missing: dict[str, str] = {}
    failures: dict[str, str] = {}
    pipeline = None
    if subjects or PIPELINE in names:
        with destination(endpoint) as (described, url):
            for subject in subjects:
                # New processes for each group of lines: none depends on what else was asked for.
                with contenders([subject], url) as processes:
                    samples[subject.name] = measure_subjects([subject], processes, effort.rounds, effort.budget_s)
                for name, process in processes.items():
                    versions |= {name: process.version} if process.version else {}
                    missing |= {name: process.missing} if process.missing is not None else {}
                    failures |= {name: process.failure} if process.failure is not None else {}
            if PIPELINE in names:
                pipeline = measure_pipeline(url, effort.loads)
    return described, Measured(
        samples,
        versions,
        missing,
        failures,
        pipeline,
        measure_imports(effort.import_pairs) if IMPORT in names else {},
        measure_idle_loops(effort.idle_pairs) if IDLE in names else {},
        {name: module_size(name) for name in NATIVE_MODULES} if SIZE in names else {},
    )


def groups(names: Sequence[str], measured: Measured) -> list[Group]:
    """The table's groups, in the order of the subjects."""

    def absent(key: Key) -> str:
        return "failed" if key[0] in measured.failures else "not installed"

    found = [
        subject_group(subject, measured.samples[subject.name], absent) for subject in SUBJECTS if subject.name in names
    ]
    if measured.pipeline is not None:
        found.append(pipeline_group(measured.pipeline))
    if measured.imports:
        found.append(import_group(measured.imports))
    if measured.idle:
        found.append(idle_group(measured.idle))
    if measured.sizes:
        found.append(size_group(measured.sizes))
    return found


def heading(described: str, effort: Effort, load_before: float, versions: Mapping[str, str]) -> str:
    """Where, with what, and how quiet the machine was."""
    return "\n".join(
        (
            f"CPython {platform.python_version()}, {platform.system()} {platform.machine()}, {os.cpu_count()} cores, "
            f"load average {load_before:.1f} before and {os.getloadavg()[0]:.1f} after",
            f"collector: {described}; {effort.rounds} rounds",
            ", ".join(dict.fromkeys(versions.values())),
        )
    )


def as_json(head: str, measured: Measured) -> str:
    """Every sample."""
    return json.dumps(
        {
            "heading": head.splitlines(),
            "samples": {
                "/".join((name, *key)): {number: asdict(sample) for number, sample in rounds.items()}
                for name, of_subject in measured.samples.items()
                for key, rounds in of_subject.items()
            },
            "pipeline": measured.pipeline and asdict(measured.pipeline),
            "imports": {name: [asdict(pair) for pair in pairs] for name, pairs in measured.imports.items()},
            "idle": {name: [asdict(pair) for pair in pairs] for name, pairs in measured.idle.items()},
            "sizes": {name: size and asdict(size) for name, size in measured.sizes.items()},
        },
        indent=1,
    )


def main() -> int:
    """Prints the table. 1 if `rvh_trace` or the collector is missing or broke; a missed target is no failure."""
    options = arguments()
    names: Sequence[str] = options.only or NAMES
    effort = QUICK if options.quick else FULL
    load_before = os.getloadavg()[0]
    try:
        described, measured = measure(names, effort, options.endpoint)
    except CollectorError as error:
        print(error, file=sys.stderr)
        return 1
    head = heading(described, effort, load_before, measured.versions)
    table = (markdown if options.markdown else plain)(groups(names, measured))
    print(head, table, METHOD, sep="\n\n")
    if options.json is not None:
        options.json.write_text(as_json(head, measured) + "\n")
    troubles = {**measured.missing, **measured.failures}
    for name, trouble in troubles.items():
        print(f"\n{name}: {trouble}", file=sys.stderr)
    ours_broke = any(name.startswith("rvh_trace") for name in troubles) or measured.imports.get("rvh_trace") == []
    return 1 if ours_broke else 0


if __name__ == "__main__":
    sys.exit(main())
