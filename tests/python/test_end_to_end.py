"""The example service under uvicorn, through a real collector, to a receiver: the whole tree, over both protocols.

Every span is decoded with the official protobuf definitions, and every one that arrived is accounted for. At the end,
`make demo` as a person runs it: what it prints, its exit code, and that it leaves nothing behind.
"""

import os
import platform
import re
import signal
import socket
import subprocess
import sys
import uuid
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import httpx
import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status
from receiver import ExportRequest, Protocol, ReceivedSpan, attributes, spans
from stack import Stack

import rvh_trace

SCHEMA_URL = "https://opentelemetry.io/schemas/1.44.0"
ARRIVAL_TIMEOUT_S = 20.0
USER_AGENT = "end-to-end-test/1.0"
CALLER_TRACE_ID, CALLER_SPAN_ID = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
TRACESTATE = "vendor=a1b2,other=xyz"

# Span flags of OTLP: the W3C trace flags, and whether the parent is known to be remote.
SAMPLED, RANDOM, HAS_IS_REMOTE, IS_REMOTE = 0x01, 0x02, 0x100, 0x200

PLAIN = ["GET /items/{sku}"]
CART = ["GET /carts/{cart_id}", "price cart", "load cart", *["look_up_price"] * 3, "add_up"]
ORDER = ["POST /orders", "place order", "POST", "POST /reservations", "take from shelf"]
COUPON = ["GET /coupons/{code}", "check coupon"]

DEMO = Path(__file__).parents[2] / "examples" / "fastapi_service" / "demo.py"
DEMO_TIMEOUT_S = 60.0
DEMO_MARK = "RVH_TRACE_TEST_RUN"
FETCH = "import sys, urllib.request as r; r.build_opener(r.ProxyHandler({})).open(sys.argv[1]).read()"


class Trace:
    """The spans of one trace, found by name."""

    def __init__(self, received: Sequence[ReceivedSpan], root: str) -> None:
        (self.root,) = (span for span in received if span.name == root)
        self.spans = [span for span in received if span.trace_id == self.root.trace_id]

    def all(self, name: str) -> list[ReceivedSpan]:
        return [span for span in self.spans if span.name == name]

    def one(self, name: str) -> ReceivedSpan:
        (span,) = self.all(name)
        return span

    def names(self) -> list[str]:
        return sorted(span.name for span in self.spans)

    def children(self, parent: ReceivedSpan) -> list[ReceivedSpan]:
        return [span for span in self.spans if span.parent_id == parent.span_id]


@dataclass(frozen=True)
class Run:
    """What came of one run of the stack."""

    received: list[ReceivedSpan]
    requests: list[ExportRequest]
    statuses: dict[str, int]
    shop_port: int
    stock_port: int

    def server_attributes(self, *, port: int, user_agent: str = USER_AGENT, **expected: object) -> dict[str, object]:
        """Every required and recommended attribute of a server span; dots in names are written `__`."""
        return {
            "url.scheme": "http",
            "server.address": "127.0.0.1",
            "server.port": port,
            "client.address": "127.0.0.1",
            "network.peer.address": "127.0.0.1",
            "network.protocol.version": "1.1",
            "user_agent.original": user_agent,
            **{name.replace("__", "."): value for name, value in expected.items()},
        }


def own(received: Sequence[ReceivedSpan]) -> list[ReceivedSpan]:
    """All but the task in which httpx, through anyio, opens the connection to stock: its name is theirs to choose."""
    calls = {span.span_id for span in received if span.kind == "client"}
    return [span for span in received if not (span.parent_id in calls and span.kind == "internal")]


