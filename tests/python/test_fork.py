"""Forked processes: own ids, own worker, nothing twice (pitfalls, "Processes, export, shutdown")."""

import os

import pytest
from interpreter import run_script
from receiver import Receiver

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")

# Since 3.12 a fork with the export thread alive is a DeprecationWarning of Python's.
OPTIONS = ("-W", "error", "-W", "ignore::DeprecationWarning")


def run_forking(script: str, receiver: Receiver) -> None:
    finished = run_script(script, options=OPTIONS, OTEL_EXPORTER_OTLP_ENDPOINT=receiver.http_endpoint)
    assert (finished.returncode, finished.stderr) == (0, ""), finished.stderr
    ids = [one.span_id for one in receiver.spans]
    assert len(set(ids)) == len(ids), "a span arrived twice"


@pytest.mark.parametrize("ending", ["assert rvh_trace.force_flush(); os._exit(0)", "raise SystemExit"])
def test_spans_of_parent_and_children_arrive_each_once_with_ids_of_their_own(receiver: Receiver, ending: str) -> None:
    run_forking(
        f"""
        import os
        import rvh_trace
        rvh_trace.init_tracing("shop")
        with rvh_trace.span("queued before the fork"):
            pass
        for _ in range(3):
            pid = os.fork()
            if not pid:
                for _ in range(10):
                    with rvh_trace.span("child", pid=os.getpid()):
                        pass
                {ending}
            assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        for _ in range(10):
            with rvh_trace.span("parent"):
                pass
        """,
        receiver,
    )
    arrived = receiver.spans
    assert sorted(one.name for one in arrived) == sorted(["queued before the fork"] + ["child"] * 30 + ["parent"] * 10)
    assert len({one.trace_id for one in arrived}) == 41
    pids = {str(one.attributes["pid"]) for one in arrived if one.name == "child"}
    assert len(pids) == 3


def test_the_resource_of_a_child_has_its_own_process_id(receiver: Receiver) -> None:
    run_forking(
        """
        import os
        import rvh_trace
        rvh_trace.init_tracing("shop")
        pid = os.fork()
        with rvh_trace.span("op", pid=os.getpid()):
            pass
        assert rvh_trace.force_flush()
        if not pid:
            os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        """,
        receiver,
    )
    pids = [
        (
            one.attributes["pid"],
            next(pair.value.int_value for pair in one.resource.attributes if pair.key == "process.pid"),
        )
        for one in receiver.spans
    ]
    assert len(pids) == 2
    assert all(one == another for one, another in pids)


def test_a_span_that_was_open_across_the_fork_is_exported_once_by_the_parent(receiver: Receiver) -> None:
    run_forking(
        """
        import os
        import rvh_trace
        rvh_trace.init_tracing("shop")
        with rvh_trace.span("open") as op:
            pid = os.fork()
            op.set_attribute("who", "child" if not pid else "parent")
            if not pid:
                with rvh_trace.span("in child"):
                    pass
            else:
                assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        """,
        receiver,
    )
    arrived = {one.name: one for one in receiver.spans}
    assert sorted(arrived) == ["in child", "open"]
    assert arrived["open"].attributes["who"] == "parent"
    assert arrived["in child"].parent_id == arrived["open"].span_id


def test_a_fork_before_set_up_is_two_processes_of_their_own(receiver: Receiver) -> None:
    run_forking(
        """
        import os
        import rvh_trace
        pid = os.fork()
        rvh_trace.init_tracing("shop")
        with rvh_trace.span("op"):
            pass
        if pid:
            assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        """,
        receiver,
    )
    assert [one.name for one in receiver.spans] == ["op", "op"]
    assert len({one.trace_id for one in receiver.spans}) == 2


def test_counters_of_a_child_start_at_nothing(receiver: Receiver) -> None:
    run_forking(
        """
        import os
        import rvh_trace
        rvh_trace.init_tracing("shop")
        with rvh_trace.span("op"):
            pass
        assert rvh_trace.force_flush()
        pid = os.fork()
        if not pid:
            stats = rvh_trace.stats()
            os._exit(stats["ended"] + stats["exported"])
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        assert rvh_trace.stats()["exported"] == 1
        """,
        receiver,
    )


def test_forking_while_other_threads_trace_never_deadlocks(receiver: Receiver) -> None:
    run_forking(
        """
        import os, threading
        import rvh_trace
        rvh_trace.init_tracing("shop", schedule_delay_ms=1)
        stop = threading.Event()

        def work():
            # Bursts, so that the receiver keeps up and the queue is never full.
            while not stop.wait(0.001):
                for _ in range(20):
                    with rvh_trace.span("thread", {"key": "value"}):
                        pass

        threads = [threading.Thread(target=work) for _ in range(2)]
        for thread in threads:
            thread.start()
        for _ in range(20):
            pid = os.fork()
            if not pid:
                with rvh_trace.span("child"):
                    pass
                os._exit(0 if rvh_trace.force_flush(10_000) else 1)
            assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        stop.set()
        for thread in threads:
            thread.join()
        """,
        receiver,
    )
    assert len([one for one in receiver.spans if one.name == "child"]) == 20


def test_multiprocessing_workers_deliver_their_spans(receiver: Receiver) -> None:
    run_forking(
        """
        import multiprocessing
        import rvh_trace

        def work(number):
            with rvh_trace.span("worker", number=number):
                pass

        rvh_trace.init_tracing("shop")
        with rvh_trace.span("parent"):
            process = multiprocessing.get_context("fork").Process(target=work, args=(3,))
            process.start()
            process.join()
        assert process.exitcode == 0
        """,
        receiver,
    )
    arrived = {one.name: one for one in receiver.spans}
    assert "parent" in arrived
    assert arrived["worker"].parent_id == arrived["parent"].span_id
