"""What is measured, against what, and what it may cost."""

import sys
from dataclasses import dataclass, field
from typing import Literal

Measure = Literal["ratio", "adds"]
# A contender and one of its cases.
Key = tuple[str, str]


@dataclass(frozen=True)
class Target:
    """The most a result may be: a factor, or nanoseconds. `applies` is false where the figure was not meant for."""

    at_most: float
    text: str
    applies: bool = True


@dataclass(frozen=True)
class Entry:
    """A line of the table: a case of one contender."""

    who: str
    contender: str
    case: str
    target: Target | None = None

    @property
    def key(self) -> Key:
        return self.contender, self.case


@dataclass(frozen=True)
class Comparison:
    """A line that sets one entry against another of the same round, by what each adds or by its whole time."""

    who: str
    subject: Key
    other: Key
    by: Literal["added", "time"]
    target: Target | None = None


@dataclass(frozen=True)
class Subject:
    """A group of lines with the same meaning."""

    name: str
    title: str
    measure: Measure
    entries: tuple[Entry, ...]
    comparisons: tuple[Comparison, ...] = field(default=())

    def measured(self) -> tuple[Key, ...]:
        """Every case that the lines need, once."""
        compared = (key for comparison in self.comparisons for key in (comparison.subject, comparison.other))
        return tuple(dict.fromkeys((*(entry.key for entry in self.entries), *compared)))


def _three(case: str, target: Target | None) -> tuple[Entry, ...]:
    return (
        Entry("rvh_trace", "rvh_trace", case, target),
        Entry("opentelemetry-sdk", "opentelemetry", case),
        Entry("pytracingx", "pytracingx", case),
    )


A_THIRD = Target(1 / 3, "<= 0.33x")
TASK_NS, TASK_TEXT = (600, "<= +0.6 us (3.11)") if sys.version_info[:2] == (3, 11) else (900, "<= +0.9 us")
TASK = Target(TASK_NS, TASK_TEXT)
A_TWENTIETH_MORE = Target(1.05, "<= 1.05x")
NINETEEN_OF_TWENTY = Target(1 / 0.95, "<= 1.05x")

