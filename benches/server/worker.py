"""The process of one server: `python -m benches.server.worker NAME ENDPOINT`, driven by `server.Server`.

It says where it listens in a line of JSON on standard output; whatever a library prints goes to standard error. For
each line on standard input it waits for the requests under way, drains and answers with what it has counted. The end
of standard input ends it. That costs a request nothing: a thread of its own sleeps in the read meanwhile.
"""

import json
import os
import socket
import sys
import threading
import time
from importlib import import_module

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from .contender import ENTRIES, Contender

QUIET_TIMEOUT_S = 5.0
QUIET_POLL_S = 0.005

served = 0


async def item(request: Request) -> JSONResponse:
    """A small answer, with a path parameter as services have them."""
    global served
    served += 1
    return JSONResponse({"item": request.path_params["item"], "name": "tea", "price": 4.2})


def _open(name: str, endpoint: str) -> Contender:
    (entry,) = (entry for entry in ENTRIES if entry.name == name)
    return getattr(import_module(entry.module, __package__), entry.function)(endpoint)


def _wait_until_quiet(server: uvicorn.Server) -> None:
    """Until no request is under way: wrk leaves some behind when its time is over."""
    deadline = time.monotonic() + QUIET_TIMEOUT_S
    while server.server_state.tasks and time.monotonic() < deadline:
        time.sleep(QUIET_POLL_S)


def serve(name: str, endpoint: str) -> None:
    """Serves until standard input ends."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)

    def answer(message: dict[str, object]) -> None:
        answers.write(json.dumps(message) + "\n")

    try:
        contender = _open(name, endpoint)
    except Exception as error:
        # Not only ImportError: a native module can fail to load in other ways.
        answer({"missing": f"{type(error).__name__}: {error}"})
        return
    app = Starlette(routes=[Route("/items/{item}", item)])
    contender.install(app)
    server = uvicorn.Server(uvicorn.Config(app, loop="uvloop", http="httptools", access_log=False, log_level="warning"))

    def control() -> None:
        for _ in sys.stdin:
            _wait_until_quiet(server)
            contender.drain()
            exported = contender.exported() if contender.exported else None
            answer({"served": served, "exported": exported, "cpu_ns": time.process_time_ns()})
        server.should_exit = True

    listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
    threading.Thread(target=control, name="control", daemon=True).start()
    answer({"version": contender.version, "port": listener.getsockname()[1]})
    server.run(sockets=[listener])


if __name__ == "__main__":
    serve(sys.argv[1], sys.argv[2])
