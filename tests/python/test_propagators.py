"""`propagators`: contexts that other libraries than ours wrote, and that they can read."""

from functools import cache
from typing import Any

import pytest
from asgi.serving import SAMPLED, Receive, Scope, Send, run, server_span
from handmade_server import answering, with_headers
from hypothesis import given
from hypothesis import strategies as st
from interpreter import run_quietly

from rvh_trace import current_span, extract, inject, new_span, span, trace, use_context
from rvh_trace.testing import InMemoryExporter

TRACE_ID, SPAN_ID = "80f198ee56343ba864fe8b2a57d3eff7", "e457b5a2e4d86bd1"
LOW, SPAN = str(int(TRACE_ID[16:], 16)), str(int(SPAN_ID, 16))

# Span flags of OTLP: whether the parent is known to be remote or not, and whether it is.
HAS_IS_REMOTE, IS_REMOTE = 0x100, 0x200

Headers = dict[str, str]


def b3(state: str = "-1") -> Headers:
    return {"b3": f"{TRACE_ID}-{SPAN_ID}{state}"}


def b3multi(**state: str) -> Headers:
    state = {f"x-b3-{name}": value for name, value in state.items()}
    return {"x-b3-traceid": TRACE_ID, "x-b3-spanid": SPAN_ID} | state


def jaeger(flags: str = "1") -> Headers:
    return {"uber-trace-id": f"{TRACE_ID}:{SPAN_ID}:0:{flags}"}


def xray(sampled: str = ";Sampled=1") -> Headers:
    return {"x-amzn-trace-id": f"Root=1-{TRACE_ID[:8]}-{TRACE_ID[8:]};Parent={SPAN_ID}{sampled}"}


def datadog(priority: str | None = "1", tags: str = "") -> Headers:
    headers = {"x-datadog-trace-id": LOW, "x-datadog-parent-id": SPAN}
    headers |= {} if priority is None else {"x-datadog-sampling-priority": priority}
    return headers | {"x-datadog-tags": f"_dd.p.tid={TRACE_ID[:16]}{tags}"}


SAMPLING = {
    "b3": (b3("-1"), b3("-0")),
    "b3multi": (b3multi(sampled="1"), b3multi(sampled="0")),
    "jaeger": (jaeger("1"), jaeger("0")),
    "xray": (xray(";Sampled=1"), xray(";Sampled=0")),
    "datadog": (datadog("1"), datadog("0")),
}
FORMATS = tuple(SAMPLING)
LEFT_OPEN = {"b3": b3(""), "b3multi": b3multi(), "xray": xray(""), "datadog": datadog(None)}


@cache
def beside_w3c(name: str) -> InMemoryExporter:
    """One for all examples of a property: each has a thread for as long as the process lives."""
    return InMemoryExporter(propagators=[name, "tracecontext", "baggage"])


def request(*headers: Headers) -> dict[str, Any]:
    return with_headers(*((name.encode(), value.encode()) for each in headers for name, value in each.items()))


def sent_by(scope: Scope, **options: Any) -> dict[str, str]:
    """What an application sends on that is asked with these headers."""
    sent: dict[str, str] = {}

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        with span("work"):
            inject(sent)
        await answering()(scope, receive, send)

    run(app, scope, **options)
    return sent


@pytest.mark.parametrize("name", FORMATS)
class TestServerSpan:
    def test_continues_the_trace_of_the_caller(self, name: str) -> None:
        with InMemoryExporter(propagators=name) as spans:
            server = server_span(spans, scope=request(SAMPLING[name][0]))
            assert (server.trace_id, server.parent_span_id) == (TRACE_ID, SPAN_ID)
            assert server.flags & HAS_IS_REMOTE
            assert server.flags & IS_REMOTE

    def test_is_not_made_where_the_caller_says_so_and_its_word_is_passed_on(self, name: str) -> None:
        with InMemoryExporter(propagators=name) as spans:
            assert sent_by(request(SAMPLING[name][1])) == SAMPLING[name][1]
            assert list(spans) == []

    def test_what_the_application_sends_names_its_own_span(self, name: str) -> None:
        with InMemoryExporter(propagators=name) as spans:
            context = extract(sent_by(request(SAMPLING[name][0]))).span_context
            assert (context.trace_id, context.span_id) == (TRACE_ID, spans.one("work").span_id)
            assert context.is_sampled

    def test_a_public_endpoint_trusts_no_format(self, name: str) -> None:
        with InMemoryExporter(propagators=name) as spans:
            for headers in SAMPLING[name]:
                server = server_span(spans, scope=request(headers), public_endpoint=True)
                assert (server.trace_id != TRACE_ID, server.parent_span_id, server.trace_state) == (True, None, "")
                assert [(link.trace_id, link.span_id) for link in server.links] == [(TRACE_ID, SPAN_ID)]

    def test_is_a_root_where_the_format_is_not_in_use(self, spans: InMemoryExporter, name: str) -> None:
        assert server_span(spans, scope=request(SAMPLING[name][0])).parent_span_id is None

    def test_is_a_root_where_only_this_format_is_in_use_and_w3c_came(self, name: str) -> None:
        with InMemoryExporter(propagators=name) as spans:
            assert server_span(spans, scope=with_headers(SAMPLED)).parent_span_id is None

    def test_sent_twice_is_sent_by_nobody(self, name: str) -> None:
        headers = SAMPLING[name][0]
        with InMemoryExporter(propagators=name) as spans:
            assert server_span(spans, scope=request(headers, headers)).parent_span_id is None

    @given(data=st.data())
    def test_no_bytes_raise(self, name: str, data: st.DataObject) -> None:
        names = st.sampled_from([*SAMPLING[name][0], "uberctx-a", "x-datadog-origin", "x-b3-flags"]).map(str.encode)
        nearly = st.sampled_from(list(SAMPLING[name][0].values())).map(str.encode)
        values = st.binary(max_size=300) | st.builds(lambda value, more: value[: len(more)] + more, nearly, st.binary())
        headers = data.draw(st.lists(st.tuples(names, values), max_size=8))
        with beside_w3c(name) as spans:
            server_span(spans, scope=with_headers(*headers))
            inject({}, extract(headers))


