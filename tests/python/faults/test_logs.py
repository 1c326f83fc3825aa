"""Log records go the way of spans: some scenarios of the table once more, and a collector that takes no logs."""

from collections import Counter

import pytest

from .application import application, run_application
from .exchange import Exchange, Fault, Refusal
from .scenario import PROTOCOLS, SCENARIOS, SPANS, UNIMPLEMENTED, Scenario
from .server import FaultServer

NAMES = {
    *("takes", "takes gzip", "hangs for ever after the request", "resets once after the request", "unavailable once"),
    *("unavailable for ever", "bad request", "forbidden", "takes three spans at most", "takes no span", "rejects four"),
    *("warns", "answers without end"),
}
TABLE = [scenario for scenario in SCENARIOS if scenario.name in NAMES]


def no_logs(exchange: Exchange) -> None:
    if exchange.is_of_logs:
        exchange.refuse(Refusal(404, UNIMPLEMENTED, "unknown"))
    else:
        exchange.take()


def test_the_table_has_what_is_asked_for() -> None:
    assert {scenario.name for scenario in TABLE} == NAMES


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("scenario", TABLE, ids=str)
def test_every_record_arrives_once_or_is_counted_as_lost(scenario: Scenario, protocol: str) -> None:
    with FaultServer(protocol, scenario.faults, always=scenario.always) as server:
        outcome = run_application(server.endpoint, protocol, "logs", rounds=[SPANS], **scenario.arguments)
    logs = outcome.stats["logs"]
    assert (logs["exported"], logs["dropped"]["failed"], logs["dropped"]["rejected"]) == (
        scenario.exported,
        scenario.failed,
        scenario.rejected,
    ), outcome
    assert (logs["created"], logs["pending"], outcome.stats["ended"]) == (SPANS, 0, 0)
    assert outcome.flushed == [scenario.flushed], outcome
    assert outcome.stats["retries"] >= scenario.least_retries, outcome
    assert scenario.says in (outcome.stats["last_error"] or ""), outcome
    if scenario.says or scenario.failed or scenario.rejected:
        assert outcome.stderr.startswith("rvh_trace: ")
        assert "log records" in outcome.stderr
    if not scenario.rejected:
        assert Counter(server.ledger.taken) == Counter(range(scenario.exported))


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_collector_without_logs_costs_one_request_and_one_warning(protocol: str) -> None:
    with FaultServer(protocol, always=no_logs) as server:
        outcome = run_application(server.endpoint, protocol, "logs", rounds=[SPANS] * 3)
        assert server.ledger.requests == 1
    assert outcome.flushed == [True] * 3, "it is no loss that a flush reports"
    assert outcome.stats["logs"]["dropped"]["unsupported"] == 3 * SPANS
    warning, *others = outcome.stderr.splitlines()
    assert not others
    for part in ("warning", "log records", "OTEL_LOGS_EXPORTER=none", "unknown"):
        assert part in warning


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_spans_do_not_suffer_from_a_collector_without_logs(protocol: str) -> None:
    with FaultServer(protocol, always=no_logs) as server:
        outcome = run_application(server.endpoint, protocol, "both", rounds=[SPANS] * 3)
        assert Counter(server.ledger.taken) == Counter(range(3 * SPANS))
    assert outcome.flushed == [True] * 3
    assert (outcome.stats["exported"], outcome.stats["logs"]["dropped"]["unsupported"]) == (3 * SPANS, 3 * SPANS)
    assert len(outcome.stderr.splitlines()) == 1


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_shutdown_keeps_its_deadline_and_counts_what_was_not_sent(protocol: str) -> None:
    with (
        FaultServer(protocol, [Fault("request", Exchange.hang)] * 9) as server,
        application(server.endpoint, protocol, "logs") as running,
    ):
        running.make(SPANS)
        outcome = running.end(timeout_ms=300)
    assert not outcome.shut_down
    logs = outcome.stats["logs"]
    assert logs["dropped"]["failed"] + logs["dropped"]["exit"] == SPANS
    assert logs["pending"] == 0


def test_records_wait_while_nothing_listens_and_arrive_when_it_does() -> None:
    with (
        FaultServer("grpc", listens=False) as server,
        application(server.endpoint, "grpc", "logs", schedule_delay_ms=1) as running,
    ):
        running.make(SPANS)
        running.wait_until(lambda stats: stats["retries"] >= 2)
        server.listen()
        assert running.flush().result is True
        assert Counter(server.ledger.taken) == Counter(range(SPANS))
        running.end()


def test_a_queue_that_is_full_drops_the_newest_and_leaves_spans_alone() -> None:
    with (
        FaultServer("http/protobuf", listens=False) as server,
        application(server.endpoint, "http/protobuf", "both", max_queue_size=100) as running,
    ):
        running.make(5_000)
        stats = running.wait_until(lambda stats: stats["retries"] >= 1)
        logs = stats["logs"]
        assert (logs["created"], logs["pending"], logs["dropped"]["queue_full"]) == (5_000, 100, 4_900)
        assert stats["dropped"]["queue_full"] == 0
        server.listen()
        assert running.flush().result is True
        outcome = running.end()
    counts = Counter(server.ledger.taken)
    # Once as a span, and the first hundred once more as a record.
    assert counts == Counter(range(5_000)) + Counter(range(100))
    assert sum("OTEL_BLRP_MAX_QUEUE_SIZE" in line for line in outcome.stderr.splitlines()) == 1
