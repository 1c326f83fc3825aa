"""The options of `install_task_factory`."""

import asyncio
import re
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from interpreter import run_quietly, run_script

from rvh_trace import (
    ConfigurationError,
    current_span,
    extract,
    install_task_factory,
    span,
    uninstall_task_factory,
    use_context,
)
from rvh_trace.testing import InMemoryExporter

Start = Callable[[Coroutine[Any, Any, Any]], Any]
TIMINGS = {f"rvh_trace.task.{name}" for name in ("queue_time", "run_time", "suspended_time", "steps")}


async def load(row: int) -> int:
    await asyncio.sleep(0)
    return row


async def skip() -> str:
    return current_span().context.span_id


class TestNameAndFilter:
    def test_the_name_is_what_the_function_makes_of_the_coroutine(self, spans: InMemoryExporter, start: Start) -> None:
        def name(coroutine: Any) -> str:
            return f"größer {coroutine.cr_frame.f_locals['row']}"

        async def main() -> None:
            install_task_factory(name=name)
            with span("outer"):
                assert await asyncio.create_task(load(7)) == 7

        start(main())
        assert [one.name for one in spans.children(spans.one("outer"))] == ["größer 7"]

    def test_a_task_that_is_filtered_out_is_left_alone(self, spans: InMemoryExporter, start: Start) -> None:
        named: list[str] = []

        def name(coroutine: Any) -> str:
            named.append(coroutine.__name__)
            return "named"

        async def main() -> None:
            install_task_factory(filter=lambda coroutine: coroutine.__name__ != "skip", name=name)
            with span("outer") as outer:
                coroutine = skip()
                task = asyncio.create_task(coroutine)
                assert task.get_coro() is coroutine
                assert await task == outer.context.span_id
                await asyncio.create_task(load(1))

        start(main())
        assert len(spans.named("named")) == 1
        assert named == ["load"]

    def test_neither_is_called_where_no_span_would_be_made(self, spans: InMemoryExporter, start: Start) -> None:
        called: list[object] = []

        async def main() -> None:
            install_task_factory(filter=called.append, name=called.append)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
            await asyncio.create_task(load(1))

        start(main())
        assert called == []

    @pytest.mark.parametrize(
        ("options", "said", "name"),
        [
            ("name=lambda coroutine: 1 / 0", "name of install_task_factory .*division by zero", "work"),
            ("name=lambda coroutine: b'work'", "name of install_task_factory .*a str, not bytes", "work"),
            ("filter=lambda coroutine: 1 / 0", "filter of install_task_factory .*division by zero", "work"),
            ("filter=lambda coroutine: Undecided()", "filter of install_task_factory .*ask me later", "work"),
        ],
    )
    def test_one_that_raises_is_said_once_and_called_no_more(self, options: str, said: str, name: str) -> None:
        finished = run_script(
            f"""
            import asyncio
            from rvh_trace import install_task_factory, span
            from rvh_trace.testing import InMemoryExporter

            class Undecided:
                def __bool__(self):
                    raise LookupError("ask me later")

            async def work():
                pass

            async def main():
                install_task_factory({options})
                with span("outer"):
                    for _ in range(3):
                        await asyncio.create_task(work())

            with InMemoryExporter() as spans:
                asyncio.run(main())
                assert len(spans.named({name!r})) == 3, spans
            """
        )
        assert finished.returncode == 0, finished.stderr
        (warning,) = finished.warnings
        assert re.search(said, warning), warning
        assert finished.stderr.count("\n") == 1

    def test_an_interrupt_inside_one_is_the_users(self, spans: InMemoryExporter) -> None:
        def interrupt(coroutine: object) -> str:
            raise KeyboardInterrupt

        async def main() -> None:
            install_task_factory(name=interrupt)
            coroutine = load(1)
            try:
                with span("outer"):
                    asyncio.create_task(coroutine)  # noqa: RUF006 - it raises
            finally:
                coroutine.close()

        with pytest.raises(KeyboardInterrupt), asyncio.Runner() as runner:
            runner.run(main())


