"""`tracing`: a configuration for the time of a block, entered and left in every way."""

import asyncio
import gc
import inspect
import json
import socket
import threading
import time
import weakref
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest
from interpreter import run_quietly, run_script
from receiver import Receiver, attributes
from test_outputs import otlp_names

import rvh_trace
from rvh_trace import ConfigurationError, ConsoleExporter, ExportError, ExportTimeout, OtlpExporter, OtlpFileExporter
from rvh_trace.testing import InMemoryExporter

Run = Callable[[Coroutine[Any, Any, Any]], Any]


class Kept:
    """An exporter that keeps the names that it gets, and says when it was shut down."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.ended = False

    def export(self, spans: Any) -> None:
        self.names.extend(span.name for span in spans)

    def shutdown(self) -> None:
        self.ended = True


@pytest.fixture
def silent_port() -> Iterator[int]:
    """A server that accepts connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def wait_until(condition: Callable[[], bool]) -> None:
    """Waits for what comes about in other threads, collecting garbage meanwhile."""
    deadline = time.monotonic() + 15
    while not condition():
        assert time.monotonic() < deadline, "it did not come about"
        gc.collect()
        time.sleep(0.01)


def op(name: str) -> None:
    with rvh_trace.span(name):
        pass


class TestBlock:
    def test_its_spans_go_where_it_says_and_nowhere_else(self, spans: InMemoryExporter, tmp_path: Path) -> None:
        path = tmp_path / "spans.jsonl"
        op("before")
        with rvh_trace.tracing("job", exporter=OtlpFileExporter(path)) as block:
            assert block.delivered is None
            op("inside")
            assert rvh_trace.stats() == block.stats()
            assert block.stats()["ended"] == 1
        op("after")
        assert block.delivered is True
        assert otlp_names(path) == ["inside"]
        assert [span.name for span in spans] == ["before", "after"]
        stats = block.stats()
        assert (stats["started"], stats["exported"], stats["pending"], stats["worker_alive"]) == (1, 1, 0, False)

    def test_several_destinations_and_an_endpoint(self, receiver: Receiver, tmp_path: Path) -> None:
        kept = Kept()
        exporters = [
            ConsoleExporter(tmp_path / "a.log", format="json"),
            OtlpFileExporter(tmp_path / "b.jsonl"),
            OtlpExporter(receiver.http_endpoint),
            OtlpExporter(receiver.endpoint("grpc"), protocol="grpc"),
            kept,
        ]
        with rvh_trace.tracing("job", exporter=exporters, resource_attributes={"attempt": 7}) as block:
            op("work")
        assert block.delivered is True
        assert [one.name for one in receiver.spans] == ["work", "work"]
        assert {one.service for one in receiver.spans} == {"job"}
        assert [attributes(one.resource.attributes)["attempt"] for one in receiver.spans] == [7, 7]
        assert otlp_names(tmp_path / "b.jsonl") == kept.names == ["work"]
        assert json.loads((tmp_path / "a.log").read_text())["name"] == "work"
        assert kept.ended

    def test_the_endpoint_of_the_block_or_of_the_environment(
        self, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with rvh_trace.tracing("by argument", endpoint=receiver.http_endpoint):
            op("work")
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", receiver.http_endpoint)
        with rvh_trace.tracing("by variable"):
            op("work")
        assert [one.service for one in receiver.spans] == ["by argument", "by variable"]
        # The variable has metrics too, and the block has none unless it is told to.
        assert not receiver.metrics

    def test_without_init_tracing_there_is_nothing_before_and_after(self, tmp_path: Path) -> None:
        path = tmp_path / "spans.jsonl"
        run_quietly(
            f"""
            import rvh_trace
            def op(name):
                with rvh_trace.span(name) as span:
                    return span.is_recording
            assert not op("before")
            with rvh_trace.tracing("job", exporter=rvh_trace.OtlpFileExporter({str(path)!r})):
                assert op("inside")
            assert not op("after")
            assert rvh_trace.stats()["ended"] == 0
            """
        )
        assert otlp_names(path) == ["inside"]

    def test_init_tracing_before_or_inside_counts_outside(self, receiver: Receiver, tmp_path: Path) -> None:
        for when in ("before", "inside"):
            path = tmp_path / f"{when}.jsonl"
            init = f"rvh_trace.init_tracing('shop', endpoint={receiver.http_endpoint!r})"
            run_quietly(
                f"""
                import rvh_trace
                def op(name):
                    with rvh_trace.span(name):
                        pass
                {init if when == "before" else ""}
                with rvh_trace.tracing("job", exporter=rvh_trace.OtlpFileExporter({str(path)!r})):
                    {init if when == "inside" else ""}
                    op("inside")
                op("after, set up {when}")
                assert rvh_trace.force_flush()
                """
            )
            assert otlp_names(path) == ["inside"]
        assert [one.name for one in receiver.spans] == ["after, set up before", "after, set up inside"]

    def test_an_inner_block_takes_over_and_gives_back(self) -> None:
        outer, inner = Kept(), Kept()
        with rvh_trace.tracing("outer", exporter=outer) as outside:
            op("one")
            with rvh_trace.tracing("inner", exporter=inner) as inside:
                op("two")
            op("three")
        assert (outer.names, inner.names) == (["one", "three"], ["two"])
        assert outside.delivered is inside.delivered is True

    def test_blocks_that_overlap_end_in_any_order(self) -> None:
        first, second = Kept(), Kept()
        one = rvh_trace.tracing("one", exporter=first)
        two = rvh_trace.tracing("two", exporter=second)
        one.__enter__()
        two.__enter__()
        op("the last that was entered")
        one.__exit__(None, None, None)
        op("still")
        two.__exit__(None, None, None)
        with rvh_trace.span("nobody's") as span:
            assert not span.is_recording
        assert (first.names, second.names) == ([], ["the last that was entered", "still"])

    def test_threads_are_in_it(self) -> None:
        kept = Kept()
        with rvh_trace.tracing("job", exporter=kept):
            threads = [threading.Thread(target=op, args=(f"thread {number}",)) for number in range(4)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        assert sorted(kept.names) == [f"thread {number}" for number in range(4)]

    def test_threads_that_enter_and_leave_at_once_lose_nothing(self, tmp_path: Path) -> None:
        errors: list[BaseException] = []
        blocks: list[rvh_trace.Tracing] = []

        def work(number: int) -> None:
            try:
                for _ in range(20):
                    with rvh_trace.tracing("job", exporter=OtlpFileExporter(tmp_path / f"{number}.jsonl")) as block:
                        op("work")
                    blocks.append(block)
                    assert block.delivered
            except BaseException as error:
                errors.append(error)

        threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert errors == []
        written = sum(len(otlp_names(tmp_path / f"{number}.jsonl")) for number in range(4))
        # A span of one thread may go to the block of another, and be lost with its end: then that is counted.
        stats = [block.stats() for block in blocks]
        assert written == sum(one["exported"] for one in stats)
        assert sum(one["ended"] for one in stats) + sum(one["started"] - one["ended"] for one in stats) <= 80
        with rvh_trace.span("nobody's") as span:
            assert not span.is_recording


class TestBorders:
    """Spans that cross the border of a block."""

    def test_one_from_before_it_goes_where_it_would_have_gone_and_is_the_parent_of_those_inside(
        self, spans: InMemoryExporter, tmp_path: Path
    ) -> None:
        path = tmp_path / "trace.jsonl"
        with rvh_trace.span("outside") as outside:
            with rvh_trace.tracing("job", exporter=ConsoleExporter(path, format="json")):
                op("child")
                outside.set_attribute("seen", True)
                rvh_trace.current_span().add_event("inside")
            op("after")
        child = json.loads(path.read_text())
        assert child["trace_id"] == outside.context.trace_id
        assert child["parent_span_id"] == outside.context.span_id
        assert [span.name for span in spans] == ["after", "outside"]
        assert spans.one("outside").attributes["seen"] is True

    def test_one_that_began_before_and_ended_inside_is_not_in_it(self, spans: InMemoryExporter) -> None:
        kept = Kept()
        outside = rvh_trace.new_span("outside")
        with rvh_trace.tracing("job", exporter=kept) as block:
            outside.end()
            op("inside")
        assert kept.names == ["inside"]
        assert [span.name for span in spans] == ["outside"]
        assert block.stats()["started"] == 1

    def test_one_that_outlives_it_is_lost_and_counted(self, spans: InMemoryExporter) -> None:
        kept = Kept()
        with rvh_trace.tracing("job", exporter=kept) as block:
            left = rvh_trace.new_span("left")
            op("inside")
        assert (block.stats()["started"], block.stats()["ended"]) == (2, 1)
        left.end()
        stats = block.stats()
        assert (stats["ended"], stats["exported"], stats["dropped"]["exit"], stats["pending"]) == (2, 1, 1, 0)
        assert kept.names == ["inside"]
        assert [span.name for span in spans] == []

    def test_a_parent_that_is_not_sampled_has_no_children_in_it(self) -> None:
        kept = Kept()
        with InMemoryExporter(sampler="always_off"), rvh_trace.span("not sampled"):
            with rvh_trace.tracing("job", exporter=kept):
                op("child")
            with rvh_trace.tracing("job", exporter=kept, sampler="always_on"):
                op("child, always")
        assert kept.names == ["child, always"]

    def test_a_decorated_function_is_traced_by_the_block_that_it_is_called_in(self) -> None:
        @rvh_trace.trace
        def work() -> None: ...

        first, second = Kept(), Kept()
        for kept in (first, second, first):
            with rvh_trace.tracing("job", exporter=kept):
                work()
        assert [len(first.names), len(second.names)] == [2, 1]

    def test_below_a_span_of_untraced_code_it_has_traces_of_its_own(self, tmp_path: Path) -> None:
        path = tmp_path / "trace.jsonl"
        run_quietly(
            f"""
            import rvh_trace
            with rvh_trace.span("untraced"):
                with rvh_trace.tracing("job", exporter=rvh_trace.ConsoleExporter({str(path)!r}, format="json")):
                    with rvh_trace.span("root"):
                        with rvh_trace.span("child"):
                            pass
                with rvh_trace.span("untraced again") as span:
                    assert not span.is_recording
            """
        )
        child, root = (json.loads(line) for line in path.read_text().splitlines())
        assert root["parent_span_id"] is None
        assert (child["trace_id"], child["parent_span_id"]) == (root["trace_id"], root["span_id"])


class TestEnd:
    def test_an_exception_passes_through_untouched_and_its_span_is_delivered(self) -> None:
        kept = Kept()
        error = LookupError("mine")
        block = rvh_trace.tracing("job", exporter=kept, check=True)
        with pytest.raises(LookupError) as raised, block, rvh_trace.span("failing"):
            raise error
        assert raised.value is error
        assert error.__context__ is None
        assert kept.names == ["failing"]
        assert block.delivered is True

    @pytest.mark.parametrize("check", [False, True])
    def test_spans_that_were_lost(self, check: bool, capfd: pytest.CaptureFixture[str]) -> None:
        block = rvh_trace.tracing("job", exporter=OtlpFileExporter("/dev/full"), check=check)
        if check:
            with pytest.raises(ExportError, match="1 spans were lost: cannot write: No space left"), block:
                op("work")
        else:
            with block:
                op("work")
            assert "export failed: 1 spans were lost: cannot write: No space left" in capfd.readouterr().err
        assert block.delivered is False
        assert block.stats()["dropped"]["rejected"] == 1

    def test_an_exception_goes_before_one_about_lost_spans(self, capfd: pytest.CaptureFixture[str]) -> None:
        block = rvh_trace.tracing("job", exporter=OtlpFileExporter("/dev/full"), check=True)
        with pytest.raises(LookupError, match="mine"), block, rvh_trace.span("work"):
            raise LookupError("mine")
        assert block.delivered is False
        assert "export failed: 1 spans were lost" in capfd.readouterr().err

    @pytest.mark.parametrize("way", ["with", "async with"])
    def test_the_deadline_is_kept_and_reported(self, silent_port: int, way: str, run: Run) -> None:
        endpoint = f"http://127.0.0.1:{silent_port}"
        block = rvh_trace.tracing("job", endpoint=endpoint, exit_timeout_ms=200, check=True)

        async def enter_async() -> None:
            async with block:
                op("work")

        def enter() -> None:
            with block:
                op("work")

        said = "shutdown did not finish within 200 ms; 1 spans were still to be sent"
        with pytest.raises(ExportTimeout, match=said):
            run(enter_async()) if way == "async with" else enter()
        assert block.delivered is False
        stats = block.stats()
        assert stats["dropped"]["failed"] + stats["dropped"]["exit"] == stats["ended"] == 1
        assert stats["pending"] == 0

    def test_the_deadline_may_come_from_the_environment(
        self, silent_port: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("RVH_TRACE_EXIT_TIMEOUT", "150")
        block = rvh_trace.tracing("job", endpoint=f"http://127.0.0.1:{silent_port}", check=True)
        with pytest.raises(ExportTimeout, match="within 150 ms"), block:
            op("work")

    def test_without_a_span_no_thread_starts_and_the_end_is_at_once(self) -> None:
        before = threading.active_count(), len(list(Path("/proc/self/task").iterdir()))
        with rvh_trace.tracing("job", endpoint="http://127.0.0.1:1", check=True) as block:
            assert (threading.active_count(), len(list(Path("/proc/self/task").iterdir()))) == before
        assert block.delivered is True

    def test_it_leaves_no_thread_no_open_file_and_no_object_behind(self, tmp_path: Path) -> None:
        def descriptors() -> set[str]:
            return {str(link.readlink()) for link in Path("/proc/self/fd").iterdir() if link.is_symlink()}

        kept = Kept()
        with rvh_trace.tracing("job", exporter=[OtlpFileExporter(tmp_path / "a.jsonl"), kept]):
            op("work")
        with rvh_trace.tracing("job", exporter=OtlpFileExporter(tmp_path / "unused.jsonl")):
            pass
        alive = weakref.ref(kept)
        del kept

        def threads() -> list[str]:
            return [task.joinpath("comm").read_text().strip() for task in Path("/proc/self/task").iterdir()]

        wait_until(
            lambda: (
                alive() is None
                and not [path for path in descriptors() if str(tmp_path) in path]
                and "rvh-trace-export" not in threads()
            )
        )

    def test_an_exporter_that_knows_its_block_is_collected_with_it(self) -> None:
        kept: Any = Kept()
        kept.block = rvh_trace.tracing("job", exporter=kept)
        with kept.block:
            op("work")
        alive = weakref.ref(kept)
        del kept
        # The thread that calls it ends when the worker does.
        wait_until(lambda: alive() is None)

    def test_shutdown_inside_ends_it_early(self) -> None:
        kept = Kept()
        with rvh_trace.tracing("job", exporter=kept, check=True) as block:
            op("first")
            assert rvh_trace.force_flush()
            assert kept.names == ["first"]
            op("second")
            assert rvh_trace.shutdown()
            op("third")
        assert kept.names == ["first", "second"]
        assert block.stats()["dropped"]["exit"] == 1


class TestUse:
    def test_it_can_be_entered_again_and_starts_anew(self, tmp_path: Path) -> None:
        path = tmp_path / "spans.jsonl"
        block = rvh_trace.tracing("job", exporter=OtlpFileExporter(path))
        assert block.stats()["ended"] == 0
        assert block.delivered is None
        for number in (1, 2):
            with block as entered:
                assert entered is block
                assert block.delivered is None
                op(f"work {number}")
            assert block.stats()["exported"] == 1
            assert block.delivered is True
        assert otlp_names(path) == ["work 1", "work 2"]

    def test_not_while_it_is_running(self) -> None:
        kept = Kept()
        with rvh_trace.tracing("job", exporter=kept) as block:
            with pytest.raises(RuntimeError, match=r"in use already; call tracing\(\.\.\.\) again"):
                block.__enter__()
            op("unharmed")
        assert kept.names == ["unharmed"]

    def test_a_failed_entry_changes_nothing_and_may_be_repeated(self, spans: InMemoryExporter, tmp_path: Path) -> None:
        path = tmp_path / "folder" / "spans.jsonl"
        block = rvh_trace.tracing("job", exporter=OtlpFileExporter(path))
        with pytest.raises(ConfigurationError, match=f"there is no folder {path.parent}"):
            block.__enter__()
        op("elsewhere")
        assert [span.name for span in spans] == ["elsewhere"]
        path.parent.mkdir()
        with block:
            op("work")
        assert otlp_names(path) == ["work"]

    @pytest.mark.parametrize(
        ("arguments", "words"),
        [
            ({"service_name": 7}, ["service_name", "a string"]),
            ({"exporter": "pigeon"}, ["exporter", "pigeon"]),
            ({"exit_timeout_ms": -1}, ["exit_timeout_ms", "milliseconds"]),
            ({"sampler_ratio": 2}, ["sampler_ratio", "between 0 and 1"]),
        ],
    )
    def test_a_wrong_argument_is_named_by_the_time_it_is_entered(
        self, arguments: dict[str, Any], words: list[str]
    ) -> None:
        with pytest.raises(ConfigurationError) as raised, rvh_trace.tracing(**arguments):
            pass
        assert all(word in str(raised.value) for word in words), str(raised.value)

    def test_a_misspelt_argument_is_a_type_error(self) -> None:
        with pytest.raises(TypeError, match="servicename"):
            rvh_trace.tracing(servicename="job")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]

    def test_its_arguments_are_those_of_init_tracing(self) -> None:
        ours = dict(inspect.signature(rvh_trace.tracing).parameters)
        theirs = dict(inspect.signature(rvh_trace.init_tracing).parameters)
        assert ours.pop("check").default is False
        # See the docstring for why these are missing.
        for name in ("open_span_interval_ms", "rust_log", "rust_events"):
            del theirs[name]
        assert ours == theirs, "add the argument to rvh_trace.tracing, or say here why not"

    def test_the_line_about_a_missing_endpoint_and_a_bad_variable_are_said_once(self) -> None:
        finished = run_script(
            """
            import rvh_trace
            for _ in range(3):
                with rvh_trace.tracing("job"):
                    with rvh_trace.span("work"):
                        pass
            """,
            OTEL_BSP_SCHEDULE_DELAY="soon",
        )
        assert finished.returncode == 0
        assert len(finished.warnings) == len(finished.stderr.splitlines()) == 2, finished.stderr

    def test_metrics_only_where_it_says(self, receiver: Receiver, run: Run) -> None:
        async def app(scope: Any, receive: Any, send: Any) -> None:
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b""})

        async def request() -> None:
            scope = {"type": "http", "method": "GET", "path": "/", "headers": [], "scheme": "http"}

            async def receive() -> Any:
                return {"type": "http.request"}

            async def send(message: Any) -> None: ...

            await rvh_trace.RvhTraceMiddleware(app)(scope, receive, send)

        to_it = OtlpExporter(receiver.http_endpoint)
        with rvh_trace.tracing("job", exporter=to_it):
            run(request())
        assert not receiver.metrics
        with rvh_trace.tracing("job", exporter=to_it, metrics_exporter=to_it):
            run(request())
        assert "http.server.request.duration" in {metric.name for metric in receiver.metrics}


