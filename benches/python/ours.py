"""`rvh_trace`, sampled and exported, with the sampler `always_off`, or with a layer."""

import asyncio
import logging
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from typing import Any, Literal

import rvh_trace
from rvh_trace._rvh_trace import time_instrumented
from rvh_trace.logging import LoggingHandler

from .contender import SAMPLED, UNSAMPLED, Contender
from .executors import submitted
from .logs import logged
from .measure import Case, Timed
from .server import bare, requests
from .spans import NoopSpan, empty, with_attributes, with_ready_attributes, within
from .tasks import CONCURRENT, awaited_tasks, concurrent_tasks, noop, ten_steps

VERSION = f"rvh_trace {rvh_trace.__version__}"


def _remote(traceparent: str) -> Callable[[], AbstractContextManager[Any]]:
    return lambda: rvh_trace.use_context(rvh_trace.extract({"traceparent": traceparent}))


def _parent() -> AbstractContextManager[Any]:
    return rvh_trace.span("parent")


def _task_cases(suffix: str, new_loop: Callable[[], asyncio.AbstractEventLoop]) -> dict[str, Case]:
    traced, untraced = new_loop(), new_loop()
    rvh_trace.install_task_factory(traced)
    return {
        f"task{suffix}": Case(awaited_tasks(noop, _parent, traced), awaited_tasks(noop, _parent, untraced), parents=1),
        f"tasks{suffix}": Case(
            concurrent_tasks(ten_steps, _parent, traced),
            concurrent_tasks(ten_steps, _parent, untraced),
            parents=1,
            fixed_batch=CONCURRENT,
        ),
    }


def _every_task_case() -> dict[str, Case]:
    cases = _task_cases("", asyncio.new_event_loop)
    try:
        import uvloop
    except ImportError:
        return cases
    return cases | _task_cases("-uvloop", uvloop.new_event_loop)


def _executor_case() -> Case:
    untraced = ThreadPoolExecutor.submit
    rvh_trace.instrument_executors()
    carried = ThreadPoolExecutor.submit
    return Case(
        submitted(carried, lambda: rvh_trace.span("parent")),
        submitted(untraced, lambda: rvh_trace.span("parent")),
        spans=0,
        parents=1,
    )


def _log_case() -> Case:
    return Case(logged(LoggingHandler(), _parent), logged(logging.NullHandler(), _parent), parents=1)


def _exported() -> int:
    stats = rvh_trace.stats()
    return stats["exported"] + stats["logs"]["exported"]


def _drain() -> None:
    if not rvh_trace.force_flush(10_000):
        # How many were lost shows in the table; the reason is here.
        print(f"rvh_trace: {rvh_trace.stats()}", flush=True)


def _init(endpoint: str, sampler: str) -> None:
    rvh_trace.init_tracing("bench", endpoint=endpoint, sampler=sampler)


def open_contender(endpoint: str) -> Contender:
    """Every case, sampled."""
    _init(endpoint, "parentbased_always_on")
    span = rvh_trace.span
    server = rvh_trace.RvhTraceMiddleware(bare)
    sampled, unsampled = _remote(SAMPLED), _remote(UNSAMPLED)
    cases = {
        "span": Case(empty(span), empty(NoopSpan)),
        "attributes": Case(with_attributes(span), with_attributes(NoopSpan)),
        "server": Case(requests(server), requests(bare)),
        "executor": _executor_case(),
        "log": _log_case(),
        **_every_task_case(),
        "unsampled": Case(within(unsampled, empty(span)), within(sampled, empty(span)), 0, 1),
        "unsampled-attributes": Case(
            within(unsampled, with_ready_attributes(span)), within(sampled, with_ready_attributes(span)), 0, 1
        ),
        "server-unsampled": Case(requests(server, UNSAMPLED), requests(bare, UNSAMPLED), 0),
    }
    return Contender(VERSION, cases, _drain, _exported, lambda: rvh_trace.shutdown(5_000))


def open_without_metrics(endpoint: str) -> Contender:
    """Server spans alone, without the duration metric."""
    os.environ["OTEL_METRICS_EXPORTER"] = "none"
    _init(endpoint, "parentbased_always_on")
    server = rvh_trace.RvhTraceMiddleware(bare)
    cases = {
        "server": Case(requests(server), requests(bare)),
        "server-unsampled": Case(requests(server, UNSAMPLED), requests(bare, UNSAMPLED), 0),
    }
    return Contender(VERSION, cases, _drain, _exported, lambda: rvh_trace.shutdown(5_000))


class NoopLayer:
    """The least that a layer which wants to know everything can do."""

    def on_new_span(self, span: object) -> None:
        pass

    def on_event(self, event: object, state: object) -> None:
        pass

    def on_record(self, record: object, state: object) -> None:
        pass

    def on_close(self, span: object, state: object) -> None:
        pass


def _open_with_layer(endpoint: str, *, immediate: bool) -> Contender:
    _init(endpoint, "parentbased_always_on")
    rvh_trace.add_layer(NoopLayer(), immediate=immediate)
    cases = {"span": Case(empty(rvh_trace.span), empty(NoopSpan))}
    return Contender(VERSION, cases, _drain, _exported, lambda: rvh_trace.shutdown(5_000))


def open_with_layer(endpoint: str) -> Contender:
    """An empty span that a layer sees later."""
    return _open_with_layer(endpoint, immediate=False)


def open_with_immediate_layer(endpoint: str) -> Contender:
    """An empty span that a layer sees at once."""
    return _open_with_layer(endpoint, immediate=True)


def open_unsampled(endpoint: str) -> Contender:
    """Root spans that the sampler turns down."""
    _init(endpoint, "always_off")
    span = rvh_trace.span
    cases = {
        "span": Case(empty(span), empty(NoopSpan), 0),
        "attributes": Case(with_attributes(span), with_attributes(NoopSpan), 0),
        "server": Case(requests(rvh_trace.RvhTraceMiddleware(bare)), requests(bare), 0),
    }
    return Contender(VERSION, cases, _drain, _exported, lambda: rvh_trace.shutdown(5_000))


def open_rust_log(endpoint: str) -> Contender:
    """Spans of Rust code, by way of `tracing`."""
    rust_log = "info,rvh_trace::filtered=off"
    rvh_trace.init_tracing("bench", endpoint=endpoint, sampler="parentbased_always_on", rust_log=rust_log)

    def instrumented(kind: Literal["bare", "recorded", "filtered"]) -> Timed:
        def timed(count: int) -> int:
            with rvh_trace.span("parent"):
                return time_instrumented(kind, count)

        return timed

    bare = instrumented("bare")
    cases = {
        "rust-recorded": Case(instrumented("recorded"), bare, parents=1),
        "rust-filtered": Case(instrumented("filtered"), bare, spans=0, parents=1),
    }
    return Contender(VERSION, cases, _drain, _exported, lambda: rvh_trace.shutdown(5_000))
