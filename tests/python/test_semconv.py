"""Nothing leaves the process under a name that neither our registry (`semconv/`) nor the official one knows."""

import ast
import asyncio
import contextlib
import importlib.util
import inspect
import re
import subprocess
import sys
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest
import registry
import tables
from declared import names, undeclared
from fastapi import FastAPI
from handmade_server import LAST_BODY, START, answering, http_scope, serve
from interpreter import run_script
from opentelemetry.proto.metrics.v1.metrics_pb2 import Metric
from receiver import Receiver
from starlette.requests import Request
from starlette.responses import PlainTextResponse

from rvh_trace import RvhTraceMiddleware, install_task_factory, new_span, span, span_future, trace
from rvh_trace.testing import FinishedSpan, InMemoryExporter

ROOT = Path(__file__).parent.parent.parent

# Dotted names in the sources that are no telemetry: context variables, keys of the ASGI scope, a part of a user agent.
# ASGI messages and Python modules are told by their form.
NO_TELEMETRY = frozenset(
    {
        "archive.org_bot",
        "rvh_trace.baggage",
        "rvh_trace.current_span",
        "rvh_trace.http.route",
        "rvh_trace.server_span",
    }
)
ASGI_MESSAGE = re.compile(
    r"(http|websocket|lifespan)\.(http\.)?"
    r"(request|response|connect|accept|receive|send|close|disconnect|startup|shutdown)(\.[a-z]+)*"
)
DOTTED = re.compile(r"[a-z][a-z0-9_]*(\.[a-z][a-z0-9_]*)+")

LEVELS = {"required", "recommended", "opt_in"}
OF_EVERY_GROUP = {"id", "type", "brief", "note", "stability", "display_name", "attributes", "extends", "annotations"}
OF_A_TYPE = {"attribute_group": set[str](), "span": {"span_kind"}, "event": {"name"}}
OF_A_DECLARATION = {"id", "type", "stability", "brief", "note", "examples", "annotations", "requirement_level"}
OF_A_REFERENCE = {"ref", "brief", "note", "examples", "annotations", "requirement_level"}


class TestTheRegistry:
    """Its form is the one that weaver documents, "Semantic Convention Definition Language"."""

    def test_groups_have_what_their_type_needs(self) -> None:
        ids = [group.id for group in registry.groups()]
        assert len(ids) == len(set(ids))
        for document in registry.documents().values():
            assert set(document) <= {"groups", "imports"}
            for group in document["groups"]:
                own = OF_A_TYPE[group["type"]]
                assert set(group) <= OF_EVERY_GROUP | own, group["id"]
                assert set(group) >= own | {"brief"}, group["id"]
                assert group["type"] == "attribute_group" or group["stability"] == "development"
                assert group["type"] == "attribute_group" or group["id"].startswith(f"{group['type']}.")
                assert group["type"] == "event" or group["attributes"]
                assert group.get("extends", group["id"]) in ids

    def test_our_attributes_are_declared_whole(self) -> None:
        assert registry.declared()
        for name, attribute in registry.declared().items():
            assert name.startswith("rvh_trace.")
            assert DOTTED.fullmatch(name)
            assert set(attribute) <= OF_A_DECLARATION, name
            assert {"type", "brief"} <= set(attribute), name
            assert attribute["stability"] == "development"
            if isinstance(attribute["type"], dict):
                for member in attribute["type"]["members"]:
                    assert set(member) == {"id", "value", "brief", "stability"}, name
            else:
                assert attribute["type"] in ("string", "int", "double", "boolean", "string[]")
                kinds = {"string": str, "int": int, "double": float}
                assert all(type(value) is kinds[attribute["type"]] for value in attribute["examples"]), name
            assert attribute["type"] != "double" or attribute["annotations"]["unit"]

    def test_no_name_is_the_namespace_of_another(self) -> None:
        """A policy of the official registry: backends make trees of names."""
        every = set(registry.declared())
        assert not [name for name in every if any(other.startswith(f"{name}.") for other in every)]

    def test_what_is_referred_to_exists(self) -> None:
        for group in registry.groups():
            for attribute in group.attributes:
                if "ref" not in attribute:
                    continue
                name = attribute["ref"]
                assert set(attribute) <= OF_A_REFERENCE, name
                assert name in registry.declared() or name in registry.official(), name
                level = attribute["requirement_level"]
                assert level in LEVELS if isinstance(level, str) else [*level] == ["conditionally_required"], name
        assert all(name in registry.official() for name in registry.metrics())

    def test_whatever_is_declared_is_set_somewhere(self) -> None:
        referred = {attribute.get("ref") for group in registry.groups() for attribute in group.attributes}
        assert set(registry.declared()) <= referred

    def test_the_official_names_are_those_of_our_schema(self) -> None:
        from opentelemetry.semconv.schemas import Schemas

        (manifest,) = (ROOT / "semconv").glob("manifest.yaml")
        assert f"schema_url: {Schemas.V1_44_0.value}" in manifest.read_text("utf-8")
        assert len(registry.official()) > 500

    def test_it_knows_templates_by_their_prefix_and_nothing_else_by_half(self) -> None:
        assert registry.is_known("http.request.header.content-type")
        assert not registry.is_known("http.request.headers")
        assert not registry.is_known("rvh_trace.made_up")
        assert not registry.is_known("http.route.made_up")
        assert not registry.is_known_event("rvh_trace.made_up")


