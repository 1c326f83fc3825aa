"""A real OpenTelemetry collector on this machine: rotel, a Rust collector that comes as a Python wheel."""

import importlib.util
import os
import shutil
import stat
from pathlib import Path

from process import LOOPBACK, Process, StartError, child_env, free_ports
from receiver import Protocol


class Collector(Process):
    """Receives OTLP over HTTP and gRPC on free ports and forwards it to `destination`, over `protocol`."""

    def __init__(self, destination: str, protocol: Protocol, *, directory: Path) -> None:
        self._http_port, self._grpc_port = free_ports(2)
        command: list[str | Path] = [
            _agent(directory),
            "start",
            *("--pid-file", directory / "collector.pid"),
            *("--log-file", directory / "collector-agent.log"),
            *("--otlp-http-endpoint", f"{LOOPBACK}:{self._http_port}"),
            *("--otlp-grpc-endpoint", f"{LOOPBACK}:{self._grpc_port}"),
            *("--exporter", "otlp"),
            *("--otlp-exporter-endpoint", destination),
            *("--otlp-exporter-protocol", protocol),
            *("--otlp-exporter-batch-timeout", "100ms"),
            *("--otlp-exporter-retry-initial-backoff", "100ms"),
        ]
        super().__init__(
            "collector",
            command,
            ports=(self._http_port, self._grpc_port),
            directory=directory,
            env=child_env(NO_COLOR="1"),
        )

    def endpoint(self, protocol: Protocol) -> str:
        """Where to send to: the value for `OTEL_EXPORTER_OTLP_ENDPOINT`."""
        return f"http://{LOOPBACK}:{self._grpc_port if protocol == 'grpc' else self._http_port}"


def _agent(directory: Path) -> Path:
    """The collector's executable in the installed `rotel` package; it may come without its executable bit."""
    # Found, not imported: only its executable is needed.
    package = importlib.util.find_spec("rotel")
    if package is None or package.origin is None:
        raise StartError("the collector is not installed: `make demo` does it, or `pip install --group demo`")
    agent = Path(package.origin).with_name("rotel-agent")
    if not agent.is_file():
        raise StartError(f"the installed rotel package has no collector for this platform ({agent} is missing)")
    if os.access(agent, os.X_OK):
        return agent
    copy = Path(shutil.copy(agent, directory / agent.name))
    copy.chmod(copy.stat().st_mode | stat.S_IXUSR)
    return copy
