"""Rounds of examples, and the line that says how many there were."""

import re
from collections.abc import Iterator

import pytest

from transparency import tally
from transparency.comparison import OPTIONS
from transparency.values import PRODUCTION

_SWALLOWED = re.compile(r"rvh_trace: warning: [a-z ]+ was ignored: ")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A test that asks for `round_number` runs once for every round of its family."""
    if "round_number" in metafunc.fixturenames:
        family: str = metafunc.definition.get_closest_marker("family").args[0]  # type: ignore[union-attr]
        numbers = range(tally.rounds(family))
        metafunc.parametrize("round_number", numbers, ids=[f"round {number}" for number in numbers])


@pytest.fixture
def quiet(capfd: pytest.CaptureFixture[str]) -> Iterator[None]:
    """Nothing is written to standard error; in production one line for each cause that was swallowed."""
    yield
    lines = capfd.readouterr().err.splitlines()
    assert [line for line in lines if not (PRODUCTION and _SWALLOWED.match(line))] == []


_planned: set[str] = set()


def pytest_itemcollected(item: pytest.Item) -> None:
    """Remembers which families were asked for."""
    marker = item.get_closest_marker("family")
    if marker is not None:
        _planned.add(marker.args[0])


def pytest_deselected(items: list[pytest.Item]) -> None:
    """A part of the suite proves nothing about its size."""
    for item in items:
        marker = item.get_closest_marker("family")
        if marker is not None:
            _planned.discard(marker.args[0])


def _too_few() -> bool:
    whole = _planned == tally.FAMILIES.keys()
    return whole and (tally.counted.total() < tally.REQUIRED or len(tally.by_options) < len(OPTIONS))


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """Fewer examples than are claimed are a failure."""
    if exitstatus == pytest.ExitCode.OK and _too_few():
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """The count, so that the claim can be checked."""
    if tally.counted:
        terminalreporter.write_line(tally.summary())
        if _too_few():
            terminalreporter.write_line(f"transparency: too few, {tally.REQUIRED} are required", red=True)
