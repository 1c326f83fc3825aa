"""Spans that another extension module makes in Rust, many in one call: `rvh_trace_client` through the capsule.

The module is that of the tests, released: `tools/extension_build.py` builds it, `make bench` does so first.
"""

import os
import sys
from importlib import import_module
from typing import Any

import rvh_trace
from tools.extension_build import TRACED_EXTENSION, directory_of

from .contender import Contender
from .measure import Case, Timed


def _module(subscriber: str) -> Any:
    os.environ["TRACED_EXTENSION"] = subscriber
    sys.path.insert(0, str(directory_of(TRACED_EXTENSION, "release")))
    return import_module("traced_extension")


def _contender(module: Any, endpoint: str, kinds: dict[str, tuple[str, int]]) -> Contender:
    def timed(kind: str) -> Timed:
        return lambda n: module.time_spans(kind, n)

    rvh_trace.init_tracing("bench", endpoint=endpoint)
    cases = {name: Case(timed(kind), timed("nothing"), spans) for name, (kind, spans) in kinds.items()}
    return Contender(
        f"rvh_trace {rvh_trace.__version__}",
        cases,
        lambda: rvh_trace.force_flush(10_000),
        lambda: int(rvh_trace.stats()["exported"]),
        lambda: rvh_trace.shutdown(5_000),
    )


def open_recorded(endpoint: str) -> Contender:
    """Recorded and exported."""
    kinds = {"extension": "empty", "extension-attributes": "attributes", "extension-builder": "builder"}
    return _contender(_module("layer"), endpoint, {name: (kind, 1) for name, kind in kinds.items()})


def open_filtered(endpoint: str) -> Contender:
    """Of a level that the layer leaves out."""
    return _contender(_module("filtered"), endpoint, {"extension-filtered": ("empty", 0)})


def open_unconnected(endpoint: str) -> Contender:
    """As where rvh_trace is not installed."""
    return _contender(_module("unconnected"), endpoint, {"extension-unconnected": ("empty", 0)})


def open_without_subscriber(endpoint: str) -> Contender:
    """As where nobody listens to `tracing`."""
    return _contender(_module("none"), endpoint, {"extension-none": ("empty", 0)})
