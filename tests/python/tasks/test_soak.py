"""A hundred thousand tasks leave nothing behind. `RVH_TRACE_TASKS` makes it more."""

import os

import pytest
from interpreter import run_quietly

TASKS = int(os.environ.get("RVH_TRACE_TASKS", "100000"))
TIMEOUT_S = max(100, TASKS / 1000)


@pytest.mark.parametrize("factory", ["asyncio.new_event_loop", "uvloop.new_event_loop"])
def test_memory_stays_flat(factory: str) -> None:
    """What a fifth of the tasks has allocated is enough for the rest."""
    run_quietly(
        f"""
        import asyncio, faulthandler, gc, sys, uvloop
        from rvh_trace import install_task_factory, span
        from rvh_trace.testing import InMemoryExporter

        faulthandler.enable()

        async def work(number):
            if number % 7 == 0:
                await asyncio.sleep(0)
            if number % 101 == 0:
                raise LookupError(number)
            if number % 103 == 0:
                await asyncio.Event().wait()

        async def some(count):
            with span("outer"):
                tasks = [asyncio.create_task(work(number)) for number in range(count)]
                await asyncio.sleep(0)
                await asyncio.sleep(0)
                for task in tasks[::103]:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)

        async def main():
            install_task_factory()
            for batch in range({TASKS} // 500):
                await some(500)
                spans.clear()
                if batch % 20 == 0:
                    gc.collect()
                    resident.append(pages())
                    blocks.append(sys.getallocatedblocks())

        def pages():
            with open("/proc/self/statm") as statm:
                return int(statm.read().split()[1])

        resident, blocks = [], []
        with InMemoryExporter() as spans, asyncio.Runner(loop_factory={factory}) as runner:
            runner.run(main())
        settled = len(blocks) // 5 + 1
        assert max(blocks[settled:]) <= blocks[settled] + 2000, blocks
        assert max(resident[settled:]) <= resident[settled] + 1024, resident
        """,
        TIMEOUT_S,
    )
