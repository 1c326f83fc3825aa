"""What bad use of the interface gets: a clear refusal or a counted no-op, never a crash or a hang."""

import ctypes
import os
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
from interpreter import Finished
from receiver import Receiver

import rvh_trace
from rvh_trace.testing import InMemoryExporter

Run = Callable[..., str]
Finish = Callable[..., Finished]

FORK_OPTIONS = "ignore::DeprecationWarning"

# A package that is called as ours, with a capsule of `version` and a table of `size` bytes.
FAKE = """
import ctypes
table = (ctypes.c_uint32 * 64)({version}, {size})
name = ctypes.create_string_buffer({name!r})
new = ctypes.pythonapi.PyCapsule_New
new.restype, new.argtypes = ctypes.py_object, (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p)
_C_API = new(ctypes.addressof(table), ctypes.addressof(name), None)
"""
CAPSULE = b"rvh_trace._rvh_trace._C_API"


@pytest.fixture
def fake(tmp_path: Path, extension_path: Path, finish_extension: Finish) -> Callable[..., Finished]:
    """Connects the extension to a fake."""

    def connect(native: str, package: str = "") -> Finished:
        (tmp_path / "rvh_trace").mkdir()
        (tmp_path / "rvh_trace" / "__init__.py").write_text(package)
        (tmp_path / "rvh_trace" / "_rvh_trace.py").write_text(native)
        return finish_extension(
            f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n"
            "import traced_extension\n"
            "assert not traced_extension.is_connected()\n"
            "print(traced_extension.connect())\n"
            "traced_extension.tree(3)\n"
            "traced_extension.Held('held').release()\n"
            "assert traced_extension.current() is None\n"
        )

    return connect


class TestConnecting:
    @pytest.mark.parametrize(
        ("version", "size", "found", "advice"),
        [
            (
                2,
                4096,
                "speaks version 2",
                "this extension version 1: update the crate rvh_trace_client of this extension",
            ),
            (0, 4096, "speaks version 0", "this extension version 1: update rvh_trace"),
            (1, 16, "offers 16 bytes of the interface for extensions", ": update rvh_trace"),
        ],
    )
    def test_another_interface_is_refused_politely(
        self, fake: Callable[..., Finished], version: int, size: int, found: str, advice: str
    ) -> None:
        finished = fake(FAKE.format(version=version, size=size, name=CAPSULE))
        assert (finished.returncode, finished.stderr) == (0, "")
        assert f"the rvh_trace that is installed {found}" in finished.stdout
        assert finished.stdout.endswith(f"{advice}\n")

    @pytest.mark.parametrize(
        ("native", "package", "reason"),
        [
            ("", "", "no attribute '_C_API'"),
            ("_C_API = 7", "", "invalid PyCapsule object"),
            (FAKE.format(version=1, size=4096, name=b"other"), "", "incorrect name"),
            ("", "raise ImportError('built for another Python')", "built for another Python"),
            ("", "import not_there", "No module named 'not_there'"),
        ],
    )
    def test_what_python_says_is_passed_on(
        self, fake: Callable[..., Finished], native: str, package: str, reason: str
    ) -> None:
        finished = fake(native, package)
        assert (finished.returncode, finished.stderr) == (0, "")
        assert finished.stdout.startswith("the rvh_trace that is installed cannot be used by this extension: ")
        assert reason in finished.stdout

    def test_without_rvh_trace_everything_is_a_no_op(self, extension_path: Path, finish_extension: Finish) -> None:
        finished = finish_extension(
            f"""
            import sys
            library = [path for path in sys.path if "python3" in path and "site-packages" not in path]
            sys.path[:] = [{str(extension_path)!r}, *library]
            import traced_extension
            print(traced_extension.connect())
            assert "rvh_trace" not in sys.modules
            traced_extension.tree(3)
            traced_extension.fields()
            traced_extension.errors()
            traced_extension.events()
            traced_extension.relations()
            traced_extension.threads(4, 10)
            held = traced_extension.Held("held")
            assert not held.is_recorded and held.span_id == "0" * 16
            held.annotate(); held.end(); held.release()
            assert traced_extension.inject() == [("traceparent", "stale"), ("accept", "*/*")]
            assert traced_extension.pass_on([("traceparent", b"00-{"1" * 32}-{"2" * 16}-01")]) is None
            assert traced_extension.call_inside(lambda: 7) == 7
            traced_extension.log_detached()
            """
        )
        assert (finished.returncode, finished.stderr) == (0, "")
        assert finished.stdout == (
            "rvh_trace is not installed in this interpreter (pip install rvh_trace): spans of Rust go nowhere\n"
        )

    def test_it_needs_the_gil_and_says_so(self, finish_extension: Finish) -> None:
        finished = finish_extension(
            """
            import sys
            sys.modules["rvh_trace"] = None     # as if it were not installed yet
            import traced_extension
            assert not traced_extension.is_connected()
            print(traced_extension.connect_detached())
            del sys.modules["rvh_trace"]
            assert traced_extension.connect() is None and traced_extension.is_connected()
            # Callsites that were met while there was no connection take part.
            assert traced_extension.connect_detached() is None
            """
        )
        assert (finished.returncode, finished.stderr) == (0, "")
        assert "can only be looked for by a thread that holds the GIL" in finished.stdout

    def test_a_later_connection_wakes_callsites_that_were_met_before(self, run_extension: Run) -> None:
        run_extension(
            """
            import sys
            sys.modules["rvh_trace"] = None
            import traced_extension
            traced_extension.tree(1)
            del sys.modules["rvh_trace"]
            from rvh_trace.testing import InMemoryExporter
            with InMemoryExporter() as spans:
                traced_extension.tree(1)
                assert len(spans) == 0
                assert traced_extension.connect() is None
                traced_extension.tree(1)
                assert [span.name for span in spans] == ["inner", "middle", "outer"]
            """
        )

    def test_the_capsule_stays_out_of_the_public_names(self) -> None:
        from rvh_trace import _rvh_trace

        assert "_C_API" not in dir(rvh_trace)
        assert type(_rvh_trace._C_API).__name__ == "PyCapsule"  # type: ignore[attr-defined]
        name = ctypes.pythonapi.PyCapsule_GetName
        name.restype, name.argtypes = ctypes.c_char_p, (ctypes.py_object,)
        assert name(_rvh_trace._C_API) == CAPSULE  # type: ignore[attr-defined]


