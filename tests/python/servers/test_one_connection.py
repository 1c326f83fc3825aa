"""Several requests on one connection.

A server may start the next request of a connection in the context of the last one (Kludex/uvicorn#2167, #2912): after a
body over 64 KiB, and when requests are pipelined.
"""

import pytest

from .client import Run, all_at_once, one_after_the_other
from .request import LARGE, mixture, new_request, root_request
from .server import Server


def test_keep_alive_does_not_merge_requests_into_one_trace(server: Server, run: Run) -> None:
    requests = list(mixture(rounds=4))
    run(one_after_the_other(server.port, requests))
    server.assert_traces(requests)


def test_pipelining_does_not_merge_requests_into_one_trace(server: Server, run: Run) -> None:
    requests = list(mixture(rounds=4))
    run(all_at_once(server.port, requests))
    server.assert_traces(requests)


@pytest.mark.parametrize("path", ["/echo", "/mirror"])
def test_a_body_over_64_kib_does_not_lend_its_context_to_the_next_requests(server: Server, run: Run, path: str) -> None:
    requests = [new_request(path, LARGE), *(root_request("/nested") for _ in range(3))]
    run(one_after_the_other(server.port, requests))
    server.assert_traces(requests)


@pytest.mark.parametrize("send", [one_after_the_other, all_at_once])
def test_a_request_that_fails_ends_its_span_and_nothing_else(server: Server, run: Run, send) -> None:
    # Last: uvicorn closes the connection after an exception.
    requests = [new_request("/nested"), new_request("/fail")]
    run(send(server.port, requests))
    spans = server.assert_traces(requests)
    failed = next(span for span in spans if span.name == "GET /fail")
    assert [event.name for event in failed.span.events] == ["exception"]
