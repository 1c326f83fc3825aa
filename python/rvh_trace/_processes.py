"""Child processes of Python: what they must know when they begin, and how their last spans are sent.

`os.register_at_fork` tells of every fork that Python makes. The end is told by `atexit`, except in the children that
`multiprocessing` forks, and so in those of `ProcessPoolExecutor`: they forget what their parent registered, run
finalizers of their own and leave by `os._exit`; since 3.13 they run `atexit` functions of their own too, before the
finalizers. Each begins by calling what `register_after_fork` was given.
Nothing is imported that the process has not imported itself.
"""

from __future__ import annotations

import os
import sys

from rvh_trace import _rvh_trace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import ModuleType

# After the finalizers of the application (their priorities are numbers from 0 up), which may end spans.
_LAST = -1_000_000

_exit_registered = False
_hooked: ModuleType | None = None


def watch_forks() -> None:
    """Gives every forked child ids, a queue and a worker of its own. Called once, when the package is imported."""
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=_enter_forked_child)


def flush_at_exit() -> None:
    """Sends what is queued when this process ends, and when a process ends that `multiprocessing` makes of it."""
    global _exit_registered
    if _exit_registered:
        return
    _exit_registered = True
    # Since 3.13 a child of `multiprocessing` runs `atexit` too, and before the finalizers of the application.
    if not _watch_multiprocessing():
        import atexit

        atexit.register(_rvh_trace.at_exit)


def _enter_forked_child() -> None:
    _rvh_trace.after_fork_in_child()
    if _exit_registered:
        _watch_multiprocessing()


def _watch_multiprocessing() -> bool:
    """Whether this process is a child of `multiprocessing`, whose end is now taken care of."""
    # It is there in every child of its own, before that child runs.
    util = sys.modules.get("multiprocessing.util")
    process = sys.modules.get("multiprocessing.process")
    if util is None or process is None:
        return False
    global _hooked
    if _hooked is not util:
        util.register_after_fork(util, _flush_at_end_of_child)
        _hooked = util
    if process.parent_process() is None:
        return False
    _flush_at_end_of_child(util)
    return True


def _flush_at_end_of_child(util: ModuleType) -> None:
    util.Finalize(None, _rvh_trace.at_exit, exitpriority=_LAST)