class TestSetUp:
    def test_before_init_tracing_nothing_is_recorded_and_context_passes(self, run_extension: Run) -> None:
        run_extension(
            f"""
            import rvh_trace, traced_extension
            traced_extension.tree(3)
            assert not traced_extension.Held("held").is_recorded
            with rvh_trace.use_context(rvh_trace.extract({{"traceparent": "00-{"1" * 32}-{"2" * 16}-01"}})):
                traced_extension.tree(1)
                assert dict(traced_extension.inject())["traceparent"] == "00-{"1" * 32}-{"2" * 16}-01"
            assert rvh_trace.stats()["started"] == 0
            """
        )

    def test_a_span_goes_to_the_tracer_that_started_it(self, extension: ModuleType) -> None:
        with InMemoryExporter() as outer:
            first = extension.Held("first")
            with InMemoryExporter() as inner:
                second = extension.Held("second")
                first.release()
            second.release()
        assert ([one.name for one in outer], [one.name for one in inner]) == (["first"], ["second"])


class TestProcess:
    @pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
    def test_a_span_across_a_fork_is_exported_once_by_the_parent(
        self, receiver: Receiver, finish_extension: Finish
    ) -> None:
        finished = finish_extension(
            """
            import os, warnings
            warnings.simplefilter("ignore", DeprecationWarning)
            import rvh_trace, traced_extension
            rvh_trace.init_tracing("shop")
            held, dropped = traced_extension.Held("held"), traced_extension.Held("dropped")
            def callback():
                pid = os.fork()
                if not pid:
                    current = rvh_trace.current_span()
                    assert not current.is_recording
                    current.set_attribute("in", "child")
                    held.annotate(); held.end(); held.release(); dropped.release()
                    with rvh_trace.span("python in the child"):
                        traced_extension.tree(1)
                    traced_extension.Held("new in the child").release()
                    stats = rvh_trace.stats()
                    assert (stats["started"], stats["ended"]) == (5, 5), stats
                    assert rvh_trace.force_flush()
                    os._exit(0)
                assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
            traced_extension.call_inside(callback)
            held.release(); dropped.release()
            """,
            endpoint=receiver.http_endpoint,
        )
        assert (finished.returncode, finished.stderr) == (0, "")
        arrived = [one.name for one in receiver.spans]
        assert sorted(arrived) == sorted(
            ["held", "dropped", "rust", "python in the child", "outer", "middle", "inner", "new in the child"]
        )
        (held,) = (one for one in receiver.spans if one.name == "held")
        assert held.attributes == {"text": "t", "int": 8, "double": 1.5, "bool": True}

    @pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
    def test_a_fork_while_other_threads_hold_the_locks_does_not_hang(self, finish_extension: Finish) -> None:
        finished = finish_extension(
            """
            import os, threading, warnings
            warnings.simplefilter("ignore", DeprecationWarning)
            import rvh_trace, traced_extension
            from rvh_trace.testing import InMemoryExporter
            with InMemoryExporter():
                held, stop = traced_extension.Held("held"), threading.Event()
                traced_extension.never_stop()
                def annotate():
                    while not stop.is_set():
                        held.annotate()
                threads = [threading.Thread(target=annotate) for _ in range(3)]
                for thread in threads: thread.start()
                for _ in range(30):
                    pid = os.fork()
                    if not pid:
                        held.end(); traced_extension.tree(1)
                        os._exit(0)
                    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
                stop.set()
                for thread in threads: thread.join()
            os._exit(0)
            """
        )
        assert (finished.returncode, [line for line in finished.stderr.splitlines() if "endless" not in line]) == (
            0,
            [],
        )

    def test_spans_that_are_open_at_exit_are_harmless(self, receiver: Receiver, run_extension: Run) -> None:
        run_extension(
            """
            import rvh_trace, traced_extension
            rvh_trace.init_tracing("shop")
            kept = traced_extension.Held("kept")
            traced_extension.forget(10)
            with rvh_trace.span("python"):
                traced_extension.tree(1)
            def callback():
                global current, scope
                current = rvh_trace.current_span()
            traced_extension.call_inside(callback)
            """,
            endpoint=receiver.http_endpoint,
        )
        assert sorted(one.name for one in receiver.spans) == ["inner", "middle", "outer", "python", "rust"]

    def test_spans_that_end_after_shutdown_are_counted(self, run_extension: Run) -> None:
        run_extension(
            """
            import rvh_trace, traced_extension
            rvh_trace.init_tracing("shop", endpoint="http://127.0.0.1:1")
            traced_extension.forget(3)
            rvh_trace.shutdown(100)
            traced_extension.remember()
            traced_extension.Held("late").release()
            stats = rvh_trace.stats()
            assert (stats["started"], stats["ended"], stats["dropped"]["exit"]) == (4, 4, 4), stats
            """
        )

    @pytest.mark.parametrize("ending", ["", "raise SystemExit(0)", "import os; os._exit(0)"])
    def test_threads_of_rust_may_outlive_the_interpreter(self, finish_extension: Finish, ending: str) -> None:
        finished = finish_extension(
            f"""
            import rvh_trace, traced_extension
            rvh_trace.init_tracing("shop", exporter="none")
            traced_extension.never_stop()
            traced_extension.never_stop()
            {ending}
            """
        )
        assert finished.returncode == 0
        # What was logged without the GIL is told once, and nothing else.
        assert all("a log record of endless was dropped" in line for line in finished.stderr.splitlines())

    def test_a_scope_that_is_left_without_the_gil_is_counted(
        self, extension: ModuleType, spans: InMemoryExporter, capfd: pytest.CaptureFixture[str]
    ) -> None:
        before = rvh_trace.stats()["swallowed_errors"]
        import contextvars

        assert contextvars.copy_context().run(extension.leave_detached) is False
        assert rvh_trace.stats()["swallowed_errors"] == before + 1
        assert "left a context of Python's without the GIL" in capfd.readouterr().err


def test_a_sub_interpreter_gets_no_connection_and_no_crash(finish_extension: Finish) -> None:
    finished = finish_extension(
        """
        import traced_extension
        try:
            import _xxsubinterpreters as interpreters
        except ImportError:
            import _interpreters as interpreters
        from rvh_trace.testing import InMemoryExporter
        with InMemoryExporter() as spans:
            number = interpreters.create()
            try:
                interpreters.run_string(number, "import traced_extension")
            except interpreters.RunFailedError as error:
                print(error)
            except AttributeError:
                pass
            interpreters.destroy(number)
            # `PyGILState_Check` now says yes to every thread.
            assert traced_extension.current_detached() is None
            traced_extension.threads(4, 20)
            traced_extension.tree(1)
        assert len(spans) == 84, len(spans)
        """
    )
    assert (finished.returncode, finished.stderr) == (0, "")
