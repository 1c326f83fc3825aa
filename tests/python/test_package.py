"""The package as one imports it: names, documentation, and that importing starts nothing."""

import inspect
import types
from typing import Any

import pytest
from interpreter import run_quietly

import rvh_trace
import rvh_trace.testing

MODULES = [rvh_trace, rvh_trace.testing]


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.__name__)
def test_all_is_a_sorted_tuple_of_what_there_is(module: Any) -> None:
    assert isinstance(module.__all__, tuple)
    assert len(set(module.__all__)) == len(module.__all__)
    assert list(module.__all__) == sorted(module.__all__)
    assert all(hasattr(module, name) for name in module.__all__)


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.__name__)
def test_all_is_complete(module: Any) -> None:
    public = {
        name
        for name, value in vars(module).items()
        if not name.startswith("_") and not isinstance(value, types.ModuleType) and name != "annotations"
    }
    assert public <= set(module.__all__)


@pytest.mark.parametrize(
    "name",
    [
        *("init_tracing", "shutdown", "force_flush", "ashutdown", "aflush", "stats", "span", "trace", "new_span"),
        *("current_span", "span_future", "inject", "extract", "use_context", "install_task_factory"),
        *("uninstall_task_factory", "RvhTraceMiddleware"),
    ],
)
def test_the_settled_names_are_there(name: str) -> None:
    assert name in rvh_trace.__all__
    assert callable(getattr(rvh_trace, name))


@pytest.mark.parametrize("name", sorted(set(rvh_trace.__all__) - {"__version__"}))
def test_every_public_object_is_documented_and_of_rvh_trace(name: str) -> None:
    value = getattr(rvh_trace, name)
    assert inspect.getdoc(value), f"{name} has no docstring"
    assert value.__module__ == "rvh_trace"
    if inspect.isclass(value) and issubclass(value, BaseException):
        return
    if callable(value):
        assert inspect.signature(value) is not None


def test_importing_starts_no_thread_and_loads_no_event_loop() -> None:
    run_quietly(
        """
        import sys
        before = set(sys.modules)
        import rvh_trace
        loaded = set(sys.modules) - before
        for heavy in ("asyncio", "threading", "typing", "inspect", "dataclasses", "traceback", "logging", "starlette"):
            assert heavy not in loaded, heavy
        import os
        assert len(os.listdir("/proc/self/task")) == 1
        assert rvh_trace.__version__
        """
    )


def test_setting_up_starts_no_thread_before_the_first_span() -> None:
    run_quietly(
        """
        import os, sys
        import rvh_trace
        rvh_trace.init_tracing("shop", endpoint="http://127.0.0.1:1")
        assert len(os.listdir("/proc/self/task")) == 1
        assert "asyncio" not in sys.modules
        """
    )


def test_a_program_that_only_imports_it_ends_as_without_it() -> None:
    run_quietly("import rvh_trace, rvh_trace.testing, rvh_trace.asgi, rvh_trace.tasks, rvh_trace.errors")
