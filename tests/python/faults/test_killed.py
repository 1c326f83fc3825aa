"""A collector that is killed under load and comes back on its port: nothing is lost within the bounds of the queue.

OTLP delivers at least once: a request that was taken, but whose answer died with the collector, is sent again. So a
span may arrive twice only if it was in the last request before a kill; the test allows that and nothing else.
"""

from collections import Counter
from pathlib import Path

import pytest
from process import LOOPBACK, free_ports

from .application import application
from .recording import Recorder
from .scenario import PROTOCOLS

KILLS = 4
LOAD = 10
"""Spans at every turn of the application's loop, which takes 5 ms."""


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_nothing_is_lost_when_the_collector_is_killed_and_comes_back(protocol: str, tmp_path: Path) -> None:
    (port,) = free_ports(1)
    in_doubt: set[int] = set()
    with application(f"http://{LOOPBACK}:{port}", protocol, schedule_delay_ms=1) as running:
        running.ask(load=LOAD)
        for _ in range(KILLS):
            with Recorder(protocol, port, tmp_path) as recorder:
                before = running.ask(look=True).stats["exported"]
                running.wait_until(lambda stats, before=before: stats["exported"] > before)
                recorder.kill()
                in_doubt.update(recorder.requests[-1])
            before = running.ask(look=True).stats["retries"]
            running.wait_until(lambda stats, before=before: stats["retries"] > before)
        running.ask(load=0)
        with Recorder(protocol, port, tmp_path) as recorder:
            assert running.flush().result is True
            stats = running.end().stats
    assert stats["exported"] == stats["ended"] > 0, stats
    arrived = Counter(number for request in recorder.requests for number in request)
    assert arrived.keys() == set(range(stats["ended"]))
    assert {number for number, times in arrived.items() if times > 1} <= in_doubt