class TestAsync:
    def test_the_loop_runs_on_while_the_end_waits(self, silent_port: int, run: Run) -> None:
        async def main() -> rvh_trace.Tracing:
            turns = 0

            async def count() -> None:
                nonlocal turns
                while True:
                    turns += 1
                    await asyncio.sleep(0)

            counting = asyncio.create_task(count())
            async with rvh_trace.tracing(
                "job", endpoint=f"http://127.0.0.1:{silent_port}", exit_timeout_ms=200
            ) as block:
                op("work")
                await asyncio.sleep(0)
                before = turns
            # A loop that is blocked makes one turn.
            assert turns > before + 2
            counting.cancel()
            return block

        assert run(main()).delivered is False

    def test_tasks_are_in_it_and_what_they_begin_after_its_end_is_not(self, spans: InMemoryExporter, run: Run) -> None:
        kept = Kept()

        async def work(inside: asyncio.Event, outside: asyncio.Event) -> None:
            op("inside")
            inside.set()
            await outside.wait()
            op("outside")

        async def main() -> None:
            inside, outside = asyncio.Event(), asyncio.Event()
            async with rvh_trace.tracing("job", exporter=kept):
                task = asyncio.create_task(work(inside, outside))
                await inside.wait()
            outside.set()
            await task

        run(main())
        assert kept.names == ["inside"]
        assert [span.name for span in spans] == ["outside"]

    def test_cancelled_in_it(self, run: Run) -> None:
        kept = Kept()

        async def work(entered: asyncio.Event) -> None:
            async with rvh_trace.tracing("job", exporter=kept):
                with rvh_trace.span("work"):
                    entered.set()
                    await asyncio.Event().wait()

        async def main() -> None:
            entered = asyncio.Event()
            task = asyncio.create_task(work(entered))
            await entered.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

        run(main())
        assert kept.names == ["work"]

    def test_cancelled_while_its_end_waits(self, silent_port: int, run: Run) -> None:
        endpoint = f"http://127.0.0.1:{silent_port}"
        block = rvh_trace.tracing("job", endpoint=endpoint, exit_timeout_ms=300)

        async def work(leaving: asyncio.Event) -> None:
            async with block:
                op("work")
                leaving.set()

        async def main() -> None:
            leaving = asyncio.Event()
            task = asyncio.create_task(work(leaving))
            await leaving.wait()
            # It is at the end of its block now, or beyond.
            await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            with rvh_trace.span("nobody's") as span:
                assert not span.is_recording

        run(main())
        wait_until(lambda: not block.stats()["pending"])
        assert block.stats()["dropped"]["failed"] + block.stats()["dropped"]["exit"] == 1

    def test_under_trio(self) -> None:
        trio = pytest.importorskip("trio")
        kept = Kept()

        async def main() -> None:
            async with rvh_trace.tracing("job", exporter=kept, check=True):
                op("work")

        trio.run(main)
        assert kept.names == ["work"]


