"""Servers with several processes, however they make them: a request is one trace, of the worker that served it."""

import signal
import time
from collections import Counter
from pathlib import Path

import httpx
import pytest
from process import LOOPBACK
from receiver import ReceivedSpan, attributes

from .server import Kind, Server

APPLICATION = "servers.worker_application:app"
WORKERS = 2
MOST_REQUESTS = 2000


def kind(name: str, *arguments: str, exit_code: int = 0) -> Kind:
    """`{port}` in an argument stands for the port."""
    return Kind(name, lambda port: [part.format(port=port) for part in arguments], exit_code)


def gunicorn(name: str, *options: str) -> Kind:
    bind = ("--bind", f"{LOOPBACK}:{{port}}", "--workers", str(WORKERS), "--worker-tmp-dir", "/dev/shm")
    log = ("--log-level", "critical")
    return kind(name, "gunicorn", APPLICATION, *bind, *log, "--worker-class", "uvicorn_worker.UvicornWorker", *options)


UVICORN = kind(
    "uvicorn",
    *("uvicorn", APPLICATION, "--host", LOOPBACK, "--port", "{port}", "--workers", str(WORKERS)),
    *("--log-level", "critical", "--no-access-log"),
)
PRELOAD = gunicorn("gunicorn-preload", "--preload")
KINDS = [
    UVICORN,
    gunicorn("gunicorn"),
    PRELOAD,
    kind(
        "hypercorn",
        *("hypercorn", APPLICATION, "--bind", f"{LOOPBACK}:{{port}}", "--workers", str(WORKERS)),
        *("--log-level", "critical"),
    ),
    kind(
        "granian",
        *("granian", APPLICATION, "--interface", "asgi", "--host", LOOPBACK, "--port", "{port}"),
        *("--workers", str(WORKERS), "--log-level", "critical"),
    ),
]


def request_until(server: Server, processes: int) -> Counter[int]:
    """Requests on a connection each until so many processes have answered; how many each of them answered.

    A worker that ends resets the connections that it has not looked at: those requests are made again.
    """
    answered: Counter[int] = Counter()
    resets = 0
    with httpx.Client(trust_env=False, limits=httpx.Limits(max_keepalive_connections=0)) as client:
        while len(answered) < processes or answered.total() < 50:
            try:
                response = client.get(f"http://{LOOPBACK}:{server.port}/")
            except httpx.TransportError:
                resets += 1
            else:
                answered[int(response.raise_for_status().text)] += 1
            assert answered.total() + resets < MOST_REQUESTS, f"only {len(answered)} processes answer"
    return answered


def arrived(server: Server, requests: int) -> list[ReceivedSpan]:
    """What has arrived once the spans of so many requests have."""
    received: list[ReceivedSpan] = []
    deadline = time.monotonic() + 30
    while sum(one.name == "answer" or one.kind == "server" for one in received) < 2 * requests:
        assert time.monotonic() < deadline
        time.sleep(0.02)
        received += server.take()
    return received


def process_of(one: ReceivedSpan) -> int:
    pid = attributes(one.resource.attributes)["process.pid"]
    assert isinstance(pid, int)
    return pid


def assert_every_request_is_a_trace(received: list[ReceivedSpan], answered: Counter[int]) -> None:
    assert len({one.span_id for one in received}) == len(received), "a span arrived twice, or two have one id"
    served = {one.span_id: one for one in received if one.kind == "server"}
    assert Counter(process_of(one) for one in served.values()) == answered
    assert len({one.trace_id for one in served.values()}) == len(served)
    inside = [one for one in received if one.name == "answer"]
    assert Counter(one.parent_id for one in inside) == Counter(served.keys())
    assert all(process_of(one) == process_of(served[one.parent_id]) for one in inside)
    instances = {(process_of(one), str(attributes(one.resource.attributes)["service.instance.id"])) for one in received}
    assert len(instances) == len({pid for pid, _ in instances}) == len({instance for _, instance in instances})


# uvicorn's supervisor leaves its socket to the end of the interpreter. Since 3.12 a fork with another thread alive is a
# DeprecationWarning.
WARNINGS = "always,ignore::ResourceWarning,ignore::DeprecationWarning"


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_spans_of_every_worker_arrive_once(kind: Kind, tmp_path: Path) -> None:
    # hypercorn kills its other workers, by SIGTERM, once one of them is done: they do not get to their last spans.
    is_killed = kind.name == "hypercorn"
    delay_ms = "50" if is_killed else "600000"
    with Server(kind, tmp_path, PYTHONWARNINGS=WARNINGS, OTEL_BSP_SCHEDULE_DELAY=delay_ms) as server:
        answered = request_until(server, WORKERS)
        received = arrived(server, answered.total()) if is_killed else []
        server.send_signal(signal.SIGTERM)
        server.assert_stopped_cleanly(server.wait())
        received += server.take()
    assert_every_request_is_a_trace(received, answered)
    imported = [process_of(one) for one in received if one.name == "import"]
    if kind is PRELOAD:
        assert len(imported) == 1, "the span that was queued before the workers were forked"
        assert imported[0] not in answered
    else:
        assert len(imported) == len(set(imported))
        assert set(imported) >= set(answered)


@pytest.mark.parametrize("options", [(), ("--preload",)], ids=["", "preload"])
def test_a_worker_that_is_replaced_loses_nothing(options: tuple[str, ...], tmp_path: Path) -> None:
    with Server(
        gunicorn("gunicorn-replaced", "--max-requests", "10", *options), tmp_path, PYTHONWARNINGS=WARNINGS
    ) as server:
        answered = request_until(server, 2 * WORKERS)
        server.send_signal(signal.SIGTERM)
        server.assert_stopped_cleanly(server.wait())
        received = server.take()
    assert_every_request_is_a_trace(received, answered)
