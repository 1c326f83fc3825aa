"""The process of one library: `python -m benches.python.worker NAME ENDPOINT`, driven by `process.ContenderProcess`.

A line of JSON in, a line of JSON out. Standard output is kept for that; whatever a library prints goes to standard
error. The library is imported and configured once; between rounds the process sleeps in a read.
"""

import json
import os
import sys
from collections.abc import Callable
from dataclasses import asdict
from importlib import import_module

from .contender import Contender
from .measure import measure_round

# Module and function that open the contender of that name.
CONTENDERS = {
    "rvh_trace": (".ours", "open_contender"),
    "rvh_trace-without_metrics": (".ours", "open_without_metrics"),
    "rvh_trace-rust_log": (".ours", "open_rust_log"),
    "rvh_trace-always_off": (".ours", "open_unsampled"),
    "rvh_trace-layer": (".ours", "open_with_layer"),
    "rvh_trace-immediate_layer": (".ours", "open_with_immediate_layer"),
    "extension": (".extension", "open_recorded"),
    "extension-filtered": (".extension", "open_filtered"),
    "extension-unconnected": (".extension", "open_unconnected"),
    "extension-none": (".extension", "open_without_subscriber"),
    "futures": (".futures", "open_contender"),
    "opentelemetry": (".peers.opentelemetry_python", "open_contender"),
    "pytracingx": (".peers.pytracingx_by_hand", "open_contender"),
}


def _import(name: str) -> Callable[[str], Contender]:
    module, function = CONTENDERS[name]
    return getattr(import_module(module, __package__), function)


def serve(name: str, endpoint: str) -> None:
    """Answers requests until standard input ends."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)

    def answer(message: dict[str, object]) -> None:
        answers.write(json.dumps(message) + "\n")

    try:
        open_contender = _import(name)
    except Exception as error:
        # Not only ImportError: a native module can fail to load in other ways.
        answer({"missing": f"{type(error).__name__}: {error}"})
        return
    contender = open_contender(endpoint)
    answer({"version": contender.version, "cases": list(contender.cases)})
    for line in sys.stdin:
        request = json.loads(line)
        contender.drain()
        exported_before = contender.exported() if contender.exported else 0
        measured = measure_round(contender.cases[request["case"]], request["budget_s"], contender.drain)
        exported = contender.exported() - exported_before if contender.exported else None
        answer({**asdict(measured), "exported": exported})
    contender.close()


if __name__ == "__main__":
    serve(sys.argv[1], sys.argv[2])
