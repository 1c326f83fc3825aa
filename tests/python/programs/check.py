"""One run of one program, on a loop of its own, compared with the model."""

import asyncio
import gc
from typing import Any

import uvloop

from programs.comparison import Comparison
from programs.interruption import Interruption
from programs.log import Log
from programs.program import Body
from programs.runner import Loops, Runner
from rvh_trace import current_span, install_task_factory, stats
from rvh_trace.testing import InMemoryExporter

__all__ = ("FACTORIES", "LOOPS", "check")

LOOPS: dict[str, Loops] = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}
FACTORIES = ("no factory", "task spans")


def check(program: Body, loops: Loops, factory: str, step: int | None, *, debug: bool = False) -> Interruption:
    """Runs a program, cancelled at a step or not, and compares."""
    log, interruption = Log(), Interruption(step)
    complaints: list[dict[str, Any]] = []
    before = stats()

    async def main() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
        asyncio.get_running_loop().slow_callback_duration = 3600.0  # of the debug mode; nothing is timed here
        if factory == "eager task spans":
            eager: Any = vars(asyncio)["eager_task_factory"]
            asyncio.get_running_loop().set_task_factory(eager)
        if factory != "no factory":
            install_task_factory()
        await runner.main(program)

    with InMemoryExporter() as exporter:
        runner = Runner(log, interruption, loops)
        with asyncio.Runner(loop_factory=loops, debug=debug) as loop:
            loop.run(main())
        runner.forget()
        assert not current_span().context.is_valid
        gc.collect()
        exported = list(exporter)
    assert complaints == []
    Comparison(program, log, exported, task_spans=factory != "no factory").check()
    after: Any = stats()
    assert after["ended"] == after["exported"] + after["pending"] + sum(after["dropped"].values())
    assert after["swallowed_errors"] == before["swallowed_errors"]
    assert [canary for canary in log.canaries if canary() is not None] == [], "a context is kept alive"
    return interruption
