"""From samples to the lines of the table: medians over rounds, spreads, verdicts."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import median

from .imports import ModuleSize
from .pipeline import MIB, Load, Pipeline
from .sample import Pair, Sample
from .subjects import (
    EXPORT_CPU_TARGET,
    EXPORT_RATE_TARGET,
    IDLE_TARGET,
    IDLE_TITLE,
    IMPORT_TARGET,
    IMPORT_TITLE,
    PIPELINE_TITLE,
    RESIDENT_TARGET,
    SIZE_TARGET,
    SIZE_TITLE,
    Comparison,
    Entry,
    Key,
    Measure,
    Subject,
    Target,
)

# A sample for each round in which the case could be measured.
Samples = Mapping[Key, Mapping[int, Sample]]


@dataclass(frozen=True)
class Line:
    """A line of the table, as text."""

    who: str
    time: str = ""
    baseline: str = ""
    result: str = ""
    spread: str = ""
    target: str = ""
    verdict: str = ""
    cpu: str = ""
    exported: str = ""


@dataclass(frozen=True)
class Group:
    """A subject's lines under its title."""

    title: str
    lines: Sequence[Line]


def duration(ns: float) -> str:
    """Three digits and a unit."""
    for unit, size in (("ms", 1e6), ("us", 1e3)):
        if abs(ns) >= size:
            value = ns / size
            return f"{value:.{2 if abs(value) < 10 else 1 if abs(value) < 100 else 0}f} {unit}"
    return f"{ns:.0f} ns"


def _added(ns: float) -> str:
    return ("+" if ns >= 0 else "") + duration(ns)


def _factor(value: float) -> str:
    return f"{value:.2f}x" if value < 100 else f"{value:.0f}x"


def _fraction(value: float) -> str:
    return f"1/{1 / value:.0f}" if 0 < value < 0.1 else f"{value:.2f}x"


def _line(who: str, values: Sequence[float], text: Callable[[float], str], target: Target | None, lost: int) -> Line:
    result = median(values)
    line = Line(who, result=text(result), spread=f"{text(min(values))} .. {text(max(values))}")
    if target is None:
        return line
    verdict = ("met" if result <= target.at_most else "not met") if target.applies else ""
    return replace(line, target=target.text, verdict=f"{verdict}, spans lost" if verdict and lost else verdict)


def _pairs(who: str, pairs: Sequence[Pair], measure: Measure, target: Target | None, lost: int = 0) -> Line:
    if measure == "ratio":
        line = _line(who, [pair.ratio for pair in pairs], _factor, target, lost)
    else:
        line = _line(who, [pair.added_ns for pair in pairs], _added, target, lost)
    return replace(
        line,
        time=duration(median(pair.subject_ns for pair in pairs)),
        baseline=duration(median(pair.baseline_ns for pair in pairs)),
    )


def _entry(entry: Entry, measure: Measure, samples: Samples, absent: str) -> Line:
    measured = list(samples.get(entry.key, {}).values())
    if not measured:
        return Line(entry.who, result=absent, target=entry.target.text if entry.target else "")
    lost = sum(sample.lost for sample in measured)
    line = _pairs(entry.who, measured, measure, entry.target, lost)
    line = replace(line, cpu=duration(median(sample.cpu_ns for sample in measured)))
    if any(sample.exported is None for sample in measured):
        return replace(line, exported="not counted")
    exported = sum(sample.exported or 0 for sample in measured)
    return replace(line, exported=f"{exported:,}" + (f", {lost:,} LOST" if lost else ""))


def _comparison(comparison: Comparison, samples: Samples) -> Line:
    subject, other = samples.get(comparison.subject, {}), samples.get(comparison.other, {})
    rounds = sorted(subject.keys() & other.keys())
    if not rounds:
        return Line(comparison.who, result="-", target=comparison.target.text if comparison.target else "")

    def value(sample: Sample) -> float:
        return sample.added_ns if comparison.by == "added" else sample.subject_ns

    lost = sum(subject[number].lost + other[number].lost for number in rounds)
    values = [value(subject[number]) / value(other[number]) for number in rounds]
    return replace(
        _line(comparison.who, values, _fraction, comparison.target, lost),
        time=duration(median(value(subject[number]) for number in rounds)),
        baseline=duration(median(value(other[number]) for number in rounds)),
    )


def subject_group(subject: Subject, samples: Samples, absent: Callable[[Key], str]) -> Group:
    """The lines of a subject; `absent` says why an entry was not measured."""
    entries = [_entry(entry, subject.measure, samples, absent(entry.key)) for entry in subject.entries]
    return Group(subject.title, [*entries, *(_comparison(comparison, samples) for comparison in subject.comparisons)])


def pipeline_group(pipeline: Pipeline) -> Group:
    """What the exporter thread takes, sends and holds."""
    if not pipeline.sent:
        return Group(PIPELINE_TITLE, [Line("rvh_trace", result="measured on Linux alone")])

    def memory(who: str, loads: Sequence[Load], growth: bool, target: Target | None) -> Line:
        values = [(load.growth_bytes if growth else load.added_bytes) / MIB for load in loads]
        return _line(who, values, lambda value: f"{value:+.1f} MiB", target, 0)

    rate = _line(
        "exported a second",
        [-value for value in pipeline.per_second],
        lambda value: f"{-value:,.0f}/s",
        EXPORT_RATE_TARGET,
        pipeline.lost,
    )
    exported = sum(load.exported for load in pipeline.sent)
    lost = f", {pipeline.lost:,} LOST" if pipeline.lost else ""
    return Group(
        PIPELINE_TITLE,
        [
            _line("exporter thread, CPU a span", pipeline.cpu_ns_per_span, duration, EXPORT_CPU_TARGET, pipeline.lost),
            replace(rate, exported=f"{exported:,}{lost}"),
            memory("resident, over the application", pipeline.sent, False, RESIDENT_TARGET),
            memory("the same without a collector", pipeline.undelivered, False, RESIDENT_TARGET),
            memory("of it by the second half million", pipeline.undelivered, True, None),
        ],
    )


def import_group(imports: Mapping[str, Sequence[Pair]]) -> Group:
    """What imports add; a library without samples is not installed."""
    target = {"rvh_trace": IMPORT_TARGET}
    lines = [
        _pairs(name, pairs, "adds", target.get(name)) if pairs else Line(name, result="not installed")
        for name, pairs in imports.items()
    ]
    return Group(IMPORT_TITLE, lines)


def idle_group(idle: Mapping[str, Sequence[Pair]]) -> Group:
    """What watches take; a loop without samples is not installed."""
    lines = [
        _pairs(name, pairs, "adds", IDLE_TARGET) if pairs else Line(name, result="not installed")
        for name, pairs in idle.items()
    ]
    return Group(IDLE_TITLE, lines)


def size_group(sizes: Mapping[str, ModuleSize | None]) -> Group:
    """How large native modules are; the bare figure where there is no `strip`."""
    lines: list[Line] = []
    for name, size in sizes.items():
        if size is None:
            lines.append(Line(name, result="not installed"))
            continue
        measured = size.as_built if size.stripped is None else size.stripped
        line = Line(name, result=f"{measured / 1e6:.2f} MB", spread=f"as built {size.as_built / 1e6:.2f} MB")
        if name == "rvh_trace":
            verdict = "met" if measured <= SIZE_TARGET.at_most else "not met"
            line = replace(line, target=SIZE_TARGET.text, verdict=verdict)
        lines.append(line)
    return Group(SIZE_TITLE, lines)