@pytest.mark.parametrize("name", LEFT_OPEN)
class TestDecisionLeftOpen:
    """B3 calls it deferred: who receives it decides. We decide as for a root, in the caller's trace."""

    def test_is_made_by_the_sampler(self, name: str) -> None:
        with InMemoryExporter(propagators=name) as spans:
            server = server_span(spans, scope=request(LEFT_OPEN[name]))
            assert (server.trace_id, server.parent_span_id, server.flags & 1) == (TRACE_ID, SPAN_ID, 1)

    def test_is_told_to_those_below(self, name: str) -> None:
        with InMemoryExporter(propagators=name, sampler_ratio=0.0) as spans:
            sent = sent_by(request(LEFT_OPEN[name]))
            assert list(spans) == []
        with InMemoryExporter(propagators=["tracecontext", name]):
            context = extract(sent).span_context
        assert context.trace_id == TRACE_ID
        assert context.span_id != SPAN_ID
        assert [header for header in SAMPLING[name][1] if header not in sent] == []
        with InMemoryExporter(propagators=name) as spans:
            assert sent_by(request(sent)) == sent
            assert list(spans) == []

    def test_is_made_by_every_way_to_start_a_span(self, name: str) -> None:
        @trace
        def work() -> None: ...

        for ratio, made in ((1.0, 3), (0.0, 0)):
            with InMemoryExporter(propagators=name, sampler_ratio=ratio) as spans:
                with use_context(extract(LEFT_OPEN[name])):
                    with span("entered"):
                        assert current_span().context.is_sampled is bool(ratio)
                    new_span("made").end()
                    work()
                assert [one.parent_span_id for one in spans] == [SPAN_ID] * made

    def test_stays_open_where_nobody_decides(self, name: str) -> None:
        with InMemoryExporter(propagators=name):
            sent: dict[str, str] = {}
            inject(sent, extract(LEFT_OPEN[name]))
            assert sent == LEFT_OPEN[name]


class TestDecisionWithoutATrace:
    """`b3: 0`: the caller has no trace, and wants none."""

    REFUSED = ({"b3": "0"}, {"x-b3-sampled": "0"})

    @pytest.mark.parametrize("headers", REFUSED, ids=repr)
    def test_no_span_is_made_and_a_trace_of_ours_says_so(self, headers: Headers) -> None:
        with InMemoryExporter(propagators="b3,tracecontext") as spans:
            sent = sent_by(request(headers))
            assert list(spans) == []
        assert sent["b3"].endswith("-0")
        assert sent["traceparent"].endswith("-02")
        assert sent["b3"].split("-")[0] == sent["traceparent"].split("-")[1]

    @pytest.mark.parametrize("headers", REFUSED, ids=repr)
    def test_holds_for_spans_that_are_no_requests(self, headers: Headers) -> None:
        @trace
        def work() -> None: ...

        with InMemoryExporter(propagators="b3") as spans:
            with use_context(extract(headers)):
                with span("outer"), span("inner"):
                    pass
                new_span("made").end()
                work()
            assert list(spans) == []

    def test_does_not_bind_who_follows_nobody(self) -> None:
        with InMemoryExporter(propagators="b3", sampler="always_on") as spans:
            assert server_span(spans, scope=request({"b3": "0"})).parent_span_id is None

    @pytest.mark.parametrize("state", ["1", "d"])
    def test_may_be_to_keep_it(self, state: str) -> None:
        with InMemoryExporter(propagators="b3", sampler_ratio=0.0) as spans:
            sent = sent_by(request({"b3": state}))
            (server,) = (one for one in spans if one.kind == "server")
            assert (server.parent_span_id, server.links) == (None, ())
        assert sent["b3"].endswith(f"-{state}")

    def test_a_public_endpoint_does_not_obey(self) -> None:
        with InMemoryExporter(propagators="b3") as spans:
            server = server_span(spans, scope=request({"b3": "0"}), public_endpoint=True)
            assert (server.parent_span_id, server.links) == (None, ())

    def test_is_passed_on_as_it_came(self) -> None:
        with InMemoryExporter(propagators="b3"):
            sent: dict[str, str] = {}
            inject(sent, extract({"b3": "0"}))
            assert sent == {"b3": "0"}


