"""Resident memory stays flat while spans are made that nobody takes.

`RVH_TRACE_SOAK_S` makes it last: `make soak` asks for ten minutes.
"""

import json
import os
import sys
from pathlib import Path

import pytest
from interpreter import run_script

SECONDS = float(os.environ.get("RVH_TRACE_SOAK_S", "0"))
SPANS = 300_000
MIB = 1024 * 1024

# The bounds of the queue are 4 MiB; the rest is a margin for the allocator and for builds without optimisation.
AT_MOST = 32 * MIB
GROWTH_AT_MOST = 4 * MIB

SCRIPT = """
import json, sys, time
from pathlib import Path

def resident():
    status = Path("/proc/self/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS:")) * 1024

before = resident()
import rvh_trace
rvh_trace.init_tracing("shop", schedule_delay_ms=20, **ARGUMENTS)
deadline = time.monotonic() + SECONDS
seen, made = [], 0
while made < SPANS or time.monotonic() < deadline:
    for number in range(1_000):
        with rvh_trace.span("op", number=number, text="a value of some length"):
            pass
    made += 1_000
    seen.append(resident())
    if made > SPANS:
        time.sleep(0.01)
stats = rvh_trace.stats()
assert stats["ended"] == made == (
    stats["exported"] + stats["spooled"] + stats["pending"] + sum(stats["dropped"].values())
), stats
half = len(seen) // 2
print(json.dumps({"added": max(seen) - before, "growth": max(seen[half:]) - max(seen[:half]), "made": made}))
sys.stdout.flush()
import os
os._exit(0)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("spooled", [False, True], ids=["in memory", "with a spool"])
def test_without_a_collector_memory_stays_flat(tmp_path: Path, spooled: bool) -> None:
    arguments = {"endpoint": "http://127.0.0.1:1"}
    if spooled:
        arguments["spool_directory"] = str(tmp_path)
    script = SCRIPT.replace("ARGUMENTS", repr(arguments)).replace("SECONDS", repr(SECONDS))
    finished = run_script(script.replace("SPANS", str(SPANS)), SECONDS + 120)
    assert finished.returncode == 0, finished.stderr
    memory = json.loads(finished.stdout)
    assert memory["made"] >= SPANS
    assert memory["added"] < AT_MOST, memory
    assert memory["growth"] < GROWTH_AT_MOST, memory