class TestRootTasks:
    def test_a_task_where_nothing_is_current_is_the_root_of_a_trace(
        self, spans: InMemoryExporter, start: Start
    ) -> None:
        async def parent() -> None:
            await asyncio.create_task(load(1))

        async def main() -> None:
            install_task_factory(root_tasks=True)
            await asyncio.gather(asyncio.create_task(parent(), name="a"), asyncio.create_task(load(2), name="b"))

        start(main())
        roots = [one for one in spans if one.parent_span_id is None]
        assert sorted(one.name.rpartition(".")[2] for one in roots) == ["load", "parent"]
        assert len({one.trace_id for one in roots}) == 2
        (parent_root,) = (one for one in roots if one.name.endswith("parent"))
        assert [one.name for one in spans.children(parent_root)] == ["load"]

    def test_one_below_a_remote_span_is_its_child(self, spans: InMemoryExporter, start: Start) -> None:
        async def main() -> None:
            install_task_factory(root_tasks=True)
            for flags in ("01", "00"):
                remote = f"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-{flags}"
                with use_context(extract({"traceparent": remote})):
                    await asyncio.create_task(load(1))

        start(main())
        (one,) = spans.named("load")
        assert (one.trace_id, one.parent_span_id) == ("0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331")

    def test_one_below_a_span_that_has_ended_links_it(self, spans: InMemoryExporter, start: Start) -> None:
        async def main() -> None:
            install_task_factory(root_tasks=True)
            with span("outer") as outer:
                outer.end()
                await asyncio.create_task(load(1))

        start(main())
        outer, one = spans.one("outer"), spans.one("load")
        assert one.parent_span_id is None
        assert one.trace_id != outer.trace_id
        assert [link.span_id for link in one.links] == [outer.span_id]

    def test_spans_inside_follow_a_root_that_is_not_sampled(self, start: Start) -> None:
        async def parent() -> None:
            assert not current_span().context.is_sampled
            with span("inside"):
                await asyncio.create_task(load(1))

        async def main() -> None:
            install_task_factory(root_tasks=True)
            await asyncio.create_task(parent())

        with InMemoryExporter(sampler="parentbased_always_off") as spans:
            start(main())
            assert list(spans) == []


class TestTimingsOff:
    def test_nothing_is_recorded_but_the_span(self, spans: InMemoryExporter, start: Start) -> None:
        async def main() -> None:
            install_task_factory(timings=False)
            with span("outer"):
                await asyncio.create_task(load(1))

        start(main())
        assert spans.one("load").attributes == {}


class TestInstalling:
    def test_the_options_of_the_last_call_hold_for_tasks_from_then_on(
        self, spans: InMemoryExporter, start: Start
    ) -> None:
        async def main() -> None:
            loop = asyncio.get_running_loop()
            install_task_factory(timings=False, name=lambda coroutine: "first")
            factory = loop.get_task_factory()
            with span("outer"):
                before = asyncio.create_task(load(1))
                install_task_factory()
                assert loop.get_task_factory() is factory
                await asyncio.create_task(load(2))
                await before

        start(main())
        assert spans.one("first").attributes == {}
        assert spans.one("load").attributes.keys() >= TIMINGS

    def test_installed_twice_with_another_factory_between_it_makes_one_span_a_task(
        self, spans: InMemoryExporter, start: Start
    ) -> None:
        async def main() -> None:
            loop = asyncio.get_running_loop()
            install_task_factory()
            ours: Any = loop.get_task_factory()
            loop.set_task_factory(lambda loop, coroutine, **kwargs: ours(loop, coroutine, **kwargs))
            install_task_factory()
            with span("outer"):
                await asyncio.create_task(load(1))

        start(main())
        assert len(spans.named("load")) == 1

    @pytest.mark.parametrize(
        ("options", "problem"),
        [
            ({"name": "work"}, "name: must be a function, not str"),
            ({"filter": 1}, "filter: must be a function, not int"),
            ({"root_tasks": "yes"}, "root_tasks: must be True or False, not str"),
            ({"timings": None}, "timings: must be True or False, not NoneType"),
            ({"loop": "uvloop"}, "loop: must be an event loop, not str"),
        ],
        ids=str,
    )
    def test_a_wrong_type_is_an_error_that_names_the_argument(self, options: dict[str, Any], problem: str) -> None:
        async def main() -> None:
            with pytest.raises(ConfigurationError) as caught:
                install_task_factory(**options)
            assert str(caught.value) == problem
            assert asyncio.get_running_loop().get_task_factory() is None

        asyncio.run(main())

    def test_uninstalling_names_a_wrong_loop_too(self) -> None:
        with pytest.raises(ConfigurationError, match="loop: must be an event loop, not int"):
            uninstall_task_factory(7)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]

    def test_what_asyncio_refuses_is_refused_inside_a_span_too(self, spans: InMemoryExporter, start: Start) -> None:
        async def main() -> None:
            install_task_factory(root_tasks=True)
            loop: Any = asyncio.get_running_loop()
            with span("outer"):
                for wrong in (7, load, None):
                    with pytest.raises(TypeError, match="coroutine was expected"):
                        loop.create_task(wrong)  # noqa: RUF006 - it raises

        start(main())
        assert [one.name for one in spans] == ["outer"]


def test_asyncio_is_not_imported_by_the_import_of_the_package() -> None:
    run_quietly("import sys, rvh_trace; assert 'asyncio' not in sys.modules")