class TestServers:
    def test_requests_and_their_tasks_are_traced_by_the_block(self, run: Run) -> None:
        from starlette.applications import Starlette
        from starlette.requests import Request
        from starlette.responses import PlainTextResponse
        from starlette.routing import Route

        async def endpoint(request: Request) -> PlainTextResponse:
            await asyncio.create_task(asyncio.to_thread(op, "in a thread"))
            return PlainTextResponse("ok")

        app = rvh_trace.RvhTraceMiddleware(Starlette(routes=[Route("/{item}", endpoint)]))
        kept = Kept()

        async def request() -> list[Any]:
            sent: list[Any] = []

            async def receive() -> Any:
                return {"type": "http.request"}

            async def send(message: Any) -> None:
                sent.append(message)

            scope = {
                "type": "http",
                "method": "GET",
                "path": "/7",
                "headers": [],
                "scheme": "http",
                "query_string": b"",
            }
            await app(scope, receive, send)
            return sent

        async def main() -> None:
            async with rvh_trace.tracing("job", exporter=kept, check=True):
                await request()
            assert (await request())[0]["status"] == 200

        run(main())
        assert kept.names == ["in a thread", "GET /{item}"]


class TestProcess:
    def test_a_forked_child_sends_its_own_spans_each_once(self, tmp_path: Path) -> None:
        path = tmp_path / "spans.jsonl"
        run_quietly(
            f"""
            import os
            import rvh_trace
            def op(name):
                with rvh_trace.span(name):
                    pass
            block = rvh_trace.tracing("job", exporter=rvh_trace.OtlpFileExporter({str(path)!r}))
            with block:
                op("parent, before")
                child = os.fork()
                op("child" if child == 0 else "parent, after")
            stats = block.stats()
            assert block.delivered and stats["exported"] == (1 if child == 0 else 2), stats
            with rvh_trace.span("nobody's") as span:
                assert not span.is_recording
            if child:
                assert os.waitpid(child, 0)[1] == 0
            """
        )
        assert sorted(otlp_names(path)) == ["child", "parent, after", "parent, before"]

    @pytest.mark.parametrize("method", ["fork", "forkserver", "spawn"])
    def test_a_child_of_multiprocessing_in_the_middle_of_a_block(self, tmp_path: Path, method: str) -> None:
        path = tmp_path / "spans.jsonl"
        script = tmp_path / "program.py"
        script.write_text(
            f"""
import multiprocessing
import rvh_trace

def op(name):
    with rvh_trace.span(name):
        pass

def work():
    op("child")

if __name__ == "__main__":
    with rvh_trace.tracing("job", exporter=rvh_trace.OtlpFileExporter({str(path)!r})):
        op("parent")
        process = multiprocessing.get_context({method!r}).Process(target=work)
        process.start()
        process.join()
        assert process.exitcode == 0
"""
        )
        run_quietly(
            f"import runpy; runpy.run_path({str(script)!r}, run_name='__main__')"
            if method == "fork"
            else f"import subprocess, sys; subprocess.run([sys.executable, {str(script)!r}], check=True)"
        )
        # A child that is not a fork of the block's process is not in it.
        assert sorted(otlp_names(path)) == (["child", "parent"] if method == "fork" else ["parent"])

    @pytest.mark.parametrize(
        ("ending", "code"),
        [
            ("sys.exit(3)", 3),
            ("raise SystemExit", 0),
            ("threading.Thread(target=lambda: None).start()", 0),
        ],
    )
    def test_the_interpreter_ends_inside(self, tmp_path: Path, ending: str, code: int) -> None:
        path = tmp_path / "spans.jsonl"
        finished = run_script(
            f"""
            import sys, threading
            import rvh_trace
            with rvh_trace.tracing("job", exporter=rvh_trace.OtlpFileExporter({str(path)!r})):
                with rvh_trace.span("work"):
                    {ending}
            """
        )
        assert (finished.returncode, finished.stderr) == (code, "")
        assert otlp_names(path) == ["work"]

    @pytest.mark.parametrize("where", ["a daemon thread", "a generator that is never finished", "nobody"])
    def test_the_process_ends_while_the_block_is_not_left(self, tmp_path: Path, where: str) -> None:
        path = tmp_path / "spans.jsonl"
        begin = {
            "a daemon thread": "threading.Thread(target=lambda held=traced(): next(held).wait(), daemon=True).start()",
            "a generator that is never finished": "held = traced(); next(held)",
            "nobody": "block.__enter__(); rvh_trace.span('work').__enter__().end(); ready.set()",
        }[where]
        run_quietly(
            f"""
            import threading
            import rvh_trace
            ready = threading.Event()
            block = rvh_trace.tracing("job", exporter=rvh_trace.OtlpFileExporter({str(path)!r}))
            def traced():
                with block:
                    with rvh_trace.span("work"):
                        pass
                    ready.set()
                    yield threading.Event()
            {begin}
            assert ready.wait(20)
            """
        )
        assert otlp_names(path) == ["work"]

    def test_at_exit_a_dead_destination_of_a_block_takes_no_time_from_the_application(
        self, receiver: Receiver, silent_port: int
    ) -> None:
        finished = run_script(
            f"""
            import rvh_trace
            rvh_trace.init_tracing("shop", endpoint={receiver.http_endpoint!r}, exit_timeout_ms=20_000)
            with rvh_trace.span("of the application"):
                pass
            block = rvh_trace.tracing("job", endpoint="http://127.0.0.1:{silent_port}", exit_timeout_ms=300)
            block.__enter__()
            with rvh_trace.span("of the block"):
                pass
            """,
            OTEL_METRICS_EXPORTER="none",
        )
        assert finished.returncode == 0
        assert [one.name for one in receiver.spans] == ["of the application"]
        assert finished.warnings == finished.stderr.splitlines()
        # Whichever deadline is over first: that of the export or that of the shutdown.
        assert f"127.0.0.1:{silent_port}" in finished.stderr or "within 300 ms" in finished.stderr

    def test_many_blocks_keep_little(self, tmp_path: Path) -> None:
        used = run_quietly(
            f"""
            import rvh_trace
            def resident():
                with open("/proc/self/statm") as statm:
                    return int(statm.read().split()[1]) * 4096
            exporter = rvh_trace.OtlpFileExporter({str(tmp_path / "spans.jsonl")!r})
            def blocks(count):
                for _ in range(count):
                    with rvh_trace.tracing("job", exporter=exporter, check=True):
                        # More than two batches: buffers change hands.
                        for _ in range(1200):
                            with rvh_trace.span("work", text="x" * 500):
                                pass
            blocks(20)
            before = resident()
            blocks(60)
            print((resident() - before) // 60)
            """,
        )
        # One of them has queued 700 KiB. What it keeps is some 8 KiB; the rest is what malloc has not given back.
        assert int(used) < 100 * 1024, f"{used} bytes a block"
