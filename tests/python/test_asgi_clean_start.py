"""A server may start a request in the context of an earlier one of the same connection (Kludex/uvicorn#2167)."""

import asyncio
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import pytest
from handmade_server import answering, serve

from rvh_trace import RvhTraceMiddleware, current_span, extract, inject, new_span, use_context
from rvh_trace.testing import InMemoryExporter

EARLIER = {"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "baggage": "tenant=acme"}


@pytest.mark.parametrize("kind", ["http", "websocket"])
@pytest.mark.parametrize(
    ("tracing", "options"),
    [
        (nullcontext(), {}),
        (InMemoryExporter(), {}),
        (InMemoryExporter(), {"excluded_urls": "/items"}),
        (InMemoryExporter(sampler="always_off"), {}),
    ],
    ids=["off", "sampled", "excluded", "not sampled"],
)
def test_requests_are_not_merged_into_one_trace_whatever_is_recorded(
    tracing: AbstractContextManager[Any], options: dict[str, Any], kind: str
) -> None:
    seen: list[dict[str, str]] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        carrier: dict[str, str] = {}
        inject(carrier)
        seen.append(carrier)
        await answering()(scope, receive, send)

    with tracing, use_context(extract(EARLIER)), new_span("earlier").activate() as earlier:
        before: dict[str, str] = {}
        inject(before)
        asyncio.run(serve(RvhTraceMiddleware(app, **options), {"type": kind, "path": "/items", "headers": []}))
        after: dict[str, str] = {}
        inject(after)
        assert current_span() is earlier
    (carrier,) = seen
    assert "baggage" not in carrier
    assert EARLIER["traceparent"][3:35] not in carrier.get("traceparent", "")
    assert before == after
    assert after["baggage"] == EARLIER["baggage"]
