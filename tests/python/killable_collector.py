"""An OTLP/HTTP collector in a process of its own, which can be killed and started again on the same port.

It keeps every request in a file before it answers, so what it said it took is there after a `kill -9`.
"""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

from rvh_trace.testing import FinishedSpan, exporter

START_TIMEOUT_S = 60.0

SERVE = """
import os, sys, uuid
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        name = os.path.join(sys.argv[2], uuid.uuid4().hex)
        with open(name + ".part", "wb") as file:
            file.write(body)
        os.rename(name + ".part", name)
        self.send_response(200)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass

class Server(ThreadingHTTPServer):
    allow_reuse_port = True

Server(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""


class KillableCollector:
    """A collector that is down until it is started."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._process: subprocess.Popen[bytes] | None = None
        # Bound and never listening: connections are refused, and nobody else gets the port.
        self._placeholder = socket.socket()
        self._placeholder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        self._placeholder.bind(("127.0.0.1", 0))
        self._port: int = self._placeholder.getsockname()[1]

    @property
    def endpoint(self) -> str:
        """Its base URL."""
        return f"http://127.0.0.1:{self._port}"

    def start(self) -> None:
        """Takes requests from now on."""
        self._process = subprocess.Popen([sys.executable, "-c", SERVE, str(self._port), str(self._directory)])
        deadline = time.monotonic() + START_TIMEOUT_S
        while True:
            try:
                socket.create_connection(("127.0.0.1", self._port), timeout=1).close()
                return
            except OSError:
                assert time.monotonic() < deadline, "the collector did not start"
                time.sleep(0.02)

    def kill(self) -> None:
        """`kill -9`."""
        if self._process is not None:
            os.kill(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None

    def close(self) -> None:
        """Ends it and gives the port back."""
        self.kill()
        self._placeholder.close()

    @property
    def spans(self) -> list[FinishedSpan]:
        """Every span that it took, those that came twice twice."""
        requests = [path for path in self._directory.iterdir() if not path.suffix]
        return [span for path in requests for span in exporter.decode(path.read_bytes())]
