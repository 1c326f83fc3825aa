"""The thread that has markers of open spans exported.

A thread of Python's, because the list of open spans is read under the GIL and the native worker never takes that. It
sleeps but for a few microseconds an interval, and nothing waits for it to end: it is a daemon.
"""

from __future__ import annotations

import os
import threading
from time import sleep

from rvh_trace._rvh_trace import export_pending

_interval_s: float | None = None


def start(interval_s: float) -> None:
    """Exports a marker of every span that has been open for `interval_s` seconds, as often. Later calls do nothing."""
    global _interval_s
    if _interval_s is not None:
        return
    _interval_s = interval_s
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=_start_thread)
    _start_thread()


def _start_thread() -> None:
    threading.Thread(target=_beat, name="rvh-trace-heartbeat", daemon=True).start()


def _beat() -> None:
    while _interval_s is not None:
        sleep(_interval_s)
        export_pending(_interval_s)
