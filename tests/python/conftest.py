"""What every test may ask for. The `spans` fixture comes with the package, from `rvh_trace.testing.plugin`."""

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import pytest
from declared import undeclared
from hypothesis import HealthCheck, settings
from receiver import Receiver

from rvh_trace.testing import FinishedSpan, exporter

# No deadline: nothing in this suite is timed. The `spans` fixture is emptied by the property itself.
settings.register_profile(
    "rvh_trace",
    deadline=None,
    max_examples=60,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
settings.load_profile("rvh_trace")


@pytest.fixture(autouse=True)
def only_declared_names(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[FinishedSpan]]:
    """Whatever the test had exported into memory has names that `semconv/` or the official registry knows."""
    exported: list[FinishedSpan] = []
    decode = exporter.decode

    def keep(request: bytes) -> list[FinishedSpan]:
        spans = decode(request)
        exported.extend(spans)
        return spans

    monkeypatch.setattr(exporter, "decode", keep)
    yield exported
    unknown = undeclared(exported, only_namespaced=True)
    assert not unknown, f"declare them in semconv/, or their namespace in tests/python/declared.py: {sorted(unknown)}"


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    """A real OTLP receiver on loopback ports."""
    with Receiver() as listening:
        yield listening
        for request in listening.requests:
            exporter.decode(request.raw)


@pytest.fixture
def complaints() -> Iterator[list[dict[str, Any]]]:
    """What the event loops of `run` were told about unhandled exceptions; must be empty at the end of the test."""
    complaints: list[dict[str, Any]] = []
    yield complaints
    assert complaints == []


@pytest.fixture
def run(complaints: list[dict[str, Any]]) -> Callable[[Coroutine[Any, Any, Any]], Any]:
    """`asyncio.run` on a loop whose exception handler must stay silent."""

    def run_checked(main: Coroutine[Any, Any, Any]) -> Any:
        async def checked() -> Any:
            asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
            return await main

        return asyncio.run(checked())

    return run_checked
