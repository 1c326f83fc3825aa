"""The demo: real requests to real services, and their traces as a real collector received them.

`python demo.py` drives four requests, shows their traces and checks them; with `--keep` it then leaves everything
running until Ctrl-C. The exit code is 0 only if every expected span arrived below the right parent.
"""

import argparse
import io
import shutil
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from types import FrameType
from typing import NoReturn, cast

try:
    import httpx
    from process import StartError, free_ports, require_free
    from receiver import ExportRequest, ReceivedSpan, Receiver, one_trace, spans
    from stack import Ports, Stack

    from rvh_trace.testing import render_waterfall
except ModuleNotFoundError as missing:
    sys.exit(f"demo: {missing.name} is not installed; `make demo` installs all that is needed")

ARRIVAL_TIMEOUT_S = 15.0
QUIET_S = 0.7
CALLER_TRACE_ID, CALLER_SPAN_ID = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


@dataclass(frozen=True)
class Expected:
    """A span that must arrive, with the spans below it."""

    name: str
    children: "Sequence[Expected]" = ()
    service: str = "shop"
    kind: str = "internal"

    def matches(self, span: ReceivedSpan) -> bool:
        return (span.name, span.service, span.kind) == (self.name, self.service, self.kind)


@dataclass(frozen=True)
class Request:
    """One request to the shop, the answer and the trace it must give."""

    title: str
    method: str
    path: str
    status: int
    tree: Expected
    json: dict[str, int] | None = None
    headers: dict[str, str] = field(default_factory=dict[str, str])
    caller_span_id: str = ""


@dataclass(frozen=True)
class Check:
    passed: bool
    text: str

    def __str__(self) -> str:
        return f"  {'✓' if self.passed else '✗'} {self.text}"


REQUESTS = [
    Request(
        "A plain request. One SERVER span from the middleware, named by the route that matched.",
        "GET",
        "/items/tea?currency=EUR",
        200,
        Expected("GET /items/{sku}", kind="server"),
    ),
    Request(
        "Nested spans and tasks. Each asyncio task is a child of the span that created it; they overlap.",
        "GET",
        "/carts/7",
        200,
        Expected(
            "GET /carts/{cart_id}",
            [
                Expected(
                    "price cart",
                    [Expected("load cart"), *[Expected("look_up_price")] * 3, Expected("add_up")],
                )
            ],
            kind="server",
        ),
    ),
    Request(
        "Two services, one trace. The caller sent a traceparent, and `inject` passes the trace on to stock.\n"
        "   (The task below POST is httpx opening its connection.)",
        "POST",
        "/orders",
        201,
        Expected(
            "POST /orders",
            [
                Expected(
                    "place order",
                    [
                        Expected(
                            "POST",
                            [
                                Expected(
                                    "POST /reservations",
                                    [Expected("take from shelf", service="stock")],
                                    service="stock",
                                    kind="server",
                                )
                            ],
                            kind="client",
                        )
                    ],
                )
            ],
            kind="server",
        ),
        json={"cart_id": 7},
        headers={"traceparent": f"00-{CALLER_TRACE_ID}-{CALLER_SPAN_ID}-01"},
        caller_span_id=CALLER_SPAN_ID,
    ),
    Request(
        "A failure. Nobody handles the exception: both spans carry it, and the server answers 500.",
        "GET",
        "/coupons/SPRING",
        500,
        Expected("GET /coupons/{code}", [Expected("check coupon")], kind="server"),
    ),
]


def main() -> int:
    options = parse_arguments()
    cast("io.TextIOWrapper", sys.stdout).reconfigure(errors="replace", line_buffering=True)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, stop)
    try:
        with Stack(options.protocol, choose_ports(options)) as stack:
            passed = run(stack)
            if not passed:
                print(f"\n{stack.log_tails()}", file=sys.stderr)
            if options.keep:
                keep(stack)
            return 0 if passed else 1
    except (StartError, httpx.HTTPError) as error:
        print(f"demo: {error}", file=sys.stderr)
        return 1


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Real requests, and their traces as a collector received them.")
    parser.add_argument("--keep", action="store_true", help="leave everything running until Ctrl-C")
    parser.add_argument("--protocol", choices=("http", "grpc"), default="http", help="OTLP transport (default: http)")
    parser.add_argument("--shop-port", type=int, help="default: a free one")
    parser.add_argument("--stock-port", type=int, help="default: a free one")
    return parser.parse_args()


def choose_ports(options: argparse.Namespace) -> Ports:
    shop, stock = free_ports(2)
    return Ports(
        require_free(options.shop_port, "--shop-port") if options.shop_port else shop,
        require_free(options.stock_port, "--stock-port") if options.stock_port else stock,
    )


def stop(number: int, _frame: FrameType | None) -> NoReturn:
    """End the demo in order; from here on a second signal cannot cut the cleaning up short."""
    for ignored in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(ignored, signal.SIG_IGN)
    raise SystemExit(128 + number)