def test_the_page_of_the_documentation_is_current() -> None:
    assert tables.PAGE.read_text("utf-8") == tables.page(), "run `make docs-tables`"
    script = [sys.executable, str(ROOT / "semconv" / "tables.py"), "--check"]
    assert subprocess.run(script, timeout=120, check=False).returncode == 0


EVERYTHING: dict[str, Any] = {
    "capture_request_headers": ".*",
    "capture_response_headers": ".*",
    "error_outcomes": ["4xx", "5xx", "exception", "disconnected", "cancelled"],
    "opt_in": [
        "client.port",
        "user_agent.synthetic.type",
        "http.request.body.size",
        "http.response.body.size",
        "http.server.active_requests",
        "http.server.request.body.size",
        "http.server.response.body.size",
        "server.address",
    ],
    "phases": True,
    "public_endpoint": lambda scope: scope["path"] == "/public",
    "request_hook": lambda span, scope: None,
    "response_hook": lambda span, message: None,
    "span_name": lambda scope: None,
    "trace_response_headers": ["server-timing", "traceresponse"],
    "trusted_proxies": "*",
    "websocket_messages": True,
}
"""Every option of the middleware that may add a name, so that it adds all it can."""

# These leave requests out, or change values.
ADDS_NO_NAME = {"app", "excluded_urls", "framework", "known_methods", "sanitize_headers"}


def middleware(app: Any) -> Any:
    """The middleware with everything switched on."""
    return RvhTraceMiddleware(app, **EVERYTHING)


def test_everything_is_switched_on() -> None:
    parameters = set(inspect.signature(RvhTraceMiddleware).parameters)
    assert parameters == EVERYTHING.keys() | ADDS_NO_NAME
    documented = str(RvhTraceMiddleware.__doc__)
    offered = re.search(r"opt_in: .*?record: (.*?)\.\n", documented, re.DOTALL)
    assert offered is not None
    assert re.findall(r"`([a-z._]+)`", offered[1]) == EVERYTHING["opt_in"]


