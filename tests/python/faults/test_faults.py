"""Each scenario over each protocol: spans arrive once or are counted, whatever the collector does.

They mostly wait, so a few run at a time; each has a server and an application of its own.
"""

from collections import Counter
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest

from .application import Outcome, run_application
from .exchange import Ledger
from .scenario import PROTOCOLS, SCENARIOS, SPANS, Scenario
from .server import FaultServer

AT_A_TIME = 4
TIMEOUT_S = 60.0
TABLE = [
    pytest.param(scenario, protocol, id=f"{scenario}-{protocol}")
    for scenario in SCENARIOS
    for protocol in PROTOCOLS
    if protocol in scenario.protocols
]
Played = tuple[Outcome, Ledger]


def play(scenario: Scenario, protocol: str) -> Played:
    with FaultServer(protocol, scenario.faults, always=scenario.always) as server:
        return run_application(server.endpoint, protocol, rounds=[SPANS], **scenario.arguments), server.ledger


@pytest.fixture(scope="module")
def playing(request: pytest.FixtureRequest) -> Iterator[dict[tuple[str, str], "Future[Played]"]]:
    """Every cell of the table that was asked for."""
    pool = ThreadPoolExecutor(AT_A_TIME)
    cells: list[Any] = [item for item in request.session.items if item.path == request.path]
    asked: list[tuple[Scenario, str]] = [tuple(cell.callspec.params.values()) for cell in cells]
    yield {(str(scenario), protocol): pool.submit(play, scenario, protocol) for scenario, protocol in asked}
    pool.shutdown(cancel_futures=True)


@pytest.mark.parametrize(("scenario", "protocol"), TABLE)
def test_every_span_arrives_once_or_is_counted_as_lost(
    playing: dict[tuple[str, str], "Future[Played]"], scenario: Scenario, protocol: str
) -> None:
    outcome, ledger = playing[str(scenario), protocol].result(TIMEOUT_S * len(TABLE))
    stats = outcome.stats
    assert (stats["exported"], stats["dropped"]["failed"], stats["dropped"]["rejected"]) == (
        scenario.exported,
        scenario.failed,
        scenario.rejected,
    ), stats
    assert (stats["ended"], stats["pending"]) == (SPANS, 0)
    assert outcome.flushed == [scenario.flushed], stats
    assert stats["retries"] >= scenario.least_retries, stats
    assert scenario.says in (stats["last_error"] or ""), stats
    if scenario.says or scenario.failed or scenario.rejected:
        assert outcome.stderr.startswith("rvh_trace: ")
    if not scenario.may_arrive_twice and not scenario.rejected:
        assert Counter(ledger.taken) == Counter(range(scenario.exported))
