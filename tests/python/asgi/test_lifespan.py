"""The last spans are sent before the server hears that the application has shut down.

Each script is a server made by hand in a process of its own: `serve` runs a lifespan to its end.
"""

import asyncio
from collections.abc import Awaitable
from typing import Any

import pytest
from faults.exchange import Exchange, Refusal
from faults.scenario import UNAVAILABLE, refusing
from faults.server import FaultServer
from interpreter import run_quietly, run_script
from receiver import Receiver

from rvh_trace import RvhTraceMiddleware
from rvh_trace._types import Message, Receive, Scope, Send

SERVER = """
import asyncio, time
import rvh_trace
from rvh_trace import RvhTraceMiddleware, span, stats

ENDING = {"type": "lifespan.shutdown.complete"}

async def app(scope, receive, send):
    await receive()
    await send({"type": "lifespan.startup.complete"})
    await receive()
    with span("cleaning up"):
        pass
    await send(ENDING)

async def serve(app, when_over=lambda: None):
    messages = iter([{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}])
    sent = []

    async def receive():
        return next(messages)

    async def send(message):
        if message is ENDING:
            when_over()
        sent.append(message["type"])

    await app({"type": "lifespan", "asgi": {"version": "3.0"}}, receive, send)
    assert sent == ["lifespan.startup.complete", ENDING["type"]]

rvh_trace.init_tracing("shop", schedule_delay_ms=600_000, metrics_exporter="none")
"""


@pytest.mark.parametrize("ending", ["complete", "failed"])
def test_the_last_spans_are_sent_before_the_last_message(receiver: Receiver, ending: str) -> None:
    run_quietly(
        SERVER
        + f"""
ENDING["type"] = "lifespan.shutdown.{ending}"
seen = []
asyncio.run(serve(RvhTraceMiddleware(app), lambda: seen.append((stats()["exported"], stats()["pending"]))))
assert seen == [(1, 0)], seen
""",
        OTEL_EXPORTER_OTLP_ENDPOINT=receiver.http_endpoint,
    )
    assert [one.name for one in receiver.spans] == ["cleaning up"]


def test_tracing_goes_on_after_it(receiver: Receiver) -> None:
    """Another application may be served by the same process, as tests do."""
    run_quietly(
        SERVER
        + """
for number in range(1, 4):
    asyncio.run(serve(RvhTraceMiddleware(app)))
    assert stats()["exported"] == number
with span("afterwards"):
    pass
assert rvh_trace.force_flush()
""",
        OTEL_EXPORTER_OTLP_ENDPOINT=receiver.http_endpoint,
    )
    assert [one.name for one in receiver.spans] == ["cleaning up"] * 3 + ["afterwards"]


def test_it_can_be_turned_off(receiver: Receiver) -> None:
    run_quietly(
        SERVER
        + """
import os
asyncio.run(serve(RvhTraceMiddleware(app)))
asyncio.run(serve(RvhTraceMiddleware(app, flush_at_shutdown=False)))
os._exit(stats()["exported"])
""",
        OTEL_EXPORTER_OTLP_ENDPOINT=receiver.http_endpoint,
        RVH_TRACE_FLUSH_AT_SHUTDOWN="false",
    )
    assert receiver.spans == []


def test_a_wait_that_the_collector_asked_for_is_cut_short() -> None:
    always = refusing(Refusal(503, UNAVAILABLE, "later", after="20"))
    with FaultServer("http/protobuf", always=always) as server:
        finished = run_script(
            SERVER
            + """
with span("waits"):
    pass
assert not rvh_trace.force_flush(timeout_ms=300)  # the worker now waits for 20 seconds
begun = time.monotonic()
asyncio.run(serve(RvhTraceMiddleware(app)))
assert time.monotonic() - begun < 10
assert stats()["dropped"]["failed"] == stats()["ended"] == 2, stats()
""",
            OTEL_EXPORTER_OTLP_ENDPOINT=server.endpoint,
            RVH_TRACE_EXIT_TIMEOUT="15000",
        )
    assert finished.returncode == 0, finished.stderr
    assert finished.stderr.splitlines() == finished.warnings


def test_the_loop_turns_while_the_collector_hangs_and_the_deadline_is_for_the_whole_exit() -> None:
    with FaultServer("http/protobuf", always=Exchange.hang) as server:
        finished = run_script(
            SERVER
            + """
ticks = 0

async def tick():
    global ticks
    while True:
        await asyncio.sleep(0.01)
        ticks += 1

async def main():
    ticking = asyncio.create_task(tick())
    await serve(RvhTraceMiddleware(RvhTraceMiddleware(app)))
    ticking.cancel()

asyncio.run(main())
assert ticks >= 5, ticks
while stats()["pending"]:  # The worker gives up at the same moment.
    time.sleep(0.01)
with span("after the deadline"):
    pass
begun = time.monotonic()

import atexit
# Runs after the flush at exit.
atexit.unregister(rvh_trace._rvh_trace.at_exit)
atexit.register(lambda: print(sum(stats()["dropped"].values()), time.monotonic() - begun < 2))
atexit.register(rvh_trace._rvh_trace.at_exit)
""",
            OTEL_EXPORTER_OTLP_ENDPOINT=server.endpoint,
            RVH_TRACE_EXIT_TIMEOUT="3000",
        )
    assert finished.returncode == 0, finished.stderr
    assert finished.stdout == "2 True\n"


def test_what_the_server_answers_and_raises_passes_through() -> None:
    class ServerError(Exception):
        pass

    def send(message: Message) -> Awaitable[Any]:
        # Not even a coroutine function.
        if message["type"] == "raises":
            raise ServerError

        async def answer() -> str:
            if message["type"] == "lifespan.shutdown.failed":
                raise ServerError
            return message["type"]

        return answer()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        with pytest.raises(ServerError):
            send({"type": "raises"})
        for kind in ("lifespan.startup.complete", "lifespan.shutdown.complete"):
            assert await send({"type": kind}) == kind
        with pytest.raises(TypeError):
            send()  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
        await send({"type": "lifespan.shutdown.failed"})

    async def receive() -> Message:
        raise AssertionError

    with pytest.raises(ServerError):
        asyncio.run(RvhTraceMiddleware(app)({"type": "lifespan"}, receive, send))


def test_it_needs_no_event_loop(receiver: Receiver) -> None:
    """A coroutine that somebody else drives."""
    run_quietly(
        SERVER
        + """
try:
    serve(RvhTraceMiddleware(app)).send(None)
except StopIteration:
    print("served")
""",
        OTEL_EXPORTER_OTLP_ENDPOINT=receiver.http_endpoint,
    )
    assert [one.name for one in receiver.spans] == ["cleaning up"]
