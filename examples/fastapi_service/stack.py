"""Everything the demo and the end-to-end tests run: shop and stock, a collector they send to, a receiver behind it."""

import sys
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Self

from collector import Collector
from process import LOOPBACK, Process, child_env, free_ports
from receiver import Protocol, Receiver

EXAMPLE = Path(__file__).parent
OTLP_PROTOCOL = {"http": "http/protobuf", "grpc": "grpc"}


@dataclass(frozen=True, slots=True)
class Ports:
    shop: int
    stock: int


class Stack:
    """shop -> stock, both -> collector -> receiver; all of it lives inside the `with` block."""

    def __init__(self, protocol: Protocol = "http", ports: Ports | None = None, **env: str) -> None:
        self.ports = ports or Ports(*free_ports(2))
        self.shop_url = f"http://{LOOPBACK}:{self.ports.shop}"
        self.stock_url = f"http://{LOOPBACK}:{self.ports.stock}"
        self.receiver = Receiver()
        self._protocol: Protocol = protocol
        self._env = env
        self._running = ExitStack()
        self._processes: list[Process] = []

    def __enter__(self) -> Self:
        with ExitStack() as starting:
            directory = Path(starting.enter_context(TemporaryDirectory(prefix="rvh-trace-")))
            starting.enter_context(self.receiver)
            collector = Collector(self.receiver.endpoint(self._protocol), self._protocol, directory=directory)
            env = child_env(
                OTEL_EXPORTER_OTLP_ENDPOINT=collector.endpoint(self._protocol),
                OTEL_EXPORTER_OTLP_PROTOCOL=OTLP_PROTOCOL[self._protocol],
                OTEL_BSP_SCHEDULE_DELAY="200",
                OTEL_RESOURCE_ATTRIBUTES="service.version=1.0.0,deployment.environment.name=demo",
                STOCK_URL=self.stock_url,
                **self._env,
            )
            stock = _uvicorn("stock", self.ports.stock, directory, env)
            shop = _uvicorn("shop", self.ports.shop, directory, env)
            self._processes = [collector, stock, shop]
            for process in self._processes:
                starting.enter_context(process)
            self._running = starting.pop_all()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_exc: object) -> None:
        if kind is not None and issubclass(kind, Exception):
            print(self.log_tails(), file=sys.stderr)
        self.stop()

    def log_tails(self) -> str:
        """The last lines of every process: what to read when something is missing."""
        return "\n".join(filter(None, (process.log_tail() for process in self._processes)))

    def stop(self) -> None:
        """Stop in the order of the data, so that each part still finds the next: services, collector, receiver."""
        self._running.close()


def _uvicorn(name: str, port: int, directory: Path, env: dict[str, str]) -> Process:
    options = ["--app-dir", EXAMPLE, "--host", LOOPBACK, "--port", str(port), "--lifespan", "on", "--no-access-log"]
    command = [sys.executable, "-m", "uvicorn", f"{name}:app", *options]
    return Process(name, command, ports=[port], directory=directory, env=env)
