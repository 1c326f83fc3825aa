"""Scripts of tests about what Rust code records: `init_tracing` with the arguments, spans kept in memory."""

import textwrap
from typing import Any

from interpreter import run_quietly

PRELUDE = """
import asyncio, logging, os, sys, threading, time
import rvh_trace
from rvh_trace import current_span, extract, span, span_future, stats, use_context
from rvh_trace._rvh_trace import (
    await_instrumented, call_instrumented, call_suppressed, log_instrumented, time_instrumented
)
from rvh_trace.testing import InMemoryExporter

class Kept(logging.Handler):
    def __init__(self):
        super().__init__(1)
        self.records = []

    def emit(self, record):
        self.records.append(record)

    def wait_for(self, count):
        wait_until(lambda: len(self.records) >= count, lambda: self.said())

    def said(self):
        return [(one.levelname, one.name, one.getMessage()) for one in self.records]

def wait_until(done, state=lambda: ""):
    deadline = time.monotonic() + 20
    while not done():
        assert time.monotonic() < deadline, state()
        time.sleep(0.001)

def parents(spans):
    names = {one.span_id: one.name for one in spans}
    return {one.name: names.get(one.parent_span_id) for one in spans}

kept = Kept()
logging.getLogger().addHandler(kept)
logging.getLogger().setLevel(1)
logging.getLogger("asyncio").setLevel(logging.WARNING)
rvh_trace.init_tracing("shop", exporter="none", **ARGUMENTS)
spans = InMemoryExporter()
spans.install()
"""


def run_instrumented(script: str, /, environ: dict[str, Any] | None = None, **arguments: object) -> str:
    """Runs the script after `init_tracing(**arguments)`; it must succeed without a word. What it printed."""
    prelude = PRELUDE.replace("ARGUMENTS", repr(arguments))
    return run_quietly(prelude + textwrap.dedent(script), **(environ or {}))