SUBJECTS = (
    Subject(
        "span",
        'with span("op"): pass; baseline: a pure-Python no-op with the same signature',
        "ratio",
        _three("span", Target(1.5, "<= 1.50x")),
    ),
    Subject(
        "attributes",
        "the same with five attributes and one set_attribute; baseline: the no-op given the same",
        "ratio",
        _three("attributes", Target(1.8, "<= 1.80x")),
    ),
    Subject(
        "layers",
        'with span("op"): pass, seen by a layer with every method; baseline: a pure-Python no-op of the same signature',
        "ratio",
        (
            Entry("rvh_trace, no layer", "rvh_trace", "span"),
            Entry("rvh_trace, a no-op layer, full queue and GIL contention included", "rvh_trace-layer", "span"),
            Entry("rvh_trace, a no-op layer, immediate", "rvh_trace-immediate_layer", "span"),
        ),
    ),
    Subject(
        "server",
        "a server span and its duration metric on a bare ASGI application; baseline: the application alone",
        "adds",
        (
            Entry("rvh_trace", "rvh_trace", "server", Target(1_600, "<= +1.6 us")),
            Entry("rvh_trace, without the metric", "rvh_trace-without_metrics", "server"),
            Entry("opentelemetry-instrumentation-asgi, one span", "opentelemetry", "server"),
            Entry("opentelemetry-instrumentation-asgi, three spans", "opentelemetry", "server-three-spans"),
            Entry("starlette OpenTelemetryMiddleware", "opentelemetry", "server-starlette"),
            Entry("pytracingx, by hand", "pytracingx", "server"),
        ),
        (
            Comparison(
                "rvh_trace adds, to opentelemetry one span adds",
                ("rvh_trace", "server"),
                ("opentelemetry", "server"),
                "added",
                Target(1 / 60, "<= 1/60"),
            ),
        ),
    ),
    Subject(
        "task",
        "a task span with timings on await create_task(noop()) in a current span; baseline: no task span",
        "adds",
        (
            Entry("rvh_trace, install_task_factory", "rvh_trace", "task", TASK),
            Entry("rvh_trace, install_task_factory, uvloop", "rvh_trace", "task-uvloop", TASK),
            Entry("opentelemetry-sdk, by hand in the coroutine", "opentelemetry", "task"),
            Entry("pytracingx, by hand in the coroutine", "pytracingx", "task"),
        ),
    ),
    Subject(
        "tasks",
        "10,000 tasks at once that each await ten sleep(0), for a task; baseline: no task spans",
        "ratio",
        (
            Entry("rvh_trace, install_task_factory", "rvh_trace", "tasks", NINETEEN_OF_TWENTY),
            Entry("rvh_trace, install_task_factory, uvloop", "rvh_trace", "tasks-uvloop", NINETEEN_OF_TWENTY),
        ),
    ),
    Subject(
        "executor",
        "ThreadPoolExecutor.submit and the call itself in a current span, no thread between; baseline: untraced",
        "adds",
        (Entry("rvh_trace, instrument_executors", "rvh_trace", "executor", Target(1_000, "<= +1.0 us")),),
    ),
    Subject(
        "rust-recorded",
        "a `tracing` span of Rust code in a current span, recorded; baseline: the same Rust function bare",
        "adds",
        (Entry('rvh_trace, rust_log="info"', "rvh_trace-rust_log", "rust-recorded", Target(1_500, "<= +1.5 us")),),
    ),
    Subject(
        "rust-filtered",
        "a `tracing` span of Rust code that the filter leaves out; baseline: the same Rust function bare",
        "adds",
        (Entry('rvh_trace, rust_log="info"', "rvh_trace-rust_log", "rust-filtered", Target(20, "<= +20 ns")),),
    ),
    Subject(
        "extension",
        'info_span!("op") entered and left by Rust code of another extension module; baseline: the loop without it',
        "adds",
        (
            Entry("rvh_trace_client, recorded", "extension", "extension", Target(600, "<= +0.6 us")),
            Entry("rvh_trace_client, recorded, five fields", "extension", "extension-attributes"),
            Entry("rvh_trace_client, by hand: Span::builder", "extension", "extension-builder"),
            Entry(
                "rvh_trace_client, filtered out", "extension-filtered", "extension-filtered", Target(20, "<= +0.02 us")
            ),
            Entry("rvh_trace_client, not connected", "extension-unconnected", "extension-unconnected"),
            Entry("no subscriber", "extension-none", "extension-none"),
        ),
    ),
    Subject(
        "log",
        'logger.info("%d items", 3, extra={...}) in a current span; baseline: the logger with a NullHandler',
        "adds",
        (
            Entry("rvh_trace.logging.LoggingHandler", "rvh_trace", "log"),
            Entry("opentelemetry-instrumentation-logging, its LoggingHandler", "opentelemetry", "log"),
        ),
    ),
    Subject(
        "future",
        "a Rust future that is ready, awaited in Python; baseline: future_into_py of pyo3-async-runtimes",
        "ratio",
        (
            Entry("rvh_trace_client, in a span", "futures", "future", A_TWENTIETH_MORE),
            Entry("rvh_trace_client, without one", "futures", "future-without-span"),
            Entry("rvh_trace_client, in a span, 50 at once", "futures", "futures-at-once"),
        ),
    ),
    Subject(
        "unsampled",
        'with span("op"): pass, remote parent not sampled; baseline: remote parent sampled',
        "ratio",
        _three("unsampled", A_THIRD),
    ),
    Subject(
        "unsampled-attributes",
        "the same with five attributes from a dict that exists and one set_attribute; baseline: remote parent sampled",
        "ratio",
        _three("unsampled-attributes", A_THIRD),
    ),
    Subject(
        "server-unsampled",
        "a server span that is not sampled; baseline: the application alone",
        "adds",
        (
            Entry(
                "rvh_trace, traceparent not sampled, without the metric",
                "rvh_trace-without_metrics",
                "server-unsampled",
                Target(700, "<= +0.7 us"),
            ),
            Entry("rvh_trace, traceparent not sampled, with the metric", "rvh_trace", "server-unsampled"),
            Entry("rvh_trace, sampler always_off, with the metric", "rvh_trace-always_off", "server"),
            Entry("opentelemetry-instrumentation-asgi, one span", "opentelemetry", "server-unsampled"),
            Entry("starlette OpenTelemetryMiddleware", "opentelemetry", "server-starlette-unsampled"),
            Entry("pytracingx, by hand", "pytracingx", "server-unsampled"),
        ),
        (
            Comparison(
                "rvh_trace adds, not sampled to sampled, without the metric",
                ("rvh_trace-without_metrics", "server-unsampled"),
                ("rvh_trace-without_metrics", "server"),
                "added",
            ),
        ),
    ),
    Subject(
        "always-off",
        "root spans, sampler always_off; baseline: a pure-Python no-op with the same signature",
        "ratio",
        (
            Entry('rvh_trace, with span("op"): pass', "rvh_trace-always_off", "span"),
            Entry("rvh_trace, five attributes and one set_attribute", "rvh_trace-always_off", "attributes"),
        ),
        (
            Comparison(
                'with span("op"): pass adds, to what it adds sampled',
                ("rvh_trace-always_off", "span"),
                ("rvh_trace", "span"),
                "added",
                A_THIRD,
            ),
            Comparison(
                "with attributes adds, to what it adds sampled",
                ("rvh_trace-always_off", "attributes"),
                ("rvh_trace", "attributes"),
                "added",
                A_THIRD,
            ),
        ),
    ),
)

IMPORT = "import"
IMPORT_TITLE = "import, in a new interpreter; baseline: an interpreter that does nothing"
IMPORT_TARGET = Target(15_000_000, "<= +15 ms")
IDLE = "idle"
IDLE_TITLE = "processor time that watch_loop() takes in a second of an idle loop; baseline: not watched"
IDLE_TARGET = Target(5_000_000, "<= +5 ms (0.5 %)")
SIZE = "size"
SIZE_TITLE = "the native module, stripped (MB = 1,000,000 bytes)"
SIZE_TARGET = Target(6_000_000, "<= 6 MB")

PIPELINE = "pipeline"
PIPELINE_TITLE = "the pipeline: a million spans, 210,000 a second, application and exporter on one core, http/protobuf"
EXPORT_CPU_TARGET = Target(200, "<= 0.2 us")
EXPORT_RATE_TARGET = Target(-200_000, ">= 200,000/s")
RESIDENT_TARGET = Target(12, "<= +12 MiB")
NAMES = (*(subject.name for subject in SUBJECTS), PIPELINE, IMPORT, IDLE, SIZE)
