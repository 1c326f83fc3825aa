"""`rvh_trace`; the caller's `traceparent` decides whether a request is sampled."""

import rvh_trace
from rvh_trace import RvhTraceMiddleware

from .contender import Contender

DRAIN_TIMEOUT_MS = 10_000


def open_contender(endpoint: str) -> Contender:
    """Defaults throughout."""
    rvh_trace.init_tracing("bench", endpoint=endpoint)
    return Contender(
        f"rvh_trace {rvh_trace.__version__}",
        lambda app: app.add_middleware(RvhTraceMiddleware),
        lambda: rvh_trace.force_flush(DRAIN_TIMEOUT_MS),
        lambda: int(rvh_trace.stats()["exported"]),
    )
