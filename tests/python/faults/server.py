"""A collector on a loopback port that plays faults, one a request, and takes spans when it has none left."""

import socket
import ssl
import threading
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Self

from h2.exceptions import H2Error

from . import grpc2, http1
from .exchange import Exchange, Fault, Ledger
from .grpc2 import GrpcExchange
from .http1 import Http1Exchange

BACKLOG = 16


class FaultServer:
    """Listens from `with` entry to exit; with `tls`, behind a handshake.

    Faults come in order, each at its own stage; what comes before that stage is served as usual. `always` is what is
    done when there are none left. Without `listens`, connections are refused until `listen` is called.
    """

    def __init__(
        self,
        protocol: str,
        faults: Iterable[Fault] = (),
        *,
        always: Callable[[Exchange], None] = Exchange.take,
        tls: ssl.SSLContext | None = None,
        listens: bool = True,
        port: int = 0,
    ) -> None:
        self.protocol = protocol
        self.ledger = Ledger()
        self._faults = deque(faults)
        self._always = always
        self._tls = tls
        self._stopped = threading.Event()
        self._lock = threading.Lock()
        self._open: list[socket.socket] = []
        self._listening = socket.socket()
        # For a port that a server has had before, whose connections linger.
        self._listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._listening.bind(("127.0.0.1", port))
        if listens:
            self._listening.listen(BACKLOG)
        self._listens = listens

    @property
    def endpoint(self) -> str:
        return f"{'https' if self._tls else 'http'}://127.0.0.1:{self._listening.getsockname()[1]}"

    def __enter__(self) -> Self:
        if self._listens:
            self._start()
        return self

    def listen(self) -> None:
        """Takes connections from now on, which were refused before."""
        self._listening.listen(BACKLOG)
        self._start()

    def _start(self) -> None:
        threading.Thread(target=self._accept, name="fault-server", daemon=True).start()

    def __exit__(self, *_exc: object) -> None:
        self._stopped.set()
        with suppress(OSError):
            self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        self.close_connections()

    def close_connections(self) -> None:
        """Ends every connection, in the middle of whatever it does."""
        with self._lock:
            opened, self._open = self._open, []
        for sock in opened:
            with suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
            sock.close()

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listening.accept()
            except OSError:
                return
            with self._lock:
                self._open.append(sock)
            with self.ledger.changed:
                self.ledger.connections += 1
            threading.Thread(target=self._serve, args=(sock,), name="fault-connection", daemon=True).start()

    def _serve(self, sock: socket.socket) -> None:
        # What the exporter does to a connection that it has given up is its own affair.
        with suppress(OSError, H2Error):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            kind = GrpcExchange if self.protocol == "grpc" else Http1Exchange
            first = kind(sock, self.ledger, self._stopped)
            if self._play("accept", first):
                return
            if self._tls is not None:
                first.sock = sock = self._tls.wrap_socket(sock, server_side=True)
                with self._lock:
                    self._open.append(sock)
            self._exchange(first)
            sock.close()

    def _exchange(self, first: Exchange) -> None:
        exchanges = grpc2.exchanges(first) if isinstance(first, GrpcExchange) else http1.exchanges(first)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
        for exchange in exchanges:
            if not exchange.is_complete:
                self._play("head", exchange)
            elif not self._play("request", exchange):
                self._always(exchange)
            if exchange.sock.fileno() == -1:
                return

    def _play(self, stage: str, exchange: Exchange) -> bool:
        with self._lock:
            if not self._faults or self._faults[0].stage != stage:
                return False
            fault = self._faults.popleft()
        fault.act(exchange)
        return True
