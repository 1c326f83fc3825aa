"""With a spool nothing is lost at all: not when the collector is killed under load, not when the application is.

Every outage lasts until more spans have ended than the queue holds twice over. Delivery is at least once, so some come
a second time; which may do so, and how often, is counted.
"""

from collections import Counter
from collections.abc import Iterable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
from process import LOOPBACK, free_ports

from .application import Application, application
from .recording import Recorder
from .scenario import PROTOCOLS

LOAD = 20
"""Spans at every turn of the application's loop, which takes 5 ms."""
QUEUE = 2_048
PENDING = QUEUE * 3 // 4
"""When this many wait the application waits too: a collector that is up and slow is no outage."""
BATCH = 128
OUTAGE = 2 * QUEUE
"""Spans that an outage lasts for."""


@pytest.fixture(params=PROTOCOLS)
def protocol(request: pytest.FixtureRequest) -> str:
    return request.param


class Site:
    """A collector's place and a spool directory, for applications that come and go."""

    def __init__(self, protocol: str, directory: Path) -> None:
        self.protocol = protocol
        self.spool = directory / "spool"
        self._directory = directory
        (self._port,) = free_ports(1)

    def application(self) -> AbstractContextManager[Application]:
        return application(
            f"http://{LOOPBACK}:{self._port}",
            self.protocol,
            schedule_delay_ms=1,
            max_queue_size=QUEUE,
            max_export_batch_size=BATCH,
            spool_directory=str(self.spool),
        )

    def collector(self, *, holds: bool = False) -> Recorder:
        return Recorder(self.protocol, self._port, self._directory, holds=holds)


@pytest.fixture
def site(protocol: str, tmp_path: Path) -> Site:
    return Site(protocol, tmp_path)


def wait_until_spooled(running: Application, more: int) -> int:
    """Waits until so many more spans are on disk; how many of the first spans are on disk or delivered.

    They end in the order of their numbers and leave the queue in that order.
    """
    before = running.ask(look=True).stats["spooled"]
    stats = running.wait_until(lambda stats: stats["spooled"] >= before + more)
    assert not any(stats["dropped"].values()), stats
    return stats["exported"] + stats["spooled"]


def numbers(requests: Iterable[list[int]]) -> Counter[int]:
    return Counter(number for request in requests for number in request)


def test_nothing_is_lost_when_the_collector_is_killed_and_comes_back(site: Site) -> None:
    held = Counter[int]()
    in_doubt: list[list[int]] = []
    with site.application() as running:
        running.ask(load=LOAD, pending=PENDING)
        for holds in (False, True, False, True):
            with site.collector(holds=holds) as collector:
                seen = len(collector.requests)
                exported = running.ask(look=True).stats["exported"]
                if holds:
                    running.wait_until(lambda _, collector=collector, seen=seen: len(collector.requests) > seen)
                else:
                    running.wait_until(lambda stats, exported=exported: stats["exported"] > exported)
                collector.kill()
                if holds:
                    held += numbers(collector.requests[seen:])
                else:
                    in_doubt += collector.requests[-1:]
            wait_until_spooled(running, OUTAGE)
        running.ask(load=0)
        with site.collector() as collector:
            running.wait_until(lambda stats: stats["spooled"] == stats["pending"] == 0)
            assert running.flush().result is True
            stats = running.end().stats
    assert stats["exported"] == stats["ended"] > 4 * OUTAGE, stats
    assert (stats["spooled_bytes"], stats["damaged_spool_files"], stats["recovered"]) == (0, 0, 0), stats
    arrived = numbers(collector.requests)
    assert arrived.keys() == set(range(stats["ended"]))
    again = arrived - Counter(arrived.keys())
    assert held
    assert held <= again <= held + numbers(in_doubt)
    assert not list(site.spool.iterdir())


def test_nothing_is_lost_when_the_application_is_killed(site: Site) -> None:
    """Once while it writes, once while it sends what the first has left; the third delivers all."""
    with site.application() as first:
        first.ask(load=LOAD, pending=PENDING)
        kept_by_first = wait_until_spooled(first, OUTAGE)
        first.kill()

    second_begins = 1_000_000
    with site.application() as second:
        second.ask(first=second_begins, load=LOAD, pending=PENDING)
        kept_by_second = wait_until_spooled(second, OUTAGE)
        with site.collector() as collector:
            stats = second.wait_until(lambda stats: stats["recovered"] > 0)
            kept_by_second = max(kept_by_second, stats["exported"] + stats["spooled"])
            second.kill()

    third_begins = 2_000_000
    with site.application() as third, site.collector() as collector:
        third.ask(first=third_begins, make=1)
        third.wait_until(lambda stats: stats["recovered"] > 0 and stats["spooled_bytes"] == 0)
        assert third.flush().result is True
        stats = third.end().stats

    assert (stats["exported"], stats["ended"]) == (1, 1), stats
    # A request that was being written when its process was killed ends in the middle, and was not counted as on disk.
    assert stats["damaged_spool_files"] <= 2
    arrived = numbers(collector.requests)
    assert arrived.keys() >= set(range(kept_by_first))
    assert arrived.keys() >= set(range(second_begins, second_begins + kept_by_second))
    assert third_begins in arrived
    # The one that the second process was sending, for all that the third knows.
    again = {number for number, times in arrived.items() if times > 1}
    assert not again or any(again <= set(request) for request in collector.requests), sorted(again)
    assert not list(site.spool.iterdir())
