"""Every way in which Python makes processes: the spans of all of them arrive, each once.

The processes end as they end in an application: nothing here flushes unless it says why.
"""

import os
from pathlib import Path

import pytest
from interpreter import run_script
from receiver import ReceivedSpan, Receiver

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")

# Since 3.12 a fork with the export thread alive is a DeprecationWarning of Python's.
OPTIONS = ("-W", "error", "-W", "ignore::DeprecationWarning")
START_METHODS = ["fork", "forkserver", "spawn"]
HERE = str(Path(__file__).parent)


def run(script: str, receiver: Receiver) -> list[ReceivedSpan]:
    """What arrived of a script that ended well and silently; no span and no id twice."""
    finished = run_script(script, options=OPTIONS, OTEL_EXPORTER_OTLP_ENDPOINT=receiver.http_endpoint, PYTHONPATH=HERE)
    assert (finished.returncode, finished.stderr) == (0, ""), finished.stderr
    arrived = receiver.spans
    assert len({one.span_id for one in arrived}) == len(arrived), "a span arrived twice"
    return arrived


def numbers(arrived: list[ReceivedSpan]) -> list[object]:
    return sorted(one.attributes["number"] for one in arrived if one.name == "work")  # type: ignore[type-var]  # pyright: ignore[reportArgumentType, reportCallIssue]


def pids(arrived: list[ReceivedSpan]) -> set[int]:
    """The processes that made spans, from what they say of themselves; their resources must agree."""
    for one in arrived:
        resource = {pair.key: pair.value.int_value for pair in one.resource.attributes}
        assert one.attributes["pid"] == resource["process.pid"], one.name
    return {int(str(one.attributes["pid"])) for one in arrived}


@pytest.mark.parametrize("method", START_METHODS)
class TestMultiprocessing:
    def test_processes(self, receiver: Receiver, method: str) -> None:
        arrived = run(
            f"""
            import multiprocessing
            import worker
            worker.set_up()
            worker.work(0)
            context = multiprocessing.get_context("{method}")
            # What is not forked has nothing set up: its work begins with that.
            target = worker.work if "{method}" == "fork" else worker.set_up_and_work
            processes = [context.Process(target=target, args=(number,)) for number in (1, 2, 3)]
            for process in processes:
                process.start()
            for process in processes:
                process.join()
            assert [process.exitcode for process in processes] == [0, 0, 0]
            worker.work(4)
            """,
            receiver,
        )
        assert numbers(arrived) == [0, 1, 2, 3, 4]
        assert len({one.trace_id for one in arrived}) == 5
        assert len(pids(arrived)) == 4

    def test_a_pool_of_processes(self, receiver: Receiver, method: str) -> None:
        arrived = run(
            f"""
            import multiprocessing
            from concurrent.futures import ProcessPoolExecutor
            import worker
            worker.set_up()
            context = multiprocessing.get_context("{method}")
            with ProcessPoolExecutor(2, mp_context=context, initializer=worker.set_up) as pool:
                assert len(list(pool.map(worker.work, range(40)))) == 40
            with context.Pool(2, initializer=worker.set_up) as pool:
                pool.map(worker.work, range(40, 60))
                pool.close()
                pool.join()
            worker.work(60)
            """,
            receiver,
        )
        assert numbers(arrived) == list(range(61))
        assert len({one.trace_id for one in arrived}) == 61
        assert len(pids(arrived)) >= 3

    def test_a_child_that_fails_sends_what_it_has(self, receiver: Receiver, method: str) -> None:
        arrived = run(
            f"""
            import multiprocessing
            import worker
            worker.set_up()
            process = multiprocessing.get_context("{method}").Process(target=worker.fail, args=(1,))
            process.start()
            process.join()
            assert process.exitcode == 3, process.exitcode
            """,
            receiver,
        )
        assert numbers(arrived) == [1]

    def test_a_finalizer_of_the_application_is_still_traced(self, receiver: Receiver, method: str) -> None:
        arrived = run(
            f"""
            import multiprocessing
            import worker
            process = multiprocessing.get_context("{method}").Process(target=worker.work_at_the_end, args=(1,))
            process.start()
            process.join()
            assert process.exitcode == 0
            """,
            receiver,
        )
        assert numbers(arrived) == [1, 2]


