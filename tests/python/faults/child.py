"""The application of a scenario: makes numbered spans, flushes without blocking its loop, and tells what it saw.

`python -m faults.child '{"arguments": {...}, "rounds": [10, 10], "flush_ms": 5000, "shutdown_ms": 2000}'` prints one
JSON object. After each round of spans it awaits `aflush`, at the end `ashutdown`.
"""

import asyncio
import json
import sys
import time
from typing import Any

import rvh_trace
from rvh_trace import span

TICK_S = 0.005


class Ticking:
    """Counts how often the loop got round to a task that sleeps a little."""

    def __init__(self) -> None:
        self.ticks = 0

    async def __aenter__(self) -> "Ticking":
        self._task = asyncio.create_task(self._tick())
        return self

    async def __aexit__(self, *_exc: object) -> None:
        self._task.cancel()

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(TICK_S)
            self.ticks += 1


async def main(asked: dict[str, Any]) -> dict[str, Any]:
    rvh_trace.init_tracing("faults", schedule_delay_ms=600_000, metrics_exporter="none", **asked["arguments"])
    flushed: list[bool] = []
    number = 0
    async with Ticking() as ticking:
        for spans in asked["rounds"]:
            for _ in range(spans):
                with span("op", number=number):
                    number += 1
            if asked["flush_ms"] is not None:
                flushed.append(await rvh_trace.aflush(asked["flush_ms"]))
                balanced(rvh_trace.stats())
        begun = time.monotonic()
        shut_down = await rvh_trace.ashutdown(asked["shutdown_ms"])
        took_s = time.monotonic() - begun
        stats = balanced(rvh_trace.stats())
        return {
            "flushed": flushed,
            "shut_down": shut_down,
            "took_s": took_s,
            "ticks": ticking.ticks,
            "stats": stats,
        }


def balanced(stats: Any) -> Any:
    """Nothing is ever unaccounted for."""
    assert stats["ended"] == stats["exported"] + stats["pending"] + sum(stats["dropped"].values()), stats
    assert stats["swallowed_errors"] == 0, stats
    return stats


if __name__ == "__main__":
    print(json.dumps(asyncio.run(main(json.loads(sys.argv[1])))))
