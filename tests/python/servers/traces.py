"""What has to come of requests: a SERVER span each, and every other span below the right one."""

from collections import Counter
from collections.abc import Mapping, Sequence

from receiver import ReceivedSpan

from .request import Request

# Starlette sends a streamed response from an anyio task, and a task created inside a span is a span.
STREAMED = {"/stream", "/endless"}
FRAMEWORK_TASKS = ("StreamingResponse.", "TaskHandle.")


def server_spans(received: Sequence[ReceivedSpan]) -> dict[str, ReceivedSpan]:
    """The SERVER spans by the query of their request."""
    spans = [span for span in received if span.kind == "server"]
    by_query = {str(span.attributes["url.query"]): span for span in spans}
    assert len(by_query) == len(spans), "two server spans for one request"
    return by_query


def assert_traces(requests: Sequence[Request], received: Sequence[ReceivedSpan]) -> None:
    """One SERVER span for each request, a root or the child of exactly the span that was sent with it; the rest below.

    `received` is all that came of `requests`, and nothing else.
    """
    servers = server_spans(received)
    assert sorted(servers) == sorted(request.query for request in requests)
    assert len({span.span_id for span in received}) == len(received)

    for request in requests:
        span = servers[request.query]
        if request.parent is None:
            assert span.parent_id == "", f"{request.target} is a child of something"
        else:
            assert (span.trace_id, span.parent_id) == request.parent, request.target
        assert span.name == f"{request.method} {request.path}"
        # The middleware stands inside of what turns an exception into a response: nothing has been sent by then.
        assert span.attributes.get("http.response.status_code") == (None if request.raises else request.status)
        assert span.attributes.get("error.type") == request.error_type
        assert not span.span.links

    roots = [span.trace_id for span in servers.values() if not span.parent_id]
    sent = {request.parent.trace_id for request in requests if request.parent}
    assert len(set(roots)) == len(roots)
    assert sent.isdisjoint(roots)

    below: dict[str, Counter[str]] = {query: Counter() for query in servers}
    by_id = {span.span_id: span for span in received}
    for span in received:
        if span.kind == "server":
            continue
        server = server_above(span, by_id)
        query = str(server.attributes["url.query"])
        assert span.trace_id == server.trace_id
        if "test.request" not in span.attributes:
            assert server.attributes["url.path"] in STREAMED, f"{span.name!r} was put below {query}"
            assert span.name.startswith(FRAMEWORK_TASKS), f"{span.name!r} was put below {query}"
            continue
        assert query.split("&")[0] == f"request={span.attributes['test.request']}", (
            f"{span.name!r} was put below {query}"
        )
        below[query][span.name.rpartition(".")[2]] += 1
    for request in requests:
        assert below[request.query] == Counter(request.children), request.target


def server_above(span: ReceivedSpan, by_id: Mapping[str, ReceivedSpan]) -> ReceivedSpan:
    """The SERVER span that `span` is below."""
    while span.kind != "server":
        assert span.parent_id in by_id, f"the parent of {span.name!r} was never exported"
        span = by_id[span.parent_id]
    return span
