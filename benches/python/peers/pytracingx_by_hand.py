# pyright: basic, reportMissingImports=false
"""pytracingx. It has no middleware: the one here follows the example in its repository."""

import asyncio
from contextlib import AbstractContextManager
from importlib.metadata import version
from typing import Any

import pytracingx as ptx

from ..contender import SAMPLED, UNSAMPLED, Contender
from ..measure import Case, Timed
from ..server import ASGIApp, Message, Receive, Scope, Send, bare, requests
from ..spans import NoopSpan, empty, with_attributes, with_ready_attributes, within
from ..tasks import awaited_tasks, noop


class Middleware:
    """One server span a request with the attributes that the semantic conventions ask for."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = {key.decode("latin-1"): value.decode("latin-1") for key, value in scope["headers"]}
        host, _, port = headers.get("host", "").partition(":")
        attributes = {
            "http.request.method": scope["method"],
            "url.path": scope["path"],
            "url.scheme": scope["scheme"],
            "url.query": scope["query_string"].decode("latin-1"),
            "server.address": host,
            "server.port": int(port or 80),
            "client.address": scope["client"][0],
            "network.peer.address": scope["client"][0],
            "network.peer.port": scope["client"][1],
            "network.protocol.version": scope["http_version"],
            "user_agent.original": headers.get("user-agent", ""),
        }
        with ptx.extract_headers(headers), ptx.start_span(scope["method"], attributes, "server") as span:

            async def traced_send(message: Message) -> None:
                if message["type"] == "http.response.start":
                    span.set_attribute("http.response.status_code", message["status"])
                await send(message)

            await self.app(scope, receive, traced_send)


def _child_of(traceparent: str, timed: Timed) -> Timed:
    return within(lambda: ptx.extract_headers({"traceparent": traceparent}), timed)


def _task_case() -> Case:
    async def traced() -> None:
        with ptx.start_span("noop"):
            pass

    def parent() -> AbstractContextManager[Any]:
        return ptx.start_span("parent")

    loop = asyncio.new_event_loop()
    return Case(awaited_tasks(traced, parent, loop), awaited_tasks(noop, parent, loop), parents=1)


def open_contender(endpoint: str) -> Contender:
    """Every case."""
    sink = ptx.TraceSink(endpoint=endpoint, protocol="http/protobuf")
    ptx.init(ptx.Config(service_name="bench", console_output=False, sinks=[sink]))
    span = ptx.start_span
    server = Middleware(bare)
    cases = {
        "span": Case(empty(span), empty(NoopSpan)),
        "attributes": Case(with_attributes(span), with_attributes(NoopSpan)),
        "server": Case(requests(server), requests(bare)),
        "task": _task_case(),
        "unsampled": Case(_child_of(UNSAMPLED, empty(span)), _child_of(SAMPLED, empty(span)), 0, 1),
        "unsampled-attributes": Case(
            _child_of(UNSAMPLED, with_ready_attributes(span)), _child_of(SAMPLED, with_ready_attributes(span)), 0, 1
        ),
        "server-unsampled": Case(requests(server, UNSAMPLED), requests(bare, UNSAMPLED), 0),
    }
    return Contender(f"pytracingx {version('pytracingx')}", cases, ptx.force_flush, None, ptx.shutdown)
