"""Each scenario over each protocol: spans arrive once or are counted, deadlines hold, the application's loop turns."""

from collections import Counter

import pytest

from .application import run_application
from .scenario import PROTOCOLS, SCENARIOS, SPANS, Scenario
from .server import FaultServer

TABLE = [
    pytest.param(scenario, protocol, id=f"{scenario}-{protocol}")
    for scenario in SCENARIOS
    for protocol in PROTOCOLS
    if protocol in scenario.protocols
]


@pytest.mark.parametrize(("scenario", "protocol"), TABLE)
def test_every_span_arrives_once_or_is_counted_as_lost(scenario: Scenario, protocol: str) -> None:
    with FaultServer(protocol, scenario.faults, always=scenario.always) as server:
        outcome = run_application(server.endpoint, protocol, rounds=[SPANS], **scenario.arguments)
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
        taken = Counter(server.ledger.taken)
        if not scenario.may_arrive_twice and not scenario.rejected:
            assert taken == Counter(range(scenario.exported))
