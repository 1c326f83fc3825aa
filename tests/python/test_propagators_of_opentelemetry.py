"""What OpenTelemetry's own propagators for Python write, we read, and the other way round."""

import asyncio
import socket
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from typing import Any, cast

import httpx
import pytest
import uvicorn
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry import baggage
from opentelemetry import trace as api
from opentelemetry.context import Context
from opentelemetry.propagators.aws import AwsXRayPropagator
from opentelemetry.propagators.b3 import B3MultiFormat, B3SingleFormat
from opentelemetry.propagators.jaeger import JaegerPropagator
from opentelemetry.propagators.textmap import Getter
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from rvh_trace import RvhTraceMiddleware, extract, inject, span
from rvh_trace.testing import InMemoryExporter

DEADLINE_S = 20.0
THEIRS: dict[str, Any] = {
    "b3": B3SingleFormat(),
    "b3multi": B3MultiFormat(),
    "jaeger": JaegerPropagator(),
    "xray": AwsXRayPropagator(),
}
IDS = st.tuples(st.integers(1, 2**128 - 1), st.integers(1, 2**64 - 1), st.booleans())


class AnyCase(Getter[Mapping[str, str]]):
    """Header names in whatever case: we write them in lower case, and X-Ray's propagator asks for `X-Amzn-Trace-Id`."""

    def get(self, carrier: Mapping[str, str], key: str) -> list[str] | None:
        return [value for name, value in carrier.items() if name.lower() == key.lower()] or None

    def keys(self, carrier: Mapping[str, str]) -> list[str]:
        return list(carrier)


def context_of(trace_id: int, span_id: int, sampled: bool) -> Context:
    span_context = api.SpanContext(trace_id, span_id, is_remote=False, trace_flags=api.TraceFlags(int(sampled)))
    return api.set_span_in_context(api.NonRecordingSpan(span_context), Context())


def read_by(name: str, headers: Mapping[str, str]) -> tuple[str, str, bool]:
    context = THEIRS[name].extract(headers, Context(), AnyCase())
    read = api.get_current_span(context).get_span_context()
    return api.format_trace_id(read.trace_id), api.format_span_id(read.span_id), read.trace_flags.sampled


def written_by(name: str, context: Context) -> dict[str, str]:
    headers: dict[str, str] = {}
    THEIRS[name].inject(headers, context)
    return headers


@pytest.mark.parametrize("name", THEIRS)
class TestHeaders:
    @given(IDS)
    def test_what_they_write_we_read(self, name: str, ids: tuple[int, int, bool]) -> None:
        with InMemoryExporter(propagators=name):
            context = extract(written_by(name, context_of(*ids))).span_context
        trace_id, span_id, sampled = ids
        assert (context.trace_id, context.span_id) == (f"{trace_id:032x}", f"{span_id:016x}")
        assert context.is_sampled is sampled

    @given(IDS)
    def test_what_we_write_they_read(self, name: str, ids: tuple[int, int, bool]) -> None:
        trace_id, span_id, sampled = ids
        written = (f"{trace_id:032x}", f"{span_id:016x}", sampled)
        sent: dict[str, str] = {}
        with InMemoryExporter(propagators=[name, "tracecontext"]):
            inject(sent, extract({"traceparent": "00-{}-{}-{:02x}".format(*written)}))
        assert read_by(name, sent) == written

    @given(st.data())
    def test_of_headers_nearly_right_we_read_no_other_ids(self, name: str, data: st.DataObject) -> None:
        """We may read less (a broken parent) or more (an unknown member), but never another caller."""
        headers = written_by(name, context_of(*data.draw(IDS)))
        header = data.draw(st.sampled_from(sorted(headers)))
        value = headers[header]
        at = data.draw(st.integers(0, len(value)))
        piece = data.draw(st.sampled_from(["", "0", "a", "F", "-", ":", ";", "=", " ", "g", "é", value[:3]]))
        headers[header] = value[:at] + piece + value[at + data.draw(st.integers(0, 2)) :]
        with InMemoryExporter(propagators=name):
            ours = extract(headers).span_context
        theirs = read_by(name, headers)
        if ours.is_valid and theirs[0] != "0" * 32:
            assert (ours.trace_id, ours.span_id) == theirs[:2]


@given(st.dictionaries(st.from_regex("[a-z]{1,8}", fullmatch=True), st.text(st.characters(codec="utf-8")), max_size=5))
def test_baggage_of_jaeger(members: dict[str, str]) -> None:
    members = {key: value.strip() for key, value in members.items()}
    context = context_of(3, 2, True)
    for key, value in members.items():
        context = baggage.set_baggage(key, value, context)
    with InMemoryExporter(propagators="jaeger"):
        came = extract(written_by("jaeger", context))
        assert came.baggage == members
        sent: dict[str, str] = {}
        inject(sent, came)
    assert dict(baggage.get_all(THEIRS["jaeger"].extract(sent, Context()))) == members


async def downstream(request: Request) -> JSONResponse:
    with span("call"):
        sent: dict[str, str] = {}
        inject(sent)
    return JSONResponse(sent)


@asynccontextmanager
async def serving() -> AsyncGenerator[str]:
    """The URL of a service under uvicorn, ended with the block."""
    app = Starlette(routes=[Route("/", downstream)])
    app.add_middleware(cast("Any", RvhTraceMiddleware))
    with socket.create_server(("127.0.0.1", 0)) as listening:
        server = uvicorn.Server(uvicorn.Config(app, log_config=None, access_log=False, timeout_graceful_shutdown=5))
        running = asyncio.create_task(server.serve(sockets=[listening]))
        try:
            async with asyncio.timeout(DEADLINE_S):
                while not server.started:  # noqa: ASYNC110 (nothing tells when)
                    await asyncio.sleep(0.005)
            yield f"http://127.0.0.1:{listening.getsockname()[1]}/"
        finally:
            server.should_exit = True
            await running


@pytest.mark.parametrize("name", THEIRS)
@pytest.mark.parametrize("sampled", [True, False])
def test_through_a_real_server(name: str, sampled: bool) -> None:
    trace_id, span_id = 0x80F198EE56343BA864FE8B2A57D3EFF7, 0xE457B5A2E4D86BD1

    async def call() -> dict[str, str]:
        headers = written_by(name, context_of(trace_id, span_id, sampled))
        async with serving() as url, httpx.AsyncClient(trust_env=False, timeout=DEADLINE_S) as client:
            return (await client.get(url, headers=headers)).json()

    with InMemoryExporter(propagators=name) as spans:
        sent = asyncio.run(call())
        read_trace, read_span, read_sampled = read_by(name, sent)
        assert (read_trace, read_sampled) == (f"{trace_id:032x}", sampled)
        if not sampled:
            assert list(spans) == []
            return
        (server,) = (one for one in spans if one.kind == "server")
        assert (server.trace_id, server.parent_span_id) == (read_trace, f"{span_id:016x}")
        assert (server.name, spans.one("call").span_id) == ("GET /", read_span)