def run(stack: Stack) -> bool:
    """Drive every request, show and check what arrived."""
    print("shop -> stock, both -> collector -> this receiver. Four requests:")
    with httpx.Client(base_url=stack.shop_url, trust_env=False, timeout=10.0) as client:
        answers = [
            client.request(request.method, request.path, json=request.json, headers=request.headers)
            for request in REQUESTS
        ]
    with suppress(TimeoutError):  # what is missing shows below
        stack.receiver.wait_for(all_arrived, ARRIVAL_TIMEOUT_S)
    received = stack.receiver.requests

    for number, (request, answer) in enumerate(zip(REQUESTS, answers, strict=True), 1):
        print(f"\n{number}. {request.method} {request.path} -> {answer.status_code}\n   {request.title}\n")
        if root := find_root(request, spans(received)):
            show_trace(received, root.trace_id)

    print("\nWhat the collector received, against what was expected:")
    checks = [
        check
        for request, answer in zip(REQUESTS, answers, strict=True)
        for check in (
            Check(
                answer.status_code == request.status, f"{request.method} {request.path} answered {answer.status_code}"
            ),
            *check_request(request, spans(received)),
        )
    ]
    print(*checks, sep="\n")
    failed = sum(not check.passed for check in checks)
    print(f"\n{failed} of {len(checks)} checks failed." if failed else f"\nAll {len(checks)} checks passed.")
    return not failed


def show_trace(requests: Sequence[ExportRequest], trace_id: str) -> None:
    width = min(shutil.get_terminal_size((120, 24)).columns, 160)
    print(render_waterfall(one_trace(requests, trace_id), width=width, color=sys.stdout.isatty()), end="")


def all_arrived(requests: Sequence[ExportRequest]) -> bool:
    received = spans(requests)
    return all(check.passed for request in REQUESTS for check in check_request(request, received))


def find_root(request: Request, received: Sequence[ReceivedSpan]) -> ReceivedSpan | None:
    return next((span for span in received if request.tree.matches(span)), None)


def check_request(request: Request, received: Sequence[ReceivedSpan]) -> Iterator[Check]:
    """One check for each expected span: it arrived, once, and below its parent."""
    root = find_root(request, received)
    if root is None:
        yield Check(False, f"{request.tree.name}: no such span arrived")
        return
    trace = [span for span in received if span.trace_id == root.trace_id]
    if request.caller_span_id:
        continued = (root.trace_id, root.parent_id) == (CALLER_TRACE_ID, request.caller_span_id)
        yield Check(continued, f"{root.name} ({root.service}) continues the caller's trace")
    else:
        yield Check(not root.parent_id, f"{root.name} ({root.service}) is a root")
    yield from check_children(request.tree, root, trace)


def check_children(parent: Expected, arrived: ReceivedSpan, trace: Sequence[ReceivedSpan]) -> Iterator[Check]:
    candidates = [span for span in trace if span.parent_id == arrived.span_id]
    for child in parent.children:
        found = next((span for span in candidates if child.matches(span)), None)
        text = f"{child.name} ({child.service}) is below {parent.name}"
        if found is None:
            elsewhere = any(child.matches(span) for span in trace)
            yield Check(False, f"{text}: {'it is elsewhere in the trace' if elsewhere else 'it did not arrive'}")
        else:
            candidates.remove(found)
            yield Check(True, text)
            yield from check_children(child, found, trace)


def keep(stack: Stack) -> None:
    """Print each new trace as it arrives, until a signal."""
    print(f"""
Everything is still running. Try:

  open  {stack.shop_url}/docs
  curl  {stack.shop_url}/items/mug
  curl  {stack.shop_url}/carts/7
  curl  {stack.shop_url}/orders -H 'content-type: application/json' -d '{{"cart_id": 7}}'
  curl  {stack.shop_url}/coupons/SPRING
  curl  {stack.shop_url}/items/teapot -H 'traceparent: 00-{CALLER_TRACE_ID}-{CALLER_SPAN_ID}-01'

New traces are printed here as they arrive. Ctrl-C stops everything.
""")
    stack.receiver.take()
    with suppress(SystemExit):  # a signal is how this ends
        while True:
            batch = next_batch(stack.receiver)
            for trace_id in dict.fromkeys(span.trace_id for span in spans(batch)):
                show_trace(batch, trace_id)
    print("\nStopping.")


def next_batch(receiver: Receiver) -> list[ExportRequest]:
    """Wait for spans, then for a quiet moment: the spans of one trace come from several services."""
    count = 0
    while True:
        known = count
        with suppress(TimeoutError):
            count = len(receiver.wait_for(lambda requests, known=known: len(requests) > known, QUIET_S))
        if count == known and count:
            return receiver.take()


if __name__ == "__main__":
    sys.exit(main())
