"""`python -m benches.python.load`: an application under load, and what its pipeline costs. Linux alone.

Prints one JSON object. The exporter thread is measured by the clock of the scheduler, nanoseconds on a processor
(`/proc/self/task/<tid>/schedstat`), resident memory by `/proc/self/status`.
"""

import argparse
import json
import os
import time
from pathlib import Path
from threading import get_native_id

EXPORTER_THREAD = "rvh-trace-expor"  # the kernel keeps 15 characters
BURST = 2_000


def resident_bytes() -> int:
    """Resident memory of this process."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmRSS:"))
    return int(line.split()[1]) * 1024


def exporter_cpu_ns() -> int:
    """Processor time of the exporter thread; 0 before it runs."""
    for task in Path("/proc/self/task").iterdir():
        if int(task.name) != get_native_id() and (task / "comm").read_text().strip() == EXPORTER_THREAD:
            return int((task / "schedstat").read_text().split()[0])
    return 0


def main() -> None:
    """Makes `--spans` spans with two attributes, `--rate` a second, and says what became of them."""
    parser = argparse.ArgumentParser(prog="python -m benches.python.load", description=__doc__)
    parser.add_argument("--endpoint", required=True)
    parser.add_argument("--spans", type=int, required=True)
    parser.add_argument("--rate", type=int, required=True, help="spans a second")
    parser.add_argument("--core", type=int, help="run on this core alone")
    parser.add_argument("--flush", action="store_true", help="wait in the end until everything is sent")
    options = parser.parse_args()
    if options.core is not None:
        os.sched_setaffinity(0, {options.core})
    before = resident_bytes()

    import rvh_trace

    rvh_trace.init_tracing("bench", endpoint=options.endpoint, metrics_exporter="none")
    span = rvh_trace.span
    resident: list[int] = []
    started = time.perf_counter()
    for made in range(0, options.spans, BURST):
        for number in range(BURST):
            with span("GET /items/{id}", {"item.id": number, "item.kind": "book"}):
                pass
        resident.append(resident_bytes())
        ahead = (made + BURST) / options.rate - (time.perf_counter() - started)
        if ahead > 0:
            time.sleep(ahead)
    elapsed_s = time.perf_counter() - started
    if options.flush:
        rvh_trace.force_flush(30_000)
    resident.append(resident_bytes())
    stats = rvh_trace.stats()
    answer = {
        "ended": stats["ended"],
        "exported": stats["exported"],
        "elapsed_s": elapsed_s,
        "exporter_cpu_ns": exporter_cpu_ns(),
        "added_bytes": max(resident) - before,
        # What the second half of the spans added over the first.
        "growth_bytes": max(resident[len(resident) // 2 :]) - max(resident[: len(resident) // 2]),
    }
    print(json.dumps(answer), flush=True)
    os._exit(0)


if __name__ == "__main__":
    main()