@pytest.mark.parametrize(
    ("name", "headers"), [("b3", b3("-d")), ("b3multi", b3multi(flags="1")), ("jaeger", jaeger("3"))]
)
def test_debug_is_kept(name: str, headers: Headers) -> None:
    with InMemoryExporter(propagators=name) as spans:
        sent = sent_by(request(headers))
        expected = {header: value.replace(SPAN_ID, spans.one("work").span_id) for header, value in headers.items()}
        assert sent == expected


def test_what_datadog_sends_beside_ids_is_kept() -> None:
    headers = datadog("2", tags=",_dd.p.dm=-4") | {"x-datadog-origin": "rum"}
    with InMemoryExporter(propagators="datadog,tracecontext") as spans:
        sent = sent_by(request(headers))
        work = spans.one("work")
        assert work.trace_state == "dd=s:2;o:rum;t.dm:-4"
        assert sent == headers | {
            "x-datadog-parent-id": str(int(work.span_id, 16)),
            "traceparent": f"00-{TRACE_ID}-{work.span_id}-01",
            "tracestate": work.trace_state,
        }


def test_baggage_of_jaeger_travels() -> None:
    with InMemoryExporter(propagators="jaeger"):
        headers = jaeger() | {"uberctx-tenant": "acme%20inc"}
        assert sent_by(request(headers))["uberctx-tenant"] == "acme%20inc"
        assert "uberctx-tenant" not in sent_by(request(headers), public_endpoint=True)
        assert extract({"Uberctx-Tenant": "a"}).baggage == {"tenant": "a"}
    with InMemoryExporter(propagators="jaeger,baggage"):
        assert sent_by(request(headers))["baggage"] == "tenant=acme%20inc"


def test_all_are_written_and_the_last_that_names_a_caller_is_read() -> None:
    with InMemoryExporter(propagators=["tracecontext", *FORMATS]):
        with span("op") as op:
            sent: dict[str, str] = {}
            inject(sent)
            listed: list[tuple[bytes, bytes]] = [(b"B3", b"0"), (b"x", b"y")]
            inject(listed)
        written = {"traceparent", "b3", *b3multi(sampled=""), *jaeger(), *xray(), *datadog()}
        assert set(sent) == written
        assert sorted(name.decode() for name, _ in listed) == sorted({*written, "x"})
        assert extract(sent).span_context == extract(listed).span_context
        assert extract(sent).span_context.span_id == op.context.span_id
        other = {"uber-trace-id": "3:2:0:1"}
        assert (
            extract(sent | other | {"x-datadog-trace-id": "x", "x-amzn-trace-id": ""}).span_context.span_id
            == f"{2:016x}"
        )
        assert extract(sent | other).span_context.span_id == op.context.span_id


@pytest.mark.parametrize("name", [*FORMATS, "tracecontext", "baggage"])
def test_variable_alone(name: str) -> None:
    headers = {**SAMPLING.get(name, ({},))[0], "baggage": "k=v"}
    printed = run_quietly(
        f"""
        import rvh_trace
        rvh_trace.init_tracing("shop", exporter="none")
        context = rvh_trace.extract({headers!r})
        sent = {{}}
        rvh_trace.inject(sent, context)
        print(context.span_context.trace_id, sorted(sent), sep="|")
        """,
        OTEL_PROPAGATORS=name,
    )
    trace_id = TRACE_ID if name in SAMPLING else "0" * 32
    written = sorted(headers.keys() - {"baggage"}) if name in SAMPLING else ["baggage"][: name == "baggage"]
    assert printed == f"{trace_id}|{written}\n"


def test_none_reads_and_writes_nothing() -> None:
    with InMemoryExporter(propagators="none") as spans:
        assert sent_by(request({"traceparent": f"00-{TRACE_ID}-{SPAN_ID}-01", "baggage": "k=v"}, b3())) == {}
        assert spans.one("work").trace_id != TRACE_ID