async def requests() -> None:
    app = FastAPI()

    @app.get("/items/{item}")
    async def item(item: int) -> int:
        await asyncio.create_task(asyncio.sleep(0))
        return item

    headers = [
        (b"host", b"shop.example:8443"),
        (b"user-agent", b"Googlebot/2.1"),
        (b"x-request-id", b"7"),
        (b"traceparent", b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
        (b"tracestate", b"a=1"),
        (b"baggage", b"user=me"),
        (b"forwarded", b'for="[2001:db8::1]:4711";proto=https;host="public.example:8443"'),
        (b"content-length", b"3"),
    ]
    whole = {"headers": headers, "query_string": b"q=1&sig=secret", "scheme": "https", "http_version": "2"}
    body = [{"type": "http.request", "body": b"abc", "more_body": False}]
    await serve(middleware(app), http_scope("/items/7", **whole), body)
    await serve(middleware(app), http_scope("/public", **whole), body)
    await serve(middleware(app), http_scope("/nothing", method="BREW", server=("/run/app.sock", None), client=None))


async def responses() -> None:
    async def streaming(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({**START, "headers": [(b"x-cache", b"hit")], "trailers": True})
        await send({**LAST_BODY, "more_body": True})
        await send(LAST_BODY)
        await send({"type": "http.response.trailers", "headers": [], "more_trailers": False})

    async def failing(scope: Any, receive: Any, send: Any) -> None:
        raise ExceptionGroup("several", [ValueError("one"), ExceptionGroup("more", [KeyError("two")])])

    async def broken(request: Request) -> PlainTextResponse:
        return PlainTextResponse("broken", 503)

    async def cancelled(scope: Any, receive: Any, send: Any) -> None:
        raise asyncio.CancelledError

    async def deserted(scope: Any, receive: Any, send: Any) -> None:
        await send(START)
        while (await receive())["type"] != "http.disconnect":
            pass

    app = FastAPI()
    app.add_route("/broken", broken)
    for served in (streaming, failing, app, cancelled, deserted, answering()):
        with contextlib.suppress(ExceptionGroup, asyncio.CancelledError):
            await serve(middleware(served), http_scope("/broken"))


async def websockets() -> None:
    async def echo(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        while (message := await receive())["type"] == "websocket.receive":
            await send({**message, "type": "websocket.send"})

    received = [
        {"type": "websocket.connect"},
        {"type": "websocket.receive", "text": "text"},
        {"type": "websocket.receive", "bytes": b"bytes"},
        {"type": "websocket.disconnect", "code": 1001, "reason": "going away"},
    ]
    scope = http_scope("/ws", type="websocket", scheme="ws", subprotocols=[])
    del scope["method"]
    await serve(middleware(echo), scope, received)

    async def denying(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.close", "code": 4000, "reason": "no"})

    await serve(middleware(denying), dict(scope), received[:1])
    await serve(middleware(denying), dict(scope), [])


async def spans_of_every_kind() -> None:
    install_task_factory()

    @trace
    async def traced() -> None:
        with span("inner"):
            await asyncio.gather(asyncio.create_task(asyncio.sleep(0)), asyncio.to_thread(lambda: None))

    async def fails() -> None:
        raise LookupError("none")

    async with span("outer"):
        await traced()
        await span("run").run(asyncio.sleep(0))
        await span_future("future", asyncio.sleep(0))
        new_span("by hand").end()
        for failing in (fails(), span("failing").run(fails()), span_future("failing", fails())):
            await asyncio.gather(asyncio.ensure_future(failing), return_exceptions=True)
        task = asyncio.create_task(asyncio.sleep(3600))
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


DRIVERS = (requests, responses, websockets, spans_of_every_kind)


@pytest.mark.parametrize("drive", DRIVERS)
def test_every_name_that_is_sent_is_declared(
    spans: InMemoryExporter, drive: Callable[[], Coroutine[Any, Any, None]]
) -> None:
    """These set no attributes of their own, so every name is ours."""
    asyncio.run(drive())
    assert undeclared(spans, only_namespaced=False) == set()
    assert not [one.name for one in spans if DOTTED.fullmatch(one.name) and not registry.is_known_span(one.name)]


# The version of HTTP is all that ASGI has of the protocol; what the library says of itself, it says in metrics;
# `init_tracing` tells the resource of the interpreter.
SENT_BY_NO_DRIVER = {
    "network.protocol.name",
    "otel.component.name",
    "otel.component.type",
    "otel.span.sampling_result",
    "process.runtime.description",
    "process.runtime.name",
    "process.runtime.version",
}


def test_whatever_is_declared_is_sent_by_some_driver(spans: InMemoryExporter) -> None:
    for drive in DRIVERS:
        asyncio.run(drive())
    sent = {name for _, name in names(spans)} | {one.name for one in spans}
    sent |= {template for template in registry.templates() for name in sent if name.startswith(f"{template}.")}
    declared = {attribute.get("ref") for group in registry.groups() for attribute in group.attributes} - {None}
    declared |= {name for group in registry.groups() for name in group.span_names}
    assert declared - sent == SENT_BY_NO_DRIVER


def test_every_metric_that_is_sent_is_declared(receiver: Receiver) -> None:
    """With a limit of two combinations, so that there are some beyond it."""
    finished = run_script(
        f"""
        import asyncio, sys
        sys.path[:0] = {[str(ROOT / folder) for folder in ("tests/python", "semconv", "examples/fastapi_service")]!r}
        import rvh_trace, test_semconv

        rvh_trace.init_tracing("shop", endpoint={receiver.http_endpoint!r}, metrics_exporter="otlp",
                               metric_cardinality_limit=2, self_metrics=True, max_queue_size=10_000)
        asyncio.run(test_semconv.requests())
        asyncio.run(test_semconv.responses())
        assert rvh_trace.force_flush()  # How long an export took is known to the next.
        assert rvh_trace.shutdown()
        """,
        options=(),
    )
    assert (finished.returncode, len(finished.warnings)) == (0, 1), finished.stderr
    assert "otel.metric.overflow" in finished.warnings[0]
    points = [(metric.name, point) for metric in receiver.metrics for point in points_of(metric)]
    keys = {(name, attribute.key) for name, point in points for attribute in point.attributes}
    assert {name for name, _ in points} == set(registry.metrics())
    assert not [key for _, key in keys if not registry.is_known(key)]
    of_sdk = {key for name, key in keys if name.startswith("otel.sdk.")}
    documented = {group.id: {attribute.get("ref") for attribute in group.attributes} for group in registry.groups()}
    assert of_sdk | {"error.type"} == documented["rvh_trace.sdk.metrics"]
    keys = {(name, key) for name, key in keys if not name.startswith("otel.sdk.")}
    declared = documented["rvh_trace.http.server.metrics"] | registry.OF_THE_SPECIFICATION
    active = {key for name, key in keys if name == "http.server.active_requests"}
    assert active == {"http.request.method", "url.scheme"} | registry.OF_THE_SPECIFICATION
    assert active | {key for _, key in keys} == declared


def points_of(metric: Metric) -> Iterator[Any]:
    """Its data points, whatever its kind."""
    for kind in (metric.sum, metric.histogram, metric.gauge):
        yield from kind.data_points


@pytest.mark.parametrize(
    "name", ["rvh_trace.made_up", "http.made_up", "made_up.name"], ids=["ours", "official", "nobody's"]
)
def test_a_made_up_name_is_found_in_any_test(name: str, only_declared_names: list[FinishedSpan]) -> None:
    with InMemoryExporter() as exported, span("work") as current:
        current.set_attribute(name, 1)
        current.add_event(name)
    assert undeclared(exported, only_namespaced=True) == {name}
    assert undeclared(only_declared_names, only_namespaced=True) == {name}
    only_declared_names.clear()  # or the fixture fails the test


def rust_literals() -> Iterator[tuple[Path, str]]:
    for file in sorted((ROOT / "src").rglob("*.rs")):
        if file.name in ("tests.rs", "testing.rs"):
            continue
        shipped = file.read_text("utf-8").partition("#[cfg(test)]")[0]
        code = "\n".join(line for line in shipped.splitlines() if not line.lstrip().startswith("//"))
        for literal in re.findall(r'"((?:[^"\\\n]|\\.)*)"', code):
            yield file, literal


def python_literals() -> Iterator[tuple[Path, str]]:
    for file in sorted((ROOT / "python").rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text("utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield file, node.value


def is_importable(name: str) -> bool:
    """Whether it is a module, or something in one."""
    module, _, attribute = name.rpartition(".")
    try:
        if importlib.util.find_spec(name) is not None:
            return True
    except ModuleNotFoundError:
        pass
    try:
        return hasattr(importlib.import_module(module), attribute)
    except ModuleNotFoundError:
        return False


@pytest.mark.parametrize("literals", [rust_literals, python_literals])
def test_every_dotted_name_in_the_sources_is_declared_or_no_telemetry(
    literals: Callable[[], Iterator[tuple[Path, str]]],
) -> None:
    found = {(literal, file) for file, literal in literals() if DOTTED.fullmatch(literal)}
    assert found
    unknown = sorted(
        f"{name} ({file.relative_to(ROOT)})"
        for name, file in found
        if name not in NO_TELEMETRY
        and not ASGI_MESSAGE.fullmatch(name)
        and not registry.is_known(name)
        and not registry.is_known_event(name)
        and not registry.is_known_span(name)
        and not is_importable(name)
    )
    assert not unknown, "declare it in semconv/, or in NO_TELEMETRY if it is no telemetry"