@pytest.fixture(scope="module", params=["http", "grpc"])
def run(request: pytest.FixtureRequest) -> Iterator[Run]:
    protocol: Protocol = request.param
    with Stack(protocol, RVH_TRACE_STRICT="1") as stack:
        with httpx.Client(base_url=stack.shop_url, headers={"user-agent": USER_AGENT}, trust_env=False) as client:
            answers = {
                "plain": client.get("/items/tea?currency=EUR&sig=secret"),
                "cart": client.get("/carts/7"),
                "order": client.post(
                    "/orders",
                    json={"cart_id": 7},
                    headers={
                        "traceparent": f"00-{CALLER_TRACE_ID}-{CALLER_SPAN_ID}-01",
                        "tracestate": TRACESTATE,
                    },
                ),
                "missing": client.get("/items/nothing"),
                # Last: after an unhandled exception uvicorn closes the connection, and a next request could meet that.
                "coupon": client.get("/coupons/SPRING"),
            }
        expected = len([*PLAIN, *CART, *ORDER, *COUPON, *PLAIN])
        stack.receiver.wait_for(lambda requests: len(own(spans(requests))) >= expected, ARRIVAL_TIMEOUT_S)
        stack.stop()  # each part flushes what it still holds: anything sent twice would be here now
        yield Run(
            own(stack.receiver.spans),
            stack.receiver.requests,
            {name: answer.status_code for name, answer in answers.items()},
            stack.ports.shop,
            stack.ports.stock,
        )


def found(run: Run) -> Trace:
    """The plain request that was answered with 200; its route was also asked for something that is missing."""
    return Trace([span for span in run.received if span.attributes.get("http.response.status_code") != 404], PLAIN[0])


def interval_within(inner: Span, outer: Span) -> bool:
    return outer.start_time_unix_nano <= inner.start_time_unix_nano and (
        inner.end_time_unix_nano <= outer.end_time_unix_nano
    )


def test_the_service_answers_as_it_would_untraced(run: Run) -> None:
    assert run.statuses == {"plain": 200, "cart": 200, "order": 201, "coupon": 500, "missing": 404}


def test_nothing_but_the_expected_spans_arrived_and_each_once(run: Run) -> None:
    assert sorted(span.name for span in run.received) == sorted([*PLAIN, *CART, *ORDER, *COUPON, *PLAIN])
    assert len({span.span_id for span in run.received}) == len(run.received)


def test_ids_have_their_sizes_and_times_their_order(run: Run) -> None:
    for span in run.received:
        assert re.fullmatch("(?!0{32})[0-9a-f]{32}", span.trace_id)
        assert re.fullmatch("(?!0{16})[0-9a-f]{16}", span.span_id)
        assert 0 < span.span.start_time_unix_nano < span.span.end_time_unix_nano
        for event in span.span.events:
            assert span.span.start_time_unix_nano <= event.time_unix_nano <= span.span.end_time_unix_nano


def test_every_request_is_a_trace_of_its_own(run: Run) -> None:
    roots = [span for span in run.received if span.kind == "server" and span.service == "shop"]
    assert len({span.trace_id for span in roots}) == len(roots) == 5


def test_nothing_was_dropped_or_cut(run: Run) -> None:
    for span in run.received:
        assert span.span.dropped_attributes_count == 0
        assert span.span.dropped_events_count == 0
        assert span.span.dropped_links_count == 0


def test_resource_names_the_service_the_process_and_the_host(run: Run) -> None:
    for service in ("shop", "stock"):
        resources = {
            span.resource.SerializeToString(deterministic=True): span.resource
            for span in run.received
            if span.service == service
        }
        (resource,) = resources.values()
        found = attributes(resource.attributes)
        assert found["telemetry.sdk.name"] == "rvh_trace"
        assert found["telemetry.sdk.language"] == "python"
        assert found["telemetry.sdk.version"] == rvh_trace.__version__
        assert found["service.version"] == "1.0.0"
        assert isinstance(found["service.instance.id"], str)
        assert found["deployment.environment.name"] == "demo"
        assert isinstance(found["process.pid"], int)
        assert found["process.runtime.name"] == platform.python_implementation().lower()
        assert found["process.runtime.version"] == ".".join(map(str, sys.version_info[:3]))
        path = found["process.executable.path"]
        assert isinstance(path, str)
        assert Path(path).samefile(sys.executable)
        assert found["process.executable.name"] == Path(path).name
        assert found["host.name"] == socket.gethostname()
        assert found["host.arch"] in {"amd64", "arm64", "x86", "arm32", "ppc64", "s390x"}
        assert resource.dropped_attributes_count == 0


