"""The application of a scenario: does what it is asked on standard input, a JSON object a line, and answers likewise.

`python -m faults.child '{"endpoint": ..., ...}' traces` takes the arguments of `init_tracing`. With `logs` behind them
it makes log records in place of spans, with `both` one in each span. Requests:

- `{"make": 10}`: ends ten spans, numbered on;
- `{"load": 20}`: ends as many at every turn from now on, none at 0, and none while more than `pending` wait, if given;
- `{"first": 1000}`, with either of them: the number of the next span;
- `{"flush": 5000}`: `aflush`;
- `{"shutdown": 2000}`: `ashutdown`, the last request;
- `{"look": true}`: nothing.

Every answer has what the call returned, its seconds, how often another task of the loop got round meanwhile, and
`stats()`, which must add up.
"""

import asyncio
import json
import logging
import sys
import time
from typing import Any

import rvh_trace
from rvh_trace import span
from rvh_trace.logging import LoggingHandler

TICK_S = 0.005


class Application:
    """Numbers its spans and counts the turns of its loop."""

    def __init__(self) -> None:
        self.number = 0
        self.ticks = 0
        self.load = 0
        self.logger = logging.getLogger("faults")
        self.signal = sys.argv[2]
        if self.signal != "traces":
            self.logger.setLevel(logging.INFO)
            self.logger.addHandler(LoggingHandler())
        self.pending = sys.maxsize

    async def tick(self) -> None:
        while True:
            await asyncio.sleep(TICK_S)
            self.ticks += 1
            if rvh_trace.stats()["pending"] <= self.pending:
                self.make(self.load)

    def make(self, spans: int) -> None:
        for _ in range(spans):
            if self.signal == "logs":
                self.logger.info("op", extra={"number": self.number})
            else:
                with span("op", number=self.number):
                    self.logger.info("op", extra={"number": self.number})
            self.number += 1

    async def do(self, asked: dict[str, Any]) -> bool | None:
        self.number = asked.get("first", self.number)
        self.pending = asked.get("pending", self.pending)
        match asked:
            case {"make": spans}:
                self.make(spans)
            case {"load": spans}:
                self.load = spans
            case {"flush": timeout_ms}:
                return await rvh_trace.aflush(timeout_ms)
            case {"shutdown": timeout_ms}:
                return await rvh_trace.ashutdown(timeout_ms)
            case _:
                pass
        return None


def balanced(stats: Any) -> Any:
    """Nothing is ever unaccounted for."""
    accounted = stats["exported"] + stats["spooled"] + stats["pending"] + sum(stats["dropped"].values())
    assert stats["ended"] == accounted, stats
    logs = stats["logs"]
    assert logs["created"] == logs["exported"] + logs["pending"] + sum(logs["dropped"].values()), stats
    return stats


async def main() -> None:
    rvh_trace.init_tracing("faults", metrics_exporter="none", **json.loads(sys.argv[1]))
    application = Application()
    ticking = asyncio.create_task(application.tick())
    while line := await asyncio.to_thread(sys.stdin.readline):
        begun, ticks = time.monotonic(), application.ticks
        result = await application.do(json.loads(line))
        answer = {
            "result": result,
            "took_s": time.monotonic() - begun,
            "ticks": application.ticks - ticks,
            "stats": balanced(rvh_trace.stats()),
        }
        print(json.dumps(answer), flush=True)
    ticking.cancel()


if __name__ == "__main__":
    asyncio.run(main())