class TestFork:
    def test_a_program_that_the_child_executes_has_its_own_spans(self, receiver: Receiver) -> None:
        arrived = run(
            """
            import os, sys
            import rvh_trace, worker
            worker.set_up()
            with rvh_trace.span("parent", pid=os.getpid()):
                rvh_trace.inject(carrier := {})
                pid = os.fork()
                if not pid:
                    program = [sys.executable, "-c", "import worker; worker.work_below()"]
                    os.execve(sys.executable, program, os.environ | {"TRACEPARENT": carrier["traceparent"]})
                assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
            """,
            receiver,
        )
        found = {one.name: one for one in arrived}
        assert sorted(found) == ["parent", "work"]
        assert found["work"].parent_id == found["parent"].span_id
        assert len(pids(arrived)) == 2

    def test_an_executed_program_inherits_no_connection(self, receiver: Receiver) -> None:
        run(
            """
            import os, subprocess, sys
            import worker
            worker.set_up()
            worker.work(1)
            import rvh_trace
            assert rvh_trace.force_flush()
            open_files = [os.path.realpath(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd")]
            assert any("socket:" in name for name in open_files), open_files
            program = "import os; print(*sorted(int(fd) for fd in os.listdir('/proc/self/fd')))"
            inherited = subprocess.run(
                [sys.executable, "-c", program], close_fds=False, stdout=subprocess.PIPE, check=True, text=True
            ).stdout.split()
            # 0 to 2, and the directory that is being listed.
            assert len(inherited) == 4, inherited
            """,
            receiver,
        )

    def test_a_daemon_traces_on_after_its_parents_have_gone(self, receiver: Receiver) -> None:
        """Two forks, a session of its own, and parents that leave by `os._exit`, which runs nothing: they flush."""
        arrived = run(
            """
            import os
            import rvh_trace, worker
            worker.set_up()
            worker.work(0)
            read, write = os.pipe()
            pid = os.fork()
            if not pid:
                os.setsid()
                worker.work(1)
                if os.fork():
                    assert rvh_trace.force_flush()
                    os._exit(0)
                os.chdir("/")
                os.close(read)
                worker.work(2)
                raise SystemExit  # closes `write` once everything is sent
            os.close(write)
            assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
            assert os.read(read, 1) == b""
            """,
            receiver,
        )
        assert numbers(arrived) == [0, 1, 2]
        assert len({one.trace_id for one in arrived}) == 3
        assert len(pids(arrived)) == 3

    def test_forks_of_forks(self, receiver: Receiver) -> None:
        arrived = run(
            """
            import os, sys
            import worker
            worker.set_up()
            pid = 0
            for generation in range(6):
                worker.work(generation)
                pid = os.fork()
                if pid:
                    break
            else:
                raise SystemExit
            assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
            """,
            receiver,
        )
        assert numbers(arrived) == list(range(6))
        assert len({one.trace_id for one in arrived}) == 6
        assert len(pids(arrived)) == 6


FORKS = int(os.environ.get("RVH_TRACE_FORKS", "200"))


@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_forks_while_the_worker_is_at_work_never_deadlock(receiver: Receiver, protocol: str) -> None:
    """Children of children too: those are forked while their parent's worker starts, builds its exporter and connects.

    A child that waits for a lock that its parent's threads held at the fork is killed by its alarm.
    """
    finished = run_script(
        f"""
        import os, signal, threading
        import rvh_trace
        rvh_trace.init_tracing("shop", schedule_delay_ms=1, max_export_batch_size=16)
        stop = threading.Event()

        def load():
            # As fast as the receiver can take it: there is always something to send, and the queue is never full.
            while not stop.wait(0.002):
                if rvh_trace.stats()["pending"] < 100:
                    for number in range(10):
                        with rvh_trace.span("load", {{"number": number}}) as one:
                            one.add_event("event")

        def one(name):
            signal.alarm(20)
            with rvh_trace.span(name):
                pass

        def wait_for(pid):
            code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
            assert code == 0, code

        threads = [threading.Thread(target=load) for _ in range(2)]
        for thread in threads:
            thread.start()
        for number in range({FORKS} // 2):
            pid = os.fork()
            if not pid:
                one("child")
                below = os.fork()
                one("child" if below else "grandchild")
                if below:
                    wait_for(below)
                os._exit(0 if rvh_trace.force_flush(15_000) else 1)
            wait_for(pid)
        stop.set()
        for thread in threads:
            thread.join()
        assert rvh_trace.force_flush()
        stats = rvh_trace.stats()
        assert stats["exported"] == stats["ended"] > 0, stats
        print(stats["ended"])
        """,
        60 + FORKS,
        options=OPTIONS,
        OTEL_EXPORTER_OTLP_ENDPOINT=receiver.endpoint("grpc" if protocol == "grpc" else "http"),
        OTEL_EXPORTER_OTLP_PROTOCOL="grpc" if protocol == "grpc" else "http/protobuf",
    )
    assert (finished.returncode, finished.stderr) == (0, ""), finished.stderr
    arrived = receiver.spans
    ids = {one.span_id for one in arrived}
    assert len(ids) == len(arrived), "a span arrived twice"
    names = [one.name for one in arrived]
    assert names.count("load") == int(finished.stdout)
    assert (names.count("child"), names.count("grandchild")) == (FORKS // 2 * 2, FORKS // 2)