def test_the_two_services_are_two_processes(run: Run) -> None:
    pids = {span.service: attributes(span.resource.attributes)["process.pid"] for span in run.received}
    assert len(set(pids.values())) == 2
    assert os.getpid() not in pids.values()


def test_scope_and_schema(run: Run) -> None:
    for span in run.received:
        assert (span.scope.name, span.scope.version) == ("rvh_trace", rvh_trace.__version__)
        assert span.scope_schema_url == SCHEMA_URL
        assert span.resource_schema_url == SCHEMA_URL


def test_plain_request_is_one_server_span(run: Run) -> None:
    trace = found(run)
    assert trace.names() == PLAIN
    root = trace.root
    assert (root.kind, root.service, root.parent_id) == ("server", "shop", "")
    assert root.span.trace_state == ""
    assert root.span.flags == SAMPLED | RANDOM | HAS_IS_REMOTE
    assert root.span.status == Status()
    assert not root.span.events
    assert not root.span.links


def test_server_span_has_every_required_and_recommended_attribute(run: Run) -> None:
    sent = dict(found(run).root.attributes)
    assert isinstance(sent.pop("network.peer.port"), int)
    assert sent == run.server_attributes(
        port=run.shop_port,
        http__request__method="GET",
        http__route="/items/{sku}",
        http__response__status_code=200,
        url__path="/items/tea",
        url__query="currency=EUR&sig=REDACTED",
    )


def test_a_client_error_is_not_an_error_of_the_server(run: Run) -> None:
    (missing,) = (span for span in run.received if span.attributes.get("http.response.status_code") == 404)
    assert (missing.name, missing.kind, missing.parent_id) == ("GET /items/{sku}", "server", "")
    assert missing.span.status == Status()
    assert "error.type" not in missing.attributes
    assert "url.query" not in missing.attributes
    assert not missing.span.events


def test_nested_spans_and_tasks_have_the_right_parents(run: Run) -> None:
    trace = Trace(run.received, "GET /carts/{cart_id}")
    assert trace.names() == sorted(CART)
    pricing = trace.one("price cart")
    assert trace.children(trace.root) == [pricing]
    assert sorted(span.name for span in trace.children(pricing)) == sorted(CART[2:])
    assert (trace.root.kind, trace.root.parent_id) == ("server", "")
    assert {span.kind for span in trace.spans if span is not trace.root} == {"internal"}
    for span in trace.spans:
        assert span.service == "shop"
        assert span.span.status == Status()
        assert not span.span.events
        assert not span.span.links
        assert span.span.flags == SAMPLED | RANDOM | HAS_IS_REMOTE


def test_attributes_set_at_the_start_and_later_keep_their_types(run: Run) -> None:
    trace = Trace(run.received, "GET /carts/{cart_id}")
    assert trace.one("price cart").attributes == {
        "shop.cart.id": 7,
        "shop.cart.size": 3,
        "shop.cart.total": pytest.approx(37.7),
    }
    assert trace.one("load cart").attributes == {}
    assert trace.one("add_up").attributes == {}


def test_tasks_overlap_inside_their_parent(run: Run) -> None:
    trace = Trace(run.received, "GET /carts/{cart_id}")
    pricing, tasks = trace.one("price cart").span, [span.span for span in trace.all("look_up_price")]
    assert all(interval_within(span.span, pricing) for span in trace.children(trace.one("price cart")))
    assert max(task.start_time_unix_nano for task in tasks) < min(task.end_time_unix_nano for task in tasks)
    assert interval_within(pricing, trace.root.span)


def test_incoming_traceparent_is_continued(run: Run) -> None:
    root = Trace(run.received, "POST /orders").root
    assert (root.trace_id, root.parent_id, root.kind) == (CALLER_TRACE_ID, CALLER_SPAN_ID, "server")
    assert root.span.flags == SAMPLED | HAS_IS_REMOTE | IS_REMOTE
    assert root.span.trace_state == TRACESTATE


