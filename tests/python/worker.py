"""What the processes of `test_process_models.py` run: in a module, for processes that are not forked import it."""

import os

import rvh_trace


def set_up() -> None:
    rvh_trace.init_tracing("shop")


def work(number: int) -> int:
    """Makes a span and does not flush it; the process that ran it."""
    with rvh_trace.span("work", number=number, pid=os.getpid()):
        pass
    return os.getpid()


def fail(number: int) -> None:
    """As `set_up_and_work`, and raises."""
    set_up_and_work(number)
    raise SystemExit(3)


def set_up_and_work(number: int) -> int:
    set_up()
    return work(number)


def work_at_the_end(number: int) -> None:
    """As `work`, and once more from a finalizer of the process."""
    from multiprocessing.util import Finalize

    Finalize(None, work, args=(number + 1,), exitpriority=-5)
    set_up_and_work(number)


def work_below() -> None:
    """As `set_up_and_work`, in the trace of `TRACEPARENT`."""
    set_up()
    with rvh_trace.use_context(rvh_trace.extract({"traceparent": os.environ["TRACEPARENT"]})):
        work(1)
