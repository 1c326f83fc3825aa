"""`python -m benches.server`: measures and prints the table."""

import argparse
import os
import platform
import signal
import sys
from types import FrameType

from ..python.collector import CollectorError, collector
from .contender import ENTRIES, NAMES, OURS, UNTRACED
from .results import lines, markdown, plain
from .run import WARM_UP_S, Measured, measure_rounds
from .wrk import CONNECTIONS, WrkError, executable

METHOD = """\
In a round every contender is measured once, under a server process of its own that was just started and warmed up; the
order is turned round from one round to the next. Ratios are to the untraced server of the same round, and the table has
their medians over the rounds. wrk asks as fast as it is answered, on {connections} connections, for a small JSON
document, with eleven headers. Latencies are wrk's. `cpu a request` is the processor time of the server process, all
threads, until its spans are sent. The count of spans includes the warm-up. Every library has its defaults and exports
to a live collector, which is on wrk's core.\
"""


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return number


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benches.server", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="three rounds of two seconds")
    parser.add_argument("--rounds", type=_positive, metavar="N", help="9 by default")
    parser.add_argument("--seconds", type=_positive, metavar="S", help="load on each server in a round; 5 by default")
    parser.add_argument("--only", action="append", choices=NAMES, metavar="NAME", help=f"one of {', '.join(NAMES)}")
    parser.add_argument("--markdown", action="store_true", help="print the table as Markdown")
    return parser.parse_args()


def _terminate(number: int, frame: FrameType | None) -> None:
    # Leave through every `with` block, as Ctrl-C does.
    raise KeyboardInterrupt


def _cores() -> tuple[int, int]:
    """A core for the server and another one for wrk and the collector."""
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        raise WrkError("bench-server needs two processor cores: one for the server, one for what loads it")
    return cores[0], cores[1]


def main() -> int:
    """Prints the table. 1 if `rvh_trace` or the collector is missing or broke, 2 if there is nothing to measure with.

    A missed target is no failure.
    """
    options = arguments()
    rounds = options.rounds or (3 if options.quick else 9)
    seconds = options.seconds or (2 if options.quick else 5)
    entries = [entry for entry in ENTRIES if options.only is None or entry.name in (UNTRACED, *options.only)]
    signal.signal(signal.SIGTERM, _terminate)
    load_before = os.getloadavg()[0]
    try:
        executable()
        server_core, load_core = _cores()
        # The collector and wrk inherit it; the server gets its own.
        os.sched_setaffinity(0, {load_core})
        with collector() as (described, endpoint):
            measured = measure_rounds(entries, endpoint, server_core, rounds, seconds)
    except CollectorError as error:
        print(error, file=sys.stderr)
        return 1
    except WrkError as error:
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    print(
        f"CPython {platform.python_version()}, {platform.system()} {platform.machine()}, {os.cpu_count()} cores, "
        f"load average {load_before:.1f} before",
        f"server on core {server_core}; wrk and the collector, {described}, on core {load_core}; "
        f"{rounds} rounds of {seconds} s after {WARM_UP_S} s of warm-up",
        ", ".join(dict.fromkeys(", ".join(measured.versions.values()).split(", "))),
        "",
        (markdown if options.markdown else plain)(lines(entries, measured)),
        "",
        METHOD.format(connections=CONNECTIONS),
        sep="\n",
    )
    return _report(measured)


def _report(measured: Measured) -> int:
    troubles = {**measured.missing, **measured.failures}
    for name, trouble in troubles.items():
        print(f"\n{name}: {trouble}", file=sys.stderr)
    return 1 if any(name.startswith((OURS, UNTRACED)) for name in troubles) else 0


if __name__ == "__main__":
    sys.exit(main())
