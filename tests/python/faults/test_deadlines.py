"""`aflush`, `ashutdown` and the exit keep their deadline whatever the collector does, and the loop turns meanwhile.

An attempt may take twenty seconds here, an export a minute: who waits for either runs into `PATIENCE_S`.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pytest

from .application import Application, application
from .certificates import Certificates
from .exchange import Exchange, Fault, Refusal
from .scenario import PROTOCOLS, SPANS, UNAVAILABLE, refusing, trickled_without_end
from .server import FaultServer

PATIENCE_S = 10.0
SLOW: dict[str, Any] = {"timeout_ms": 20_000, "export_timeout_ms": 60_000}
DEADLINE_MS = 300
LEAST_TICKS = 2
"""Of sixty on a machine that has time; a loop that is blocked has none."""

ALWAYS: dict[str, Callable[[str], FaultServer]] = {
    "hangs after accept": lambda protocol: FaultServer(protocol, [Fault("accept", Exchange.hang)] * 9),
    "hangs after the headers": lambda protocol: FaultServer(protocol, [Fault("head", Exchange.hang)] * 9),
    "hangs after the request": lambda protocol: FaultServer(protocol, always=Exchange.hang),
    "trickles": lambda protocol: FaultServer(protocol, always=trickled_without_end),
    "asks for a wait": lambda protocol: FaultServer(
        protocol, always=refusing(Refusal(503, UNAVAILABLE, "later", after="15"))
    ),
    "refuses connections": lambda protocol: FaultServer(protocol, listens=False),
}


@pytest.fixture(params=PROTOCOLS)
def protocol(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.mark.parametrize("name", ALWAYS)
class TestWhateverTheCollectorDoes:
    @contextmanager
    def _running(self, name: str, protocol: str, **arguments: Any) -> Iterator[Application]:
        with ALWAYS[name](protocol) as server, application(server.endpoint, protocol, **SLOW, **arguments) as running:
            running.make(SPANS)
            yield running

    def test_a_shutdown_keeps_its_deadline(self, name: str, protocol: str) -> None:
        with self._running(name, protocol) as running:
            outcome = running.end(DEADLINE_MS)
            stats = outcome.stats
            assert outcome.shut_down is False
            assert outcome.took_s < PATIENCE_S
            assert stats["dropped"]["failed"] + stats["dropped"]["exit"] == SPANS, stats

    def test_a_flush_keeps_its_deadline_and_loses_nothing(self, name: str, protocol: str) -> None:
        with self._running(name, protocol) as running:
            flushed = running.flush(DEADLINE_MS)
            assert flushed.result is False
            assert flushed.took_s < PATIENCE_S
            assert flushed.ticks >= LEAST_TICKS
            assert flushed.stats["pending"] == SPANS
            # A shutdown interrupts what the flush has begun.
            outcome = running.end(DEADLINE_MS)
            assert outcome.took_s < PATIENCE_S
            assert outcome.stats["pending"] == 0

    def test_the_exit_keeps_its_deadline(self, name: str, protocol: str) -> None:
        with self._running(name, protocol, exit_timeout_ms=DEADLINE_MS) as running:
            assert running.leave() < PATIENCE_S


def test_a_flush_that_gave_up_is_made_good_by_the_next(protocol: str) -> None:
    with FaultServer(protocol, [Fault("request", Exchange.hang)]) as server:
        with application(server.endpoint, protocol, timeout_ms=1_000) as running:
            running.make(SPANS)
            assert running.flush(100).result is False
            assert running.flush().result is True
            assert running.end().stats["exported"] == SPANS
        assert Counter(server.ledger.taken) == Counter(range(SPANS))


def test_a_handshake_that_hangs(protocol: str, tmp_path: Path) -> None:
    certificates = Certificates.make(tmp_path)
    faults = [Fault("accept", Exchange.hang)] * 9
    server: AbstractContextManager[FaultServer] = FaultServer(protocol, faults, tls=certificates.context("good"))
    with (
        server as listening,
        application(listening.endpoint, protocol, certificate=str(certificates.trusted), **SLOW) as running,
    ):
        running.make(SPANS)
        flushed = running.flush(DEADLINE_MS)
        assert (flushed.result, flushed.took_s < PATIENCE_S, flushed.ticks >= LEAST_TICKS) == (False, True, True)
        outcome = running.end(DEADLINE_MS)
        assert (outcome.shut_down, outcome.took_s < PATIENCE_S) == (False, True)
        assert outcome.stats["pending"] == 0
