"""A collector that can be killed: `python -m faults.recorder grpc 4317 file [--hold]`.

It writes the numbers of the spans of every request into the file, a JSON list a line, before it answers; with `--hold`
it never does. What is in the file has arrived; whether the answer has, too, nobody knows who was killed.
"""

import json
import os
import sys
import threading

from .exchange import Exchange
from .server import FaultServer


def main(protocol: str, port: str, path: str, *options: str) -> None:
    file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    def record(exchange: Exchange) -> None:
        os.write(file, json.dumps(exchange.numbers).encode() + b"\n")
        if "--hold" in options:
            exchange.hang()
        else:
            exchange.take()

    with FaultServer(protocol, always=record, port=int(port)):
        threading.Event().wait()


if __name__ == "__main__":
    main(*sys.argv[1:])