def test_inject_carries_the_trace_to_the_second_service(run: Run) -> None:
    trace = Trace(run.received, "POST /orders")
    assert trace.names() == sorted(ORDER)
    chain = [trace.one(name) for name in ORDER]
    for parent, child in pairwise(chain):
        assert child.parent_id == parent.span_id
        assert child.span.trace_state == TRACESTATE
    assert [(span.kind, span.service) for span in chain] == [
        ("server", "shop"),
        ("internal", "shop"),
        ("client", "shop"),
        ("server", "stock"),
        ("internal", "stock"),
    ]
    assert [span.span.flags for span in chain] == [
        SAMPLED | HAS_IS_REMOTE | IS_REMOTE,
        SAMPLED | HAS_IS_REMOTE,
        SAMPLED | HAS_IS_REMOTE,
        SAMPLED | HAS_IS_REMOTE | IS_REMOTE,
        SAMPLED | HAS_IS_REMOTE,
    ]
    assert all(span.span.status == Status() for span in chain)


def test_both_sides_of_the_call_are_described(run: Run) -> None:
    trace = Trace(run.received, "POST /orders")
    assert trace.one("POST").attributes == {
        "http.request.method": "POST",
        "http.response.status_code": 201,
        "server.address": "127.0.0.1",
        "server.port": run.stock_port,
        "url.full": f"http://127.0.0.1:{run.stock_port}/reservations",
    }
    for name, port, user_agent in (
        ("POST /orders", run.shop_port, USER_AGENT),
        ("POST /reservations", run.stock_port, f"python-httpx/{httpx.__version__}"),
    ):
        sent = dict(trace.one(name).attributes)
        assert isinstance(sent.pop("network.peer.port"), int)
        path = name.removeprefix("POST ")
        assert sent == run.server_attributes(
            port=port,
            user_agent=user_agent,
            http__request__method="POST",
            http__route=path,
            http__response__status_code=201,
            url__path=path,
        )


def test_events_come_in_order_with_their_attributes(run: Run) -> None:
    taking = Trace(run.received, "POST /orders").one("take from shelf")
    assert taking.attributes == {"stock.items": 3}
    assert [(event.name, attributes(event.attributes)) for event in taking.span.events] == [
        ("taken", {"stock.sku": sku, "stock.left": 999}) for sku in ("tea", "mug", "teapot")
    ]
    times = [event.time_unix_nano for event in taking.span.events]
    assert times == sorted(times)


def test_link_leads_to_the_other_trace(run: Run) -> None:
    quote = Trace(run.received, "GET /carts/{cart_id}").one("price cart")
    order = Trace(run.received, "POST /orders").one("place order")
    assert order.attributes == {"shop.cart.id": 7}
    (link,) = order.span.links
    assert (link.trace_id.hex(), link.span_id.hex()) == (quote.trace_id, quote.span_id)
    assert link.trace_state == ""
    assert attributes(link.attributes) == {}
    assert link.flags & (SAMPLED | RANDOM) == SAMPLED | RANDOM
    assert not link.flags & IS_REMOTE
    assert all(not span.span.links for span in run.received if span is not order)


def test_unhandled_exception_is_on_both_spans(run: Run) -> None:
    trace = Trace(run.received, "GET /coupons/{code}")
    assert trace.names() == sorted(COUPON)
    checking = trace.one("check coupon")
    assert (trace.root.kind, trace.root.parent_id) == ("server", "")
    assert trace.children(trace.root) == [checking]

    message = "SPRING was good until 2020-05-31"
    for span in (trace.root, checking):
        assert span.attributes["error.type"] == "shop.ExpiredCouponError"
        assert span.span.status == Status(code=Status.STATUS_CODE_ERROR, message=message)
        (event,) = span.span.events
        assert event.name == "exception"
        sent = attributes(event.attributes)
        stacktrace = sent.pop("exception.stacktrace")
        assert sent == {"exception.type": "shop.ExpiredCouponError", "exception.message": message}
        assert isinstance(stacktrace, str)
        assert stacktrace.startswith("Traceback (most recent call last):\n")
        assert "in show_coupon" in stacktrace
        assert stacktrace.rstrip().endswith(f"ExpiredCouponError: {message}")

    assert checking.attributes == {"shop.coupon.code": "SPRING", "error.type": "shop.ExpiredCouponError"}


