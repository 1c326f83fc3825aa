"""From samples to the lines of the table: medians over rounds of what is compared within a round."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import astuple, dataclass
from statistics import median

from .contender import OURS, UNTRACED, Entry
from .run import Measured, Sample

KEPT_AT_LEAST = 0.92
P99_AT_MOST = 1.10


@dataclass(frozen=True)
class Line:
    """A line of the table, as text."""

    who: str
    requests: str = ""
    kept: str = ""
    spread: str = ""
    p50: str = ""
    p50_ratio: str = ""
    p99: str = ""
    p99_ratio: str = ""
    cpu: str = ""
    exported: str = ""
    verdict: str = ""


HEADER = Line(
    "",
    "requests/s",
    "of untraced",
    "lowest .. highest",
    "p50",
    "to untraced",
    "p99",
    "to untraced",
    "cpu a request",
    "spans exported",
    "targets: 92% of the requests, p99 1.10x",
)
LEFT = {0, 10}


def _milliseconds(us: float) -> str:
    return f"{us / 1e3:.2f} ms"


def _exported(samples: Sequence[Sample]) -> str:
    if any(sample.exported is None for sample in samples):
        return "not counted"
    exported, lost = sum(sample.exported or 0 for sample in samples), sum(sample.lost for sample in samples)
    return f"{exported:,}" + (f", {lost:,} LOST" if lost else "")


def _verdict(kept: float, p99: float, samples: Sequence[Sample]) -> str:
    verdict = f"{'met' if kept >= KEPT_AT_LEAST else 'not met'}, {'met' if p99 <= P99_AT_MOST else 'not met'}"
    return verdict + (", spans lost" if any(sample.lost for sample in samples) else "")


def _line(entry: Entry, samples: Mapping[int, Sample], untraced: Mapping[int, Sample]) -> Line:
    found = list(samples.values())
    pairs = [(samples[number], untraced[number]) for number in sorted(samples.keys() & untraced.keys())]

    def ratios(value: Callable[[Sample], float]) -> list[float]:
        return [value(sample) / value(base) for sample, base in pairs]

    kept = ratios(lambda sample: sample.load.requests_per_s)
    p99 = median(ratios(lambda sample: sample.load.p99_us))
    failed = sum(sample.load.failed for sample in found)
    return Line(
        entry.who + (f" ({failed} requests failed)" if failed else ""),
        f"{median(sample.load.requests_per_s for sample in found):,.0f}",
        f"{median(kept):.1%}",
        f"{min(kept):.1%} .. {max(kept):.1%}",
        _milliseconds(median(sample.load.p50_us for sample in found)),
        f"{median(ratios(lambda sample: sample.load.p50_us)):.2f}x",
        _milliseconds(median(sample.load.p99_us for sample in found)),
        f"{p99:.2f}x",
        f"{median(sample.cpu_us for sample in found):.1f} us",
        _exported(found),
        _verdict(median(kept), p99, found) if entry.name == OURS else "",
    )


def lines(entries: Sequence[Entry], measured: Measured) -> list[Line]:
    """One for each contender."""
    untraced = measured.samples[UNTRACED]
    found: list[Line] = []
    for entry in entries:
        samples = measured.samples[entry.name]
        if samples.keys() & untraced.keys():
            found.append(_line(entry, samples, untraced))
        else:
            found.append(Line(entry.who, "not installed" if entry.name in measured.missing else "failed"))
    return found


def plain(table: Sequence[Line]) -> str:
    """Columns padded with spaces."""
    rows = [astuple(line) for line in (HEADER, *table)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]

    def text(row: Sequence[str]) -> str:
        cells = [
            cell.ljust(width) if column in LEFT else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        return ("  " + "  ".join(cells)).rstrip()

    return "\n".join(text(row) for row in rows)


def markdown(table: Sequence[Line]) -> str:
    """A pipe table."""
    rows = ["| " + " | ".join(astuple(line)) + " |" for line in (HEADER, *table)]
    rule = "|" + "|".join("---" if column in LEFT else "---:" for column in range(len(astuple(HEADER)))) + "|"
    return "\n".join((rows[0], rule, *rows[1:]))