def test_failed_request_has_its_attributes_but_no_status_that_was_never_sent(run: Run) -> None:
    sent = dict(Trace(run.received, "GET /coupons/{code}").root.attributes)
    assert isinstance(sent.pop("network.peer.port"), int)
    assert sent == run.server_attributes(
        port=run.shop_port,
        http__request__method="GET",
        http__route="/coupons/{code}",
        url__path="/coupons/SPRING",
        error__type="shop.ExpiredCouponError",
    )


def test_no_event_carries_the_deprecated_escaped_attribute(run: Run) -> None:
    for span in run.received:
        for event in span.span.events:
            assert "exception.escaped" not in attributes(event.attributes)


def test_every_request_arrived_whole(run: Run) -> None:
    assert run.requests
    for request in run.requests:
        assert request.message.SerializeToString()
        assert all(group.scope_spans for group in request.message.resource_spans)


@contextmanager
def demo(*options: str, mark: str) -> Generator["subprocess.Popen[str]"]:
    process = subprocess.Popen(
        [sys.executable, DEMO, *options],
        env=os.environ | {DEMO_MARK: mark, "PYTHONIOENCODING": "utf-8"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        encoding="utf-8",
    )
    try:
        yield process
    finally:
        process.terminate()
        process.communicate()


def still_running(mark: str) -> list[str]:
    """Command lines of the processes that a run left behind; they inherit its environment."""
    wanted = f"{DEMO_MARK}={mark}".encode()
    left: list[str] = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if wanted in (entry / "environ").read_bytes().split(b"\0"):
                left.append((entry / "cmdline").read_bytes().replace(b"\0", b" ").decode())
        except OSError:  # gone, or not ours to read
            continue
    return left


needs_proc = pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="finds child processes in /proc")


@needs_proc
@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_demo_shows_every_trace_and_passes(protocol: str) -> None:
    mark = uuid.uuid4().hex
    with demo("--protocol", protocol, mark=mark) as process:
        output, errors = process.communicate(timeout=DEMO_TIMEOUT_S)
    assert (process.returncode, errors) == (0, "")
    assert re.search(r"All \d+ checks passed\.", output)
    assert "✗" not in output
    for title in ("1. GET /items/tea", "2. GET /carts/7", "3. POST /orders -> 201", "4. GET /coupons/SPRING -> 500"):
        assert title in output
    for span in ("GET /items/{sku}", "look_up_price", "POST /reservations", "take from shelf", "check coupon"):
        assert span in output.partition("What the collector received")[0]
    assert still_running(mark) == []


@needs_proc
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 0), (signal.SIGTERM, 0)])
def test_kept_demo_prints_new_traces_and_leaves_nothing_behind(number: signal.Signals, code: int) -> None:
    mark = uuid.uuid4().hex
    with demo("--keep", mark=mark) as process:
        assert process.stdout is not None
        lines = iter(process.stdout.readline, "")
        base_url = next(line.split()[1] for line in lines if line.lstrip().startswith("curl"))
        next(line for line in lines if "Ctrl-C stops everything" in line)
        assert len(still_running(mark)) == 4
        subprocess.run([sys.executable, "-c", FETCH, base_url], check=True, timeout=DEMO_TIMEOUT_S)
        next(line for line in lines if "GET /items/{sku}" in line)
        process.send_signal(number)
        _, errors = process.communicate(timeout=DEMO_TIMEOUT_S)
    assert (process.returncode, errors) == (code, "")
    assert still_running(mark) == []


@needs_proc
def test_demo_stopped_while_it_starts_leaves_nothing_behind() -> None:
    mark = uuid.uuid4().hex
    with demo(mark=mark) as process:
        while process.poll() is None and not any("rotel-agent" in command for command in still_running(mark)):
            pass
        process.terminate()
        process.communicate(timeout=DEMO_TIMEOUT_S)
    assert process.returncode == 128 + signal.SIGTERM
    assert still_running(mark) == []


def test_demo_names_the_port_that_is_in_use() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with demo("--shop-port", str(port), mark="port") as process:
            _, errors = process.communicate(timeout=DEMO_TIMEOUT_S)
    assert process.returncode == 1
    assert errors.startswith(f"demo: port {port} cannot be used")
    assert "--shop-port" in errors
    assert "Traceback" not in errors
